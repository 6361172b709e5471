//! What the GPU tests share: an adapter, inputs with poison around them, and comparison with a reference.
//!
//! Which adapter is tested can be chosen by environment variables, read here and nowhere in the library:
//!
//! | variable | meaning |
//! | --- | --- |
//! | `RALU_TEST_ADAPTER` | a number or a part of a name, as `ralu devices` lists them |
//! | `RALU_TEST_BACKEND` | `vulkan`, `metal`, `dx12` or `gl` |
//! | `RALU_TEST_LIMITS=webgpu` | no more than WebGPU guarantees |
//! | `RALU_TEST_FEATURES` | `none`: no optional features; `no-f16`, `no-subgroups`, `no-timestamps`, or several with commas: all but these |
//!
//! Tests of single ops also run in a browser (`scripts/browser-test`), so a [`Lab`] awaits, as the library does.
//! Natively pollster drives them.

#![allow(dead_code, reason = "every test binary uses another part of it")]
#![allow(unused_imports, reason = "the same")]

mod lab;
mod random;
pub mod recordings;
mod tolerance;
mod view;
mod weights;

use std::sync::Once;

#[cfg(not(target_arch = "wasm32"))]
pub use pollster::block_on;

pub use lab::{Copies, Lab};
use ralu::gpu::{AdapterChoice, FeaturesPolicy, Gpu, LimitsPolicy};
pub use random::Random;
pub use tolerance::{EPSILON, Tolerance, assert_close};
pub use view::{Bands, Frame, GUARD, View};
pub use weights::{dtype_of, f8_e4m3, f8_e4m3_number, pack, pack_rows, random_blocks, round};

/// Opens the adapter under test. No adapter is a failure: these tests mean nothing without one.
#[cfg(not(target_arch = "wasm32"))]
pub fn gpu() -> Gpu {
    block_on(open())
}

/// The adapter under test, and how much of it to use.
pub fn choice() -> AdapterChoice {
    // In a browser there are none.
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let limits = match variable("RALU_TEST_LIMITS").as_deref() {
        None => LimitsPolicy::Adapter,
        Some("webgpu") => LimitsPolicy::WebGpuDefaults,
        Some(other) => panic!("RALU_TEST_LIMITS={other}: only `webgpu` is known"),
    };
    let features = match variable("RALU_TEST_FEATURES").as_deref() {
        None => FeaturesPolicy::Experimental,
        Some("none") => FeaturesPolicy::None,
        Some(names) => FeaturesPolicy::Without(
            names.split(',').fold(wgpu::Features::empty(), |all, word| all | masked(word)),
        ),
    };
    AdapterChoice {
        adapter: variable("RALU_TEST_ADAPTER"),
        backend: variable("RALU_TEST_BACKEND"),
        limits,
        features,
        ..Default::default()
    }
}

async fn open() -> Gpu {
    static ONCE: Once = Once::new();
    let choice = choice();
    let (limits, features) = (choice.limits, choice.features);
    match Gpu::open(&choice).await {
        Ok(gpu) => {
            let report = gpu.report();
            ONCE.call_once(|| {
                say(&format!(
                    "adapter: {} ({}, {}, {}), {limits:?} limits, {features:?} features, subgroups {:?}, cooperative matrices {:?}",
                    report.name,
                    report.backend,
                    report.kind,
                    report.driver,
                    gpu.caps().subgroup_sizes,
                    gpu.caps().cooperative_matrix
                ));
            });
            gpu
        }
        Err(error) => panic!("the GPU tests need an adapter, software will do: {error}"),
    }
}

/// What a word of `RALU_TEST_FEATURES` takes away.
fn masked(word: &str) -> wgpu::Features {
    match word {
        "no-f16" => wgpu::Features::SHADER_F16,
        "no-subgroups" => wgpu::Features::SUBGROUP,
        "no-timestamps" => {
            wgpu::Features::TIMESTAMP_QUERY
                | wgpu::Features::TIMESTAMP_QUERY_INSIDE_ENCODERS
                | wgpu::Features::TIMESTAMP_QUERY_INSIDE_PASSES
        }
        other => panic!(
            "RALU_TEST_FEATURES has {other}: `none`, `no-f16`, `no-subgroups` and `no-timestamps` are known"
        ),
    }
}

/// A page's console. Not web-sys's, which is a feature: the library would be compiled once with it, and once without it
/// for the package.
#[cfg(target_arch = "wasm32")]
pub mod console {
    use wasm_bindgen::prelude::*;

    #[wasm_bindgen]
    extern "C" {
        #[wasm_bindgen(js_namespace = console)]
        pub fn log(line: &str);
        #[wasm_bindgen(js_namespace = console)]
        pub fn error(line: &str);
    }
}

/// Tells the person who watches.
pub fn say(line: &str) {
    #[cfg(not(target_arch = "wasm32"))]
    println!("{line}");
    #[cfg(target_arch = "wasm32")]
    console::log(line);
}
