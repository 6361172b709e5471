//! Timing kernels by the GPU's own clock.
//!
//! While a [`Profiler`] lives, every [`super::Program`] that runs on its device has a timestamp written before and
//! after each dispatch. Adapters that allow it write them inside a pass; for the others, WebGPU in a browser among
//! them, each dispatch has a pass of its own, which costs more than the timestamps. Results are the same bits.

use std::sync::Arc;

use super::read_back::{self, map_read};
use super::{Error, Gpu};
use crate::sync::Locked;
use crate::tensor::{BufferRef, Dispatch, Recording};

/// One dispatch, as the GPU's clock saw it.
#[derive(Clone, Debug, PartialEq)]
pub struct KernelTime {
    /// Where in the program it stands: `double.3.attn`.
    pub label: Arc<str>,
    /// Shader and entry point: `matmul.main`.
    pub kernel: Arc<str>,
    /// Estimated floating-point operations.
    pub flops: f64,
    /// Bytes of the buffers that it binds, each counted once.
    pub bytes: f64,
    /// When it began, in seconds after the first dispatch that the profiler saw.
    pub start: f64,
    /// How long it took, in seconds.
    pub seconds: f64,
}

/// What the kernels of a program took, in the order in which they ran. Copies between buffers are not timed.
#[derive(Clone, Debug, PartialEq)]
pub struct ProgramTimes {
    /// The program's label: `stage1`, `decode`.
    pub program: String,
    /// Its dispatches.
    pub kernels: Vec<KernelTime>,
}

impl ProgramTimes {
    /// Seconds of all kernels.
    pub fn kernel_seconds(&self) -> f64 {
        self.kernels.iter().map(|kernel| kernel.seconds).sum()
    }
}

/// Times the programs of a device while it lives.
pub struct Profiler<'g> {
    gpu: &'g Gpu,
}

impl<'g> Profiler<'g> {
    /// The programs that have run since the last call.
    pub fn take(&self) -> Vec<ProgramTimes> {
        self.gpu.profiled.take()
    }
}

impl Drop for Profiler<'_> {
    fn drop(&mut self) {
        self.gpu.timers.set(None);
        self.take();
    }
}

/// A profiler of one run among several: it times what its device does only while it is resumed.
pub(crate) struct RunProfiler {
    /// `None` while it is resumed.
    parked: Locked<Option<Timers>>,
}

impl RunProfiler {
    /// Paused. Fails if the adapter has no timestamps.
    pub(crate) async fn new(gpu: &Gpu) -> Result<Self, Error> {
        Ok(RunProfiler { parked: Locked::new(Some(Timers::new(gpu).await?)) })
    }

    /// Times what `gpu` runs until the result is dropped.
    pub(crate) fn resume<'g>(self: &Arc<Self>, gpu: &'g Gpu) -> Active<'g> {
        gpu.timers.set(self.parked.take());
        // What a dropped call of another run has left.
        gpu.profiled.take();
        Active { gpu, profiler: self.clone() }
    }

    /// The programs that have run since the last call.
    pub(crate) fn take(&self, gpu: &Gpu) -> Vec<ProgramTimes> {
        gpu.profiled.take()
    }
}

/// Pauses its profiler when it is dropped.
pub(crate) struct Active<'g> {
    gpu: &'g Gpu,
    profiler: Arc<RunProfiler>,
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.profiler.parked.set(self.gpu.timers.take());
    }
}

impl Gpu {
    /// Begins to time what runs on this device. Fails if the adapter has no timestamps. There is one profiler at a
    /// time: a second one takes over.
    pub async fn profile(&self) -> Result<Profiler<'_>, Error> {
        let timers = Timers::new(self).await?;
        self.timers.set(Some(timers));
        Ok(Profiler { gpu: self })
    }
}

/// The features that timing needs, as far as an adapter has them.
pub(super) fn features(offered: wgpu::Features) -> wgpu::Features {
    offered
        & (wgpu::Features::TIMESTAMP_QUERY
            | wgpu::Features::TIMESTAMP_QUERY_INSIDE_ENCODERS
            | wgpu::Features::TIMESTAMP_QUERY_INSIDE_PASSES)
}

