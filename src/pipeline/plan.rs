//! What a run would do, before it does it: stages, tokens, operations, memory, speed-up.
//!
//! Operations follow the cost model of [`crate::models::cost`]. Memory is not estimated: the run's recordings are
//! made and planned exactly as a run would, from the configuration alone, so that models that are not on this
//! machine can be planned too.

use std::fmt;

use serde::Serialize;

use super::load::{Parts, check_widths};
use super::programs::{Layout, RunMemory, RunRecordings, record_clip, record_t5};
use super::{Error, RunSchedule, Settings, StageKind};
use crate::gpu::human_bytes;
use crate::models::config::ModelConfig;
use crate::models::cost::{self, Flops};
use crate::models::layers::{LoadContext, Precision};
use crate::models::source::Source;
use crate::sampling::{RaluParams, ntdm::js_distance};
pub use crate::tensor::Caps;
use crate::tensor::{MemoryPlan, ResidentIds, plan_memory};

/// Operations in units of 10^12.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Tflops {
    /// Linear layers and convolutions, as RALU's paper counts.
    pub linear: f64,
    /// With the products of attention.
    pub with_attention: f64,
}

impl From<Flops> for Tflops {
    fn from(flops: Flops) -> Self {
        Tflops { linear: flops.linear / 1e12, with_attention: flops.total() / 1e12 }
    }
}

/// One stage of a plan.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlannedStage {
    /// Its number, from 1.
    pub stage: usize,
    /// `low`, `mixed` or `full`.
    pub kind: &'static str,
    /// Image tokens.
    pub tokens: usize,
    /// Steps.
    pub steps: usize,
    /// Time shift of its noise levels.
    pub time_shift: f64,
    /// Noise levels, one more than steps.
    pub sigmas: Vec<f64>,
    /// Operations of one step.
    pub tflops_per_step: Tflops,
}

/// Bytes on the GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PlannedMemory {
    /// Weights of CLIP and T5; freed before denoising.
    pub text_encoder_weights_bytes: u64,
    /// Weights of the transformer and the VAE's decoder.
    pub denoiser_weights_bytes: u64,
    /// The most that is needed while the prompt is encoded.
    pub encoding_bytes: u64,
    /// Temporaries of the largest phase after that.
    pub temporaries_bytes: u64,
    /// Latents, embeddings, positions, noise and pixels.
    pub states_bytes: u64,
    /// The most that is needed at any time.
    pub peak_bytes: u64,
}

/// The run that a speed-up is relative to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Baseline {
    /// Steps of plain sampling.
    pub steps: usize,
    /// Operations of the whole run.
    pub tflops: Tflops,
}

/// What a run would do.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// Width of the finished picture in pixels.
    pub width: usize,
    /// Height of the finished picture in pixels.
    pub height: usize,
    /// Width that is worked at.
    pub working_width: usize,
    /// Height that is worked at.
    pub working_height: usize,
    /// The preset's name, `custom` or `off`.
    pub ralu: String,
    /// Z of the jumps' noise; `None` for plain sampling.
    pub z: Option<f64>,
    /// Jensen-Shannon distance of the three stages' noise levels to NT-DM's target; `None` for plain sampling.
    pub js_distance: Option<f64>,
    /// Share of coarse tokens that are refined early.
    pub up_ratio: Option<f64>,
    /// Coarse tokens that are refined early.
    pub regions: usize,
    /// T5 tokens.
    pub text_tokens: usize,
    /// Evaluations of the network in a step: 2 under true guidance.
    pub evaluations_per_step: usize,
    /// Steps of all stages.
    pub steps: usize,
    /// The stages.
    pub stages: Vec<PlannedStage>,
    /// Operations of the whole run: text encoders, all steps, decoding.
    pub tflops: Tflops,
    /// Plain sampling with the family's full number of steps.
    pub baseline: Baseline,
    /// The baseline's operations over this run's, as RALU's paper counts.
    pub speedup: f64,
    /// The same with the products of attention: what a clock should show.
    pub speedup_with_attention: f64,
    /// Memory on the GPU.
    pub memory: PlannedMemory,
}

