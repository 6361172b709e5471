//! The engine on a thread of its own, for programs that must not wait: windows, servers, modules of other languages.
//!
//! Commands go in by the methods of [`Engine`], and are done one after the other; [`EngineEvent`]s come out.
//!
//! ```no_run
//! use ralu_host::engine::{Engine, EngineEvent, EngineOptions, OpenModel};
//! use ralu_host::{Device, End};
//!
//! let (tell, events) = std::sync::mpsc::channel();
//! let device = Device::adapter(ralu::AdapterChoice::default(), None);
//! let engine = Engine::start(device, EngineOptions::default(), move |event| {
//!     let _ = tell.send(event);
//! })?;
//! engine.open(OpenModel::new("models/tiny-flux"));
//! let job = engine.generate(ralu::Request::new("a fox on a purple background"));
//! for event in events {
//!     match event {
//!         EngineEvent::Event { event: ralu::Event::Image { picture, .. }, .. } => {
//!             println!("{} x {} pixels", picture.width, picture.height);
//!         }
//!         EngineEvent::Ended(ended) if ended.job == job => {
//!             if let End::Failed(error) = ended.end {
//!                 println!("{error}");
//!             }
//!             break;
//!         }
//!         _ => {}
//!     }
//! }
//! # Ok::<(), std::io::Error>(())
//! ```

mod event;
mod opening;
mod worker;

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use ralu::models::adapters::Lora;
use ralu::models::files::ModelPaths;
use ralu::models::quantise::QuantiseChoice;
use ralu::pipeline::{LatentColors, MemoryBudget, Options, Request};

use crate::cache_dir::CacheDir;
use crate::device::Device;
pub use event::{Ended, EngineEvent, ModelInfo, Started};
use worker::Worker;

/// How an engine works.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct EngineOptions {
    /// Where measured kernels and compiled pipelines are kept; `None` keeps nothing.
    pub cache: Option<CacheDir>,
    /// Whether kernels are chosen by measuring them, which takes seconds in the first run of a model on an adapter. Else
    /// the defaults run.
    pub tune: bool,
    /// How models are opened, but for what [`OpenModel`] says.
    pub pipeline: Options,
}

/// A model to open.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct OpenModel {
    /// Its folder or file.
    pub folder: PathBuf,
    /// Its parts in files of their own; [`ModelPaths::model`] in it is not looked at.
    pub parts: Option<ModelPaths>,
    /// The folder as the user named it, for [`ModelInfo::given`].
    pub given: Option<PathBuf>,
    /// What earlier runs learnt of its colours.
    pub colors: Option<LatentColors>,
    /// What is quantised while the model is loaded. `auto` goes by a picture of the model's own size.
    pub quantise: QuantiseChoice,
    /// How much of the GPU's memory its runs may take; `None` is what [`EngineOptions::pipeline`] says.
    pub memory_budget: Option<MemoryBudget>,
}

impl OpenModel {
    /// The model in a folder.
    pub fn new(folder: impl Into<PathBuf>) -> OpenModel {
        OpenModel {
            folder: folder.into(),
            parts: None,
            given: None,
            colors: None,
            quantise: QuantiseChoice::Off,
            memory_budget: None,
        }
    }
}

/// What the engine's thread is asked to do.
enum Command {
    Open(Box<OpenModel>),
    SetLoras(Vec<Lora>),
    Generate { job: u64, request: Box<Request>, resume: Option<Vec<u8>> },
    Tune { job: u64, request: Box<Request> },
    Close,
    DestroyDevice,
}

/// What reaches the engine's thread in the middle of a command.
#[derive(Default)]
struct Signals {
    cancelled: Mutex<Cancelled>,
    destroy: AtomicBool,
}

/// Jobs that are to stop.
#[derive(Default)]
struct Cancelled {
    /// All jobs up to this number.
    up_to: u64,
    jobs: BTreeSet<u64>,
}

impl Signals {
    fn change(&self, change: impl FnOnce(&mut Cancelled)) {
        // Nobody panics while holding it.
        if let Ok(mut cancelled) = self.cancelled.lock() {
            change(&mut cancelled);
        }
    }

    fn is_cancelled(&self, job: u64) -> bool {
        self.cancelled.lock().is_ok_and(|c| job <= c.up_to || c.jobs.contains(&job))
    }
}

