//! The front: opens a model on a device, and starts runs.

use std::sync::Arc;

use super::context::RunContext;
use super::model::{Model, Options};
use super::run::Run;
use super::run_cache::RunCache;
use super::{Error, Event, LatentColors, Part, Request, Settings};
use crate::checkpoint::source::Source;
use crate::gpu::Gpu;
use crate::models::adapters::LoraWeight;
use crate::models::config::ModelConfig;
use crate::workers::Workers;

/// A model, ready to draw. Opened once, it serves any number of requests.
///
/// It is a handle: clones share the model, the device and all memory on it, and so do the runs that it starts. Natively it
/// can be sent to and used from any thread.
#[derive(Clone)]
pub struct Pipeline(Arc<RunContext>);

/// What a pipeline's bytes on the GPU are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// Weights.
    pub weights_bytes: u64,
    /// The pool of temporaries that all programs share.
    pub pool_bytes: u64,
    /// Latents, embeddings, positions, pixels and caches.
    pub states_bytes: u64,
}

impl Pipeline {
    /// Opens a diffusers folder. Reads configurations, tokenizers and the headers of all checkpoints, and
    /// checks every weight; uploads nothing yet.
    pub fn open(gpu: Gpu, source: Box<dyn Source>, options: Options) -> Result<Self, Error> {
        let model = Model::open(source, options, gpu.caps().max_binding_bytes)?;
        Ok(Pipeline::from_parts(gpu, Arc::new(model), RunCache::default()))
    }

    /// Like [`Pipeline::open`], for a source whose bytes have to be fetched.
    pub async fn fetch(gpu: Gpu, source: Box<dyn Source>, options: Options) -> Result<Self, Error> {
        let model = Model::fetch(source, options, gpu.caps().max_binding_bytes).await?;
        Ok(Pipeline::from_parts(gpu, Arc::new(model), RunCache::default()))
    }

    /// A model of `config` with random weights, which are made on the GPU: it draws noise as fast as the real one draws
    /// pictures, and takes as much memory. It has no text encoders and reads no prompt. `name` is what it is called.
    ///
    /// Weights are kept in 16 bits, or in 32 if [`Options::precision`] says so.
    ///
    /// # Errors
    ///
    /// If the kernels cannot do the model's widths.
    pub fn random(
        gpu: Gpu,
        config: ModelConfig,
        name: &str,
        options: Options,
    ) -> Result<Self, Error> {
        let model = Model::random(config, name, options, gpu.caps().max_binding_bytes)?;
        Ok(Pipeline::from_parts(gpu, Arc::new(model), RunCache::default()))
    }

    fn from_parts(gpu: Gpu, model: Arc<Model>, cache: RunCache) -> Self {
        let precision = model.options.precision;
        let gpu = gpu.with_caps(|caps| *caps = precision.limit(*caps));
        Pipeline(Arc::new(RunContext::new(gpu, model, cache)))
    }

    /// Moves the model to another device, after the first was lost. Tokenizers, checked weights, encoded texts and learnt
    /// colours stay; the next run uploads the weights again.
    ///
    /// Clones of this handle and runs that it has started stay with the first device. A run whose device is lost ends with
    /// [that error](Error::is_lost) when it is pulled next; give its [checkpoint](Run::checkpoint) to a new one. They also
    /// hold the first device's memory, so drop them.
    pub async fn revive(self, gpu: Gpu) -> Result<Self, Error> {
        let model = self.0.model.cut_for(gpu.caps().max_binding_bytes).await?;
        let revived = Pipeline::from_parts(gpu, model, self.0.cache.for_other_device());
        revived.0.change_weights.set(self.0.change_weights.lock().clone());
        revived.set_workers(self.0.device.workers.lock().clone());
        Ok(revived)
    }

    /// Has threads of the host pack the weights that are loaded or streamed from now on, several tiles at a time. Without them
    /// the thread does it that polls.
    pub fn set_workers(&self, workers: Arc<dyn Workers>) {
        self.0.device.workers.set(workers);
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.0.model
    }

    /// The model's configuration.
    pub fn config(&self) -> &ModelConfig {
        self.0.model.config()
    }

