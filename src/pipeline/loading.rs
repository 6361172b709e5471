//! Weights on their way from the checkpoint to the GPU, a piece at a time, so that progress can be shown.

use super::load::Pipeline;
use super::{Error, Event, Part};
use crate::gpu::{Turns, Uploads};
use crate::models::layers::Upload;
use crate::models::pack::Packer;
use crate::models::source::read;
use crate::models::weights::Weights;

/// Bytes uploaded between two progress events.
const BYTES_PER_EVENT: u64 = 64 << 20;

/// One part of a model being loaded. Dropped before its end, the part counts as not loaded.
pub(super) struct Loading<'p> {
    pipeline: &'p Pipeline,
    part: Part,
    tensors: Vec<(&'p Weights, &'p Upload)>,
    next: usize,
    bytes: u64,
    of: u64,
    uploads: Uploads,
    packer: Packer,
}

impl<'p> Loading<'p> {
    /// Nothing is uploaded yet. A part that is on the GPU already is done at once.
    pub fn new(pipeline: &'p Pipeline, part: Part) -> Self {
        let parts = &pipeline.parts;
        let mut tensors = Vec::new();
        let mut add = |weights: &'p Weights, uploads: &'p [Upload]| {
            tensors.extend(uploads.iter().map(|upload| (weights, upload)));
        };
        if !pipeline.is_loaded(part) {
            match part {
                Part::TextEncoders => {
                    parts.clips.iter().for_each(|clip| add(&clip.weights, &clip.uploads));
                    parts.t5.iter().for_each(|t5| add(&t5.weights, &t5.uploads));
                }
                Part::Denoiser => {
                    add(&parts.denoiser.weights, &parts.denoiser.uploads);
                    add(&parts.vae.weights, &parts.vae.uploads);
                }
            }
        }
        let of = tensors.iter().map(|(_, upload)| upload.bytes()).sum();
        let (uploads, packer) = Default::default();
        Loading { pipeline, part, tensors, next: 0, bytes: 0, of, uploads, packer }
    }

    /// Uploads some weights; `None` when all are there.
    pub async fn some(&mut self) -> Result<Option<Event>, Error> {
        if self.next == self.tensors.len() {
            self.pipeline.set_loaded(self.part, true);
            return Ok(None);
        }
        let turns = Turns::new();
        let start = self.bytes;
        while self.bytes - start < BYTES_PER_EVENT
            && let Some((weights, upload)) = self.tensors.get(self.next).copied()
        {
            self.upload(weights, upload, &turns).await?;
            self.bytes += upload.bytes();
            self.next += 1;
        }
        if self.next == self.tensors.len() {
            self.uploads.finish(&self.pipeline.gpu).await?;
        }
        Ok(Some(Event::Loading { part: self.part, bytes: self.bytes, of: self.of }))
    }

    /// Uploads one tensor. Reads, packs and hands over one tile of outputs at a time, so that no second copy of a
    /// weight is ever in host memory.
    async fn upload(
        &mut self,
        weights: &Weights,
        upload: &Upload,
        turns: &Turns,
    ) -> Result<(), Error> {
        let Pipeline { source, gpu, store, .. } = self.pipeline;
        match upload {
            Upload::Vector { resident, tensor, rows } => {
                let mut values = read(&**source, || weights.tensor_f32(tensor)).await?;
                if let Some(rows) = rows {
                    values = rows.iter().map(|row| values[*row]).collect();
                }
                values.resize(resident.cols, 0.0);
                store.create(gpu, resident).await?;
                let bytes = bytemuck::cast_slice(&values);
                self.uploads.write(gpu, store, resident.id, 0, 0, bytes).await?;
            }
            Upload::Packed { weight, tensor, rows } => {
                store.create_packed(gpu, weight).await?;
                for (i, shard) in weight.shards.iter().enumerate() {
                    let mut offset = 0;
                    for first in (shard.row0..shard.row0 + shard.rows).step_by(weight.tile) {
                        let rows = rows.as_deref();
                        let packer = &mut self.packer;
                        let pack = || packer.tile(weights, tensor, weight, first, rows).map(|_| ());
                        read(&**source, pack).await?;
                        let bytes = self.packer.packed();
                        self.uploads.write(gpu, store, weight.id, i, offset, bytes).await?;
                        offset += bytes.len() as u64;
                        turns.due().await;
                    }
                }
            }
        }
        Ok(())
    }
}
