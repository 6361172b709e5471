//! Weights on their way from the checkpoint to the GPU, a piece at a time, so that progress can be shown.

use super::load::Pipeline;
use super::{Error, Event, Part};
use crate::checkpoint::pack::Packer;
use crate::checkpoint::source::read;
use crate::checkpoint::weights::Weights;
use crate::gpu::Uploads;
use crate::models::layers::Upload;
use crate::turns::Turns;

/// Bytes uploaded between two progress events.
const BYTES_PER_EVENT: u64 = 64 << 20;

/// How much of a part is on the GPU. Runs of one pipeline load it together: each goes on where another has stopped.
#[derive(Default)]
pub(super) enum Residency {
    /// Nothing that can be relied on; also while a piece is on its way, so that a dropped upload starts the part again.
    #[default]
    Absent,
    /// The first tensors.
    Partial(Box<Progress>),
    Loaded,
}

/// The tensors of a part that were uploaded.
#[derive(Default)]
pub(super) struct Progress {
    tensors: usize,
    bytes: u64,
    uploads: Uploads,
    packer: Packer,
}

/// A part of a model that a run needs, in pieces.
pub(super) struct Loading<'p> {
    pipeline: &'p Pipeline,
    part: Part,
    tensors: Vec<(&'p Weights, &'p Upload)>,
    of: u64,
}

impl<'p> Loading<'p> {
    /// Nothing is uploaded yet.
    pub fn new(pipeline: &'p Pipeline, part: Part) -> Self {
        let parts = &pipeline.parts;
        let mut tensors = Vec::new();
        let mut add = |weights: &'p Weights, uploads: &'p [Upload]| {
            tensors.extend(uploads.iter().map(|upload| (weights, upload)));
        };
        match part {
            Part::TextEncoders => {
                let encoders = parts.text_encoders.iter();
                encoders.for_each(|encoder| add(&encoder.weights, &encoder.uploads));
            }
            Part::Denoiser => {
                add(&parts.denoiser.weights, &parts.denoiser.uploads);
                add(&parts.vae.weights, &parts.vae.uploads);
            }
        }
        let of = tensors.iter().map(|(_, upload)| upload.bytes()).sum();
        Loading { pipeline, part, tensors, of }
    }

    /// Uploads some weights; `None` when all are on the GPU.
    pub async fn some(&mut self) -> Result<Option<Event>, Error> {
        let residency = self.pipeline.residency(self.part);
        let mut progress = match residency.take() {
            Residency::Loaded => {
                residency.replace(Residency::Loaded);
                return Ok(None);
            }
            Residency::Partial(progress) => progress,
            Residency::Absent => Default::default(),
        };
        let turns = Turns::new();
        let start = progress.bytes;
        while progress.bytes - start < BYTES_PER_EVENT
            && let Some((weights, upload)) = self.tensors.get(progress.tensors).copied()
        {
            self.upload(&mut progress, weights, upload, &turns).await?;
            progress.bytes += upload.bytes();
            progress.tensors += 1;
        }
        let bytes = progress.bytes;
        if progress.tensors == self.tensors.len() {
            progress.uploads.finish(&self.pipeline.gpu).await?;
            residency.replace(Residency::Loaded);
        } else {
            residency.replace(Residency::Partial(progress));
        }
        Ok(Some(Event::Loading { part: self.part, bytes, of: self.of }))
    }

    /// Uploads one tensor. Reads, packs and hands over one tile of outputs at a time, so that no second copy of a
    /// weight is ever in host memory.
    async fn upload(
        &self,
        progress: &mut Progress,
        weights: &Weights,
        upload: &Upload,
        turns: &Turns,
    ) -> Result<(), Error> {
        let Pipeline { source, gpu, store, .. } = self.pipeline;
        let Progress { uploads, packer, .. } = progress;
        match upload {
            Upload::Vector { resident, tensor, rows } => {
                let mut values = read(&**source, || weights.tensor_f32(tensor)).await?;
                if let Some(rows) = rows {
                    values = rows.iter().map(|row| values[*row]).collect();
                }
                values.resize(resident.cols, 0.0);
                store.create(gpu, resident).await?;
                let bytes = bytemuck::cast_slice(&values);
                uploads.write(gpu, store, resident.id, 0, 0, bytes).await?;
            }
            Upload::BatchNorm { resident, mean, variance, eps } => {
                let deviations = || weights.standard_deviations(variance, *eps);
                let mut values = read(&**source, deviations).await?;
                values.extend(read(&**source, || weights.tensor_f32(mean)).await?);
                store.create(gpu, resident).await?;
                let bytes = bytemuck::cast_slice(&values);
                uploads.write(gpu, store, resident.id, 0, 0, bytes).await?;
            }
            Upload::Packed { weight, tensor, rows } => {
                store.create_packed(gpu, weight).await?;
                for (i, shard) in weight.shards.iter().enumerate() {
                    let mut offset = 0;
                    for first in (shard.row0..shard.row0 + shard.rows).step_by(weight.tile) {
                        let rows = rows.as_deref();
                        let pack = || packer.tile(weights, tensor, weight, first, rows).map(|_| ());
                        read(&**source, pack).await?;
                        let bytes = packer.packed();
                        uploads.write(gpu, store, weight.id, i, offset, bytes).await?;
                        offset += bytes.len() as u64;
                        turns.yield_if_due().await;
                    }
                }
            }
        }
        Ok(())
    }
}
