//! Products that round to f16: what that costs, and numbers beyond it.

use super::super::variants;
use super::cases::LinearCase;
use super::kernel_of;
use crate::common::{Bands, Frame, Lab, Random, Tolerance, round};
use ralu::ops::{self, Epilogue, LinearLayer};
use ralu::tensor::{MatmulKernel, Storage};

/// What factors in f16 cost sums of which the largest is `largest`: x, and weights where they are stored in more bits. Of
/// x and of the weight as many numbers as `in_sum` says lie together and meet in a sum.
///
/// A number keeps 11 bits, so it is off by 2^-11 of itself where a conversion rounds and by 2^-10 where it cuts off, as
/// both are allowed. Cut off, all numbers are too small, by half of that in the mean, and so is their sum; rounded,
/// errors are random and so smaller than the sum's own spread by that factor. Four times the former covers the spread
/// of the latter, too; and twice that where both factors are rounded. Numbers below 2^-14 may be flushed to zero.
///
/// Where x is multiplied by `scale` before it is rounded, numbers are flushed that are below 2^-14 then. `in_sum` is how many
/// numbers of x, and of the weight, a sum has.
pub fn f16_tolerance(
    (x, scale): (&[f32], f32),
    weight: &[f32],
    storage: Storage,
    in_sum: [usize; 2],
    largest: f64,
) -> Tolerance {
    let tiny = |row: &[f32], scale: f32| -> f64 {
        let least = 2f64.powi(-14) / f64::from(scale);
        row.iter().map(|v| f64::from(v.abs())).filter(|v| *v < least).sum()
    };
    let flushed = |values: &[f32], k: usize, scale: f32| {
        values.chunks_exact(k).map(|row| tiny(row, scale)).fold(0.0, f64::max)
    };
    let most = |values: &[f32]| values.iter().fold(0.0, |most, v| v.abs().max(most));
    // bf16 and f8 have fewer bits; what blocks make of theirs has more.
    let rounded = if storage == Storage::F32 || storage.is_packed() { 2.0 } else { 1.0 };
    Tolerance::absolute(
        2f64.powi(-9) * rounded * largest
            + flushed(x, in_sum[0], scale) * f64::from(most(weight))
            + flushed(weight, in_sum[1], 1.0) * f64::from(most(x)),
    )
}

/// Kernels that round to f16 say so if a weight does not fit it, wherever it lies; a weight that does is none of that.
pub async fn linear_flags_weights_beyond_f16() {
    let mut lab = Lab::new().await;
    let base = lab.caps();
    let (m, k, n) = (5, 44, 70);
    for variant in variants::<LinearCase>(&base) {
        lab = lab.with_caps(|caps| {
            *caps = base;
            (variant.change)(caps);
        });
        for storage in [Storage::F32, Storage::Bf16] {
            for (place, value) in [(0, 65280.0), (0, 7e4), (n * k - 1, -7e4), (33 * k + 40, 1e30)] {
                let x = Random::new(3).numbers(m * k, 1.0);
                let mut weight = round(&Random::new(4).numbers(n * k, 1.0), storage);
                weight[place] = value;
                let weight = round(&weight, storage);
                let xs = lab.view("x", [m, k], &x, Frame::NONE, Bands::AsNeeded).await;
                let n4 = n.next_multiple_of(4);
                let old = vec![0.0; m * n4];
                let ys = lab.view("y", [m, n4], &old, Frame::WIDE, Bands::AsNeeded).await;
                let packed = lab.weight("weight", &weight, n, k, storage).await;
                let layer = LinearLayer { weight: packed, bias: None, low_rank: None };
                let epilogue = Epilogue::default;
                let recording = lab
                    .run(|r, _| ops::linear_into("y", xs.on(r), &layer, ys.on(r), epilogue()))
                    .await;
                let rounds = kernel_of(&recording) == MatmulKernel::Cooperative;
                assert_eq!(
                    lab.beyond_f16.get(),
                    rounds && value.abs() > 65504.0,
                    "{value} as number {place} in {storage:?} with {}",
                    variant.name
                );
                lab.clear();
            }
        }
    }
}

/// Blocks that met numbers beyond f16 run on smaller ones, and say so if those do not fit either; then in f32.
pub async fn linear_falls_back() {
    let mut lab = Lab::new().await;
    let base = lab.caps();
    let (m, k, n) = (5, 44, 72);
    for variant in variants::<LinearCase>(&base) {
        lab = lab.with_caps(|caps| {
            *caps = base;
            (variant.change)(caps);
        });
        // How often the flag is raised.
        for (largest, raised) in [(65504.0, 0), (65600.0, 1), (16769024.0, 1), (1.7e7, 2)] {
            let mut x = Random::new(3).numbers(m * k, 1.0);
            x[3 * k + 7] = -largest;
            let weight = round(&Random::new(4).numbers(n * k, 1.0), Storage::F16);
            let xs = lab.view("x", [m, k], &x, Frame::NONE, Bands::AsNeeded).await;
            let old = vec![0.0; m * n];
            let packed = lab.weight("weight", &weight, n, k, Storage::F16).await;
            let layer = LinearLayer { weight: packed, bias: None, low_rank: None };
            let label = format!("{largest} with {}", variant.name);
            let mut rounds = false;
            for fallbacks in 0..3 {
                let ys = lab.view("y", [m, n], &old, Frame::WIDE, Bands::AsNeeded).await;
                let recording = lab
                    .run(|r, _| {
                        ops::linear_into("y", xs.on(r), &layer, ys.on(r), Epilogue::default());
                    })
                    .await;
                let is_cooperative = kernel_of(&recording) == MatmulKernel::Cooperative;
                rounds |= is_cooperative;
                assert_eq!(
                    is_cooperative,
                    rounds && fallbacks < 2,
                    "{label}: {fallbacks} fallbacks"
                );
                let beyond = is_cooperative && fallbacks < raised;
                assert_eq!(lab.beyond_f16.get(), beyond, "{label}: {fallbacks} fallbacks");
                lab.fall_back();
            }
            lab.clear();
        }
    }
}
