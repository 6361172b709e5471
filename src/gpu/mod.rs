//! The only module that touches wgpu: opens a device, holds memory, compiles recordings and runs them.
//!
//! [`Gpu`] is the device. [`Store`] holds what outlives a recording (weights, latents, inputs), [`SlotPool`]
//! the buffers that recordings share for their temporaries, and [`Program`] is a compiled recording.
//!
//! Nothing here blocks: results are awaited, under any executor (`poller` polls the device while a future waits).
//! [`block_on`] is one for native programs that have none, and sleeps inside the driver while the GPU works. wgpu reports
//! late and asynchronously, so everything that compiles, allocates or submits does so inside error scopes and returns an
//! [`Error`] that names the kernel.
//!
//! Low-level and unstable.

mod adapters;
#[cfg(not(target_arch = "wasm32"))]
mod block_on;
mod error;
mod faults;
mod feed;
mod in_flight;
mod int8;
mod matrices;
mod memory;
mod pipeline_cache;
#[cfg(not(target_arch = "wasm32"))]
mod poller;
mod profile;
mod program;
mod read_back;
mod shader;
mod shader_text;
mod signal;
mod simulated_clock;
mod spill;
mod store;
mod upload_speed;
mod uploads;

pub use adapters::{
    AdapterChoice, AdapterKind, AdapterPreference, AdapterReport, FeaturesPolicy, LimitsPolicy,
    caps_of, describe, device_descriptor, list_adapters,
};
#[cfg(not(target_arch = "wasm32"))]
pub use block_on::{block_on, block_on_while};
pub use error::{Error, human_bytes};
pub use faults::Faults;
pub use feed::{Feed, Pauses, Pieces};
pub use in_flight::Ticket;
pub(crate) use profile::RunProfiler;
pub use profile::{KernelTime, Profiler, ProgramTimes};
pub use program::{Program, SlotPool};
pub use read_back::ReadBack;
pub use shader::{Dialect, LIBRARY_FILES, SHADER_FILES, ShaderError, resolve as resolve_shader};
pub use simulated_clock::SimulatedClock;
pub(crate) use spill::staging_bytes as spill_staging_bytes;
pub use store::{Store, StreamedBlock};
pub use uploads::Uploads;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::sync::Locked;
use crate::tensor::{Access, Caps, PipelineKey, dispatch_flops};

/// How many GPU objects were created so far. A stage must not create any after its first step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Buffers.
    pub buffers: u64,
    /// Bind groups.
    pub bind_groups: u64,
    /// Compute pipelines.
    pub pipelines: u64,
    /// Bytes of all buffers alive now.
    pub bytes_alive: u64,
    /// The most bytes ever alive at once.
    pub bytes_peak: u64,
    /// Bytes of all staging buffers of uploads alive now; they are not among the others.
    pub staging_bytes: u64,
    /// The most bytes of buffers and staging buffers ever alive at once.
    pub bytes_peak_with_staging: u64,
    /// Submissions.
    pub submissions: u64,
    /// Bytes of weights that were uploaded.
    pub uploaded_bytes: u64,
}

/// How kernels of one signature are bound. They share it, so that a bind group stays valid from one to the next.
#[derive(Clone)]
pub(crate) struct Layout {
    pub(crate) bind_group: wgpu::BindGroupLayout,
    pipeline: wgpu::PipelineLayout,
}

/// Bytes of a dispatch's parameters in their program's buffer: WebGPU's alignment of uniform offsets, and more than
/// any kernel has.
pub(crate) const PARAMS_BYTES: u64 = 256;
/// Bytes of the smallest storage buffer: no kernel reads less at a time.
const LEAST_BUFFER_BYTES: u64 = 16;

