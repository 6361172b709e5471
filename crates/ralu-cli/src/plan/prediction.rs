//! What the steps of a plan take where weights come and go, by what is known of an adapter.

use std::fmt;

use ralu::escape::Escaped;
use ralu::gpu::human_bytes;
use ralu::pipeline::{AdapterSpeed, Plan, PredictedStep};
use ralu_host::memory;
use serde::Serialize;

/// What PCIe 3.0 x16 carries in practice.
const ASSUMED_BYTES_PER_SECOND: f64 = 12e9;

/// A prediction, and what it stands on.
#[derive(Debug, PartialEq, Serialize)]
pub struct Prediction {
    /// Whose speed it is, if any was measured.
    adapter: Option<String>,
    /// At which weights arrive.
    bytes_per_second: f64,
    bytes_per_second_from: Arrival,
    /// Of steps, or of kernels alone.
    flops_per_second: Option<f64>,
    flops_per_second_from: Option<Work>,
    steps: Vec<PredictedStep>,
}

/// How weights arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Arrival {
    /// Nothing was measured.
    Assumed,
    /// From copies in this machine's memory.
    Copies,
    /// From files.
    Files,
    /// Some from copies, the others from files.
    Both,
}

/// What work was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    Steps,
    Kernels,
}

/// Operations a second that an adapter does of a plan's steps, and what that is known by.
pub fn rate_of(speed: &AdapterSpeed, plan: &Plan) -> Option<(f64, Work)> {
    let per_step = plan.tflops.with_attention * 1e12 / plan.steps.max(1) as f64;
    let steps = speed.steps_per_second(per_step).map(|rate| (rate, Work::Steps));
    steps.or(speed.kernel_flops_per_second.map(|rate| (rate, Work::Kernels)))
}

impl Prediction {
    /// Seconds of all steps, if they are known.
    pub fn seconds(&self, plan: &Plan) -> Option<f64> {
        let steps = plan.stages.iter().zip(&self.steps);
        steps.map(|(stage, step)| Some(stage.steps as f64 * step.seconds?)).sum()
    }

    /// Of a plan whose weights come and go; `None` if they do not. `host_memory` is what copies may take, if that was said.
    pub fn new(
        plan: &Plan,
        speed: Option<AdapterSpeed>,
        host_memory: Option<u64>,
    ) -> Option<Prediction> {
        let streamed = plan.memory.streaming?.denoiser.streamed_bytes;
        if streamed == 0 {
            return None;
        }
        let is_cpu = speed.as_ref().is_some_and(|speed| speed.is_cpu);
        let copies = host_memory.unwrap_or_else(|| memory::host_memory_beside(is_cpu));
        let (bytes_per_second, bytes_per_second_from) = arrival(speed.as_ref(), streamed, copies);
        let work = speed.as_ref().and_then(|speed| rate_of(speed, plan));
        let flops_per_second = work.map(|(rate, _)| rate);
        Some(Prediction {
            steps: plan.predict(bytes_per_second, flops_per_second),
            adapter: speed.map(|speed| speed.adapter),
            bytes_per_second,
            bytes_per_second_from,
            flops_per_second,
            flops_per_second_from: work.map(|(_, from)| from),
        })
    }
}

/// Bytes a second at which `streamed` bytes arrive of which `copies` bytes lie in memory.
fn arrival(speed: Option<&AdapterSpeed>, streamed: u64, copies: u64) -> (f64, Arrival) {
    let rates =
        speed.and_then(|speed| Some((speed.copy_bytes_per_second?, speed.load_bytes_per_second?)));
    let Some((copy, load)) = rates else { return (ASSUMED_BYTES_PER_SECOND, Arrival::Assumed) };
    match copies {
        0 => (load, Arrival::Files),
        copies if copies >= streamed => (copy, Arrival::Copies),
        copies => {
            let seconds = copies as f64 / copy + (streamed - copies) as f64 / load;
            (streamed as f64 / seconds, Arrival::Both)
        }
    }
}

impl fmt::Display for Prediction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Prediction { adapter, bytes_per_second, flops_per_second, steps, .. } = self;
        let how = match self.bytes_per_second_from {
            Arrival::Assumed => {
                "assumed: PCIe 3.0 x16; `ralu bench load` with a model's files measures it"
            }
            Arrival::Copies => {
                "from copies in this machine's memory, as `ralu bench load` has found"
            }
            Arrival::Files => "from files, as `ralu bench load` has found",
            Arrival::Both => "from copies and from files, as `ralu bench load` has found",
        };
        write!(f, "\nWeights arrive at {:.2} GB/s ({how})", bytes_per_second / 1e9)?;
        match (flops_per_second, self.flops_per_second_from) {
            (Some(rate), Some(from)) => {
                let how = match from {
                    Work::Steps => "as `ralu bench step` or a run has found",
                    Work::Kernels => {
                        "by its kernels alone; `ralu bench step` with this model measures whole steps"
                    }
                };
                write!(f, "\nSteps compute at {:.3} TFLOP/s ({how})", rate / 1e12)?;
            }
            _ => f.write_str(
                "\nHow fast steps compute is not known: `ralu bench step` with this model measures it",
            )?,
        }
        if let Some(adapter) = adapter {
            write!(f, "\non {}", Escaped(adapter))?;
        }
        write!(f, "\n\nstage  weights a step   arrive in  compute in  a step takes")?;
        for step in steps {
            let seconds = |seconds: Option<f64>| {
                seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.3} s"))
            };
            let takes = match step.seconds {
                None => format!("at least {:.3} s", step.bus_seconds),
                longest => seconds(longest),
            };
            let bound = match step.is_bus_bound {
                Some(true) => ", bound by the bus",
                Some(false) => ", bound by computing",
                None => "",
            };
            write!(
                f,
                "\n{:<5}  {:>14}  {:>10}  {:>10}  {takes}{bound}",
                step.stage,
                human_bytes(step.streamed_bytes),
                seconds(Some(step.bus_seconds)),
                seconds(step.compute_seconds),
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn copies_arrive_faster_than_files() {
        let speed: AdapterSpeed = serde_json::from_value(json!({
            "adapter": "a card",
            "backend": "Vulkan",
            "driver": "1",
            "is_cpu": false,
            "copy_bytes_per_second": 20e9,
            "load_bytes_per_second": 5e9,
        }))
        .expect("a speed");
        assert_eq!(arrival(Some(&speed), 100, 0), (5e9, Arrival::Files));
        assert_eq!(arrival(Some(&speed), 100, 100), (20e9, Arrival::Copies));
        // 80 at 20 and 20 at 5 take as long as 100 at 12.5.
        assert_eq!(arrival(Some(&speed), 100, 80), (12.5e9, Arrival::Both));
        assert_eq!(arrival(None, 100, 80), (ASSUMED_BYTES_PER_SECOND, Arrival::Assumed));
    }
}
