//! What something took: seconds, and seconds of processors.
//!
//! On a processor that others use too, seconds say little. What a software adapter computes is computed by threads of
//! this program, so there the processors' time is the better measure.

use std::time::Instant;

use ralu::gpu::{AdapterKind, AdapterReport};
use serde::{Deserialize, Serialize};

use crate::median::median;

/// Whether an adapter computes on this program's threads.
pub fn on_cpu(adapter: &AdapterReport) -> bool {
    adapter.kind == AdapterKind::Cpu
}

/// Measures from its start on.
pub struct Stopwatch {
    started: Instant,
    cpu: Option<f64>,
}

impl Stopwatch {
    /// Starts. `on_cpu` says whether processors' time means anything.
    pub fn start(on_cpu: bool) -> Self {
        Stopwatch { started: Instant::now(), cpu: on_cpu.then(cpu_seconds).flatten() }
    }

    /// What it took until now.
    pub fn spent(&self) -> Spent {
        Spent {
            seconds: self.started.elapsed().as_secs_f64(),
            cpu_seconds: self.cpu.and_then(|then| Some(cpu_seconds()? - then)),
        }
    }
}

/// Processor time of all threads of this program so far.
#[cfg(unix)]
fn cpu_seconds() -> Option<f64> {
    use rustix::time::{ClockId, clock_gettime};
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Some(time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9)
}

#[cfg(not(unix))]
fn cpu_seconds() -> Option<f64> {
    None
}

/// What something took once.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spent {
    pub seconds: f64,
    /// Of all threads, where the adapter is a processor.
    pub cpu_seconds: Option<f64>,
}

impl Spent {
    /// Of one of `n` equal parts.
    pub fn over(self, n: usize) -> Self {
        let n = n as f64;
        Spent { seconds: self.seconds / n, cpu_seconds: self.cpu_seconds.map(|cpu| cpu / n) }
    }
}

/// Medians of several measurements.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Medians {
    pub median_seconds: f64,
    /// Of all threads, where the adapter is a processor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub median_cpu_seconds: Option<f64>,
}

impl Medians {
    /// Of several measurements.
    pub fn of(all: &[Spent]) -> Self {
        let cpu: Vec<f64> = all.iter().filter_map(|spent| spent.cpu_seconds).collect();
        Medians {
            median_seconds: median(all.iter().map(|spent| spent.seconds).collect()),
            median_cpu_seconds: (!cpu.is_empty()).then(|| median(cpu)),
        }
    }

    /// `amount` a second, in billions.
    pub fn rate(&self, amount: f64) -> f64 {
        amount / self.median_seconds / 1e9
    }

    /// `amount` a second of processor time, in billions.
    pub fn cpu_rate(&self, amount: f64) -> Option<f64> {
        self.median_cpu_seconds
            .filter(|seconds| *seconds > 0.0)
            .map(|seconds| amount / seconds / 1e9)
    }
}
