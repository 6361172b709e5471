//! What a run would do, before it does it: stages, tokens, operations, memory, speed-up.
//!
//! Nothing is estimated: the run's recordings are made and planned exactly as a run would, from the configuration alone, so
//! that models that are not on this machine can be planned too. Memory is what they need; operations are those of their
//! matrix products, as the ops define them ([`Work`](crate::tensor::Work)).

use std::fmt;

use serde::Serialize;

use super::arrivals::StepArrivals;
use super::model::check_widths;
use super::recorded::Recorded;
use super::{Error, Options, RunSchedule, Settings, StageKind};
use crate::checkpoint::source::Source;
use crate::gpu::human_bytes;
use crate::models::config::ModelConfig;
use crate::models::quantise::Quantise;
use crate::sampling::cache::{self, CacheSpec};
use crate::sampling::{RaluParams, ntdm::js_distance};
pub use crate::tensor::Caps;
use crate::tensor::Flops;

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
    /// Operations of one step, its modulations included.
    pub tflops_per_step: Tflops,
    /// With a temporal cache whose rule does not look at values: for each step, whether the network is evaluated.
    pub computed: Option<Vec<bool>>,
    /// When the weights of a step arrive, if any are streamed.
    #[serde(skip)]
    pub(super) arrivals: StepArrivals,
}

/// Bytes on the GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PlannedMemory {
    /// Weights of the text encoders.
    pub text_encoder_weights_bytes: u64,
    /// Whether they stay on the GPU, as the weights that make modulations then do; else they are freed before denoising.
    pub keeps_text_encoders: bool,
    /// Weights of the transformer that make its modulations, once, before the first step.
    pub modulation_weights_bytes: u64,
    /// The other weights of the transformer, and those of the VAE's decoder.
    pub denoiser_weights_bytes: u64,
    /// The most that is needed while the prompt is encoded.
    pub encoding_bytes: u64,
    /// Temporaries of the largest phase after that.
    pub temporaries_bytes: u64,
    /// Modulations of all steps, latents, embeddings, positions, noise and pixels; with a temporal cache also what it keeps.
    pub states_bytes: u64,
    /// Of those, what the temporal cache keeps.
    pub cache_bytes: u64,
    /// The most that is needed at any time.
    pub peak_bytes: u64,
    /// Within a budget: what of the weights comes and goes.
    pub streaming: Option<PlannedStreaming>,
}

/// How a run keeps within a budget of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PlannedStreaming {
    /// The budget.
    pub budget_bytes: u64,
    /// Staging memory, which is not among [`PlannedMemory::peak_bytes`].
    pub staging_bytes: u64,
    /// Whether the denoiser stays on the GPU while another prompt is encoded, which [`PlannedMemory::peak_bytes`] counts.
    pub keeps_denoiser: bool,
    /// The text encoders.
    pub text_encoders: PlannedPart,
    /// What makes modulations.
    pub modulation: PlannedPart,
    /// The rest of the denoiser, with the VAE's decoder, but for what `decoder` says.
    pub denoiser: PlannedPart,
    /// The VAE's decoder.
    pub decoder: PlannedDecoder,
}

/// What comes and goes while pictures are decoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PlannedDecoder {
    /// Weights that are streamed for every picture, in the memory where the denoiser's blocks take turns.
    pub streamed_bytes: u64,
    /// Bytes that cross the bus in a run of one picture because temporaries wait on the host.
    pub spilled_bytes: u64,
}

