//! The engine on the window's device.
//!
//! The engine waits for the GPU, a window must not: so the engine has a thread ([`ralu_host::engine`]), and both use one
//! device. The window is woken for what happens. Submissions are kept short ([`Gpu::yield_every`]), as frames stand in
//! the same queue.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};

use eframe::egui_wgpu::RenderState;
use ralu::gpu::{self, AdapterKind, Gpu, describe};
use ralu::models::adapters::{AdapterReport, Lora, LoraWeight};
use ralu::models::files::ModelPaths;
use ralu::models::quantise::Quantise;
use ralu::pipeline::{Error, Event, MemoryBudget, Request};
use ralu_host::engine::{self, Ended, EngineEvent, EngineOptions, ModelInfo, OpenModel};
use ralu_host::{CacheDir, Device, End, models, pipelines};

use crate::loss::Loss;
use crate::unfinished::{At, Unfinished};

/// Longest submission in seconds: three of them are the longest that a frame waits. A processor computes frames and
/// pictures one after the other, and cutting its work finer costs more.
const SLICE_SECONDS: f64 = 0.006;
const SLICE_SECONDS_CPU: f64 = 0.08;

/// An open model, as far as the window wants to know.
#[derive(Clone, Debug)]
pub struct Model {
    pub name: String,
    /// As the user gave it; `None` is the bundled one.
    pub path: Option<PathBuf>,
    /// What stands for its files.
    pub hash: Option<String>,
    /// Its parts in files of their own.
    pub parts: Option<ModelPaths>,
    pub has_guidance: bool,
    /// The guidance that it has by default.
    pub guidance: Option<f64>,
    pub true_cfg: f64,
    pub width: usize,
    pub height: usize,
    pub negative_prompt: Option<String>,
    /// What it was quantised to while it was loaded.
    pub quantise: Option<Quantise>,
    /// What is to be said of its parts.
    pub notes: Vec<String>,
    /// What its LoRAs change.
    pub loras: Vec<AdapterReport>,
    /// Whether a request chooses how many tokens of its text are read.
    pub has_text_length: bool,
    pub memory_budget: MemoryBudget,
}

impl Model {
    /// Whether it is the model of a picture: of these paths, or of files with that hash, with the same changes to it.
    pub fn is(
        &self,
        path: &Option<PathBuf>,
        parts: &Option<ModelPaths>,
        hash: &Option<String>,
    ) -> bool {
        let changes = |parts: &Option<ModelPaths>| {
            let loras = parts.iter().flat_map(|parts| parts.loras.clone());
            loras.map(|lora| (lora.sha256, lora.weight)).collect::<Vec<_>>()
        };
        let is_same = hash.is_some() && *hash == self.hash;
        (&self.path, &self.parts) == (path, parts)
            || is_same && changes(&self.parts) == changes(parts)
    }

    /// Whether both are of the same files, quantised alike. Weights of LoRAs may differ.
    pub fn has_files_of(&self, other: &Model) -> bool {
        let files = |model: &Model| {
            let mut parts = model.parts.clone().unwrap_or_default();
            parts.loras.iter_mut().for_each(|lora| lora.weight = LoraWeight::default());
            (model.path.clone(), model.hash.clone(), parts, model.quantise)
        };
        files(self) == files(other)
    }
}

impl From<ModelInfo> for Model {
    fn from(info: ModelInfo) -> Model {
        Model {
            name: info.name,
            path: info.given,
            hash: info.hash,
            parts: info.parts.filter(|parts| !parts.is_model_alone()),
            has_guidance: info.has_guidance,
            guidance: info.defaults.guidance,
            true_cfg: info.defaults.true_cfg,
            width: info.defaults.width,
            height: info.defaults.height,
            negative_prompt: info.defaults.negative_prompt,
            quantise: info.quantise,
            notes: info.notes,
            loras: info.loras,
            has_text_length: info.has_text_length,
            memory_budget: info.memory_budget,
        }
    }
}

/// The engine, as the window sees it.
pub struct Engine {
    host: engine::Engine,
    events: Receiver<EngineEvent>,
    jobs: Arc<Jobs>,
    pub adapter: gpu::AdapterReport,
}

/// What the window's thread and the engine's both know of jobs.
#[derive(Default)]
struct Jobs {
    /// Jobs up to this number were stopped by the user.
    stopped: AtomicU64,
    /// The last job.
    last: AtomicU64,
    /// Where jobs were when an earlier program lost the GPU.
    places: Mutex<BTreeMap<u64, At>>,
}

