//! What of a model is on the GPU, and how it gets there: a piece at a time, so that progress can be shown.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::device::Device;
use super::memory_budget::Limit;
use super::model::Model;
use super::packing::Packers;
use super::placement::Placement;
use super::random_weights::RandomWeights;
use super::streaming::Streaming;
use super::{Error, Event, Part};
use crate::checkpoint::pack::vector;
use crate::checkpoint::source::read;
use crate::checkpoint::weights::Weights;
use crate::gpu::{Pauses, Uploads};
use crate::models::layers::Upload;
use crate::sync::Locked;
use crate::tensor::Resident;
use crate::turns::Turns;

/// Bytes uploaded between two progress events.
const BYTES_PER_EVENT: u64 = 64 << 20;
/// Of a part's bytes on the GPU, this share is enough staging memory: it is new memory, which the system has to clear, and more
/// of it takes longer than a small part's weights.
const STAGING_SHARE: u64 = 8;

/// Which of a model's parts are on the GPU, and which of them stay there.
///
/// Only the run whose turn it is uploads and frees.
pub(super) struct Residency {
    /// Denoiser and decoder.
    denoiser: Locked<PartState>,
    modulation: Locked<PartState>,
    text_encoders: Locked<PartState>,
    keeps_all_parts: AtomicBool,
    /// What runs may take.
    limit: Locked<Option<Limit>>,
    /// What low-rank changes are multiplied by now, for each of their files.
    change_weights: Locked<Vec<f64>>,
    /// Blocks that come and go.
    pub streaming: Streaming,
    /// How many runs have texts that are not encoded yet, and how many have no modulations yet.
    waiting: [AtomicUsize; 2],
    /// How many runs are under way.
    working: AtomicUsize,
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
struct Progress {
    tensors: usize,
    bytes: u64,
    uploads: Uploads,
    packers: Packers,
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

/// A run is under way: until this is dropped, what it works with stays.
pub(super) struct Working(Arc<Residency>);

impl Working {
    /// Notes that one more run is under way.
    pub fn new(residency: &Arc<Residency>) -> Self {
        residency.working.fetch_add(1, Ordering::Relaxed);
        Working(residency.clone())
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.0.working.fetch_sub(1, Ordering::Relaxed);
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
            limit: Locked::new(model.options.memory_budget.bytes().map(Limit::fixed)),
            change_weights: Locked::default(),
            streaming: Streaming::default(),
            waiting: Default::default(),
            working: AtomicUsize::new(0),
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

    /// What runs may take, if that is limited.
    pub fn limit(&self) -> Option<Limit> {
        self.limit.get()
    }

    /// Limits what runs may take from now on.
    pub fn set_limit(&self, limit: Option<Limit>) {
        self.limit.set(limit);
    }

    /// Multiplies low-rank changes by `weights`, one for each of their files, from the next submission on. Only the run whose
    /// turn it is does so.
    pub async fn use_change_weights(
        &self,
        model: &Model,
        device: &Device,
        weights: &[f64],
    ) -> Result<(), Error> {
        if *self.change_weights.lock() == weights {
            return Ok(());
        }
        // If this is dropped in the middle, the next call begins again.
        drop(self.change_weights.take());
        for part in Part::ALL {
            let uploaded = match &*self.state(part).lock() {
                PartState::Absent => 0,
                PartState::Partial(progress) => progress.tensors,
                PartState::Loaded => usize::MAX,
            };
            for (_, upload) in model.parts.uploads_of(part).into_iter().take(uploaded) {
                if let Upload::FactorScales { resident, stack } = upload {
                    device.write(resident, &stack.scales(weights)).await?;
                }
            }
        }
        self.change_weights.set(weights.to_vec());
        Ok(())
    }

    /// Frees everything, and streams what `placement` says from now on.
    pub fn set_placement(&self, model: &Model, device: &Device, placement: Placement) {
        Part::ALL.into_iter().for_each(|part| self.free(model, device, part));
        self.keeps_all_parts.store(placement.keeps_all_parts, Ordering::Relaxed);
        self.streaming.set_placement(placement);
    }

    /// From now on they leave the GPU after their work: there is too little memory.
    pub fn stop_keeping_all_parts(&self) {
        self.keeps_all_parts.store(false, Ordering::Relaxed);
    }

    /// Whether no more than one run is under way.
    pub fn has_one_run(&self) -> bool {
        self.working.load(Ordering::Relaxed) <= 1
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
        self.streaming.forget(part);
    }

    /// Uploads the next weights of a part; `None` when all are on the GPU.
    pub async fn upload_next(
        &self,
        model: &Model,
        device: &Device,
        part: Part,
    ) -> Result<Option<Event>, Error> {
        let state = self.state(part);
        let placement = self.streaming.placement();
        let mut progress = match state.take() {
            PartState::Loaded => {
                state.set(PartState::Loaded);
                return Ok(None);
            }
            PartState::Partial(progress) => progress,
            PartState::Absent => {
                self.streaming.create_slots(model, device, part).await?;
                let resident = placement.bytes_of(&model.parts, part).resident;
                let staging = placement.staging_bytes().min(resident / STAGING_SHARE);
                Box::new(Progress::new(staging))
            }
        };
        let tensors = model.parts.uploads_of(part);
        let change_weights = self.change_weights.lock().clone();
        let turns = Turns::new();
        let start = progress.bytes;
        while progress.bytes - start < BYTES_PER_EVENT
            && let Some((weights, upload)) = tensors.get(progress.tensors).copied()
        {
            if !placement.is_streamed(part, progress.tensors) {
                let from = (weights, &change_weights[..]);
                progress.upload(model, device, from, upload, &turns).await?;
                progress.bytes += upload.bytes();
            }
            progress.tensors += 1;
        }
        let bytes = progress.bytes;
        if progress.tensors == tensors.len() {
            progress.uploads.finish(&device.gpu).await?;
            state.set(PartState::Loaded);
        } else {
            state.set(PartState::Partial(progress));
        }
        let of = placement.bytes_of(&model.parts, part).resident;
        Ok(Some(Event::Loading { part, bytes, of }))
    }
}

impl Progress {
    /// Nothing yet. Uploads take `staging_bytes` of staging memory.
    fn new(staging_bytes: u64) -> Self {
        Progress {
            tensors: 0,
            bytes: 0,
            uploads: Uploads::within(staging_bytes),
            packers: Packers::default(),
            random: RandomWeights::default(),
        }
    }

