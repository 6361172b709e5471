//! How long the steps of a plan take, by arithmetic: while a step computes, the weights of its streamed blocks arrive.
//!
//! A block arrives while the one before it computes. So a step takes the longer of all work and all arrivals, and of the shorter
//! one what nothing hides: the first block's way, or the work after the last has come.

use serde::{Deserialize, Serialize};

use super::plan::{Plan, PlannedStage};
use crate::gpu::{AdapterKind, AdapterReport};

/// How fast an adapter was found to be, as it is kept for plans.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AdapterSpeed {
    /// Its name.
    pub adapter: String,
    /// How it was reached.
    pub backend: String,
    /// Its driver.
    pub driver: String,
    /// Whether it computes on the processor, so that its memory is the machine's.
    pub is_cpu: bool,
    /// Bytes a second from the host's memory, as copies of streamed weights arrive.
    #[serde(default)]
    pub copy_bytes_per_second: Option<f64>,
    /// Bytes a second from files, packed on the way.
    #[serde(default)]
    pub load_bytes_per_second: Option<f64>,
    /// Operations a second in whole steps, those of attention included.
    #[serde(default)]
    pub step_flops_per_second: Option<f64>,
    /// Operations a second of the kernels that were chosen, alone.
    #[serde(default)]
    pub kernel_flops_per_second: Option<f64>,
    /// What runs have found, the latest last.
    #[serde(default)]
    pub runs: Vec<RunSpeed>,
}

/// How fast a run was.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RunSpeed {
    /// Operations of one of its steps: larger steps are faster for what they do.
    pub flops_per_step: f64,
    /// Operations a second in its steps.
    pub flops_per_second: f64,
}

/// Runs that are kept.
const MOST_RUNS: usize = 16;
/// Steps with more or less operations than so many times another's have speeds of their own.
const ALIKE: f64 = 1.5;
/// Speeds of steps that differ by more than that say little.
const NEAR: f64 = 6.0;

impl AdapterSpeed {
    /// Nothing is known yet.
    pub fn new(report: &AdapterReport) -> Self {
        AdapterSpeed {
            adapter: report.name.clone(),
            backend: report.backend.to_owned(),
            driver: report.driver.clone(),
            is_cpu: report.kind == AdapterKind::Cpu,
            copy_bytes_per_second: None,
            load_bytes_per_second: None,
            step_flops_per_second: None,
            kernel_flops_per_second: None,
            runs: vec![],
        }
    }

    /// Keeps how fast a run was, in place of an earlier one whose steps were as large.
    pub fn note_run(&mut self, flops_per_step: f64, flops_per_second: f64) {
        if [flops_per_step, flops_per_second].iter().all(|n| n.is_finite() && *n > 0.0) {
            self.runs.retain(|run| times(run.flops_per_step, flops_per_step) > ALIKE);
            self.runs.push(RunSpeed { flops_per_step, flops_per_second });
            self.runs.drain(..self.runs.len().saturating_sub(MOST_RUNS));
        }
    }

    /// Operations a second in steps of so many operations, as those of the run with the most similar ones had, or else those
    /// that were measured; `None` if no steps were.
    pub fn steps_per_second(&self, flops_per_step: f64) -> Option<f64> {
        let distance = |run: &&RunSpeed| times(run.flops_per_step, flops_per_step);
        let nearest = self.runs.iter().min_by(|a, b| distance(a).total_cmp(&distance(b)));
        let near = nearest.filter(|run| distance(run) <= NEAR);
        let rate = |run: &RunSpeed| run.flops_per_second;
        near.map(rate).or(self.step_flops_per_second).or(nearest.map(rate))
    }

    /// Whether both are of one adapter, with one driver.
    pub fn is_of_same_adapter(&self, other: &Self) -> bool {
        let key = |speed: &Self| {
            let AdapterSpeed { adapter, backend, driver, .. } = speed;
            [adapter.clone(), backend.clone(), driver.clone()]
        };
        key(self) == key(other)
    }
}

/// How many times the smaller the larger of two numbers is.
fn times(a: f64, b: f64) -> f64 {
    (a / b).max(b / a)
}

/// What a step of one stage is predicted to take.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct PredictedStep {
    /// Number of the stage, from 1.
    pub stage: usize,
    /// Bytes of weights that arrive.
    pub streamed_bytes: u64,
    /// Seconds that they take.
    pub bus_seconds: f64,
    /// Seconds that the stage computes, if the adapter's speed is known.
    pub compute_seconds: Option<f64>,
    /// Seconds of the step: the longer of both, and a block's part of the shorter.
    pub seconds: Option<f64>,
    /// Whether the weights take longer than the work.
    pub is_bus_bound: Option<bool>,
}

impl Plan {
    /// What a computed step of each stage takes on an adapter to which weights get at that rate and that computes at that one,
    /// if it is known.
    pub fn predict(
        &self,
        bytes_per_second: f64,
        flops_per_second: Option<f64>,
    ) -> Vec<PredictedStep> {
        let step = |stage: &PlannedStage| {
            let flops = stage.tflops_per_step.with_attention * 1e12;
            let compute_seconds = flops_per_second.map(|rate| flops / rate);
            let streamed_bytes = stage.arrivals.bytes();
            let bus_seconds = streamed_bytes as f64 / bytes_per_second;
            PredictedStep {
                stage: stage.stage,
                streamed_bytes,
                bus_seconds,
                compute_seconds,
                seconds: compute_seconds
                    .map(|seconds| stage.arrivals.seconds(bytes_per_second, seconds)),
                is_bus_bound: compute_seconds.map(|seconds| seconds < bus_seconds),
            }
        };
        self.stages.iter().map(step).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_similar_run_counts() {
        let speed = serde_json::json!({
            "adapter": "a card", "backend": "Vulkan", "driver": "1", "is_cpu": false,
        });
        let mut speed: AdapterSpeed = serde_json::from_value(speed).expect("a speed");
        assert_eq!(speed.steps_per_second(1e12), None);
        speed.note_run(1e9, 1e10);
        speed.note_run(1e12, 1e13);
        speed.note_run(1.2e12, 2e13);
        speed.note_run(0.0, f64::INFINITY);
        assert_eq!(speed.runs.len(), 2);
        assert_eq!(speed.steps_per_second(2e12), Some(2e13));
        assert_eq!(speed.steps_per_second(2e9), Some(1e10));
        // Nothing like it: what was measured, or the nearest all the same.
        assert_eq!(speed.steps_per_second(1e15), Some(2e13));
        speed.step_flops_per_second = Some(5e12);
        assert_eq!(speed.steps_per_second(1e15), Some(5e12));
    }
}