impl Engine {
    /// Starts on the window's device, after `losses` of others. `wake` is called after everything that happens.
    pub fn start(
        render: &RenderState,
        loss: Loss,
        losses: u32,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> std::io::Result<Engine> {
        let adapter = describe(0, &render.adapter);
        let wake: Arc<dyn Fn() + Send + Sync> = Arc::new(wake);
        let jobs = Arc::new(Jobs::default());
        let (tell, events) = channel();
        let mut keeper = Keeper { loss: loss.clone(), jobs: jobs.clone(), model: None };
        let heard = wake.clone();
        let listener = move |event| {
            keeper.hear(&event);
            let followed = matches!(&event, EngineEvent::Event { event, .. } if is_followed(event));
            // Nobody listens any more if the window is closed.
            let _ = tell.send(event);
            if !followed {
                heard();
            }
        };
        let mut options = EngineOptions::default();
        options.cache = CacheDir::find(None);
        options.tune = true;
        let window = Window {
            device: render.device.clone(),
            queue: render.queue.clone(),
            adapter: adapter.clone(),
            loss,
            losses,
            wake,
            cache: options.cache.clone(),
        };
        let device = Device::shared(move || window.gpu());
        let host = engine::Engine::start(device, options, listener)?;
        Ok(Engine { host, events, jobs, adapter })
    }

    /// Opens a model.
    pub fn open(&self, model: OpenModel) {
        self.host.open(model);
    }

    /// Gives the open model these LoRAs in place of its own.
    pub fn set_loras(&self, loras: Vec<Lora>) {
        self.host.set_loras(loras);
    }

    /// Runs a request after those that were asked for before. Gives the job's number.
    pub fn run(&self, request: Request) -> u64 {
        self.resume(request, At::default())
    }

    /// The same, from where another program was when its GPU was lost.
    pub fn resume(&self, request: Request, at: At) -> u64 {
        // Held until the place is noted: the engine may be at its end before.
        let mut places = self.jobs.places.lock().ok();
        let job = self.host.resume(request, at.checkpoint.clone());
        if let Some(places) = &mut places {
            places.insert(job, at);
        }
        self.jobs.last.store(job, Ordering::Release);
        job
    }

    /// Stops all jobs that were asked for so far.
    pub fn stop(&self) {
        self.jobs.stopped.store(self.jobs.last.load(Ordering::Acquire), Ordering::Release);
        self.host.cancel_all();
    }

    /// What happened since it was last asked.
    pub fn events(&self) -> Vec<EngineEvent> {
        self.events.try_iter().collect()
    }

    /// Destroys the device, as if a driver had taken it away: in the middle of a run, if there is one.
    pub fn destroy_device(&self) {
        self.host.destroy_device();
    }
}

/// Keeps what a lost GPU ends, for the program that takes this one's place. On the engine's thread: the window's may be
/// at its end by then.
struct Keeper {
    loss: Loss,
    jobs: Arc<Jobs>,
    model: Option<Model>,
}

impl Keeper {
    fn hear(&mut self, event: &EngineEvent) {
        match event {
            EngineEvent::Opened(info) => self.model = Some(Model::from((**info).clone())),
            EngineEvent::Ended(ended) => self.ended(ended),
            _ => {}
        }
    }

    fn ended(&self, ended: &Ended) {
        let at = self.jobs.places.lock().ok().and_then(|mut places| places.remove(&ended.job));
        match &ended.end {
            End::Finished => return,
            End::Failed(ralu_host::Error::Run(error)) if error.is_lost() => {
                self.loss.note(&reason(error));
            }
            End::Cancelled | End::Failed(_) => {}
        }
        let is_stopped = ended.job <= self.jobs.stopped.load(Ordering::Acquire);
        if self.loss.reason().is_none() || is_stopped {
            return;
        }
        if let (Some(settings), Some(model)) = (&ended.settings, &self.model) {
            let at = at.unwrap_or_default().lost_at(ended.checkpoint.as_deref());
            self.loss.keep(Unfinished::new(settings, model, at));
        }
    }
}

/// The window's device, as the engine takes it over.
struct Window {
    device: eframe::wgpu::Device,
    queue: eframe::wgpu::Queue,
    adapter: gpu::AdapterReport,
    loss: Loss,
    losses: u32,
    wake: Arc<dyn Fn() + Send + Sync>,
    cache: Option<CacheDir>,
}

impl Window {
    /// The engine's view of the device.
    fn gpu(&self) -> Gpu {
        let gpu = Gpu::adopt(self.device.clone(), self.queue.clone(), self.adapter.clone());
        // Drivers take a device away that is busy with one piece of work for too long.
        let gpu = gpu.with_shorter_work(0.25f64.powi(self.losses.min(8) as i32));
        let (loss, wake) = (self.loss.clone(), self.wake.clone());
        gpu.when_lost(move |reason| {
            loss.note(reason);
            wake();
        });
        // The engine looks for its own errors in scopes. What is left over is a frame's: while a window changes its size,
        // one may be drawn that no longer fits. That is no reason to end a run, and the next frame fits.
        self.device.on_uncaptured_error(Arc::new(|error: eframe::wgpu::Error| {
            eprintln!("a frame was not drawn: {error}");
        }));
        gpu.yield_every(if self.adapter.kind == AdapterKind::Cpu {
            SLICE_SECONDS_CPU
        } else {
            SLICE_SECONDS
        });
        if let Some(cache) = &self.cache {
            // They only save time. A loss shows at the next use.
            let _ = pipelines::restore(&gpu, cache);
        }
        gpu
    }
}

/// Why the device was lost.
fn reason(error: &Error) -> String {
    match error {
        Error::Gpu(ralu::gpu::Error::Lost { reason }) => reason.clone(),
        _ => error.to_string(),
    }
}

/// Whether something else is told at once, so that one frame shows both: after a step, its estimate.
fn is_followed(event: &Event) -> bool {
    matches!(event, Event::Step(_))
}

/// The bundled model's folder: upwards from where this program lies, or where it was built.
pub fn bundled() -> PathBuf {
    let program = std::env::current_exe().ok();
    let built = Path::new(env!("CARGO_MANIFEST_DIR"));
    let found = models::find_bundled(program.as_deref().into_iter().chain([built]));
    // Messages then say what is missing.
    found.unwrap_or_else(|| models::BUNDLED.into())
}
