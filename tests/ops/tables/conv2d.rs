//! 3 x 3 convolutions.

use super::linear::f16_tolerance;
use super::{check_all, largest, variants};
use crate::common::{Bands, EPSILON, Frame, Lab, Random, Tolerance, assert_close, round};
use ralu::ops::{self, Activation, Conv2d, Conv2dOptions, reference};
use ralu::tensor::{Command, Conv2dKernel, Recording, Storage};

#[derive(Clone, Copy, Debug)]
struct ConvCase {
    height: usize,
    width: usize,
    c: usize,
    n: usize,
    storage: Storage,
    upsample: bool,
    add: bool,
    /// `x` goes through the end of a group norm and SiLU.
    prologue: bool,
}

const CONV: ConvCase = ConvCase {
    height: 6,
    width: 10,
    c: 8,
    n: 16,
    storage: Storage::F16,
    upsample: false,
    add: false,
    prologue: false,
};

#[rustfmt::skip]
const CONV_CASES: &[ConvCase] = &[
    CONV,
    ConvCase { height: 1, width: 1, ..CONV },
    ConvCase { height: 1, width: 9, ..CONV },
    ConvCase { height: 9, width: 1, ..CONV },
    ConvCase { height: 2, width: 8, ..CONV },
    ConvCase { height: 5, width: 7, c: 4, n: 4, ..CONV },
    ConvCase { height: 17, width: 33, c: 4, n: 4, ..CONV },
    ConvCase { height: 40, width: 130, c: 4, n: 3, ..CONV },
    ConvCase { n: 3, ..CONV },
    ConvCase { n: 68, ..CONV },
    ConvCase { n: 132, c: 4, ..CONV },
    ConvCase { c: 68, n: 12, ..CONV },
    ConvCase { storage: Storage::F32, ..CONV },
    ConvCase { storage: Storage::Bf16, ..CONV },
    ConvCase { storage: Storage::F8E4M3, ..CONV },
    ConvCase { storage: Storage::F8E4M3, height: 5, width: 9, c: 68, n: 64, ..CONV },
    ConvCase { add: true, ..CONV },
    ConvCase { upsample: true, ..CONV },
    ConvCase { upsample: true, height: 1, width: 1, ..CONV },
    ConvCase { upsample: true, height: 21, width: 19, c: 4, n: 20, ..CONV },
    ConvCase { upsample: true, add: true, storage: Storage::F32, ..CONV },
    ConvCase { height: 33, width: 31, c: 16, n: 32, add: true, ..CONV },
    ConvCase { height: 12, width: 64, c: 8, n: 8, add: true, ..CONV },
    // Wide enough for workgroup memory: around a tile of 8 x 4 pixels, around 64 channels, several tiles of W.
    ConvCase { height: 3, width: 7, n: 32, ..CONV },
    ConvCase { height: 4, width: 8, n: 64, ..CONV },
    ConvCase { height: 5, width: 9, c: 4, n: 64, ..CONV },
    ConvCase { height: 5, width: 9, c: 64, n: 36, ..CONV },
    ConvCase { height: 9, width: 17, c: 68, n: 64, storage: Storage::F32, ..CONV },
    ConvCase { height: 5, width: 9, c: 132, n: 200, storage: Storage::Bf16, ..CONV },
    ConvCase { n: 64, upsample: true, add: true, ..CONV },
    ConvCase { height: 21, width: 19, n: 68, upsample: true, ..CONV },
    ConvCase { n: 580, c: 4, ..CONV },
    // Several workgroups of each height, and an odd number of groups of channels past a patch's.
    ConvCase { height: 19, width: 9, c: 20, n: 64, ..CONV },
    ConvCase { height: 11, width: 9, c: 44, n: 128, storage: Storage::Bf16, prologue: true, ..CONV },
    ConvCase { height: 7, width: 17, c: 36, n: 260, ..CONV },
    ConvCase { height: 9, width: 11, c: 20, n: 128, upsample: true, ..CONV },
    ConvCase { prologue: true, ..CONV },
    ConvCase { n: 64, prologue: true, ..CONV },
    ConvCase { height: 33, width: 31, c: 68, n: 36, add: true, prologue: true, ..CONV },
    ConvCase { n: 64, upsample: true, prologue: true, ..CONV },
    // Around tiles of 8 or 16 x 8 pixels, and 16 channels.
    ConvCase { height: 9, width: 17, c: 16, n: 128, storage: Storage::Bf16, ..CONV },
    ConvCase { height: 8, width: 16, c: 32, n: 64, add: true, prologue: true, ..CONV },
];

/// Whether a recording of one convolution is on matrices.
fn is_on_matrices(recording: &Recording) -> bool {
    recording.commands.iter().any(|command| match command {
        Command::Dispatch(dispatch) => dispatch.pipeline.shader == "conv2d_matrices",
        _ => false,
    })
}

pub async fn conv2d() {
    check_all(
        CONV_CASES,
        |c| {
            let pixels = c.height * c.width * if c.upsample { 4 } else { 1 };
            ((pixels * c.c.max(c.n) * 4) as u64, 18.0 * (pixels * c.c * c.n) as f64)
        },
        check_conv2d,
    )
    .await;
}

