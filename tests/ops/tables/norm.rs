//! Layer and RMS norms.

use super::check_all;
use crate::common::{Bands, EPSILON, Frame, Lab, Random, Tolerance, assert_close};
use ralu::ops::{self, Affine, NormKind, reference};

#[derive(Clone, Copy, Debug, PartialEq)]
enum AffineKind {
    None,
    Modulate,
    WeightBias,
    Weight,
}

#[derive(Clone, Copy, Debug)]
struct NormCase {
    rows: usize,
    cols: usize,
    kind: NormKind,
    affine: AffineKind,
    magnitude: f32,
    offset: f32,
}

pub const LAYER: NormKind = NormKind::Layer { eps: 1e-6 };
const RMS: NormKind = NormKind::Rms { eps: 1e-6 };
const NORM: NormCase = NormCase {
    rows: 17,
    cols: 64,
    kind: LAYER,
    affine: AffineKind::Modulate,
    magnitude: 1.0,
    offset: 0.0,
};

#[rustfmt::skip]
const NORM_CASES: &[NormCase] = &[
    NormCase { rows: 1, ..NORM },
    NormCase { rows: 2, cols: 4, ..NORM },
    NormCase { rows: 63, ..NORM },
    NormCase { rows: 64, ..NORM },
    NormCase { rows: 65, ..NORM },
    NormCase { rows: 70_001, cols: 4, ..NORM },
    NormCase { rows: 70_001, cols: 8, kind: RMS, affine: AffineKind::Weight, ..NORM },
    NormCase { cols: 68, ..NORM },
    NormCase { cols: 252, kind: RMS, ..NORM },
    NormCase { cols: 260, ..NORM },
    NormCase { rows: 5, cols: 3072, ..NORM },
    NormCase { rows: 3, cols: 4096, kind: RMS, affine: AffineKind::Weight, ..NORM },
    NormCase { affine: AffineKind::None, ..NORM },
    NormCase { affine: AffineKind::WeightBias, ..NORM },
    NormCase { affine: AffineKind::Weight, ..NORM },
    NormCase { affine: AffineKind::None, kind: RMS, ..NORM },
    NormCase { affine: AffineKind::Modulate, kind: RMS, ..NORM },
    NormCase { affine: AffineKind::WeightBias, kind: RMS, ..NORM },
    NormCase { affine: AffineKind::Weight, kind: RMS, ..NORM },
    NormCase { magnitude: 1e4, ..NORM },
    NormCase { magnitude: 1e6, kind: RMS, ..NORM },
    NormCase { magnitude: 1e6, offset: 1e6, ..NORM },
    NormCase { magnitude: 1.0, offset: 1000.0, ..NORM },
    NormCase { magnitude: 0.0, offset: 0.0, ..NORM },
    NormCase { magnitude: 0.0, offset: 0.0, kind: RMS, ..NORM },
    NormCase { magnitude: 1e-20, offset: 0.0, kind: RMS, ..NORM },
];

pub async fn norm() {
    check_all(NORM_CASES, |c| ((c.rows * c.cols * 4) as u64, 0.0), check_norm).await;
}

async fn check_norm(lab: &Lab, label: &str, case: &NormCase) {
    let &NormCase { rows, cols, kind, magnitude, offset, .. } = case;
    let mut random = Random::named(label);
    let x: Vec<f32> = random.numbers(rows * cols, magnitude).iter().map(|v| v + offset).collect();
    let (scale, shift) = (random.numbers(cols, 1.0), random.numbers(cols, 1.0));

    let xs = lab.view("x", [rows, cols], &x, Frame::WIDE, Bands::AsNeeded).await;
    let ys = lab.view("y", [rows, cols], &vec![0.0; x.len()], Frame::WIDE, Bands::AsNeeded).await;
    let scales = lab.view("scale", [1, cols], &scale, Frame::WIDE, Bands::One).await;
    let shifts = lab.view("shift", [1, cols], &shift, Frame::BELOW, Bands::One).await;
    lab.run(|r, _| {
        let (scale, shift) = (scales.on(r), shifts.on(r));
        let affine = match case.affine {
            AffineKind::None => Affine::None,
            AffineKind::Modulate => Affine::Modulate { scale, shift },
            AffineKind::WeightBias => Affine::WeightBias(scale, shift),
            AffineKind::Weight => Affine::Weight(scale),
        };
        ops::norm_into("y", xs.on(r), kind, affine, ys.on(r));
    })
    .await;

    let plus = if case.affine == AffineKind::Modulate { 1.0 } else { 0.0 };
    let scale: Vec<f64> = scale.iter().map(|v| f64::from(*v) + plus).collect();
    let shift: Vec<f64> = shift.iter().map(|v| f64::from(*v)).collect();
    let (scale, shift) = match case.affine {
        AffineKind::None => (None, None),
        AffineKind::Modulate | AffineKind::WeightBias => (Some(&scale[..]), Some(&shift[..])),
        AffineKind::Weight => (Some(&scale[..]), None),
    };
    let expected: Vec<f64> =
        x.chunks_exact(cols).flat_map(|row| reference::norm(row, kind, scale, shift)).collect();
    // The mean is off by some roundings of the largest number of a row; a small deviation magnifies that.
    let magnified = |row: &[f32]| {
        let NormKind::Layer { eps } = kind else { return 0.0 };
        let n = row.len() as f64;
        let mean = row.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
        let variance = row.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / n;
        let largest = row.iter().fold(0.0f64, |max, v| max.max(f64::from(v.abs())));
        largest / (variance + f64::from(eps)).sqrt()
    };
    let magnified = x.chunks_exact(cols).map(magnified).fold(0.0, f64::max);
    // Two roundings; AdaLN's factor is at most 2.
    let tolerance = Tolerance::sum(cols).plus(Tolerance::absolute(4.0 * EPSILON * magnified));
    let label = format!("norm {label}");
    assert_close(&label, [rows, cols], &lab.read_view(&ys).await, &expected, tolerance);
}

/// NaN, infinity and denormals in one row stay in that row.
pub async fn norm_keeps_poison_in_its_row() {
    for is_cpu in [false, true] {
        for poison in [f32::NAN, f32::INFINITY, 1e-42] {
            let lab = Lab::new().await.with_caps(|caps| caps.is_cpu = is_cpu);
            let (rows, cols, row) = (67, 68, 40);
            let mut x = Random::new(3).numbers(rows * cols, 1.0);
            x[row * cols + 67] = poison;
            let xs = lab.view("x", [rows, cols], &x, Frame::NONE, Bands::One).await;
            let ys =
                lab.view("y", [rows, cols], &vec![0.0; x.len()], Frame::WIDE, Bands::One).await;
            lab.run(|r, _| ops::norm_into("y", xs.on(r), LAYER, Affine::None, ys.on(r))).await;
            let y = lab.read_view(&ys).await;
            for (i, (x, y)) in x.chunks_exact(cols).zip(y.chunks_exact(cols)).enumerate() {
                if i == row && !poison.is_finite() {
                    assert!(y.iter().any(|v| !v.is_finite()), "{poison} was lost");
                } else {
                    let expected = reference::norm(x, LAYER, None, None);
                    let label = format!("row {i} with {poison} in row {row}");
                    assert_close(&label, [1, cols], y, &expected, Tolerance::sum(cols));
                }
            }
        }
    }
}
