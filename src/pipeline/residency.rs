//! What of a model is on the GPU, and how it gets there: a piece at a time, so that progress can be shown.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::device::Device;
use super::model::Model;
use super::random_weights::RandomWeights;
use super::{Error, Event, Part};
use crate::checkpoint::pack::Packer;
use crate::checkpoint::source::read;
use crate::checkpoint::weights::Weights;
use crate::gpu::Uploads;
use crate::models::layers::Upload;
use crate::sync::Locked;
use crate::turns::Turns;

/// Bytes uploaded between two progress events.
const BYTES_PER_EVENT: u64 = 64 << 20;

/// Which of a model's parts are on the GPU, and which of them stay there.
///
/// Only the run whose turn it is uploads and frees.
pub(super) struct Residency {
    /// Denoiser and decoder.
    denoiser: Locked<PartState>,
    modulation: Locked<PartState>,
    text_encoders: Locked<PartState>,
    keeps_all_parts: AtomicBool,
    /// How many runs have texts that are not encoded yet, and how many have no modulations yet.
    waiting: [AtomicUsize; 2],
}

/// How much of a part is on the GPU. Runs of one pipeline load it together: each goes on where another has stopped.
#[derive(Default)]
enum PartState {
    /// Nothing that can be relied on; also while a piece is on its way, so that a dropped upload starts the part again.
    #[default]
    Absent,
    /// The first tensors.
    Partial(Box<Progress>),
    Loaded,
}

/// The tensors of a part that were uploaded.
#[derive(Default)]
struct Progress {
    tensors: usize,
    bytes: u64,
    uploads: Uploads,
    packer: Packer,
    random: RandomWeights,
}

/// A run has yet to use a part that others free after use: until this is dropped, they do not.
pub(super) struct NeedsPart(Arc<Residency>, usize);

impl NeedsPart {
    /// Notes that one more run needs the text encoders.
    pub fn text_encoders(residency: &Arc<Residency>) -> Self {
        NeedsPart::new(residency, ENCODERS)
    }

    /// Notes that one more run needs the layers that make modulations.
    pub fn modulation(residency: &Arc<Residency>) -> Self {
        NeedsPart::new(residency, MODULATION)
    }

    fn new(residency: &Arc<Residency>, part: usize) -> Self {
        residency.waiting[part].fetch_add(1, Ordering::Relaxed);
        NeedsPart(residency.clone(), part)
    }
}

/// Places in [`Residency::waiting`].
const ENCODERS: usize = 0;
const MODULATION: usize = 1;

impl Drop for NeedsPart {
    fn drop(&mut self) {
        self.0.waiting[self.1].fetch_sub(1, Ordering::Relaxed);
    }
}

impl Residency {
    /// Nothing is on the GPU yet.
    pub fn new(model: &Model) -> Self {
        Residency {
            denoiser: Locked::default(),
            modulation: Locked::default(),
            text_encoders: Locked::default(),
            keeps_all_parts: model.options.keeps_all_parts(&model.parts).into(),
            waiting: Default::default(),
        }
    }

    fn state(&self, part: Part) -> &Locked<PartState> {
        match part {
            Part::TextEncoders => &self.text_encoders,
            Part::Modulation => &self.modulation,
            Part::Denoiser => &self.denoiser,
        }
    }

    /// Whether all weights of a part are on the GPU.
    pub fn is_loaded(&self, part: Part) -> bool {
        matches!(*self.state(part).lock(), PartState::Loaded)
    }

    /// Whether text encoders and modulations stay on the GPU after their work is done.
    pub fn keeps_all_parts(&self) -> bool {
        self.keeps_all_parts.load(Ordering::Relaxed)
    }

    /// From now on they leave the GPU after their work: there is too little memory.
    pub fn stop_keeping_all_parts(&self) {
        self.keeps_all_parts.store(false, Ordering::Relaxed);
    }

    /// Whether a run needs the text encoders next.
    pub fn text_encoders_are_wanted(&self) -> bool {
        self.waiting[ENCODERS].load(Ordering::Relaxed) > 0
    }

    /// Whether a run needs the layers that make modulations next.
    pub fn modulation_is_wanted(&self) -> bool {
        self.waiting[MODULATION].load(Ordering::Relaxed) > 0
    }

    /// Frees a part's weights.
    pub fn free(&self, model: &Model, device: &Device, part: Part) {
        drop(self.state(part).take());
        model.parts.residents_of(part).for_each(|id| device.store.free(id));
    }

    /// Uploads the next weights of a part; `None` when all are on the GPU.
    pub async fn upload_next(
        &self,
        model: &Model,
        device: &Device,
        part: Part,
    ) -> Result<Option<Event>, Error> {
        let state = self.state(part);
        let mut progress = match state.take() {
            PartState::Loaded => {
                state.set(PartState::Loaded);
                return Ok(None);
            }
            PartState::Partial(progress) => progress,
            PartState::Absent => Default::default(),
        };
        let tensors = model.parts.uploads_of(part);
        let turns = Turns::new();
        let start = progress.bytes;
        while progress.bytes - start < BYTES_PER_EVENT
            && let Some((weights, upload)) = tensors.get(progress.tensors).copied()
        {
            progress.upload(model, device, weights, upload, &turns).await?;
            progress.bytes += upload.bytes();
            progress.tensors += 1;
        }
        let bytes = progress.bytes;
        if progress.tensors == tensors.len() {
            progress.uploads.finish(&device.gpu).await?;
            state.set(PartState::Loaded);
        } else {
            state.set(PartState::Partial(progress));
        }
        Ok(Some(Event::Loading { part, bytes, of: model.parts.bytes_of(part) }))
    }
}

impl Progress {
    /// Uploads one tensor. Reads, packs and hands over one tile of outputs at a time, so that no second copy of a
    /// weight is ever in host memory.
    async fn upload(
        &mut self,
        model: &Model,
        device: &Device,
        weights: &Weights,
        upload: &Upload,
        turns: &Turns,
    ) -> Result<(), Error> {
        if model.is_random {
            return self.random.fill(device, upload).await;
        }
        let (source, Device { gpu, store, .. }) = (&*model.source, device);
        let Progress { uploads, packer, .. } = self;
        match upload {
            Upload::Vector { resident, tensor, rows } => {
                let mut values = read(source, || weights.tensor_f32(tensor)).await?;
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
                let mut values = read(source, deviations).await?;
                values.extend(read(source, || weights.tensor_f32(mean)).await?);
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
                        read(source, pack).await?;
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