/// An open device.
pub struct Gpu {
    pub(crate) device: wgpu::Device,
    pub(crate) queue: wgpu::Queue,
    report: AdapterReport,
    caps: Locked<Caps>,
    /// Kernels on cooperative matrices were tested on this adapter.
    matrices_tested: Locked<bool>,
    first_slice_flops: f64,
    /// [`Caps::max_dispatch_flops`] while the speed is not known.
    first_dispatch_flops: f64,
    /// How long work may be, of what it would be: see [`Gpu::with_shorter_work`].
    work_share: f64,
    in_flight: in_flight::InFlight,
    #[cfg(not(target_arch = "wasm32"))]
    poller: poller::Poller,
    pipeline_cache: Locked<Option<wgpu::PipelineCache>>,
    layouts: Locked<HashMap<Vec<Access>, Layout>>,
    pipelines: Locked<HashMap<String, Arc<wgpu::ComputePipeline>>>,
    lost: Arc<Mutex<Loss>>,
    uncaptured: Arc<Mutex<Option<String>>>,
    counters: Arc<Ledger>,
    /// Bytes that it can hold, where somebody has said it.
    assumed_memory: Locked<Option<u64>>,
    faults: Faults,
    timers: Locked<Option<profile::Timers>>,
    profiled: Locked<Vec<ProgramTimes>>,
}

/// Called with the driver's words.
type LossCallback = Box<dyn FnOnce(&str) + Send>;

/// Whether the device is lost, and who wants to know.
#[derive(Default)]
struct Loss {
    reason: Option<String>,
    tell: Option<LossCallback>,
}

/// Why a device is lost that was destroyed on purpose.
const CLOSED: &str = "it was closed";

impl Loss {
    /// Keeps the first reason, and calls back who wants to know.
    fn note(lost: &Mutex<Loss>, reason: String) {
        let tell = lost.lock().ok().and_then(|mut lost| {
            lost.reason.get_or_insert_with(|| reason.clone());
            lost.tell.take()
        });
        if let Some(tell) = tell {
            tell(&reason);
        }
    }
}

/// [`Counters`], shared with the buffers that report their own end.
#[derive(Default)]
pub(crate) struct Ledger(Mutex<Counters>);

impl Ledger {
    fn update(&self, change: impl FnOnce(&mut Counters)) {
        if let Ok(mut counters) = self.0.lock() {
            change(&mut counters);
            let Counters { bytes_alive, staging_bytes, .. } = *counters;
            counters.bytes_peak = counters.bytes_peak.max(bytes_alive);
            let most = &mut counters.bytes_peak_with_staging;
            *most = (*most).max(bytes_alive + staging_bytes);
        }
    }
}

/// A buffer that is counted while it lives.
pub(crate) struct Buffer {
    pub(crate) raw: wgpu::Buffer,
    pub(crate) bytes: u64,
    ledger: Arc<Ledger>,
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // Not only dropped but destroyed: bind groups may outlive it, the memory need not.
        self.raw.destroy();
        self.ledger.update(|c| c.bytes_alive -= self.bytes);
    }
}

impl Gpu {
    /// Opens the adapter that `choice` names, or the best one.
    pub async fn open(choice: &AdapterChoice) -> Result<Gpu, Error> {
        let adapters::Candidate { adapter, report } = adapters::choose(choice).await?;
        let descriptor = device_descriptor(&adapter, choice);
        let mut opened = adapter.request_device(&descriptor).await;
        if opened.is_err() && descriptor.experimental_features.is_enabled() {
            // A driver may list what it does not give.
            let plain = matrices::without_experiments(descriptor);
            opened = adapter.request_device(&plain).await;
        }
        let (device, queue) = opened.map_err(|error| Error::Open {
            adapter: report.name.clone(),
            reason: error.to_string(),
        })?;
        Ok(Gpu::adopt(device, queue, report))
    }

