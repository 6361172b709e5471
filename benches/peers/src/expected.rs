//! What the results should be: a sample of their numbers, in f64, by definition.

use half::f16;

use crate::case::{Case, Weights};
use crate::numbers::{Operand, at};

/// Results that are checked.
const SAMPLES: usize = 64;

/// Factor of a weight's numbers with `k` inputs.
pub fn weight_scale(k: usize) -> f32 {
    1.0 / (k as f32).sqrt()
}

/// Factor of queries and keys: scores then have a deviation of about 1.
pub const QUERY_SCALE: f32 = 1.75;

/// A number of a weight as it is stored.
pub fn stored(value: f32, weights: Weights) -> f32 {
    match weights {
        Weights::F32 => value,
        Weights::F16 => f16::from_f32(value).to_f32(),
    }
}

/// Which numbers of the result are checked: the first, the last, and what lies evenly between. Of a network or a picture all.
pub fn positions(case: &Case) -> Vec<usize> {
    let n = case.outputs();
    match case {
        Case::Blocks { .. } | Case::Picture { .. } => (0..n).collect(),
        _ => (0..SAMPLES).map(|i| i * (n - 1) / (SAMPLES - 1)).collect(),
    }
}

/// The numbers at `positions`; `None` for a network, which is compared with the reference implementation.
pub fn values(case: &Case, positions: &[usize]) -> Option<Vec<f64>> {
    let value = |position: &usize| -> Option<f64> {
        Some(match *case {
            Case::Matmul { k, n, weights, .. } => {
                let (row, column) = (position / n, position % n);
                let scale = weight_scale(k);
                (0..k)
                    .map(|i| {
                        let w = stored(at(Operand::W, column * k + i) * scale, weights);
                        f64::from(at(Operand::X, row * k + i)) * f64::from(w)
                    })
                    .sum()
            }
            Case::Attention { tokens, heads, head_dim } => {
                let width = heads * head_dim;
                let (row, column) = (position / width, position % width);
                let head = column / head_dim * head_dim;
                let factor = f64::from(QUERY_SCALE).powi(2) / (head_dim as f64).sqrt();
                let number = |operand, i| f64::from(at(operand, i));
                // Scores are bounded by a few hundred at worst: no maximum is needed in f64.
                let (mut sum, mut total) = (0.0, 0.0);
                for key in 0..tokens {
                    let dot: f64 = (head..head + head_dim)
                        .map(|c| {
                            number(Operand::X, row * width + c)
                                * number(Operand::W, key * width + c)
                        })
                        .sum();
                    let weight = (dot * factor).exp();
                    total += weight;
                    sum += weight * number(Operand::V, key * width + column);
                }
                sum / total
            }
            Case::Conv2d { height, width, input, output } => {
                let (pixel, n) = (position / output, position % output);
                let (row, column) = (pixel / width, pixel % width);
                let scale = weight_scale(9 * input);
                let mut sum = 0.0;
                for ky in 0..3 {
                    for kx in 0..3 {
                        let (r, c) = (row + ky, column + kx);
                        if r < 1 || c < 1 || r > height || c > width {
                            continue;
                        }
                        let pixel = ((r - 1) * width + c - 1) * input;
                        for i in 0..input {
                            // Weights are numbered as torch stores them, `[N, C, 3, 3]`.
                            let w = at(Operand::W, ((n * input + i) * 3 + ky) * 3 + kx) * scale;
                            sum += f64::from(at(Operand::X, pixel + i)) * f64::from(w);
                        }
                    }
                }
                sum
            }
            Case::Blocks { .. } | Case::Picture { .. } => return None,
        })
    };
    positions.iter().map(value).collect()
}

/// A relative error beyond this is no rounding. In f16 some peers also add in f16.
pub fn tolerance(case: &Case) -> f64 {
    match case {
        Case::Matmul { weights: Weights::F16, .. } => 3e-2,
        // Rounded to whole numbers of 255, after many steps.
        Case::Picture { .. } => 2e-2,
        _ => 5e-3,
    }
}

/// Distance of `found` from `expected`, relative to the latter's length. A number that is none is as wrong as can be.
pub fn relative_error(found: &[f32], expected: &[f64]) -> f64 {
    if found.len() != expected.len() || found.iter().any(|value| !value.is_finite()) {
        return f64::MAX;
    }
    let square = |sum: f64, value: f64| sum + value * value;
    let distance = found.iter().zip(expected).map(|(a, b)| f64::from(*a) - b).fold(0.0, square);
    (distance / expected.iter().copied().fold(0.0, square)).sqrt()
}
