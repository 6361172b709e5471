//! The recordings of a run: what the GPU does in each phase, and the memory it lives in.

mod compiled;
mod decode;
mod encode;
mod memory;
mod modulation;
mod steps;

pub(super) use compiled::Programs;
pub(super) use encode::{record_encoder, rehearse_encoder};
pub(super) use memory::{
    CacheMemory, JumpMemory, PositionMemory, ResidentPlanner, RunMemory, step, taylor,
};
pub(super) use modulation::{ModulationMemory, record_modulations};
pub(super) use steps::StepRecordings;

use crate::models::config::ModelConfig;
use crate::models::denoiser::Denoiser;
use crate::models::vae::VaeDecoder;
use crate::ops::{Weights, Write, combine, renoise};
use crate::pipeline::decoder_memory::DecoderMemory;
use crate::pipeline::{RunSchedule, Settings};
use crate::sampling::JumpNoise;
use crate::tensor::{Caps, Recorder, Recording, Resident};
use decode::Decoding;
use memory::StageMemory;
use steps::StepRecorder;

/// The jump from one stage's latents to the next one's: `to = gains[0] * Up(from) + gains[1] * noise`.
///
/// With `clean`, what is carried over is the clean estimate at that noise level.
fn record_jump(
    caps: Caps,
    label: &str,
    from: &StageMemory,
    clean: Option<f64>,
    jump: &JumpMemory,
    gains: [f64; 2],
    to: &Resident,
) -> Recording {
    let recorder = Recorder::new(caps);
    let x = recorder.resident(&from.x);
    let source = match clean {
        None => x,
        Some(sigma) => {
            let estimate = recorder.temp("estimate", x.rows(), x.cols());
            let weights = Weights::Constant([1.0, -sigma as f32, 0.0]);
            let inputs = [x, recorder.resident(&from.velocity)];
            combine("estimate", &inputs, weights, None, Write::Store, estimate);
            estimate
        }
    };
    renoise(
        "renoise",
        source,
        recorder.resident(&jump.source),
        recorder.resident(&jump.noise),
        gains[0] as f32,
        gains[1] as f32,
        recorder.resident(to),
    );
    recorder.finish(label)
}

/// What the recordings of a run are made from.
#[derive(Clone, Copy)]
pub(super) struct Models<'a> {
    pub config: &'a ModelConfig,
    pub denoiser: &'a dyn Denoiser,
    pub vae: &'a VaeDecoder,
}

/// All recordings of a run after the prompt is encoded.
pub(super) struct RunRecordings {
    /// Those of one step of each stage.
    pub steps: Vec<StepRecordings>,
    /// Between the stages.
    pub jumps: Vec<Recording>,
    /// Those that decode.
    pub decodes: DecodeRecordings,
}

/// The recordings that decode.
pub(super) struct DecodeRecordings {
    /// The half-size picture, if it is decoded.
    pub low: Option<Recording>,
    /// The picture.
    pub full: Recording,
    /// The estimate of a mixed stage, if wanted.
    pub mixed: Option<Recording>,
}

impl DecodeRecordings {
    /// `decoder` says how much memory each may take.
    pub fn new(
        caps: Caps,
        Models { config, vae, .. }: Models<'_>,
        schedule: &RunSchedule,
        memory: &RunMemory,
        decoder: DecoderMemory,
    ) -> Self {
        let decoding = Decoding { caps, config, vae, shared: &memory.shared, memory: decoder };
        let cols = schedule.cols;
        let last = &memory.stages[memory.stages.len() - 1];
        DecodeRecordings {
            low: memory.low_pixels.as_ref().map(|pixels| {
                decoding.grid("decode.low", (&memory.stages[0]).into(), cols / 2, pixels)
            }),
            full: decoding.grid("decode", last.into(), cols, &memory.pixels),
            mixed: memory.mixed_view.as_ref().map(|view| {
                let (stage, source) = (&memory.stages[1], &memory.jumps[1]);
                decoding.mixed("decode.mixed", stage, source, view, cols, &memory.pixels)
            }),
        }
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Recording> {
        self.low.iter().chain([&self.full]).chain(&self.mixed)
    }
}

impl RunRecordings {
    pub fn new(
        caps: Caps,
        models: Models<'_>,
        settings: &Settings,
        schedule: &RunSchedule,
        memory: &RunMemory,
        decoder: DecoderMemory,
    ) -> Self {
        let Models { config, denoiser, .. } = models;
        let steps = memory.stages.iter().enumerate().map(|(i, stage)| {
            let recorder = StepRecorder {
                caps,
                denoiser,
                network: &*config.transformer,
                branches: settings.evaluations_per_step(),
                shared: &memory.shared,
                stage,
                cache: memory.cache.as_ref(),
            };
            recorder.record(&format!("stage{}", i + 1))
        });
        let jumps =
            memory.jumps.iter().zip(&schedule.jumps).enumerate().map(|(i, (jump, spec))| {
                let (clean, gains) = match settings.rules.jump_noise {
                    JumpNoise::Fresh => (None, [spec.gain, spec.noise_gain]),
                    JumpNoise::Bound => {
                        (schedule.stages[i].sigmas.last().copied(), spec.bound_gains())
                    }
                };
                let (from, to) = (&memory.stages[i], &memory.stages[i + 1].x);
                record_jump(caps, &format!("jump{}", i + 1), from, clean, jump, gains, to)
            });
        RunRecordings {
            steps: steps.collect(),
            jumps: jumps.collect(),
            decodes: DecodeRecordings::new(caps, models, schedule, memory, decoder),
        }
    }

    /// All but those that decode.
    pub fn before_decoding(&self) -> impl Iterator<Item = &Recording> {
        self.steps.iter().flat_map(StepRecordings::iter).chain(&self.jumps)
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Recording> {
        self.before_decoding().chain(self.decodes.all())
    }
}