    /// Uses a device that the host program has opened, so that both draw on the same one: [`device_descriptor`] says
    /// what to open it with, and [`describe`] gives `report`. A host with a window says with [`Gpu::yield_every`] how
    /// often its frames want a turn.
    pub fn adopt(device: wgpu::Device, queue: wgpu::Queue, mut report: AdapterReport) -> Gpu {
        let lost: Arc<Mutex<Loss>> = Arc::default();
        let uncaptured: Arc<Mutex<Option<String>>> = Arc::default();
        let note = lost.clone();
        device.set_device_lost_callback(move |reason, message| {
            let message = match (reason, message.is_empty()) {
                // Also one that the host program has destroyed. After our own drop nobody asks any more.
                (wgpu::DeviceLostReason::Destroyed, _) => CLOSED.to_owned(),
                (wgpu::DeviceLostReason::Unknown, true) => "for unknown reasons".to_owned(),
                (wgpu::DeviceLostReason::Unknown, false) => message,
            };
            Loss::note(&note, message);
        });
        let note = uncaptured.clone();
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            if let Ok(mut first) = note.lock() {
                first.get_or_insert_with(|| error.to_string());
            }
        }));
        let limits = device.limits();
        report.max_buffer_bytes = limits.max_buffer_size;
        report.max_binding_bytes = limits.max_storage_buffer_binding_size;
        let mut caps = caps_of(&report, &limits, device.features());
        caps.subgroup_sizes = caps.subgroup_sizes.or_else(|| adapters::subgroups_of_page(&device));
        caps.int8_dot |= int8::of_page(&device);
        let is_cpu = caps.is_cpu;
        let first_dispatch_flops = caps.max_dispatch_flops;
        Gpu {
            device,
            queue,
            report,
            caps: Locked::new(caps),
            matrices_tested: Locked::default(),
            first_slice_flops: if is_cpu { 20e9 } else { 40e9 },
            first_dispatch_flops,
            work_share: 1.0,
            in_flight: Default::default(),
            #[cfg(not(target_arch = "wasm32"))]
            poller: Default::default(),
            pipeline_cache: Locked::default(),
            layouts: Locked::default(),
            pipelines: Locked::default(),
            lost,
            uncaptured,
            counters: Arc::default(),
            assumed_memory: Locked::default(),
            faults: Faults::default(),
            timers: Locked::default(),
            profiled: Locked::default(),
        }
    }

    /// Destroys the device and frees all its memory immediately: dropping its last owner leaves that to a browser's
    /// garbage collector. Whatever uses it afterwards finds it lost. Not for devices that others draw on, too.
    pub fn destroy(&self) {
        self.device.destroy();
        // wgpu says so only when all work has ended, but its buffers are gone at once: what meets them is no other error.
        Loss::note(&self.lost, CLOSED.to_owned());
    }

    /// What was opened.
    pub fn report(&self) -> &AdapterReport {
        &self.report
    }

    /// What recordings for this device may rely on.
    pub fn caps(&self) -> Caps {
        self.caps.get()
    }

    /// Overrides the capabilities, to try the code paths of smaller devices on this one.
    pub fn with_caps(self, change: impl FnOnce(&mut Caps)) -> Gpu {
        self.change_caps(change);
        self
    }

    /// Takes over what was learnt of `before`, an earlier device of the same adapter: kernels, whether products may round
    /// to f16 and to bytes, whether matrices were tested, and how much memory it was said to hold.
    pub fn learn_from(self, before: &Gpu) -> Gpu {
        let Caps { tuning, f16, int8_dot, .. } = before.caps();
        let driver = |gpu: &Gpu| (gpu.report.name.clone(), gpu.report.driver.clone());
        if driver(&self) == driver(before) {
            self.matrices_tested.set(before.matrices_tested.get());
            self.assumed_memory.set(before.assumed_memory.get());
        }
        self.with_caps(|caps| {
            caps.tuning = tuning;
            caps.f16 &= f16;
            caps.int8_dot &= int8_dot;
        })
    }

    /// Says that kernels on cooperative matrices were tested before on this adapter, with this driver: a run then uses them
    /// without a test of its own. If they were found to be wrong, `Caps::tuning` says so.
    pub fn trust_matrices(&self) {
        self.matrices_tested.set(true);
    }

    /// Whether recordings may use cooperative matrices that nobody has tested.
    pub(crate) fn must_test_matrices(&self) -> bool {
        self.caps().rounds_to_f16() && !self.matrices_tested.get()
    }

    /// Changes the capabilities for recordings from now on: one of them turned out not to hold.
    pub(crate) fn change_caps(&self, change: impl FnOnce(&mut Caps)) {
        let mut caps = self.caps.get();
        change(&mut caps);
        self.caps.set(caps);
    }

    /// What tests let go wrong.
    #[doc(hidden)]
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Makes every dispatch and submission `share` as long as it would be.
    pub fn with_shorter_work(mut self, share: f64) -> Gpu {
        self.change_caps(|caps| caps.max_dispatch_flops *= share);
        self.first_slice_flops *= share;
        self.first_dispatch_flops *= share;
        self.work_share *= share;
        self
    }

    /// Whether dispatches are still as long as is safe on any GPU, as nobody has said how fast this one is. Processors have
    /// about one speed.
    pub(crate) fn needs_speed(&self) -> bool {
        let caps = self.caps();
        !caps.is_cpu && caps.max_dispatch_flops == self.first_dispatch_flops
    }

    /// Says how fast this device is: recordings from now on are cut into dispatches, and programs into submissions, of the
    /// right length for that. A run measures it first where nobody has said it. What was set with [`Gpu::with_caps`]
    /// stays.
    pub fn assume_speed(&self, flops_per_second: f64) {
        self.in_flight.assume_speed(flops_per_second);
        if self.needs_speed() {
            let flops = dispatch_flops(flops_per_second) * self.work_share;
            self.change_caps(|caps| caps.max_dispatch_flops = flops);
        }
    }

    /// Makes submissions no longer than about `seconds`, so that others who use this device (the frames of a window)
    /// need not wait for longer than a few of them. Shorter ones cost a little speed.
    pub fn yield_every(&self, seconds: f64) {
        self.in_flight.yield_every(seconds);
    }

    /// Calls `tell` once when the device is lost, with the driver's words, on the thread that finds out: a host with a
    /// window learns of it even where no run is under way that would fail.
    pub fn when_lost(&self, tell: impl FnOnce(&str) + Send + 'static) {
        let Ok(mut lost) = self.lost.lock() else { return };
        match lost.reason.clone() {
            None => lost.tell = Some(Box::new(tell)),
            Some(reason) => {
                drop(lost);
                tell(&reason);
            }
        }
    }

    /// How many objects were created so far.
    pub fn counters(&self) -> Counters {
        self.counters.0.lock().map(|c| *c).unwrap_or_default()
    }

    /// Fails if the device was lost or reported an error outside all scopes.
    pub fn check(&self) -> Result<(), Error> {
        self.check_known_loss()?;
        let Some(message) = self.uncaptured.lock().ok().and_then(|first| first.clone()) else {
            return Ok(());
        };
        self.ask_for_loss()?;
        Err(Error::Rejected { what: "a command".into(), message })
    }

    fn check_known_loss(&self) -> Result<(), Error> {
        match self.lost.lock().ok().and_then(|lost| lost.reason.clone()) {
            Some(reason) => Err(Error::Lost { reason }),
            None => Ok(()),
        }
    }

    /// Fails if the device is lost, even if wgpu has not reported it yet: it does so when it is polled, and reports
    /// commands as invalid until then.
    fn ask_for_loss(&self) -> Result<(), Error> {
        let _ = self.device.poll(wgpu::PollType::Poll);
        self.check_known_loss()
    }

    /// Fails if the device was lost: to be asked when something that it should do has failed. A browser says that
    /// before it tells of the loss, in a later turn.
    pub(crate) async fn check_lost(&self) -> Result<(), Error> {
        crate::turns::yield_now().await;
        self.ask_for_loss()?;
        self.check()
    }

    /// Runs `body` inside error scopes and turns what they catch into an [`Error`] about `what`.
    pub(crate) async fn scoped<T>(&self, what: &str, body: impl FnOnce() -> T) -> Result<T, Error> {
        let (result, caught) = self.scoped_later(body);
        self.judge(what, caught.await).await?;
        Ok(result)
    }

    /// Runs `body` inside error scopes. What they catch is for [`Gpu::judge`]; in a browser it takes a round trip to
    /// the GPU's process to learn it, for which nothing need wait.
    fn scoped_later<T>(&self, body: impl FnOnce() -> T) -> (T, in_flight::Caught) {
        let memory = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let internal = self.device.push_error_scope(wgpu::ErrorFilter::Internal);
        let validation = self.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let result = body();
        let (validation, internal, memory) = (validation.pop(), internal.pop(), memory.pop());
        let caught = async move {
            [validation.await, internal.await, memory.await].into_iter().flatten().next()
        };
        (result, Box::pin(caught))
    }

    /// Turns what error scopes caught into an [`Error`] about `what`.
    async fn judge(&self, what: &str, caught: Option<wgpu::Error>) -> Result<(), Error> {
        self.check()?;
        if caught.is_some() {
            self.check_lost().await?;
        }
        match caught {
            None => Ok(()),
            Some(wgpu::Error::OutOfMemory { .. }) => Err(self.out_of_memory(what)),
            Some(error) => {
                Err(Error::Rejected { what: what.to_owned(), message: error.to_string() })
            }
        }
    }

    fn out_of_memory(&self, what: &str) -> Error {
        let allocated = human_bytes(self.counters().bytes_alive);
        Error::OutOfMemory { what: what.to_owned(), allocated }
    }

    /// Every buffer there is comes from here.
    async fn allocate(
        &self,
        what: &str,
        descriptor: &wgpu::BufferDescriptor<'_>,
    ) -> Result<wgpu::Buffer, Error> {
        let Counters { bytes_alive, staging_bytes, .. } = self.counters();
        let is_full = |memory: u64| bytes_alive + staging_bytes + descriptor.size > memory;
        if self.faults.fails(what) || self.faults.memory_bytes.get().is_some_and(is_full) {
            return Err(self.out_of_memory(what));
        }
        self.scoped(what, || self.device.create_buffer(descriptor)).await
    }

    /// A zeroed storage buffer.
    pub(crate) async fn buffer(&self, label: &str, bytes: u64) -> Result<Buffer, Error> {
        let bytes = bytes.max(LEAST_BUFFER_BYTES).next_multiple_of(16);
        if bytes > self.report.max_buffer_bytes || bytes > self.report.max_binding_bytes {
            return Err(Error::Limit {
                what: label.to_owned(),
                need: human_bytes(bytes),
                have: format!(
                    "{} in one storage binding",
                    human_bytes(self.report.max_binding_bytes.min(self.report.max_buffer_bytes))
                ),
            });
        }
        let descriptor = wgpu::BufferDescriptor {
            label: Some(label),
            size: bytes,
            usage: wgpu::BufferUsages::STORAGE
                | wgpu::BufferUsages::COPY_SRC
                | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        };
        let raw = self.allocate(label, &descriptor).await?;
        self.counters.update(|c| {
            c.buffers += 1;
            c.bytes_alive += bytes;
        });
        Ok(Buffer { raw, bytes, ledger: self.counters.clone() })
    }

    /// The layout of a dispatch's bind group: `params` with a dynamic offset, then storage buffers.
    ///
    /// Dispatches that differ only in their parameters share a bind group, and kernels of the same signature a
    /// layout: a picture of 8192 x 8192 has 65,000 dispatches, more bind groups than some drivers survive.
    pub(crate) async fn layout(&self, accesses: &[Access]) -> Result<Layout, Error> {
        if let Some(layout) = self.layouts.lock().get(accesses) {
            return Ok(layout.clone());
        }
        // With the sizes known here, wgpu need not compare them at every dispatch.
        let entry = |binding: usize, ty, has_dynamic_offset, least| wgpu::BindGroupLayoutEntry {
            binding: binding as u32,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer {
                ty,
                has_dynamic_offset,
                min_binding_size: std::num::NonZero::new(least),
            },
            count: None,
        };
        let mut entries = vec![entry(0, wgpu::BufferBindingType::Uniform, true, PARAMS_BYTES)];
        for (i, access) in accesses.iter().enumerate() {
            let read_only = *access == Access::Read;
            let ty = wgpu::BufferBindingType::Storage { read_only };
            entries.push(entry(i + 1, ty, false, LEAST_BUFFER_BYTES));
        }
        let create = || {
            let bind_group =
                self.device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
                    label: None,
                    entries: &entries,
                });
            let pipeline = self.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                label: None,
                bind_group_layouts: &[Some(&bind_group)],
                immediate_size: 0,
            });
            Layout { bind_group, pipeline }
        };
        let layout = self.scoped("a bind group layout", create).await?;
        self.layouts.lock().insert(accesses.to_vec(), layout.clone());
        Ok(layout)
    }

    /// The compiled pipeline of a key, from the cache after the first time. `accesses` are those of its storage
    /// buffers, the same for every dispatch of a kernel.
    pub(crate) async fn pipeline(
        &self,
        key: &PipelineKey,
        accesses: &[Access],
    ) -> Result<Arc<wgpu::ComputePipeline>, Error> {
        let name = format!("{key:?}");
        if let Some(pipeline) = self.pipelines.lock().get(&name) {
            return Ok(pipeline.clone());
        }
        let layout = self.layout(accesses).await?;
        let what = format!("kernel {}.{}", key.shader, key.entry);
        let source = shader::resolve(key.shader, &key.roles, Dialect::HERE)
            .map_err(|error| Error::Rejected { what: what.clone(), message: error.to_string() })?;
        let source = self.faults.kernel(key.shader, source);
        let cache = self.pipeline_cache.lock().clone();
        let pipeline = self
            .scoped(&what, || {
                let descriptor = wgpu::ShaderModuleDescriptor {
                    label: Some(key.shader),
                    source: wgpu::ShaderSource::Wgsl(source.into()),
                };
                // SAFETY: the checks left out are that loops end and that indices lie inside buffers; they
                // hide trip counts from drivers, which then keep tiles in memory instead of registers
                // (attention with heads of 128 runs at half speed), and from FXC, which with them is not done with
                // some kernels after 110 s, without them with any after 2. Every loop of our kernels counts
                // up to an override or to a number in `params`. Every index is made from shapes that the
                // recording checked against the buffers it binds; the one index that is data, the gather
                // list of `renoise`, is made by `sampling::Transition` from a checked selection. The op
                // tests surround all operands with guard words.
                let module = unsafe {
                    self.device.create_shader_module_trusted(
                        descriptor,
                        wgpu::ShaderRuntimeChecks::unchecked(),
                    )
                };
                self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                    label: Some(&what),
                    layout: Some(&layout.pipeline),
                    module: &module,
                    entry_point: Some(key.entry),
                    compilation_options: wgpu::PipelineCompilationOptions {
                        constants: &key.overrides,
                        // Kernels write workgroup memory before they read it.
                        zero_initialize_workgroup_memory: false,
                    },
                    cache: cache.as_ref(),
                })
            })
            .await
            .map_err(|error| match error {
                Error::Rejected { what: rejected, message } if rejected == what => {
                    Error::Kernel { shader: key.shader, what, message }
                }
                other => other,
            })?;
        self.counters.update(|c| c.pipelines += 1);
        let pipeline = Arc::new(pipeline);
        self.pipelines.lock().insert(name, pipeline.clone());
        Ok(pipeline)
    }

    /// Waits until everything submitted so far has run.
    pub async fn idle(&self) -> Result<(), Error> {
        self.submitted().await
    }

    /// A future that ends when everything submitted before this call has run.
    pub(crate) fn submitted(&self) -> impl Future<Output = Result<(), Error>> + '_ {
        let signal = signal::Signal::default();
        let done = signal.clone();
        self.queue.on_submitted_work_done(move || done.set());
        async move {
            signal.wait(self).await;
            self.check()
        }
    }

    pub(crate) fn ledger(&self) -> &Ledger {
        &self.counters
    }
}
