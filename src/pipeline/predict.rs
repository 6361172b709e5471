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
}

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
        }
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