/// The engine's thread, as the program sees it. Any thread may call its methods: none waits for the engine. Dropping it
/// cancels all jobs and waits until the thread has ended, which takes as long as the current slice of GPU work.
pub struct Engine {
    commands: Option<Sender<Command>>,
    signals: Arc<Signals>,
    jobs: AtomicU64,
    thread: Option<JoinHandle<()>>,
}

impl Engine {
    /// Starts the thread. It calls `tell` with everything that happens, so `tell` should hand that on and not work itself.
    ///
    /// # Errors
    ///
    /// If the system gives no thread.
    pub fn start(
        device: Device,
        options: EngineOptions,
        tell: impl FnMut(EngineEvent) + Send + 'static,
    ) -> io::Result<Engine> {
        let (commands, taken) = channel();
        let signals = Arc::new(Signals::default());
        let (tell, seen) = (Box::new(tell), signals.clone());
        // The model is opened on that thread, and stays there.
        let work = move || Worker::new(device, options, seen, tell).work(taken);
        let thread = thread::Builder::new().name("engine".into()).spawn(work)?;
        let (commands, thread) = (Some(commands), Some(thread));
        Ok(Engine { commands, signals, jobs: AtomicU64::new(0), thread })
    }

    /// Opens a model instead of the one that is open. Ends with [`EngineEvent::Opened`] or [`EngineEvent::OpenFailed`].
    pub fn open(&self, model: OpenModel) {
        self.command(Command::Open(Box::new(model)));
    }

    /// Gives the open model these LoRAs in place of its own, after the jobs that were asked for before. If only their weights
    /// differ, nothing is loaded or compiled again, unless a file's changes are merged into the model's weights or were left out
    /// because its weight was 0: then, as for other files, the model is opened again. Ends with [`EngineEvent::Opened`] or
    /// [`EngineEvent::LorasFailed`].
    pub fn set_loras(&self, loras: Vec<Lora>) {
        self.command(Command::SetLoras(loras));
    }

    /// Draws a request after the jobs that were asked for before. Gives the job's number; [`EngineEvent::Ended`] is its
    /// last event.
    pub fn generate(&self, request: Request) -> u64 {
        self.resume(request, None)
    }

    /// Like [`Engine::generate`], from the place that `checkpoint` says: what [`ralu::Checkpoint::to_bytes`] gave, also in
    /// another process. One that does not fit is a warning, and the request is drawn from the start.
    pub fn resume(&self, request: Request, checkpoint: Option<Vec<u8>>) -> u64 {
        let request = Box::new(request);
        self.job(|job| Command::Generate { job, request, resume: checkpoint })
    }

    /// Measures which kernels are fastest for the open model at the request's size, whatever was measured before, and
    /// uses them from then on. Gives the job's number.
    pub fn tune(&self, request: Request) -> u64 {
        let request = Box::new(request);
        self.job(|job| Command::Tune { job, request })
    }

    /// Cancels a job: the current one after the current slice of GPU work, a later one before it begins. One that is over
    /// stays as it is.
    pub fn cancel(&self, job: u64) {
        self.signals.change(|cancelled| {
            cancelled.jobs.insert(job);
        });
    }

    /// Cancels all jobs that were asked for so far.
    pub fn cancel_all(&self) {
        let last = self.jobs.load(Ordering::Acquire);
        self.signals.change(|cancelled| cancelled.up_to = cancelled.up_to.max(last));
    }

    /// Closes the model after the jobs that were asked for before, and frees its memory. Ends with
    /// [`EngineEvent::Closed`].
    pub fn close(&self) {
        self.command(Command::Close);
    }

    /// Destroys the device, as if its driver had taken it away: at the next event of the current job, or else at once.
    pub fn destroy_device(&self) {
        self.signals.destroy.store(true, Ordering::Release);
        self.command(Command::DestroyDevice);
    }

    /// Whether the thread is there to do what it is asked to. It ends before the engine is dropped only by a panic.
    pub fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    fn job(&self, command: impl FnOnce(u64) -> Command) -> u64 {
        let job = self.jobs.fetch_add(1, Ordering::AcqRel) + 1;
        self.command(command(job));
        job
    }

    fn command(&self, command: Command) {
        if let Some(commands) = &self.commands {
            // Fails if the thread is gone, which `is_running` tells.
            let _ = commands.send(command);
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.signals.change(|cancelled| cancelled.up_to = u64::MAX);
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            // A panic of it was already shown.
            let _ = thread.join();
        }
    }
}
