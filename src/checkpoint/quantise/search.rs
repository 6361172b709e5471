//! The searches for scales that GGML's K formats have: of several candidates, each fitted to the codes that it gives, the one
//! with the least weighted error. <https://github.com/ggml-org/ggml/blob/master/src/ggml-quants.c>
//!
//! A whole model passes through here, so numbers are in arrays of a known length and sums have eight lanes: processors then
//! take several numbers at a time. The order of additions is the same everywhere, and so are the codes.

use std::array;

use super::{extreme, inverse};

/// Smaller numbers than this are no scale to go by.
pub(super) const TINY: f32 = 1e-15;

/// The nearest whole number, the even one of two, of numbers below 2^22: f32 has no fractions from 2^23 on. Larger ones stay
/// larger than any code.
pub(super) fn nearest(x: f32) -> f32 {
    const LARGE: f32 = 12_582_912.0;
    (x + LARGE) - LARGE
}

/// `f32::clamp` without its check of the range, which would be done for each number.
fn within(x: f32, least: f32, most: f32) -> f32 {
    let x = if x < least { least } else { x };
    if x > most { most } else { x }
}

/// The sum of `term(0)` to `term(N - 1)`; `N` is a multiple of 8.
fn sum<const N: usize>(term: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0.0; 8];
    for eight in 0..N / 8 {
        for (i, lane) in lanes.iter_mut().enumerate() {
            *lane += term(8 * eight + i);
        }
    }
    let [a, b, c, d, e, f, g, h] = lanes;
    ((a + e) + (c + g)) + ((b + f) + (d + h))
}

/// How [`scale_and_minimum`] searches.
#[derive(Clone, Copy)]
pub(super) struct Affine {
    /// The largest code.
    pub most: f32,
    /// How many more codes than `most` the first candidate spreads the numbers over. The next ones have 0.1 more each.
    pub from: f32,
    /// Candidates, besides the plain one.
    pub steps: u8,
    /// Whether errors count by their magnitudes, and not by their squares.
    pub absolute: bool,
}

/// Scale and minimum `scale * code - minimum`, neither negative.
pub(super) fn scale_and_minimum<const N: usize>(
    x: &[f32; N],
    weights: &[f32; N],
    Affine { most, from, steps, absolute }: Affine,
) -> (f32, f32) {
    let min = x.iter().copied().fold(0.0, f32::min);
    let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if max <= min {
        return (0.0, -min);
    }
    let codes = |inverse: f32| -> [f32; N] {
        array::from_fn(|i| within(nearest(inverse * (x[i] - min)), 0.0, most))
    };
    let error = |codes: &[f32; N], scale: f32, minimum: f32| {
        let off = |i: usize| scale * codes[i] + minimum - x[i];
        match absolute {
            true => sum::<N>(|i| weights[i] * off(i).abs()),
            false => sum::<N>(|i| weights[i] * (off(i) * off(i))),
        }
    };
    let (sum_w, sum_x) = (sum::<N>(|i| weights[i]), sum::<N>(|i| weights[i] * x[i]));
    // The plain one first.
    let plain = (max - min) / most;
    let (mut scale, mut minimum) = (plain, min);
    let mut least = error(&codes(most / (max - min)), plain, min);
    for step in 0..=steps {
        let codes = codes((most + from + 0.1 * f32::from(step)) / (max - min));
        let sum_l = sum::<N>(|i| weights[i] * codes[i]);
        let sum_l2 = sum::<N>(|i| weights[i] * codes[i] * codes[i]);
        let sum_xl = sum::<N>(|i| weights[i] * codes[i] * x[i]);
        // The line that fits these codes best.
        let determinant = sum_w * sum_l2 - sum_l * sum_l;
        if determinant <= 0.0 {
            continue;
        }
        let mut own_scale = (sum_w * sum_xl - sum_x * sum_l) / determinant;
        let mut own_minimum = (sum_l2 * sum_x - sum_l * sum_xl) / determinant;
        if own_minimum > 0.0 {
            (own_scale, own_minimum) = (sum_xl / sum_l2, 0.0);
        }
        let own = error(&codes, own_scale, own_minimum);
        if own < least {
            (least, scale, minimum) = (own, own_scale, own_minimum);
        }
    }
    (scale, -minimum)
}

/// The scale of numbers whose codes are from `-most` to `most - 1`, of 19 that are tried; large numbers count for more.
pub(super) fn signed_scale<const N: usize>(x: &[f32; N], most: f32) -> f32 {
    let extreme = extreme(x);
    if extreme.abs() < TINY {
        return 0.0;
    }
    // Sums of x * code and code^2, with the weight x^2: their quotient is the scale that fits these codes best.
    let fit = |inverse: f32| {
        let codes: [f32; N] = array::from_fn(|i| signed_code(inverse * x[i], most));
        let weight = |i: usize| x[i] * x[i];
        let xl = sum::<N>(|i| weight(i) * x[i] * codes[i]);
        (xl, sum::<N>(|i| weight(i) * codes[i] * codes[i]))
    };
    let (xl, l2) = fit(-most / extreme);
    let mut scale = xl * inverse(l2);
    let mut best = scale * xl;
    for step in (-9..=9).filter(|step| *step != 0) {
        let (xl, l2) = fit(-(most + 0.1 * step as f32) / extreme);
        if l2 > 0.0 && xl * xl > best * l2 {
            scale = xl / l2;
            best = scale * xl;
        }
    }
    scale
}

/// The same from a single try, whose codes are changed one by one as long as that makes the errors less: five rounds at most.
pub(super) fn refined_scale<const N: usize>(x: &[f32; N], most: f32) -> f32 {
    let extreme = extreme(x);
    if extreme.abs() < TINY {
        return 0.0;
    }
    let mut codes: [f32; N] = array::from_fn(|i| signed_code(-most / extreme * x[i], most));
    let (mut xl, mut l2) = (0.0, 0.0);
    for (x, code) in x.iter().zip(&codes) {
        xl += x * x * x * code;
        l2 += x * x * code * code;
    }
    for _ in 0..5 {
        let mut is_changed = false;
        for (x, code) in x.iter().zip(&mut codes) {
            let weight = x * x;
            let (others_xl, others_l2) = (xl - weight * x * *code, l2 - weight * *code * *code);
            if others_xl <= 0.0 {
                continue;
            }
            let better = signed_code(x * others_l2 / others_xl, most);
            let own_xl = others_xl + weight * x * better;
            let own_l2 = others_l2 + weight * better * better;
            if better != *code && own_l2 > 0.0 && own_xl * own_xl * l2 > xl * xl * own_l2 {
                (*code, xl, l2, is_changed) = (better, own_xl, own_l2, true);
            }
        }
        if !is_changed {
            break;
        }
    }
    if l2 > 0.0 { xl / l2 } else { 0.0 }
}

/// The nearest code from `-most` to `most - 1`.
pub(super) fn signed_code(x: f32, most: f32) -> f32 {
    within(nearest(x), -most, most - 1.0)
}