    /// Uploads one tensor. Reads, packs and hands over one tile of outputs at a time, so that no second copy of a
    /// weight is ever in host memory.
    async fn upload(
        &mut self,
        model: &Model,
        device: &Device,
        (weights, change_weights): (&Weights, &[f64]),
        upload: &Upload,
        turns: &Turns,
    ) -> Result<(), Error> {
        if model.is_random {
            return self.random.fill(device, upload).await;
        }
        let (source, Device { gpu, store, .. }) = (&*model.source, device);
        let Progress { uploads, packers, .. } = self;
        match upload {
            Upload::Vector { resident, sources } => {
                let values = read(source, || vector(weights, sources)).await?;
                self.write_vector(device, resident, values).await?;
            }
            Upload::Scales { resident, sources } => {
                // The weight comes next, and is quantised with the same scales.
                packers.measure(source, weights, sources, turns).await?;
                let values = read(source, || packers.first().scales(weights, sources)).await?;
                self.write_vector(device, resident, values).await?;
            }
            Upload::BatchNorm { resident, mean, variance, eps } => {
                let deviations = || weights.standard_deviations(variance, *eps);
                let mut values = read(source, deviations).await?;
                values.extend(read(source, || weights.tensor_f32(mean)).await?);
                store.create(gpu, resident).await?;
                let bytes = bytemuck::cast_slice(&values);
                uploads.write(gpu, store, resident.id, 0, 0, bytes).await?;
            }
            Upload::FactorScales { resident, stack } => {
                self.write_vector(device, resident, stack.scales(change_weights)).await?;
            }
            Upload::Factor { weight, stack, factor } => {
                store.create_packed(gpu, weight).await?;
                for (i, shard) in weight.shards.iter().enumerate() {
                    let mut offset = 0;
                    for first in (shard.row0..shard.row0 + shard.rows).step_by(weight.tile) {
                        let row = |i, row: &mut [f32]| factor.row(stack, i, row);
                        let bytes = packers.first().computed(weight, first, row);
                        uploads.write(gpu, store, weight.id, i, offset, bytes).await?;
                        offset += bytes.len() as u64;
                        turns.yield_if_due().await;
                    }
                }
            }
            Upload::Packed { weight, sources } => {
                store.create_packed(gpu, weight).await?;
                let from = (weights, weight, &sources[..]);
                let way = (&*uploads, &Pauses::none());
                packers.upload(source, device, from, way, turns, |_| {}).await?;
            }
        }
        Ok(())
    }

    /// Uploads numbers, padded with zeros.
    async fn write_vector(
        &mut self,
        Device { gpu, store, .. }: &Device,
        resident: &Resident,
        mut values: Vec<f32>,
    ) -> Result<(), Error> {
        values.resize(resident.cols, 0.0);
        store.create(gpu, resident).await?;
        let bytes = bytemuck::cast_slice(&values);
        Ok(self.uploads.write(gpu, store, resident.id, 0, 0, bytes).await?)
    }
}