    /// The device.
    pub fn gpu(&self) -> &Gpu {
        &self.0.device.gpu
    }

    /// What the model is called: its folder.
    pub fn model_name(&self) -> String {
        self.0.model.name()
    }

    /// What the bytes that are on the GPU now are for.
    pub fn memory_use(&self) -> MemoryUse {
        let RunContext { model, device, residency, .. } = &*self.0;
        let loaded = Part::ALL.into_iter().filter(|part| residency.is_loaded(*part));
        let placement = residency.streaming.placement();
        let of = |part| placement.bytes_of(&model.parts, part).total();
        let weights_bytes = loaded.map(of).sum();
        let pool_bytes = device.pool.bytes();
        let alive = device.gpu.counters().bytes_alive;
        let states_bytes = alive.saturating_sub(weights_bytes + pool_bytes);
        MemoryUse { weights_bytes, pool_bytes, states_bytes }
    }

    /// The colours that estimates are shown in, as learnt so far.
    pub fn latent_colors(&self) -> LatentColors {
        self.0.cache.colors.lock().clone()
    }

    /// Gives colours that were learnt before from the same VAE.
    pub fn set_latent_colors(&self, colors: LatentColors) {
        self.0.cache.colors.set(colors);
    }

    /// Multiplies the changes of LoRAs by other weights, one for each file in the order in which they were given, in runs that
    /// are started from now on. Nothing is loaded or compiled again.
    ///
    /// # Errors
    ///
    /// If there are more or fewer files; if a weight is not finite; and if a file has changes that are merged into weights
    /// ([`AdapterReport::has_merged`](crate::models::adapters::AdapterReport::has_merged)), or was opened with a weight of 0, which
    /// leaves it out: then open the model again.
    pub fn set_lora_weights(&self, weights: &[LoraWeight]) -> Result<(), Error> {
        let own = self.0.model.source.change_weights();
        if weights.len() != own.len() {
            let expected = format!("{}, as many as LoRAs were opened", own.len());
            return Err(Error::setting("the number of LoRA weights", weights.len(), expected));
        }
        let fixed = self.0.model.source.fixed_changes();
        for (i, (weight, own)) in weights.iter().zip(&own).enumerate() {
            let stages = weight.stages();
            if stages.iter().any(|weight| !weight.is_finite()) {
                return Err(Error::setting("a LoRA's weight", weight, "a finite number"));
            }
            let is_fixed = fixed.contains(&i) || *own == [0.0; 3];
            if is_fixed && stages != *own {
                let expected = "the one that it was opened with, as its changes are merged into weights, or were left out; open \
                                the model again with another one";
                return Err(Error::setting("a LoRA's weight", weight, expected));
            }
        }
        self.0.change_weights.set(weights.iter().map(|weight| weight.stages()).collect());
        Ok(())
    }

    /// What `request` means for this model.
    pub fn settings(&self, request: &Request) -> Result<Settings, Error> {
        Settings::resolve(request, self.config())
    }

    /// Checks a request and starts it. Nothing happens until the first [`Run::next`]; dropping the run cancels it.
    ///
    /// A pipeline may have any number of runs at once, in any tasks and threads. They take turns, a call of [`Run::next`]
    /// each, and draw what they draw alone; together they need the memory of all. A run may outlive the pipeline.
    pub fn start(&self, request: Request) -> Result<Run, Error> {
        Run::new(self.0.clone(), request)
    }

    /// Uploads a part now rather than in the first run that needs it. Text encoders that do not stay on the GPU are
    /// still there when the next prompt is encoded. `progress` gets [`Event::Loading`]s.
    ///
    /// Where memory is limited, or the adapter says that it has too little, this does nothing: what stays on the GPU then
    /// depends on the run.
    pub async fn load(&self, part: Part, mut progress: impl FnMut(Event)) -> Result<(), Error> {
        if !self.0.has_room_for(part) {
            return Ok(());
        }
        loop {
            let event = {
                let _turn = self.0.turn.lock().await;
                self.0.upload_next(part).await?
            };
            match event {
                Some(event) => progress(event),
                None => return Ok(()),
            }
        }
    }
}