impl fmt::Display for PlannedStreaming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let budget = human_bytes(self.budget_bytes);
        let parts = [
            ("text encoders", self.text_encoders, "for a text"),
            ("modulations", self.modulation, "for a run"),
            ("denoiser", self.denoiser, "in every step"),
        ];
        let kept = match self.keeps_denoiser {
            true => "\n  the denoiser stays while another prompt is encoded",
            false => "",
        };
        let PlannedDecoder { streamed_bytes, spilled_bytes } = self.decoder;
        let stays = spilled_bytes + streamed_bytes == 0;
        if stays && parts.iter().all(|(_, part, _)| part.streamed_blocks == 0) {
            return write!(
                f,
                "Fits within {budget}: all weights stay on the GPU while they are needed{kept}"
            );
        }
        write!(f, "Fits within {budget}, staging memory {}", human_bytes(self.staging_bytes))?;
        for (name, part, when) in parts {
            write!(f, "\n  {name:<18}  {:>12} stay", human_bytes(part.resident_bytes))?;
            if part.streamed_blocks > 0 {
                write!(
                    f,
                    ", {} in {} blocks come and go {when}, in {}",
                    human_bytes(part.streamed_bytes),
                    part.streamed_blocks,
                    human_bytes(part.slot_bytes)
                )?;
            }
        }
        if !stays {
            write!(
                f,
                "\n  decoder             {:>12} of weights come and go for a picture, {} of temporaries",
                human_bytes(streamed_bytes),
                human_bytes(spilled_bytes)
            )?;
        }
        f.write_str(kept)
    }
}

/// A part of a model, of which blocks may be streamed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PlannedPart {
    /// Weights that stay on the GPU while the part is used.
    pub resident_bytes: u64,
    /// Memory in which streamed blocks take turns.
    pub slot_bytes: u64,
    /// How many of them are in it together: two, or one, whose work the next one waits for.
    pub slots: usize,
    /// Weights that are streamed every time the part is used: in every step, for the denoiser.
    pub streamed_bytes: u64,
    /// Streamed blocks.
    pub streamed_blocks: usize,
}

impl PlannedMemory {
    /// The most that a run needs at any time whose model has no text encoders, as one with random weights has none.
    pub fn without_encoders_bytes(&self) -> u64 {
        let PlannedMemory { modulation_weights_bytes, states_bytes, .. } = *self;
        let denoising = self.denoiser_weights_bytes + self.temporaries_bytes + states_bytes;
        match self.keeps_text_encoders {
            true => modulation_weights_bytes + denoising,
            false => denoising.max(modulation_weights_bytes + states_bytes),
        }
    }
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
#[non_exhaustive]
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
    /// Text tokens that the transformer sees.
    pub text_tokens: usize,
    /// Evaluations of the network in a step: 2 under true guidance.
    pub evaluations_per_step: usize,
    /// Steps of all stages.
    pub steps: usize,
    /// The stages.
    pub stages: Vec<PlannedStage>,
    /// The temporal cache with its parameters, or `off`.
    pub cache: String,
    /// Operations of the whole run: text encoders, all steps, decoding. Steps that a cache with a fixed rule reuses
    /// count what is left of them; with other caches all steps count as if they were computed.
    pub tflops: Tflops,
    /// Plain sampling with the family's full number of steps.
    pub baseline: Baseline,
    /// The baseline's operations over this run's, as RALU's paper counts.
    pub speedup: f64,
    /// The same with the products of attention: what a clock should show.
    pub speedup_with_attention: f64,
    /// Memory on the GPU.
    pub memory: PlannedMemory,
    /// What weights are quantised to while they are loaded, and of which parts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quantize: Option<Quantise>,
    /// What was asked to be quantised and stays as it is stored, in sentences.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_quantised: Vec<String>,
}

/// Steps of plain sampling that a model's speed-ups are relative to.
pub fn baseline_steps(config: &ModelConfig) -> usize {
    config.family().baseline_steps(config)
}

/// How many steps of a run are computed and how many reused, where that is fixed: for each stage and step, whether
/// the network is evaluated. `None` if a cache looks at values.
fn static_decisions(
    config: &ModelConfig,
    settings: &Settings,
    schedule: &RunSchedule,
) -> Result<Option<Vec<Vec<bool>>>, Error> {
    let Some(spec) = &settings.cache else {
        return Ok(Some(schedule.stages.iter().map(|s| vec![true; s.steps()]).collect()));
    };
    let plain = match spec.plain_steps() {
        Some(steps) => config.plain_sigmas(steps, schedule.rows * schedule.cols)?,
        None => vec![],
    };
    let sigmas: Vec<&[f64]> = schedule.stages.iter().map(|stage| &stage.sigmas[..]).collect();
    Ok(cache::static_decisions(spec, &plain, &sigmas)?)
}

