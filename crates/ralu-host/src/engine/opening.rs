//! How the engine's thread opens models, and gives them other LoRAs.

use std::path::Path;

use ralu::gpu::Gpu;
use ralu::models::adapters::Lora;
use ralu::models::config::ModelConfig;
use ralu::models::family::TextLength;
use ralu::models::files::{ModelFiles, ModelPaths};
use ralu::models::quantise::QuantiseChoice;
use ralu::pipeline::{MemoryBudget, Options, Pipeline, Request, Settings};

use super::OpenModel;
use super::event::{EngineEvent, ModelInfo};
use super::worker::Worker;
use crate::error::Error;
use crate::session::Session;
use crate::threads::open_pipeline;
use crate::{memory, models, places};

/// An open model.
pub struct Open {
    pub session: Session,
    pub info: ModelInfo,
    /// How it was opened.
    pub options: Options,
    /// Whether its kernels were chosen.
    pub chosen: bool,
}

impl Open {
    pub fn source(&self) -> Result<ModelFiles, Error> {
        open_files(&self.info.folder, self.info.parts.as_ref())
    }

    /// Whether it has the files of `loras`, in that order.
    fn has_files(&self, loras: &[Lora]) -> bool {
        let own = self.info.parts.iter().flat_map(|parts| &parts.loras);
        own.map(|lora| &lora.file).eq(loras.iter().map(|lora| &lora.file))
    }

    /// Draws with the weights of `loras` from now on, which are its own files. False if it has to be opened again for that.
    fn has_taken_weights(&mut self, loras: &[Lora]) -> bool {
        let weights: Vec<_> = loras.iter().map(|lora| lora.weight).collect();
        let taken = self.session.pipeline().and_then(|p| p.set_lora_weights(&weights));
        if taken.is_err() {
            return false;
        }
        let own = self.info.parts.iter_mut().flat_map(|parts| &mut parts.loras);
        own.zip(&mut self.info.loras).zip(weights).for_each(|((lora, report), weight)| {
            (lora.weight, report.weight) = (weight, weight);
        });
        true
    }

    /// What opens it again with `loras`.
    fn with_loras(&self, loras: Vec<Lora>) -> OpenModel {
        let ModelInfo { folder, given, parts, quantise, .. } = &self.info;
        OpenModel {
            folder: folder.clone(),
            given: given.clone(),
            parts: Some(parts.clone().unwrap_or_default().with(|parts| parts.loras = loras)),
            colors: self.session.pipeline().ok().map(Pipeline::latent_colors),
            quantise: quantise.map_or(QuantiseChoice::Off, QuantiseChoice::To),
            memory_budget: Some(self.options.memory_budget),
        }
    }
}

/// The model whose folder or file that is, with parts in files of their own.
fn open_files(path: &Path, parts: Option<&ModelPaths>) -> Result<ModelFiles, Error> {
    let model = path.to_string_lossy().into_owned();
    let paths = parts.cloned().unwrap_or_default();
    Ok(models::open(&paths.with(|paths| paths.model = model))?)
}

impl Worker {
    pub(super) fn open(&mut self, model: OpenModel) {
        // Its memory first: two models may not fit.
        self.open = None;
        match self.opened(model) {
            Ok(open) => {
                (self.tell)(EngineEvent::Opened(Box::new(open.info.clone())));
                self.open = Some(open);
            }
            Err(error) => (self.tell)(EngineEvent::OpenFailed(error)),
        }
    }

    pub(super) fn set_loras(&mut self, loras: Vec<Lora>) {
        let Some(open) = &mut self.open else {
            return (self.tell)(EngineEvent::LorasFailed(Error::NoModel));
        };
        if !(open.has_files(&loras) && open.has_taken_weights(&loras)) {
            let model = open.with_loras(loras);
            match self.opened(model) {
                // Until its first run nothing of it is on the GPU, where the other one still may be.
                Ok(open) => self.open = Some(open),
                Err(error) => return (self.tell)(EngineEvent::LorasFailed(error)),
            }
        }
        if let Some(open) = &self.open {
            (self.tell)(EngineEvent::Opened(Box::new(open.info.clone())));
        }
    }

    fn opened(&mut self, model: OpenModel) -> Result<Open, Error> {
        let OpenModel { folder, parts, given, colors, quantise, memory_budget } = model;
        let source = open_files(&folder, parts.as_ref())?;
        // With the hashes of files of changes, for pictures.
        let parts = parts.map(|parts| parts.with(|parts| parts.loras = source.loras().to_vec()));
        let hash = places::hash(&source);
        if let (Some(cache), Some(hash)) = (&self.options.cache, &hash) {
            let model = folder.to_string_lossy().into_owned();
            let paths = parts.clone().unwrap_or_default().with(|paths| paths.model = model);
            places::remember(cache, hash, &paths);
        }
        let (notes, loras) = (source.notes().to_vec(), source.adapters().to_vec());
        let gpu = self.device.open()?;
        let adapter = gpu.report().clone();
        let options = self.options(quantise, memory_budget, &gpu, &source)?;
        let pipeline = open_pipeline(gpu, Box::new(source), options)?;
        if let Some(colors) = colors {
            pipeline.set_latent_colors(colors);
        }
        let config = pipeline.config();
        let info = ModelInfo {
            name: models::name_of(&folder),
            hash,
            folder,
            parts,
            given,
            notes,
            loras,
            has_guidance: config.transformer.has_guidance_input(),
            has_text_length: config.text_encoders.iter().any(|e| e.length == TextLength::Asked),
            defaults: config.defaults(),
            adapter,
            quantise: options.quantise,
            memory_budget: options.memory_budget,
        };
        Ok(Open { session: Session::new(pipeline), info, options, chosen: false })
    }

    /// How a model is opened of which that is quantised.
    fn options(
        &self,
        choice: QuantiseChoice,
        memory_budget: Option<MemoryBudget>,
        gpu: &Gpu,
        source: &ModelFiles,
    ) -> Result<Options, Error> {
        let mut options = self.options.pipeline;
        options.memory_budget = memory_budget.unwrap_or(options.memory_budget);
        options.quantise = match choice {
            QuantiseChoice::Off => options.quantise,
            QuantiseChoice::To(quantise) => Some(quantise),
            QuantiseChoice::Auto(_) => {
                let config = ModelConfig::load(source).map_err(ralu::Error::from)?;
                let settings = Settings::resolve(&Request::default(), &config)?;
                memory::choose(choice, gpu, &config, source, &settings, options)?.0
            }
        };
        Ok(options)
    }
}
