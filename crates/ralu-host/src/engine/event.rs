//! What the engine tells.

use std::path::PathBuf;
use std::sync::Arc;

use ralu::gpu::{self, Counters};
use ralu::models::adapters::AdapterReport;
use ralu::models::config::Defaults;
use ralu::models::files::ModelPaths;
use ralu::models::quantise::Quantise;
use ralu::pipeline::tune::{TuningEvent, TuningRecord};
use ralu::pipeline::{
    Checkpoint, Event, LatentColors, MemoryBudget, MemoryUse, Plan, RunSchedule, Settings,
};

use crate::error::Error;
use crate::session::End;

/// Something happened on the engine's thread.
#[derive(Debug)]
#[non_exhaustive]
pub enum EngineEvent {
    /// A model is open, or the one that was open has other LoRAs.
    Opened(Box<ModelInfo>),
    /// A model could not be opened, and none is open now.
    OpenFailed(Error),
    /// The open model's LoRAs could not be changed: it is open as it was before.
    LorasFailed(Error),
    /// No model is open any more: [`super::Engine::close`] asked for it.
    Closed,
    /// Kernels are being measured, before a job's run begins.
    Tuning {
        /// The job's number.
        job: u64,
        /// What was measured.
        event: TuningEvent,
    },
    /// Kernels were measured.
    Tuned {
        /// The job's number.
        job: u64,
        /// The kernels that were chosen, and what was measured.
        record: Box<TuningRecord>,
        /// Where it is kept for later runs; `None` if it is not.
        file: Option<PathBuf>,
    },
    /// A job's run begins.
    Started(Box<Started>),
    /// Something happened in a job's run.
    Event {
        /// The job's number.
        job: u64,
        /// What happened in the run.
        event: Event,
        /// What the model's bytes on the GPU are for.
        memory: MemoryUse,
        /// What was created on the device so far.
        counters: Counters,
    },
    /// A job is over. This is its last event.
    Ended(Box<Ended>),
}

/// An open model, as far as it can be told.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ModelInfo {
    /// What it is called: the last part of its folder's path.
    pub name: String,
    /// Its folder or file.
    pub folder: PathBuf,
    /// What stands for its files, of [`crate::places::hash`]. Pictures carry it.
    pub hash: Option<String>,
    /// Its parts in files of their own. Pictures carry their names.
    pub parts: Option<ModelPaths>,
    /// The folder as the user named it; `None` if nobody did, as for the bundled model.
    pub given: Option<PathBuf>,
    /// What is to be said of its parts: which were found where, which are not used, what was assumed.
    pub notes: Vec<String>,
    /// What its LoRAs change, in the order of `parts`.
    pub loras: Vec<AdapterReport>,
    /// Whether it has an input for guidance.
    pub has_guidance: bool,
    /// Whether a request chooses how many tokens of its text are read.
    pub has_text_length: bool,
    /// What it draws with where a request does not say.
    pub defaults: Defaults,
    /// The adapter that it draws on.
    pub adapter: gpu::AdapterReport,
    /// What was quantised while it was loaded. Pictures carry it.
    pub quantise: Option<Quantise>,
    /// How much of the GPU's memory its runs may take.
    pub memory_budget: MemoryBudget,
}

/// A run that begins.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Started {
    /// The job's number.
    pub job: u64,
    /// Every choice of the run.
    pub settings: Settings,
    /// The stages of the run.
    pub schedule: RunSchedule,
    /// What it is going to take, if that can be told.
    pub plan: Option<Plan>,
    /// What draws it.
    pub model: ModelInfo,
    /// Whether it resumes another run from a checkpoint.
    pub is_resumed: bool,
}

/// A job that is over.
#[derive(Debug)]
#[non_exhaustive]
pub struct Ended {
    /// The job's number.
    pub job: u64,
    /// How it ended.
    pub end: End<Error>,
    /// Every choice of its run, `None` if the request made no sense or no model was open. With the checkpoint it is what
    /// another program needs to resume the run.
    pub settings: Option<Settings>,
    /// The place that the run came to.
    pub checkpoint: Option<Arc<Checkpoint>>,
    /// What was learnt of the model's colours so far.
    pub colors: Option<LatentColors>,
}