/// Steps of plain sampling that RALU's paper compares with: FLUX.1-dev's own 50, schnell's 4.
pub fn baseline_steps(config: &ModelConfig) -> usize {
    if config.is_schnell() { 4 } else { 50 }
}

/// Plans a run of `config` with `settings` on an adapter with `caps`.
///
/// With `source`, weights count in the types they are stored in; without, in 16 bits, as FLUX.1 is published.
pub fn plan(
    config: &ModelConfig,
    source: Option<&dyn Source>,
    settings: &Settings,
    caps: Caps,
    precision: Precision,
) -> Result<Plan, Error> {
    check_widths(config)?;
    let schedule = RunSchedule::new(settings, config)?;
    let n_text = settings.max_sequence_length;
    let evaluations = settings.evaluations_per_step();
    let step = |n_tokens: usize| cost::step(config, n_tokens, n_text) * evaluations as f64;
    let decode = |rows: usize, cols: usize| cost::vae_decode(&config.vae, 2 * rows, 2 * cols);
    let (rows, cols) = (schedule.rows, schedule.cols);
    let overhead = cost::text_encoders(config, n_text) * evaluations as f64 + decode(rows, cols);

    let mut run = overhead;
    for stage in &schedule.stages {
        run += step(stage.n_tokens) * stage.steps() as f64;
    }
    if schedule.has_regions() {
        run += decode(rows / 2, cols / 2);
    }
    let baseline_steps = baseline_steps(config);
    let baseline = overhead + step(rows * cols) * baseline_steps as f64;

    Ok(Plan {
        width: settings.width,
        height: settings.height,
        working_width: schedule.width,
        working_height: schedule.height,
        ralu: settings.ralu_name.clone(),
        z: settings.ralu.as_ref().map(|ralu| ralu.z),
        js_distance: settings.ralu.as_ref().map(|ralu| {
            let RaluParams { stage_steps, stage_ends, shifts, z, base_time_shift, .. } = ralu;
            js_distance(stage_steps, stage_ends, shifts, *z, *base_time_shift)
        }),
        up_ratio: settings.ralu.as_ref().map(|ralu| ralu.up_ratio),
        regions: schedule.regions,
        text_tokens: n_text,
        evaluations_per_step: evaluations,
        steps: schedule.steps(),
        stages: schedule
            .stages
            .iter()
            .enumerate()
            .map(|(i, stage)| PlannedStage {
                stage: i + 1,
                kind: match stage.kind {
                    StageKind::Low => "low",
                    StageKind::Mixed => "mixed",
                    StageKind::Full => "full",
                },
                tokens: stage.n_tokens,
                steps: stage.steps(),
                time_shift: stage.time_shift,
                sigmas: stage.sigmas.clone(),
                tflops_per_step: step(stage.n_tokens).into(),
            })
            .collect(),
        tflops: run.into(),
        baseline: Baseline { steps: baseline_steps, tflops: baseline.into() },
        speedup: baseline.linear / run.linear,
        speedup_with_attention: baseline.total() / run.total(),
        memory: memory(config, source, settings, &schedule, caps, precision),
    })
}

/// Bytes of a pool that serves all of `plans` in turn: see [`crate::gpu::SlotPool`].
fn pool_bytes(plans: &[MemoryPlan]) -> u64 {
    let slots = plans.iter().map(|plan| plan.slots.len()).max().unwrap_or(0);
    (0..slots)
        .map(|i| plans.iter().filter_map(|plan| plan.slots.get(i)).max().copied().unwrap_or(0))
        .sum()
}

