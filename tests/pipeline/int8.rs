//! Products of bytes in whole runs: what they do to latents, and what is said where there are none.

use ralu::models::layers::Precision;
use ralu::pipeline::{Products, RaluChoice};

use super::references::{Case, fixture, near, numbers, psnr, run};

/// Relative L2 of finished latents of products of bytes. x is off by 1/127 of a block's largest number at most, at random: by 0.5 %
/// of its root mean square, and so is each product. A run adds up some tens of those, which only partly cancel; f16, whose
/// factors are off by 0.03 %, is within 1e-3 in the same case.
const LATENTS: f64 = 2e-2;

/// Whether the adapter has the instruction or emulates it changes nothing but the speed.
#[test]
fn products_of_bytes_change_latents_a_little() {
    let gpu = crate::common::gpu().with_caps(|caps| (caps.int8_dot, caps.f16) = (true, false));
    let case = Case::open_on(gpu, &fixture("formats/flux-gguf"), Precision::Int8);
    let request = case.request().with(|request| request.ralu = RaluChoice::Off);
    let made = run(&case.pipeline, request);
    assert_eq!(made.products, Products::Int8);
    assert!(made.warnings.is_empty(), "{:?}", made.warnings);
    near(
        "latents",
        numbers(&made.tensors, "latents"),
        numbers(&case.expected, "base_latents"),
        LATENTS,
    );
    psnr("image", numbers(&made.tensors, "image"), numbers(&case.expected, "base_image"), 40.0);
}

#[test]
fn where_there_are_no_products_of_bytes_that_is_said() {
    let gpu = crate::common::gpu().with_caps(|caps| (caps.int8_dot, caps.f16) = (false, false));
    let case = Case::open_on(gpu, &fixture("formats/flux-gguf"), Precision::Int8);
    let request = case.request().with(|request| request.ralu = RaluChoice::Off);
    let made = run(&case.pipeline, request);
    assert_eq!(made.products, Products::F32);
    let [warning] = &made.warnings[..] else { panic!("{:?}", made.warnings) };
    let expected = "precision int8 changes nothing here: this adapter has no instruction for products of bytes, or does not \
                    tell; products are in f32";
    assert_eq!(warning, expected);
}
