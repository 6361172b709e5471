//! Weights as the GPU holds them.

use half::{bf16, f16};
use ralu::tensor::{PackedWeight, Storage};

/// What is left of numbers that are stored so.
pub fn round(values: &[f32], storage: Storage) -> Vec<f32> {
    let round = |v: f32| match storage {
        Storage::F32 => v,
        Storage::F16 => f16::from_f32(v).to_f32(),
        Storage::Bf16 => bf16::from_f32(v).to_f32(),
    };
    values.iter().map(|v| round(*v)).collect()
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
                    match weight.storage {
                        Storage::F32 => bytes.extend(v.to_le_bytes()),
                        Storage::F16 => bytes.extend(f16::from_f32(v).to_le_bytes()),
                        Storage::Bf16 => bytes.extend(bf16::from_f32(v).to_le_bytes()),
                    }
                }
            }
        }
        bytes
    };
    weight.shards.iter().map(pack_shard).collect()
}
