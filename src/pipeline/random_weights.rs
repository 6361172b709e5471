//! Models with random weights: what a model costs on a device can be measured before it is downloaded.

use super::Error;
use super::device::{Device, FreeWhenDropped};
use crate::models::layers::Upload;
use crate::sampling::torch_randn;
use crate::tensor::{PackedWeight, Resident, Storage};

/// Bytes of random numbers that are made on the host, once; weights are filled with copies of them on the GPU.
const BYTES: usize = 4 << 20;
/// Standard deviation of a weight: a product of as many numbers as the layers of large models have then is about as large as
/// its input, and nothing overflows.
const DEVIATION: f32 = 1.0 / 64.0;
const SEED: u64 = 0x7261_6e64;

/// Random numbers on the GPU, in one type.
struct Noise {
    storage: Storage,
    numbers: Resident,
    _memory: FreeWhenDropped,
}

/// Fills the weights of a part.
#[derive(Default)]
pub(super) struct RandomWeights {
    noise: Vec<Noise>,
}

impl RandomWeights {
    /// Allocates what `upload` stands for, and fills it: matrices with small numbers around zero, vectors with numbers around
    /// one, as norms have them.
    pub async fn fill(&mut self, device: &Device, upload: &Upload) -> Result<(), Error> {
        let Device { gpu, store, .. } = device;
        match upload {
            Upload::Packed { weight, .. } | Upload::Factor { weight, .. } => {
                store.create_packed(gpu, weight).await?;
                self.fill_packed(device, weight).await
            }
            Upload::Vector { resident, .. }
            | Upload::Scales { resident, .. }
            | Upload::FactorScales { resident, .. }
            | Upload::BatchNorm { resident, .. } => {
                store.create(gpu, resident).await?;
                let values: Vec<f32> = torch_randn(SEED, resident.rows * resident.cols)
                    .into_iter()
                    .map(|value| 1.0 + value * DEVIATION)
                    .collect();
                device.write(resident, &values).await
            }
        }
    }

    /// Fills a matrix for which there is memory.
    pub async fn fill_packed(
        &mut self,
        device: &Device,
        weight: &PackedWeight,
    ) -> Result<(), Error> {
        let noise = self.noise(device, weight.storage).await?;
        for (shard, bytes) in weight.shard_bytes().enumerate() {
            device.store.copy_over(&device.gpu, noise, weight.id, shard, bytes).await?;
        }
        Ok(())
    }

    /// The noise in the type `storage`.
    async fn noise(&mut self, device: &Device, storage: Storage) -> Result<&Resident, Error> {
        let at = match self.noise.iter().position(|noise| noise.storage == storage) {
            Some(at) => at,
            None => {
                let bytes = random_bytes(storage);
                let numbers = device.ids.matrix("random numbers", 1, bytes.len() / 4, u64::MAX);
                let memory = device.free_when_dropped([&numbers]);
                device.store.create(&device.gpu, &numbers).await?;
                device.store.write_bytes(&device.gpu, numbers.id, 0, 0, &bytes).await?;
                self.noise.push(Noise { storage, numbers, _memory: memory });
                self.noise.len() - 1
            }
        };
        Ok(&self.noise[at].numbers)
    }
}

/// Numbers with about [`DEVIATION`], as `storage` keeps them.
fn random_bytes(storage: Storage) -> Vec<u8> {
    let numbers = BYTES / storage.block().bytes;
    let values = || torch_randn(SEED, numbers).into_iter().map(|value| value * DEVIATION);
    match storage {
        Storage::F32 => values().flat_map(f32::to_le_bytes).collect(),
        Storage::F16 => values().flat_map(|v| half::f16::from_f32(v).to_le_bytes()).collect(),
        Storage::Bf16 => values().flat_map(|v| half::bf16::from_f32(v).to_le_bytes()).collect(),
        // 1/64 with the sign of each.
        Storage::F8E4M3 => values().map(|v| if v < 0.0 { 0x88 } else { 0x08 }).collect(),
        Storage::F8E5M2 => values().map(|v| if v < 0.0 { 0xa4 } else { 0x24 }).collect(),
        _ => random_blocks(storage),
    }
}

/// Blocks of a tile of 64 outputs, the words of an output at a stride: scales that are the same everywhere, and random codes.
fn random_blocks(storage: Storage) -> Vec<u8> {
    const TILE: usize = 64;
    let (bytes, scales) = (storage.block().bytes * TILE, storage.random_scales());
    // The lower half of the mantissas, all that is as likely as its opposite.
    let mut codes = torch_randn(SEED, BYTES / 2).into_iter().map(|v| v.to_bits() as u16);
    let mut code = || u32::from(codes.next().unwrap_or_default());
    let mut random = Vec::with_capacity(BYTES);
    for _ in 0..BYTES / bytes {
        for word in 0..bytes / 4 {
            let scale = scales.get(word / TILE).copied();
            let word = scale.unwrap_or_else(|| code() | (code() << 16));
            random.extend(word.to_le_bytes());
        }
    }
    random
}

/// Random embeddings of a text, `count` numbers around zero.
pub(super) fn embedding(count: usize) -> Vec<f32> {
    torch_randn(SEED, count)
}