/// Plans a run of `config` with `settings` on an adapter with `caps`.
///
/// With `source`, weights count in the types they are stored in; without, in 16 bits, as FLUX.1 is published. `options`
/// are those the pipeline is opened with.
pub fn plan(
    config: &ModelConfig,
    source: Option<&dyn Source>,
    settings: &Settings,
    caps: Caps,
    options: Options,
) -> Result<Plan, Error> {
    check_widths(config)?;
    let schedule = RunSchedule::new(settings, config)?;
    let recorded = Recorded::new(config, source, settings, &schedule, caps, options)?;
    let evaluations = settings.evaluations_per_step();
    let steps = &recorded.steps;
    let overhead = recorded.text_encoders * evaluations as f64 + recorded.decode;

    let decisions = static_decisions(config, settings, &schedule)?;
    let mut run = overhead + recorded.decode_low;
    for (i, stage) in schedule.stages.iter().enumerate() {
        let all = vec![true; stage.steps()];
        let computed = decisions.as_ref().map_or(&all, |stages| &stages[i]);
        run += computed.iter().map(|computed| steps[i].of(*computed)).sum();
    }
    let baseline_steps = baseline_steps(config);
    // The last stage has all tokens, as every step of plain sampling.
    let full_step = steps.last().map_or(Flops::default(), |step| step.of(true));
    let baseline = overhead + full_step * baseline_steps as f64;

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
        text_tokens: config.text_tokens(settings.max_sequence_length),
        cache: settings.cache.as_ref().map_or("off".into(), CacheSpec::to_string),
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
                tflops_per_step: steps[i].of(true).into(),
                computed: match (&settings.cache, &decisions) {
                    (Some(_), Some(stages)) => Some(stages[i].clone()),
                    _ => None,
                },
                arrivals: recorded.arrivals[i].clone(),
            })
            .collect(),
        tflops: run.into(),
        baseline: Baseline { steps: baseline_steps, tflops: baseline.into() },
        speedup: baseline.linear / run.linear,
        speedup_with_attention: baseline.total() / run.total(),
        memory: recorded.memory,
        quantize: options.quantise,
        not_quantised: recorded.not_quantised,
    })
}

impl Plan {
    /// The steps of all stages, computed or reused, where that is fixed: `FFrrF FFrF`.
    fn pattern(&self) -> Option<String> {
        let letter = |computed: &bool| if *computed { 'F' } else { 'r' };
        let stages = self
            .stages
            .iter()
            .map(|stage| Some(stage.computed.as_ref()?.iter().map(letter).collect::<String>()));
        Some(stages.collect::<Option<Vec<_>>>()?.join(" "))
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
        if self.cache != "off" {
            writeln!(f, "cache {}", self.cache)?;
            if let Some(pattern) = self.pattern() {
                writeln!(f, "steps {pattern} (F computed, r reused)")?;
            }
        }
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
        let encoders = memory.text_encoder_weights_bytes;
        writeln!(f, "  its encoders' weights {:>10}", human_bytes(encoders))?;
        writeln!(f, "  modulation weights  {:>12}", human_bytes(memory.modulation_weights_bytes))?;
        writeln!(f, "  denoiser weights    {:>12}", human_bytes(memory.denoiser_weights_bytes))?;
        writeln!(f, "  temporaries         {:>12}", human_bytes(memory.temporaries_bytes))?;
        write!(f, "  states              {:>12}", human_bytes(memory.states_bytes))?;
        if memory.cache_bytes > 0 {
            write!(f, ", of which the cache {}", human_bytes(memory.cache_bytes))?;
        }
        if let Some(quantise) = self.quantize {
            write!(f, "\nweights quantised to {quantise} while they are loaded")?;
        }
        match &memory.streaming {
            Some(streaming) => write!(f, "\n\n{streaming}"),
            None => Ok(()),
        }
    }
}