async fn check_conv2d(lab: &Lab, label: &str, case: &ConvCase) {
    let &ConvCase { height, width, c, n, storage, upsample, add, prologue } = case;
    let n4 = n.next_multiple_of(4);
    let up = if upsample { 2 } else { 1 };
    let (pixels, y_pixels) = (height * width, height * width * up * up);
    let mut random = Random::named(label);
    let x = random.numbers(pixels * c, 1.0);
    let mut weight = round(&random.numbers(n * 9 * c, 1.0 / (3.0 * (c as f32).sqrt())), storage);
    let mut bias = random.numbers(n, 1.0);
    let old = random.numbers(y_pixels * n4, 1.0);
    let affine = random.numbers(2 * c, 1.5);

    let xs = lab.matrix("x", pixels, c, &x, Bands::AsNeeded).await;
    let affines = lab.matrix("affine", 2, c, &affine, Bands::One).await;
    let ys = lab.view("y", [y_pixels, n4], &old, Frame::BELOW, Bands::AsNeeded).await;
    let layer = Conv2d {
        weight: lab.weight("weight", &weight, n, 9 * c, storage).await,
        bias: lab.vector("bias", &bias).await,
    };
    let recording = lab
        .run(|r, copies| {
            let image = r.image("x", height, width, c);
            copies.before(r.resident(&xs), image);
            // A picture in bands is a temporary; one in a single buffer may be a view with guards.
            let prologue = prologue.then(|| r.resident(&affines));
            let options = Conv2dOptions { upsample, add, prologue };
            let into = |y| ops::conv2d("y", image, width, &layer, y, options);
            if ys.resident.bands.len() == 1 {
                into(ys.on(r));
            } else {
                let y = r.image("y", height * up, width * up, n4);
                copies.before(ys.on(r), y);
                into(y);
                copies.after(y, ys.on(r));
            }
        })
        .await;
    let in_f16 = is_on_matrices(&recording);
    // A variant that falls back would test the wrong kernel. Narrow weights have none on matrices.
    let wanted = lab.caps().tuning.conv2d == Some(Conv2dKernel::Matrices);
    assert_eq!(in_f16, wanted && layer.weight.tile >= 32, "{label}");
    assert!(!lab.beyond_f16.get(), "{label}: all numbers fit f16");

    weight.resize(n4 * 9 * c, 0.0);
    bias.resize(n4, 0.0);
    let seen: Vec<f32> = match prologue {
        false => x,
        true => (x.iter().enumerate())
            .map(|(i, x)| {
                let [factor, offset] = [affine[i % c], affine[c + i % c]].map(f64::from);
                reference::activate(f64::from(*x) * factor + offset, Activation::Silu) as f32
            })
            .collect(),
    };
    let mut expected = reference::conv2d(&seen, width, c, &weight, &bias, upsample);
    let largest = largest(&expected);
    if add {
        expected.iter_mut().zip(&old).for_each(|(e, old)| *e += f64::from(*old));
    }
    let label = format!("conv2d {label}");
    let mut tolerance = Tolerance::sum(9 * c).plus(Tolerance::absolute(4.0 * EPSILON));
    if prologue {
        // Each number comes with a few roundings of its own.
        tolerance = tolerance.plus(Tolerance::sum(9 * c));
    }
    if in_f16 {
        // Taps are folded to f32.
        let storage = if upsample { Storage::F32 } else { storage };
        let in_sum = [seen.len(), 9 * c];
        tolerance = tolerance.plus(f16_tolerance((&seen, 1.0), &weight, storage, in_sum, largest));
    }
    assert_close(&label, [y_pixels, n4], &lab.read_view(&ys).await, &expected, tolerance);
}

/// Kernels that round to f16 say so if a pixel or a weight does not fit it; one that does is none of that.
pub async fn conv2d_flags_numbers_beyond_f16() {
    let mut lab = Lab::new().await;
    let base = lab.caps();
    let (height, width, c, n) = (5, 9, 20, 64);
    for variant in variants::<ConvCase>(&base) {
        lab = lab.with_caps(|caps| {
            *caps = base;
            (variant.change)(caps);
        });
        // The largest that bf16 has below f16's largest, and some beyond; as the first and as the last number.
        for (role, value) in [("x", 65280.0), ("x", -7e4), ("weight", 65280.0), ("weight", 7e4)] {
            for last in [false, true] {
                let mut x = Random::new(3).numbers(height * width * c, 1.0);
                let mut weight = Random::new(4).numbers(n * 9 * c, 1.0);
                let numbers = if role == "x" { &mut x } else { &mut weight };
                let place = if last { numbers.len() - 1 } else { 0 };
                numbers[place] = value;
                let weight = round(&weight, Storage::Bf16);
                let xs = lab.matrix("x", height * width, c, &x, Bands::AsNeeded).await;
                let layer = Conv2d {
                    weight: lab.weight("weight", &weight, n, 9 * c, Storage::Bf16).await,
                    bias: lab.vector("bias", &vec![0.0; n]).await,
                };
                let recording = lab
                    .run(|r, copies| {
                        let image = r.image("x", height, width, c);
                        copies.before(r.resident(&xs), image);
                        let y = r.image("y", height, width, n);
                        ops::conv2d("y", image, width, &layer, y, Conv2dOptions::default());
                    })
                    .await;
                assert_eq!(
                    lab.beyond_f16.get(),
                    is_on_matrices(&recording) && f32::abs(value) > 65504.0,
                    "{role} with {value}, last: {last}, with {}",
                    variant.name
                );
                lab.clear();
            }
        }
    }
}