/// Dispatches that the queries of one set can time.
const DISPATCHES: u32 = wgpu::QUERY_SET_MAX_QUERIES / 2;
/// A dispatch's beginning and end.
const STAMP_BYTES: u64 = 2 * wgpu::QUERY_SIZE as u64;

/// What timing needs on the device, made once.
#[derive(Clone)]
pub(super) struct Timers {
    queries: wgpu::QuerySet,
    /// Stamps of one submission.
    resolved: wgpu::Buffer,
    /// Stamps of a whole program. Absent while a program uses it, or if one was dropped before its end.
    staging: Option<wgpu::Buffer>,
    inside_passes: bool,
    /// Seconds of a tick.
    period: f64,
    /// The first tick ever seen.
    zero: Option<u64>,
}

impl Timers {
    async fn new(gpu: &Gpu) -> Result<Self, Error> {
        let features = gpu.device.features();
        if !features.contains(wgpu::Features::TIMESTAMP_QUERY) {
            return Err(Error::NoTimestamps { adapter: gpu.report.name.clone() });
        }
        let bytes = u64::from(DISPATCHES) * STAMP_BYTES;
        let queries = gpu
            .scoped("timestamps", || {
                gpu.device.create_query_set(&wgpu::QuerySetDescriptor {
                    label: Some("timestamps"),
                    ty: wgpu::QueryType::Timestamp,
                    count: 2 * DISPATCHES,
                })
            })
            .await?;
        let descriptor = wgpu::BufferDescriptor {
            label: Some("timestamps"),
            size: bytes,
            usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        };
        let resolved = gpu.allocate("timestamps", &descriptor).await?;
        gpu.counters.update(|c| c.buffers += 1);
        Ok(Timers {
            queries,
            resolved,
            staging: None,
            inside_passes: features.contains(wgpu::Features::TIMESTAMP_QUERY_INSIDE_PASSES),
            period: f64::from(gpu.queue.get_timestamp_period()) * 1e-9,
            zero: None,
        })
    }
}

async fn staging(gpu: &Gpu, bytes: u64) -> Result<wgpu::Buffer, Error> {
    let buffer = read_back::staging(gpu, "timestamps", bytes).await?;
    gpu.counters.update(|c| c.buffers += 1);
    Ok(buffer)
}

/// A dispatch as its program knows it before it runs.
pub(super) struct Kernel {
    label: Arc<str>,
    name: Arc<str>,
    flops: f64,
    bytes: f64,
}

impl Kernel {
    /// `buffers` are those that the bindings became. Its bytes are theirs, each counted once: more than it touches
    /// where it works on a part of one.
    pub(super) fn new(
        recording: &Recording,
        dispatch: &Dispatch,
        buffers: &[wgpu::Buffer],
    ) -> Self {
        let bindings = &dispatch.bindings;
        let bytes = bindings.iter().zip(buffers).enumerate().map(|(i, (binding, buffer))| {
            let again = bindings[..i].iter().any(|other| other.buffer == binding.buffer);
            match binding.buffer {
                _ if again => 0,
                // The slot that it lives in may be larger.
                BufferRef::Temp(id) => recording.temp_bytes[id.0 as usize],
                BufferRef::Resident(..) => buffer.size(),
            }
        });
        Kernel {
            label: dispatch.label.as_str().into(),
            name: format!("{}.{}", dispatch.pipeline.shader, dispatch.pipeline.entry).into(),
            flops: dispatch.flops,
            bytes: bytes.sum::<u64>() as f64,
        }
    }
}

/// The timing of one run of a program.
pub(super) struct Timing {
    timers: Timers,
    staging: wgpu::Buffer,
    /// Dispatches of the current submission.
    dispatches: Locked<u32>,
    /// Dispatches of earlier submissions.
    resolved: Locked<u32>,
}

