//! Refuses runs that a software adapter cannot hold: its memory is the machine's, and the system would kill us
//! without a word.

use ralu::checkpoint::source::Source;
use ralu::gpu::{AdapterKind, Gpu, human_bytes};
use ralu::models::config::ModelConfig;
use ralu::pipeline::plan::plan;
use ralu::pipeline::{Options, Settings};

use super::error::{Error, Result};

/// Compares what the run is planned to need with what the machine has free. Graphics chips report for themselves
/// when they are full.
pub fn check(
    gpu: &Gpu,
    config: &ModelConfig,
    source: &dyn Source,
    settings: &Settings,
    options: Options,
) -> Result<()> {
    if gpu.report().kind != AdapterKind::Cpu {
        return Ok(());
    }
    let Some(free) = available_bytes() else { return Ok(()) };
    let need = plan(config, Some(source), settings, gpu.caps(), options)?.memory.peak_bytes;
    if need <= free {
        return Ok(());
    }
    Err(Error::failed(format!(
        "this run needs {} of memory, the machine has {} free. Make the picture smaller (--width, --height), store the \
         weights in 16 bits (--precision f16), or use a GPU; `ralu plan` says what needs how much",
        human_bytes(need),
        human_bytes(free)
    )))
}

/// Memory that can be had without swapping, where the system says so.
fn available_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}
