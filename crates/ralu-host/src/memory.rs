//! Whether a software adapter can hold a run: its memory is the machine's, and the system would end the program without a
//! word.

use ralu::checkpoint::source::Source;
use ralu::gpu::{AdapterKind, Gpu};
use ralu::models::config::ModelConfig;
use ralu::pipeline::plan::plan;
use ralu::pipeline::{Error, Options, Plan, Settings};

/// More memory than there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// Bytes that a run is planned to need.
    pub need: u64,
    /// Bytes that the machine has free.
    pub free: u64,
}

/// Compares what a run is planned to need with what the machine has free; `None` if it fits. Graphics chips report for
/// themselves when they are full, and so do machines that do not say what they have free.
///
/// # Errors
///
/// If the run cannot be planned.
pub fn shortage(
    gpu: &Gpu,
    config: &ModelConfig,
    source: &dyn Source,
    settings: &Settings,
    options: Options,
) -> Result<Option<Shortage>, Error> {
    if gpu.report().kind != AdapterKind::Cpu {
        return Ok(None);
    }
    Ok(of_plan(gpu, &plan(config, Some(source), settings, gpu.caps(), options)?))
}

/// The same for a run that is planned. What the device holds already counts as free: the run uses it again.
pub(crate) fn of_plan(gpu: &Gpu, plan: &Plan) -> Option<Shortage> {
    if gpu.report().kind != AdapterKind::Cpu {
        return None;
    }
    let free = available_bytes()? + gpu.counters().bytes_alive;
    let need = plan.memory.peak_bytes;
    (need > free).then_some(Shortage { need, free })
}

/// Memory that can be had without swapping, where the system says so.
fn available_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}
