//! Rows with NaN, infinity and denormals.

use super::super::{activation_tolerance, largest, variants};
use super::cases::LinearCase;
use super::{f16_tolerance, kernel_of};
use crate::common::{Bands, Frame, Lab, Random, Tolerance, assert_close, round};
use ralu::ops::{self, Activation, Epilogue, LinearLayer, Write, reference};
use ralu::tensor::{MatmulKernel, Storage};

/// NaN, infinity and denormals in one row of x stay in that row.
pub async fn linear_keeps_poison_in_its_row() {
    let mut lab = Lab::new().await;
    let base = lab.caps();
    for variant in variants::<LinearCase>(&base) {
        lab = lab.with_caps(|caps| {
            *caps = base;
            (variant.change)(caps);
        });
        for m in [3, 40] {
            for poison in [f32::NAN, f32::INFINITY, 1e-42] {
                check_poison(&lab, variant.name, m, poison).await;
                lab.clear();
            }
        }
    }
}

async fn check_poison(lab: &Lab, variant: &str, m: usize, poison: f32) {
    let (k, n, row) = (64, 68, m / 2);
    let mut random = Random::new(7);
    let mut x = random.numbers(m * k, 1.0);
    let weight = round(&random.numbers(n * k, 0.2), Storage::F16);
    let old = vec![0.0; m * n];
    let expected =
        reference::linear(&x, &weight, None, None, &old, k, Activation::Silu, Write::Store);
    x[row * k + 5] = poison;
    let xs = lab.view("x", [m, k], &x, Frame::NONE, Bands::AsNeeded).await;
    let ys = lab.view("y", [m, n], &old, Frame::WIDE, Bands::AsNeeded).await;
    let packed = lab.weight("weight", &weight, n, k, Storage::F16).await;
    let layer = LinearLayer { weight: packed, bias: None, low_rank: None };
    let epilogue = Epilogue { activation: Activation::Silu, ..Default::default() };
    let recording =
        lab.run(|r, _| ops::linear_into("y", xs.on(r), &layer, ys.on(r), epilogue)).await;
    let y = lab.read_view(&ys).await;
    let poisoned = &y[row * n..(row + 1) * n];
    assert_eq!(
        poisoned.iter().any(|v| !v.is_finite()),
        !poison.is_finite(),
        "row {row} of {m} with {poison} and {variant}: {poisoned:?}"
    );
    let mut tolerance = Tolerance::sum(k).plus(activation_tolerance(Activation::Silu, k as f64));
    if kernel_of(&recording) == MatmulKernel::Cooperative {
        let clean: Vec<f32> = x.iter().map(|v| if v.is_finite() { *v } else { 0.0 }).collect();
        // SiLU leaves large sums as they are, so its largest is theirs.
        let largest = 1.13 * largest(&expected);
        tolerance =
            tolerance.plus(f16_tolerance((&clean, 1.0), &weight, Storage::F16, [k; 2], largest));
    }
    for other in (0..m).filter(|i| *i != row) {
        let range = other * n..(other + 1) * n;
        let label = format!("row {other} of {m}, with {poison} in row {row} and {variant}");
        assert_close(&label, [1, n], &y[range.clone()], &expected[range], tolerance);
    }
}
