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
    }
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
