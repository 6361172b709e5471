//! Weights as the GPU holds them.

use half::{bf16, f16};
use ralu::tensor::{PackedWeight, Storage};

/// A number as a storage has it: its bytes, the first of four, and what they stand for.
fn stored(v: f32, storage: Storage) -> ([u8; 4], f32) {
    let two = |[a, b]: [u8; 2]| [a, b, 0, 0];
    match storage {
        Storage::F32 => (v.to_le_bytes(), v),
        Storage::F16 => (two(f16::from_f32(v).to_le_bytes()), f16::from_f32(v).to_f32()),
        Storage::Bf16 => (two(bf16::from_f32(v).to_le_bytes()), bf16::from_f32(v).to_f32()),
        Storage::F8E4M3 => ([f8_e4m3(v), 0, 0, 0], f8_e4m3_number(f8_e4m3(v))),
    }
}

/// The code of f8 e4m3fn that is nearest to a number, the even one of two. NaN where the next number up would be past the
/// largest, 448.
pub fn f8_e4m3(v: f32) -> u8 {
    let sign = if v.is_sign_negative() { 0x80 } else { 0 };
    // Of the leading bit; numbers below 2^-6 have the spacing of those above.
    let exponent = ((v.abs().to_bits() >> 23) as i32 - 127).max(-6);
    let steps = (v.abs() / 2f32.powi(exponent - 3)).round_ties_even();
    // Sixteen steps are eight of the next exponent, and in this sum they are.
    let code = steps + 8.0 * (exponent + 6) as f32;
    sign | if code < 127.0 { code as u8 } else { 0x7f }
}

/// What is left of numbers that are stored so.
pub fn round(values: &[f32], storage: Storage) -> Vec<f32> {
    values.iter().map(|v| stored(*v, storage).1).collect()
}

/// The bytes of each shard of a weight `[N, K]`: `[ceil(N / tile)][K][tile]`, zeros past N.
pub fn pack(weight: &PackedWeight, values: &[f32]) -> Vec<Vec<u8>> {
    assert_eq!(values.len(), weight.n * weight.k, "{}: wrong number of values", weight.label);
    let pack_shard = |shard: &ralu::tensor::Band| {
        let mut bytes = Vec::new();
        for tile in 0..shard.rows / weight.tile {
            for k in 0..weight.k {
                for column in 0..weight.tile {
                    let n = shard.row0 + tile * weight.tile + column;
                    let v = if n < weight.n { values[n * weight.k + k] } else { 0.0 };
                    let (number, _) = stored(v, weight.storage);
                    bytes.extend(&number[..weight.storage.block().bytes]);
                }
            }
        }
        bytes
    };
    weight.shards.iter().map(pack_shard).collect()
}

/// What a code of f8 e4m3fn stands for: bias 7, no infinities.
pub fn f8_e4m3_number(code: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(code >> 3 & 15), f32::from(code & 7));
    let magnitude = match (exponent, code & 7) {
        (15, 7) => f32::NAN,
        (0, _) => mantissa * 2f32.powi(-9),
        _ => (8.0 + mantissa) * 2f32.powi(exponent - 10),
    };
    if code & 0x80 == 0 { magnitude } else { -magnitude }
}