impl Timing {
    /// `None` if nobody profiles. `dispatches` are those of the whole program.
    pub(super) async fn begin(gpu: &Gpu, dispatches: usize) -> Result<Option<Self>, Error> {
        let (timers, kept) = match gpu.timers.lock().as_mut() {
            None => return Ok(None),
            Some(timers) => (timers.clone(), timers.staging.take()),
        };
        let bytes = (dispatches as u64 * STAMP_BYTES).max(STAMP_BYTES);
        let staging = match kept {
            Some(staging) if staging.size() >= bytes => staging,
            _ => staging(gpu, bytes).await?,
        };
        Ok(Some(Timing { timers, staging, dispatches: Locked::new(0), resolved: Locked::new(0) }))
    }

    /// Commands that a submission may have.
    pub(super) const MAX_COMMANDS: usize = DISPATCHES as usize;

    /// The timestamps of the next pass, where they belong to passes: it may have a single dispatch.
    pub(super) fn pass(&self) -> Option<wgpu::ComputePassTimestampWrites<'_>> {
        (!self.timers.inside_passes).then(|| {
            let first = 2 * self.dispatches.get();
            wgpu::ComputePassTimestampWrites {
                query_set: &self.timers.queries,
                beginning_of_pass_write_index: Some(first),
                end_of_pass_write_index: Some(first + 1),
            }
        })
    }

    /// Dispatches between two timestamps. Whether the pass may have another one.
    pub(super) fn dispatch(&self, pass: &mut wgpu::ComputePass<'_>, groups: [u32; 3]) -> bool {
        let first = 2 * self.dispatches.replace(self.dispatches.get() + 1);
        let [x, y, z] = groups;
        if !self.timers.inside_passes {
            pass.dispatch_workgroups(x, y, z);
            return false;
        }
        pass.write_timestamp(&self.timers.queries, first);
        pass.dispatch_workgroups(x, y, z);
        pass.write_timestamp(&self.timers.queries, first + 1);
        true
    }

    /// Puts the stamps of a submission, at its end, after those of earlier ones.
    pub(super) fn resolve(&self, encoder: &mut wgpu::CommandEncoder) {
        let Timers { queries, resolved, .. } = &self.timers;
        let n = self.dispatches.replace(0);
        if n == 0 {
            return;
        }
        encoder.resolve_query_set(queries, 0..2 * n, resolved, 0);
        let at = u64::from(self.resolved.replace(self.resolved.get() + n)) * STAMP_BYTES;
        encoder.copy_buffer_to_buffer(resolved, 0, &self.staging, at, u64::from(n) * STAMP_BYTES);
    }

    /// Reads the stamps back and hands them to the profiler.
    pub(super) async fn finish(
        self,
        gpu: &Gpu,
        program: &str,
        kernels: &[Kernel],
    ) -> Result<(), Error> {
        let Timing { timers: Timers { period, .. }, staging, .. } = self;
        let bytes = u64::from(self.resolved.get()) * STAMP_BYTES;
        let bytes = map_read(gpu, "timestamps", &staging, bytes).await?;
        staging.unmap();
        let stamps: &[[u64; 2]] = &bytemuck::pod_collect_to_vec(&bytes);
        let first = stamps.first().map_or(0, |stamp| stamp[0]);
        let zero = match gpu.timers.lock().as_mut() {
            Some(timers) => {
                timers.staging = Some(staging);
                *timers.zero.get_or_insert(first)
            }
            // The profiler went away while the program ran.
            None => return Ok(()),
        };
        // Browsers may round an end to before its beginning.
        let seconds = |from: u64, to: u64| to.saturating_sub(from) as f64 * period;
        let kernels = kernels.iter().zip(stamps).map(|(kernel, [start, end])| KernelTime {
            label: kernel.label.clone(),
            kernel: kernel.name.clone(),
            flops: kernel.flops,
            bytes: kernel.bytes,
            start: seconds(zero, *start),
            seconds: seconds(*start, *end),
        });
        let times = ProgramTimes { program: program.to_owned(), kernels: kernels.collect() };
        gpu.profiled.lock().push(times);
        Ok(())
    }
}