fn memory(
    config: &ModelConfig,
    source: Option<&dyn Source>,
    settings: &Settings,
    schedule: &RunSchedule,
    caps: Caps,
    precision: Precision,
) -> PlannedMemory {
    let ids = ResidentIds::default();
    let limit = caps.max_binding_bytes;
    // Without a checkpoint every weight would count as f32; FLUX.1 is published in 16 bits.
    let precision = if source.is_none() { Precision::F16 } else { precision };
    let context = LoadContext::new(&ids, precision, limit);
    let parts = Parts::plan(source, config, &context);

    let n_text = settings.max_sequence_length;
    let n_clip = config.clip.max_position_embeddings;
    let matrix = |rows: usize, cols: usize| ids.matrix("", rows, cols, limit);
    let (x, out) = (matrix(n_text, config.t5.d_model), matrix(n_text, config.t5.d_model));
    let bias = matrix(1, (config.t5.num_heads * (2 * n_text - 1)).next_multiple_of(4));
    let t5 = record_t5(caps, &parts.t5.model, &x, &bias, &out);
    let (clip_x, clip_out) =
        (matrix(n_clip, config.clip.hidden_size), matrix(1, config.clip.hidden_size));
    let clip = record_clip(caps, &parts.clip.model, &clip_x, 0, &clip_out);
    let scratch: u64 = [&x, &out, &bias].iter().flat_map(|resident| resident.band_bytes()).sum();
    let text_encoder_weights_bytes = parts.clip.bytes() + parts.t5.bytes();
    let encoding_bytes =
        text_encoder_weights_bytes + scratch + pool_bytes(&[plan_memory(&t5), plan_memory(&clip)]);

    let layout = Layout { ids: &ids, caps, config };
    let guided = settings.negative_prompt.is_some();
    let states = RunMemory::new(&layout, schedule, n_text, guided, false);
    let recordings =
        RunRecordings::new(caps, config, &parts.flux.model, &parts.vae.model, schedule, &states);
    let plans: Vec<MemoryPlan> = recordings.all().map(plan_memory).collect();
    let temporaries_bytes = pool_bytes(&plans);
    let denoiser_weights_bytes = parts.flux.bytes() + parts.vae.bytes();
    let states_bytes = states.bytes();
    PlannedMemory {
        text_encoder_weights_bytes,
        denoiser_weights_bytes,
        encoding_bytes,
        temporaries_bytes,
        states_bytes,
        peak_bytes: encoding_bytes.max(denoiser_weights_bytes + temporaries_bytes + states_bytes),
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} x {} pixels, RALU {}", self.width, self.height, self.ralu)?;
        if (self.working_width, self.working_height) != (self.width, self.height) {
            writeln!(f, "worked at {} x {} and cropped", self.working_width, self.working_height)?;
        }
        if let (Some(z), Some(distance)) = (self.z, self.js_distance) {
            writeln!(f, "Z {z:.3}, {} regions, NT-DM distance {distance:.4}", self.regions)?;
        }
        writeln!(
            f,
            "{} text tokens, {} evaluation{} a step",
            self.text_tokens,
            self.evaluations_per_step,
            if self.evaluations_per_step == 1 { "" } else { "s" }
        )?;
        writeln!(f, "\nstage    tokens  steps  TFLOPs a step  with attention  sigma")?;
        for stage in &self.stages {
            writeln!(
                f,
                "{} {:<5}  {:>6}  {:>5}  {:>13.4}  {:>14.4}  {:.4} to {:.4}",
                stage.stage,
                stage.kind,
                stage.tokens,
                stage.steps,
                stage.tflops_per_step.linear,
                stage.tflops_per_step.with_attention,
                stage.sigmas.first().unwrap_or(&0.0),
                stage.sigmas.last().unwrap_or(&0.0),
            )?;
        }
        writeln!(
            f,
            "\nwhole run   {:>10.3} TFLOPs  ({:.3} with attention)",
            self.tflops.linear, self.tflops.with_attention
        )?;
        writeln!(
            f,
            "{:>2} plain     {:>10.3} TFLOPs  ({:.3} with attention)",
            self.baseline.steps, self.baseline.tflops.linear, self.baseline.tflops.with_attention
        )?;
        writeln!(
            f,
            "speed-up    {:>10.2}x        ({:.2}x with attention)",
            self.speedup, self.speedup_with_attention
        )?;
        let memory = &self.memory;
        writeln!(f, "\nGPU memory  {:>10} at most", human_bytes(memory.peak_bytes))?;
        writeln!(f, "  encoding the prompt {:>12}", human_bytes(memory.encoding_bytes))?;
        writeln!(f, "  denoiser weights    {:>12}", human_bytes(memory.denoiser_weights_bytes))?;
        writeln!(f, "  temporaries         {:>12}", human_bytes(memory.temporaries_bytes))?;
        write!(f, "  states              {:>12}", human_bytes(memory.states_bytes))
    }
}
