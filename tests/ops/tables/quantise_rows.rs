//! Rows rounded to bytes.

use super::check_all;
use crate::common::{Bands, EPSILON, Frame, Lab, Random};
use ralu::ops::{self, reference};
use ralu::tensor::CodeOrder;

#[derive(Clone, Copy, Debug)]
struct QuantiseCase {
    m: usize,
    k: usize,
    order: CodeOrder,
    magnitude: f32,
}

const QUANTISE: QuantiseCase =
    QuantiseCase { m: 9, k: 192, order: CodeOrder::Plain, magnitude: 1.0 };

const QUANTISE_CASES: &[QuantiseCase] = &[
    QUANTISE,
    QuantiseCase { order: CodeOrder::Interleaved, ..QUANTISE },
    // One block of 64, and workgroups that end inside of a row.
    QuantiseCase { m: 1, k: 64, ..QUANTISE },
    QuantiseCase { m: 37, k: 320, order: CodeOrder::Interleaved, ..QUANTISE },
    QuantiseCase { magnitude: 1e30, ..QUANTISE },
    QuantiseCase { magnitude: 1e-30, ..QUANTISE },
    // Too small for an inverse in f32.
    QuantiseCase { magnitude: 1e-37, ..QUANTISE },
];

/// A row of words, 20 for 64 numbers, as blocks of 32: scale, scaled sum and codes in the order of K.
fn blocks_of(words: &[f32], order: CodeOrder) -> Vec<(f32, f32, Vec<i8>)> {
    let mut blocks = Vec::new();
    for words in words.chunks_exact(20) {
        for half in 0..2 {
            let words_of_codes = &words[8 * half..8 * half + 8];
            let bytes: Vec<i8> = (words_of_codes.iter())
                .flat_map(|word| word.to_bits().to_le_bytes().map(|byte| byte as i8))
                .collect();
            let place = |i: usize| match order {
                CodeOrder::Plain => i,
                CodeOrder::Interleaved => i / 8 * 8 + i % 2 * 4 + i % 8 / 2,
            };
            let codes = (0..32).map(|i| bytes[place(i)]).collect();
            blocks.push((words[16 + 2 * half], words[17 + 2 * half], codes));
        }
    }
    blocks
}

async fn quantised(lab: &Lab, [m, k]: [usize; 2], x: &[f32], order: CodeOrder) -> Vec<f32> {
    let words = k / 64 * 20;
    let xs = lab.view("x", [m, k], x, Frame::WIDE, Bands::AsNeeded).await;
    let zeros = vec![0.0; m * words];
    let ys = lab.view("y", [m, words], &zeros, Frame::NONE, Bands::AsNeeded).await;
    lab.run(|r, copies| copies.after(ops::quantise_rows("y", xs.on(r), order), ys.on(r))).await;
    lab.read_view(&ys).await
}

pub async fn quantise_rows() {
    let bytes_and_flops = |c: &QuantiseCase| ((c.m * c.k * 4) as u64, (8 * c.m * c.k) as f64);
    check_all(QUANTISE_CASES, bytes_and_flops, check_quantise_rows).await;
}

async fn check_quantise_rows(lab: &Lab, label: &str, case: &QuantiseCase) {
    let QuantiseCase { m, k, order, magnitude } = *case;
    let mut x = Random::named(label).numbers(m * k, magnitude);
    // Of zeros, and of one number and zeros.
    x[..32].fill(0.0);
    x[32..63].fill(0.0);
    let found = quantised(lab, [m, k], &x, order).await;
    let found = found.chunks_exact(k / 64 * 20).flat_map(|row| blocks_of(row, order));
    for (i, ((scale, scaled, codes), x)) in found.zip(x.chunks_exact(32)).enumerate() {
        let what = format!("block {i} of {label}");
        let (expected, numbers) = reference::quantise_rows(x);
        // A division may be 2.5 ulp off.
        let off = (f64::from(scale) - expected).abs();
        assert!(off <= 5.0 * EPSILON * expected, "{what}: scale {scale}, not {expected}");
        for (at, (code, number)) in codes.iter().zip(&numbers).enumerate() {
            let code = f64::from(*code);
            // Between two codes either is right, as near as a division and a product may be off.
            let exact = if expected == 0.0 { 0.0 } else { f64::from(x[at]) / expected };
            let is_tie = (exact.fract().abs() - 0.5).abs() < 127.0 * 8.0 * EPSILON;
            let is_right = code == *number || is_tie && (code - exact).abs() < 0.51;
            assert!(is_right, "{what}, number {at}: {code}, not {number} of {exact}");
        }
        let sum: i32 = codes.iter().map(|code| i32::from(*code)).sum();
        assert_eq!(scaled, scale * sum as f32, "{what}: scaled sum");
    }
}

/// A block with NaN or an infinity has such a scale; those next to it are as they were.
pub async fn poison_stays_in_its_block() {
    let lab = Lab::new().await;
    let (m, k, order) = (5, 192, CodeOrder::Interleaved);
    let x = Random::new(5).numbers(m * k, 1.0);
    let clean = quantised(&lab, [m, k], &x, order).await;
    for poison in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut x = x.clone();
        let at = 2 * k + 77;
        x[at] = poison;
        let found = quantised(&lab, [m, k], &x, order).await;
        let of = |words: &[f32]| -> Vec<_> {
            words.chunks_exact(k / 64 * 20).flat_map(|row| blocks_of(row, order)).collect()
        };
        for (i, (found, clean)) in of(&found).iter().zip(&of(&clean)).enumerate() {
            match i == at / 32 {
                true => assert!(!found.0.is_finite(), "{poison} in block {i}: {found:?}"),
                false => assert_eq!(found, clean, "{poison} in another block than {i}"),
            }
        }
        lab.clear();
    }
}
