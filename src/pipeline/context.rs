//! What all runs of a pipeline share.

use std::sync::Arc;

use super::conditioning::Encoders;
use super::device::Device;
use super::memory_budget::usable_memory;
use super::model::Model;
use super::placement::Placement;
use super::residency::Residency;
use super::run_cache::{ProgramsKey, RunCache};
use super::streaming::Feeder;
use super::{Error, Event, MemoryBudget, Part};
use crate::gpu::Gpu;
use crate::sync::Locked;

/// A model on a device. Runs and pipelines own it together, so that each may outlive the others.
pub(super) struct RunContext {
    pub model: Arc<Model>,
    pub device: Device,
    pub residency: Arc<Residency>,
    pub cache: RunCache,
    /// What low-rank changes are multiplied by in the stages of runs that begin from now on, for each of their files.
    pub change_weights: Locked<Vec<[f64; 3]>>,
    /// Held by the run that works. Runs share weights, programs, temporaries and the queue.
    pub turn: async_lock::Mutex<()>,
}

impl RunContext {
    /// Nothing is on the device yet. The model's weights are cut for it.
    pub fn new(gpu: Gpu, model: Arc<Model>, cache: RunCache) -> Self {
        RunContext {
            device: Device::new(gpu, model.first_free_id),
            residency: Arc::new(Residency::new(&model)),
            cache,
            change_weights: Locked::new(model.source.change_weights()),
            turn: async_lock::Mutex::new(()),
            model,
        }
    }

    /// What brings the weights that are streamed.
    pub fn feeder(&self) -> Feeder<'_> {
        let RunContext { model, device, residency, .. } = self;
        Feeder { model, device, streaming: &residency.streaming }
    }

    /// Multiplies low-rank changes by `weights`, one for each of their files, from the next submission on.
    pub async fn use_change_weights(&self, weights: &[f64]) -> Result<(), Error> {
        self.residency.use_change_weights(&self.model, &self.device, weights).await
    }

    /// Streams what `placement` says. If that is something else than before, everything leaves the GPU, unless another run
    /// works with it: then the placement stays as it is.
    pub fn set_placement(&self, placement: Placement) {
        let is_same = *self.residency.streaming.placement() == placement;
        if is_same || !self.residency.has_one_run() {
            return;
        }
        self.free_programs();
        self.residency.set_placement(&self.model, &self.device, placement);
    }

    /// Where memory is limited, frees the denoiser and all that works on it before a part is loaded that may not fit next to
    /// it. Where the placement has room for both, only programs leave that are not `key`'s: it counts on those.
    pub fn make_room_for(&self, part: Part, key: &ProgramsKey) {
        let RunContext { model, device, residency, cache, .. } = self;
        let is_due = residency.limit().is_some()
            && !residency.keeps_all_parts()
            && residency.has_one_run()
            && !residency.is_loaded(part);
        if !is_due {
            return;
        }
        if residency.streaming.placement().keeps_denoiser {
            if !cache.holds_programs(key) {
                self.free_programs();
            }
            return;
        }
        if part == Part::TextEncoders {
            // They are of another text.
            cache.modulations.take();
        }
        if residency.is_loaded(Part::Denoiser) {
            self.free_programs();
            residency.free(model, device, Part::Denoiser);
        }
    }

    /// Whether a part can be loaded ahead of the run that needs it: memory is not limited, and what is free, if that is told,
    /// holds the part next to those that are loaded.
    pub fn has_room_for(&self, part: Part) -> bool {
        let RunContext { model, device, residency, .. } = self;
        let free = device.gpu.free_memory();
        let free = free.filter(|_| model.options.memory_budget == MemoryBudget::Auto);
        let wanted = Part::ALL.into_iter().filter(|p| *p == part || residency.is_loaded(*p));
        let bytes: u64 = wanted.map(|part| model.parts.bytes_of(part)).sum();
        let fits = |free: u64| bytes <= usable_memory(free + device.gpu.held_memory());
        residency.limit().is_none() && free.is_none_or(fits)
    }

    fn free_programs(&self) {
        self.cache.encoders.clear(&self.device.store);
        self.cache.forget_programs(&self.device.store);
        self.device.pool.clear();
    }

    /// The text encoders, for [`Prompts::encode`](super::conditioning::Prompts::encode).
    pub fn encoders(&self) -> Encoders<'_> {
        let RunContext { model, device, cache, .. } = self;
        let feeder = self.feeder();
        Encoders { model, device, feeder, memory: &cache.encoders, texts: &cache.texts }
    }

    /// Uploads the next weights of a part; `None` when all are on the GPU.
    pub async fn upload_next(&self, part: Part) -> Result<Option<Event>, Error> {
        self.residency.upload_next(&self.model, &self.device, part).await
    }

    /// Frees the text encoders' memory, unless there is enough for them to stay, or another run needs them next.
    pub fn release_text_encoders(&self) {
        if !self.residency.keeps_all_parts() && !self.residency.text_encoders_are_wanted() {
            self.free_text_encoders();
        }
    }

    fn free_text_encoders(&self) {
        self.cache.encoders.clear(&self.device.store);
        self.residency.free(&self.model, &self.device, Part::TextEncoders);
    }

    /// Frees the layers that make modulations, unless there is enough memory for them to stay, or another run needs them
    /// next.
    pub fn release_modulation(&self) {
        if !self.residency.keeps_all_parts() && !self.residency.modulation_is_wanted() {
            self.residency.free(&self.model, &self.device, Part::Modulation);
        }
    }

    /// Frees everything that a run can do without, after memory was short.
    pub fn make_room(&self) {
        self.residency.stop_keeping_all_parts();
        // A run that needs them loads them again.
        self.free_text_encoders();
        self.cache.modulations.take();
        self.residency.free(&self.model, &self.device, Part::Modulation);
        self.cache.forget_programs(&self.device.store);
        self.device.pool.clear();
    }
}
