//! The engine, on a thread of its own.
//!
//! The engine waits for the GPU, a window must not: so each has a thread, and both use one device. Orders go in, what
//! happened comes out, and the window is woken for it. Submissions are kept short ([`Gpu::yield_every`]), as frames
//! stand in the same queue.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use eframe::egui_wgpu::RenderState;
use ralu::checkpoint::source::{Folder, Source};
use ralu::gpu::{AdapterKind, AdapterReport, Counters, Gpu, block_on_while, describe};
use ralu::models::layers::Precision;
use ralu::pipeline::plan::{Plan, plan};
use ralu::pipeline::tune::{Tuner, TuningEvent, usual_seconds};
use ralu::pipeline::{
    Checkpoint, Error, Event, LatentColors, MemoryUse, Options, Pipeline, Request, RunSchedule,
    Settings,
};
use ralu::tensor::Tuning;
use ralu_host::{CacheDir, kernels, models, pipelines};

use crate::advice::with_advice;
use crate::loss::Loss;
use crate::unfinished::{At, Unfinished};

/// Longest submission in seconds: three of them are the longest that a frame waits. A processor computes frames and
/// pictures one after the other, and cutting its work finer costs more.
const SLICE_SECONDS: f64 = 0.006;
const SLICE_SECONDS_CPU: f64 = 0.08;

/// What the engine is asked to do.
pub enum Order {
    /// Open a model, the bundled one if no folder is given.
    Open(Option<PathBuf>, Option<LatentColors>),
    /// Draw, from where an earlier program was.
    Run(u64, Box<Request>, Box<At>),
    /// Close the device, which is then lost.
    Close,
}

/// What the engine tells.
pub enum Told {
    /// A model is open.
    Opened(Model),
    /// What is done before a run begins.
    Preparing(String),
    /// A run begins.
    Begun {
        job: u64,
        settings: Box<Settings>,
        schedule: Box<RunSchedule>,
        plan: Option<Box<Plan>>,
        /// What draws it.
        model: Box<Model>,
        /// Whether it goes on from where a run was whose GPU was lost.
        goes_on: bool,
    },
    /// Something happened in a run.
    Event { job: u64, event: Box<Event>, memory: MemoryUse, counters: Counters },
    /// A run is over: to its end, or stopped.
    Ended { job: u64, finished: bool, colors: LatentColors },
    /// Something failed, in a run or on opening a model.
    Failed { job: Option<u64>, message: String },
}

/// An open model, as far as the window wants to know.
#[derive(Clone, Debug)]
pub struct Model {
    pub name: String,
    /// As the user gave it; `None` is the bundled one.
    pub path: Option<PathBuf>,
    pub has_guidance: bool,
    /// Guidance that it has of its own.
    pub guidance: Option<f64>,
    pub true_cfg: f64,
    pub width: usize,
    pub height: usize,
    pub negative_prompt: Option<String>,
}

/// The engine's thread, seen from the window's.
pub struct Engine {
    orders: Option<Sender<Order>>,
    told: Receiver<Told>,
    /// Runs up to this number are to stop.
    stopped: Arc<AtomicU64>,
    /// Whether the device is to be closed.
    closing: Arc<AtomicBool>,
    jobs: u64,
    thread: Option<JoinHandle<()>>,
    pub adapter: AdapterReport,
}

