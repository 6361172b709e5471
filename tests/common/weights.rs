//! Weights as the GPU holds them.

use half::{bf16, f16};
use ralu::checkpoint::dtype::{DTYPES, DType};
use ralu::checkpoint::pack::Packer;
use ralu::tensor::{PackedWeight, Storage};

use super::Random;

/// A number as a storage has it: its bytes, the first of four, and what they stand for.
fn stored(v: f32, storage: Storage) -> ([u8; 4], f32) {
    let two = |[a, b]: [u8; 2]| [a, b, 0, 0];
    match storage {
        Storage::F32 => (v.to_le_bytes(), v),
        Storage::F16 => (two(f16::from_f32(v).to_le_bytes()), f16::from_f32(v).to_f32()),
        Storage::Bf16 => (two(bf16::from_f32(v).to_le_bytes()), bf16::from_f32(v).to_f32()),
        Storage::F8E4M3 => ([f8_e4m3(v), 0, 0, 0], f8_e4m3_number(f8_e4m3(v))),
        // The upper byte of an f16.
        Storage::F8E5M2 => {
            let code = f16::from_f32(v).to_le_bytes()[1];
            ([code, 0, 0, 0], f16::from_le_bytes([0, code]).to_f32())
        }
        _ => panic!("{storage:?} has no numbers of their own"),
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

/// The stored type whose blocks a packed storage keeps.
pub fn dtype_of(storage: Storage) -> &'static DType {
    let single = storage.with_single_scales();
    DTYPES.iter().find(|row| row.matrix == single && row.kept_as_is).unwrap()
}

/// Where the blocks of a type have f16 scales, and where minimums that are added and that are subtracted.
fn scales_of(storage: Storage) -> (&'static [usize], &'static [usize], &'static [usize]) {
    match storage {
        Storage::Q4_1 | Storage::Q5_1 => (&[0], &[2], &[]),
        Storage::Q2K => (&[80], &[], &[82]),
        Storage::Q3K => (&[108], &[], &[]),
        Storage::Q4K | Storage::Q5K => (&[0], &[], &[2]),
        Storage::Q6K => (&[208], &[], &[]),
        _ => (&[0], &[], &[]),
    }
}

/// Rows of random blocks `[N, K]` as a file has them, and their numbers, of which the largest is about `largest`.
pub fn random_blocks(
    random: &mut Random,
    [n, k]: [usize; 2],
    storage: Storage,
    largest: f32,
) -> (Vec<u8>, Vec<f32>) {
    let dtype = dtype_of(storage);
    let mut rows = vec![0; dtype.block.bytes_of((n * k) as u64).unwrap() as usize];
    rows.iter_mut().for_each(|byte| *byte = random.next() as u8);
    let (scales, added, subtracted) = scales_of(storage);
    let mut numbers = Vec::new();
    // With scales and minimums of 1, to know the largest number; then from a half of what makes it `largest` to all of that,
    // of either sign.
    let mut unit = None;
    for _ in 0..2 {
        for block in rows.chunks_exact_mut(dtype.block.bytes) {
            let all = [(scales, 1.0), (added, -8.0), (subtracted, 1.0)];
            for (at, sign) in
                all.iter().flat_map(|(list, sign)| list.iter().map(move |at| (*at, *sign)))
            {
                let size = unit.map_or(1.0, |unit: f32| unit * (0.75 + 0.25 * random.unit()));
                let either = if unit.is_some() && random.below(2) == 0 { -sign } else { sign };
                block[at..at + 2].copy_from_slice(&f16::from_f32(either * size).to_le_bytes());
            }
        }
        numbers.clear();
        dtype.widen(&rows, &mut numbers);
        unit = Some(largest / numbers.iter().fold(0f32, |most, v| most.max(v.abs())));
    }
    (rows, numbers)
}

/// The bytes of each shard of a weight `[N, K]` whose rows are those of a file: what the library makes of them. `scales` are
/// the words of scales of NF4's blocks.
pub fn pack_rows(weight: &PackedWeight, rows: &[u8], scales: &[u32]) -> Vec<Vec<u8>> {
    let row_bytes = rows.len() / weight.n;
    let rows: Vec<&[u8]> = rows.chunks_exact(row_bytes).collect();
    let of_row = scales.len() / weight.n;
    let mut packer = Packer::default();
    let mut pack_shard = |shard: &ralu::tensor::Band| {
        let starts = (shard.row0..shard.row0 + shard.rows).step_by(weight.tile);
        let tile = |start: usize| {
            let end = (start + weight.tile).min(weight.n);
            let scales = scales.get(start * of_row..end * of_row).unwrap_or_default();
            packer.rows(rows.get(start..end).unwrap_or_default(), scales, weight).to_vec()
        };
        starts.flat_map(tile).collect()
    };
    weight.shards.iter().map(&mut pack_shard).collect()
}