impl Engine {
    /// Starts on the window's device, after `losses` of others. `wake` is called after everything that is told.
    pub fn start(
        render: &RenderState,
        loss: Loss,
        losses: u32,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> std::io::Result<Engine> {
        let (orders, taken) = channel();
        let (tell, told) = channel();
        let stopped = Arc::new(AtomicU64::new(0));
        let closing = Arc::new(AtomicBool::new(false));
        let adapter = describe(0, &render.adapter);
        let wake = Arc::new(wake);
        let worker = Worker {
            loss,
            losses,
            wake: wake.clone(),
            device: render.device.clone(),
            queue: render.queue.clone(),
            adapter: adapter.clone(),
            stopped: stopped.clone(),
            closing: closing.clone(),
            tell: Box::new(move |told| {
                let followed = matches!(&told, Told::Event { event, .. } if is_followed(event));
                // Nobody listens any more if the window is closed.
                let _ = tell.send(told);
                if !followed {
                    wake();
                }
            }),
        };
        let thread =
            std::thread::Builder::new().name("engine".into()).spawn(move || worker.work(&taken))?;
        let (orders, thread) = (Some(orders), Some(thread));
        Ok(Engine { orders, told, stopped, closing, jobs: 0, thread, adapter })
    }

    /// Opens a model.
    pub fn open(&self, folder: Option<PathBuf>, colors: Option<LatentColors>) {
        self.order(Order::Open(folder, colors));
    }

    /// Runs a request after those that were asked for before. Gives the run's number.
    pub fn run(&mut self, request: Request) -> u64 {
        self.go_on(request, At::default())
    }

    /// The same, from where another program was when its GPU was lost.
    pub fn go_on(&mut self, request: Request, at: At) -> u64 {
        self.jobs += 1;
        self.order(Order::Run(self.jobs, Box::new(request), Box::new(at)));
        self.jobs
    }

    /// Stops all runs that were asked for so far.
    pub fn stop(&self) {
        self.stopped.store(self.jobs, Ordering::Release);
    }

    /// What was told since it was last asked.
    pub fn told(&self) -> Vec<Told> {
        self.told.try_iter().collect()
    }

    /// Closes the device, as if a driver had taken it away: in the middle of a run, if there is one.
    pub fn close_device(&self) {
        self.closing.store(true, Ordering::Release);
        self.order(Order::Close);
    }

    fn order(&self, order: Order) {
        if let Some(orders) = &self.orders {
            // If the thread is gone, it has told why.
            let _ = orders.send(order);
        }
    }
}

impl Drop for Engine {
    /// Waits for the slice that is on the GPU, so that nobody uses the device while it goes.
    fn drop(&mut self) {
        self.stopped.store(u64::MAX, Ordering::Release);
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// An open model.
struct Open {
    pipeline: Pipeline,
    model: Model,
    folder: PathBuf,
    /// Whether its kernels were chosen.
    chosen: bool,
}

/// How a run came to its end.
enum End {
    Finished,
    /// Stopped, at the last checkpoint.
    Stopped(Option<Arc<Checkpoint>>),
    Failed(String, Option<Arc<Checkpoint>>),
}

impl End {
    fn failed(error: impl ToString) -> End {
        End::Failed(error.to_string(), None)
    }
}

struct Worker {
    loss: Loss,
    losses: u32,
    wake: Arc<dyn Fn() + Send + Sync>,
    device: eframe::wgpu::Device,
    queue: eframe::wgpu::Queue,
    adapter: AdapterReport,
    stopped: Arc<AtomicU64>,
    closing: Arc<AtomicBool>,
    tell: Box<dyn Fn(Told) + Send>,
}

impl Worker {
    fn work(&self, orders: &Receiver<Order>) {
        let mut open: Option<Open> = None;
        for order in orders {
            match order {
                Order::Open(folder, colors) => {
                    // Its memory first: two models may not fit.
                    open = None;
                    match self.open(folder.clone()) {
                        Ok(opened) => {
                            if let Some(colors) = colors {
                                opened.pipeline.set_latent_colors(colors);
                            }
                            (self.tell)(Told::Opened(opened.model.clone()));
                            open = Some(opened);
                        }
                        Err(message) => (self.tell)(Told::Failed { job: None, message }),
                    }
                }
                Order::Run(job, request, at) => match &mut open {
                    None => {
                        let message = "no model is open; give or drop a diffusers model folder";
                        (self.tell)(Told::Failed { job: Some(job), message: message.into() });
                    }
                    Some(open) => self.run(job, *request, &at, open),
                },
                Order::Close => {
                    self.device.destroy();
                    // Whoever waits for the device learns of it in `poll`, once nothing is under way on it any more.
                    for _ in 0..400 {
                        let _ = self.device.poll(eframe::wgpu::PollType::Poll);
                        if self.loss.reason().is_some() {
                            break;
                        }
                        std::thread::sleep(std::time::Duration::from_millis(5));
                    }
                }
            }
        }
    }

    /// The engine's view of the window's device.
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
        if let Some(cache) = CacheDir::find(None) {
            // They only save time. Whoever uses a lost device next learns of it.
            let _ = pipelines::restore(&gpu, &cache);
        }
        gpu
    }

    fn pipeline(&self, folder: &Path, tuning: Tuning) -> Result<Pipeline, String> {
        let gpu = self.gpu().with_caps(|caps| caps.tuning = tuning);
        let source = Folder::open(folder).map_err(|error| error.to_string())?;
        Pipeline::open(gpu, Box::new(source), Options::default())
            .map_err(|error| with_advice(&error))
    }

    fn open(&self, path: Option<PathBuf>) -> Result<Open, String> {
        let folder = path.clone().unwrap_or_else(bundled);
        let pipeline = self.pipeline(&folder, Tuning::default())?;
        let config = pipeline.config();
        let own = config.defaults();
        let model = Model {
            name: models::name_of(&folder),
            path,
            has_guidance: config.transformer.has_guidance_input(),
            guidance: own.guidance,
            true_cfg: own.true_cfg,
            width: own.width,
            height: own.height,
            negative_prompt: own.negative_prompt,
        };
        Ok(Open { pipeline, model, folder, chosen: false })
    }

    /// Chooses kernels before a model's first run, when nothing of it is on the GPU yet. Whether the run may go on.
    fn choose_kernels(
        &self,
        request: &Request,
        open: &mut Open,
        going: impl Fn() -> bool,
    ) -> Result<bool, String> {
        if open.chosen {
            return Ok(true);
        }
        let Open { pipeline, folder, .. } = open;
        let settings = pipeline.settings(request).map_err(|error| error.to_string())?;
        let source = Folder::open(&folder).map_err(|error| error.to_string())?;
        let gpu = pipeline.gpu();
        let seconds = usual_seconds(gpu);
        let precision = Precision::default();
        let tuner =
            Tuner::new(gpu, pipeline.config(), Some(&source), &settings, precision, seconds)
                .map_err(|error| error.to_string())?;
        let tell = |event: &TuningEvent| {
            if let TuningEvent::Measured { done, of, .. } = event {
                let text = format!("finding the fastest kernels, {done} of {of}");
                (self.tell)(Told::Preparing(text));
            }
        };
        let chosen = kernels::choose(gpu, tuner, CacheDir::find(None).as_ref(), going, tell);
        let chosen = chosen.map_err(|error| match error {
            ralu::gpu::Error::Lost { .. } => error.to_string(),
            _ => format!("kernels cannot be measured: {error}"),
        })?;
        let Some(tuning) = chosen.map(|chosen| chosen.tuning) else { return Ok(false) };
        if tuning != pipeline.gpu().caps().tuning {
            let colors = pipeline.latent_colors();
            open.pipeline = self.pipeline(folder, tuning)?;
            open.pipeline.set_latent_colors(colors);
        }
        open.chosen = true;
        Ok(true)
    }

    fn run(&self, job: u64, request: Request, at: &At, open: &mut Open) {
        let end = self.draw(job, request.clone(), at, open);
        if let End::Stopped(checkpoint) | End::Failed(_, checkpoint) = &end
            && self.is_lost(job)
            && let Ok(settings) = open.pipeline.settings(&request)
        {
            let at = at.lost_at(checkpoint.as_deref());
            self.loss.keep(Unfinished::new(&settings, &open.model, at));
        }
        (self.tell)(match end {
            End::Failed(message, _) => Told::Failed { job: Some(job), message },
            End::Finished | End::Stopped(_) => Told::Ended {
                job,
                finished: matches!(end, End::Finished),
                colors: open.pipeline.latent_colors(),
            },
        });
    }

    /// Whether a run ended because the device is gone, and not because somebody had stopped it.
    fn is_lost(&self, job: u64) -> bool {
        let stopped = self.stopped.load(Ordering::Acquire);
        self.loss.reason().is_some() && (stopped < job || stopped == u64::MAX)
    }

    fn draw(&self, job: u64, mut request: Request, at: &At, open: &mut Open) -> End {
        let going = || self.stopped.load(Ordering::Acquire) < job;
        let may_go = match going() {
            true => self.choose_kernels(&request, open, going),
            false => Ok(false),
        };
        let pipeline = &open.pipeline;
        match may_go {
            Ok(true) => {}
            Ok(false) => return End::Stopped(None),
            Err(message) => return End::Failed(message, None),
        }
        let mut warning = None;
        if let Some(bytes) = &at.checkpoint {
            let checkpoint = pipeline
                .settings(&request)
                .and_then(|settings| Checkpoint::read(bytes, &settings, pipeline.config()));
            match checkpoint {
                Ok(checkpoint) => request.resume = Some(Arc::new(checkpoint)),
                Err(error) => warning = Some(format!("it is drawn from the start: {error}")),
            }
        }
        let goes_on = request.resume.is_some();
        let mut run = match pipeline.start(request) {
            Ok(run) => run,
            Err(error) => return End::failed(error),
        };
        let settings = Box::new(run.settings().clone());
        let caps = pipeline.gpu().caps();
        // What it will take, from the configuration alone; that it cannot be told is no reason not to run.
        let source: Option<&dyn Source> = None;
        let planned = plan(pipeline.config(), source, &settings, caps, Options::default()).ok();
        let schedule = Box::new(run.schedule().clone());
        let (plan, model) = (planned.map(Box::new), Box::new(open.model.clone()));
        (self.tell)(Told::Begun { job, settings, schedule, plan, model, goes_on });
        let tell = |event| {
            (self.tell)(Told::Event {
                job,
                event: Box::new(event),
                memory: pipeline.memory_use(),
                counters: pipeline.gpu().counters(),
            });
        };
        warning.map(Event::Warning).into_iter().for_each(tell);
        loop {
            if self.closing.load(Ordering::Acquire) {
                self.device.destroy();
            }
            match block_on_while(pipeline.gpu(), run.next(), going) {
                None => return End::Stopped(run.checkpoint()),
                Some(Ok(Some(event))) => tell(event),
                Some(Ok(None)) => {
                    if let Some(cache) = CacheDir::find(None) {
                        pipelines::keep(pipeline.gpu(), &cache);
                    }
                    return End::Finished;
                }
                Some(Err(error)) => {
                    if error.is_lost() {
                        self.loss.note(&reason(&error));
                    }
                    return End::Failed(with_advice(&error), run.checkpoint());
                }
            }
        }
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
fn bundled() -> PathBuf {
    let program = std::env::current_exe().ok();
    let built = Path::new(env!("CARGO_MANIFEST_DIR"));
    let found = models::find_bundled(program.as_deref().into_iter().chain([built]));
    // Messages then say what is missing.
    found.unwrap_or_else(|| models::BUNDLED.into())
}
