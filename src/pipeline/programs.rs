//! The recordings of a run: what the GPU does in each phase, and the memory it lives in.

use crate::models::clip::Clip;
use crate::models::config::ModelConfig;
use crate::models::flux::{Flux, FluxInputs};
use crate::models::layers::TIME_CHANNELS;
use crate::models::t5::T5;
use crate::models::vae::{IMAGE_CHANNELS, VaeDecoder};
use crate::ops::{euler_step, renoise, unpack};
use crate::pipeline::RunSchedule;
use crate::tensor::{Caps, Recorder, Recording, Resident, ResidentIds};

/// Index of each number in the `step` vector.
pub(super) mod step {
    /// `sigma_next - sigma`.
    pub const DELTA: usize = 0;
    /// Scale of true guidance.
    pub const TRUE_CFG: usize = 1;
    /// Noise level of the latents, for the clean estimate.
    pub const SIGMA: usize = 2;
    /// Length of the vector.
    pub const LEN: usize = 4;
}

/// A prompt's embeddings on the GPU.
pub(super) struct Conditioning {
    /// `[T, joint_attention_dim]`.
    pub txt: Resident,
    /// `[1, pooled_projection_dim]`.
    pub pooled: Resident,
}

/// What all stages of a run share.
pub(super) struct SharedInputs {
    pub positive: Conditioning,
    /// Present under true guidance.
    pub negative: Option<Conditioning>,
    /// Sinusoid of the timestep.
    pub time: Resident,
    /// Sinusoid of the guidance scale.
    pub guidance: Resident,
    /// See [`step`].
    pub step: Resident,
}

/// The memory of one stage that outlives its steps.
pub(super) struct StageMemory {
    /// Latents, `[N, 64]`.
    pub x: Resident,
    /// The last velocity, `[N, 64]`.
    pub velocity: Resident,
    /// Rotations, `[T + N, head_dim]`.
    pub pe: Resident,
}

/// What a jump reads beside the latents.
pub(super) struct JumpMemory {
    /// Gather list.
    pub source: Resident,
    /// `[M, 64]`.
    pub noise: Resident,
}

/// Hands out the residents of a run.
pub(super) struct Layout<'a> {
    pub ids: &'a ResidentIds,
    pub caps: Caps,
    pub config: &'a ModelConfig,
}

impl Layout<'_> {
    fn matrix(&self, label: &str, rows: usize, cols: usize) -> Resident {
        self.ids.matrix(label, rows, cols, self.caps.max_binding_bytes)
    }

    pub fn shared(&self, n_text: usize, guided: bool) -> SharedInputs {
        let flux = self.config.flux();
        let conditioning = |name: &str| Conditioning {
            txt: self.matrix(&format!("{name}.txt"), n_text, flux.joint_attention_dim),
            pooled: self.matrix(&format!("{name}.pooled"), 1, flux.pooled_projection_dim),
        };
        SharedInputs {
            positive: conditioning("positive"),
            negative: guided.then(|| conditioning("negative")),
            time: self.matrix("time", 1, TIME_CHANNELS),
            guidance: self.matrix("guidance", 1, TIME_CHANNELS),
            step: self.matrix("step", 1, step::LEN),
        }
    }

    pub fn stage(&self, number: usize, n_tokens: usize, n_text: usize) -> StageMemory {
        let flux = self.config.flux();
        let label = |name: &str| format!("stage{number}.{name}");
        StageMemory {
            x: self.matrix(&label("x"), n_tokens, flux.in_channels),
            velocity: self.matrix(&label("velocity"), n_tokens, flux.out_channels),
            pe: self.matrix(&label("pe"), n_text + n_tokens, flux.attention_head_dim),
        }
    }

    pub fn jump(&self, number: usize, n_tokens: usize) -> JumpMemory {
        let label = |name: &str| format!("jump{number}.{name}");
        JumpMemory {
            source: self.matrix(&label("source"), 1, n_tokens.next_multiple_of(4)),
            noise: self.matrix(&label("noise"), n_tokens, self.config.flux().in_channels),
        }
    }

    /// Decoded pixels of a grid of tokens.
    pub fn pixels(&self, label: &str, rows: usize, cols: usize) -> Resident {
        let size = [rows * 16, cols * 16, IMAGE_CHANNELS];
        self.ids.picture(label, size, self.caps.max_binding_bytes)
    }
}

/// One step: evaluate the network (twice under true guidance), then Euler.
pub(super) fn record_step(
    caps: Caps,
    label: &str,
    flux: &Flux,
    shared: &SharedInputs,
    stage: &StageMemory,
) -> Recording {
    let recorder = Recorder::new(caps);
    let x = recorder.resident(&stage.x);
    let forward = |conditioning: &Conditioning| {
        let inputs = FluxInputs {
            txt: recorder.resident(&conditioning.txt),
            pooled: recorder.resident(&conditioning.pooled),
            time: recorder.resident(&shared.time),
            guidance: recorder.resident(&shared.guidance),
            pe: recorder.resident(&stage.pe),
        };
        flux.forward(x, inputs)
    };
    let conditional = recorder.scope("cond", || forward(&shared.positive));
    let unconditional =
        shared.negative.as_ref().map(|negative| recorder.scope("uncond", || forward(negative)));
    euler_step(
        "euler",
        conditional,
        unconditional,
        recorder.resident(&shared.step),
        recorder.resident(&stage.velocity),
        x,
    );
    recorder.finish(label)
}

/// The jump from one stage's latents to the next one's.
pub(super) fn record_jump(
    caps: Caps,
    label: &str,
    from: &Resident,
    jump: &JumpMemory,
    gains: [f32; 2],
    to: &Resident,
) -> Recording {
    let recorder = Recorder::new(caps);
    renoise(
        "renoise",
        recorder.resident(from),
        recorder.resident(&jump.source),
        recorder.resident(&jump.noise),
        gains[0],
        gains[1],
        recorder.resident(to),
    );
    recorder.finish(label)
}

/// Latents and the velocity that leads from them to the clean picture, both `[N, 64]`.
#[derive(Clone, Copy)]
struct Estimate<'a> {
    x: &'a Resident,
    velocity: &'a Resident,
}

impl<'a> From<&'a StageMemory> for Estimate<'a> {
    fn from(stage: &'a StageMemory) -> Self {
        Estimate { x: &stage.x, velocity: &stage.velocity }
    }
}

/// Records the decoding of clean estimates.
struct Decoding<'a> {
    caps: Caps,
    config: &'a ModelConfig,
    vae: &'a VaeDecoder,
    step: &'a Resident,
}

impl Decoding<'_> {
    /// An estimate in raster order of a grid of `cols` columns.
    fn grid(
        &self,
        label: &str,
        estimate: Estimate<'_>,
        cols: usize,
        pixels: &Resident,
    ) -> Recording {
        let recorder = Recorder::new(self.caps);
        self.decode(&recorder, estimate, cols, pixels);
        recorder.finish(label)
    }

    /// The estimate of a mixed stage at full size, where coarse tokens count four times: `source` says which
    /// token is where, `view` is memory for the full grid.
    fn mixed(
        &self,
        label: &str,
        stage: &StageMemory,
        source: &JumpMemory,
        view: &MixedView,
        cols: usize,
        pixels: &Resident,
    ) -> Recording {
        let recorder = Recorder::new(self.caps);
        for (name, from, to) in
            [("view.x", &stage.x, &view.x), ("view.velocity", &stage.velocity, &view.velocity)]
        {
            let (from, to) = (recorder.resident(from), recorder.resident(to));
            let noise = recorder.resident(&source.noise);
            renoise(name, from, recorder.resident(&source.source), noise, 1.0, 0.0, to);
        }
        let estimate = Estimate { x: &view.x, velocity: &view.velocity };
        self.decode(&recorder, estimate, cols, pixels);
        recorder.finish(label)
    }

    fn decode(&self, recorder: &Recorder, estimate: Estimate<'_>, cols: usize, pixels: &Resident) {
        let vae = &self.config.vae;
        let rows = estimate.x.rows / cols;
        let latents = recorder.image("latents", 2 * rows, 2 * cols, vae.latent_channels);
        unpack(
            "unpack",
            recorder.resident(estimate.x),
            recorder.resident(estimate.velocity),
            recorder.resident(self.step),
            cols,
            vae.scaling_factor as f32,
            vae.shift_factor as f32,
            latents,
        );
        self.vae.forward(latents, 2 * cols, recorder.resident(pixels));
    }
}

/// The memory that shows a mixed stage's estimate on the full grid.
pub(super) struct MixedView {
    pub x: Resident,
    pub velocity: Resident,
}

/// T5 over `n_text` tokens: embeddings and relative positions in, encodings out.
pub(super) fn record_t5(
    caps: Caps,
    t5: &T5,
    x: &Resident,
    relative_bias: &Resident,
    out: &Resident,
) -> Recording {
    let recorder = Recorder::new(caps);
    t5.forward(recorder.resident(x), recorder.resident(relative_bias), recorder.resident(out));
    recorder.finish("t5")
}

/// CLIP: embeddings in, pooled vector out.
pub(super) fn record_clip(
    caps: Caps,
    clip: &Clip,
    x: &Resident,
    pooled_at: usize,
    out: &Resident,
) -> Recording {
    let recorder = Recorder::new(caps);
    clip.forward(recorder.resident(x), pooled_at, recorder.resident(out));
    recorder.finish("clip")
}

/// Everything that a run records after the prompt is encoded, with the memory it needs.
pub(super) struct RunMemory {
    pub shared: SharedInputs,
    pub stages: Vec<StageMemory>,
    pub jumps: Vec<JumpMemory>,
    /// Pixels of the half-size picture, under RALU.
    pub low_pixels: Option<Resident>,
    pub pixels: Resident,
    /// For the estimate of a mixed stage, if wanted.
    pub mixed_view: Option<MixedView>,
}

impl RunMemory {
    pub fn new(
        layout: &Layout<'_>,
        schedule: &RunSchedule,
        n_text: usize,
        guided: bool,
        mixed_view: bool,
    ) -> Self {
        let channels = layout.config.flux().in_channels;
        let full = schedule.rows * schedule.cols;
        let stages = schedule
            .stages
            .iter()
            .enumerate()
            .map(|(i, spec)| layout.stage(i + 1, spec.n_tokens, n_text))
            .collect();
        let jumps = schedule
            .jumps
            .iter()
            .enumerate()
            .map(|(i, _)| layout.jump(i + 1, schedule.stages[i + 1].n_tokens))
            .collect();
        let (low_rows, low_cols) = (schedule.rows / 2, schedule.cols / 2);
        RunMemory {
            shared: layout.shared(n_text, guided),
            stages,
            jumps,
            low_pixels: schedule.is_ralu().then(|| layout.pixels("low", low_rows, low_cols)),
            pixels: layout.pixels("pixels", schedule.rows, schedule.cols),
            mixed_view: (mixed_view && schedule.has_regions()).then(|| MixedView {
                x: layout.matrix("view.x", full, channels),
                velocity: layout.matrix("view.velocity", full, channels),
            }),
        }
    }

    /// All residents of the run.
    pub fn residents(&self) -> Vec<&Resident> {
        let mut all = vec![
            &self.shared.positive.txt,
            &self.shared.positive.pooled,
            &self.shared.time,
            &self.shared.guidance,
            &self.shared.step,
            &self.pixels,
        ];
        all.extend(self.shared.negative.iter().flat_map(|n| [&n.txt, &n.pooled]));
        all.extend(self.stages.iter().flat_map(|s| [&s.x, &s.velocity, &s.pe]));
        all.extend(self.jumps.iter().flat_map(|j| [&j.source, &j.noise]));
        all.extend(self.low_pixels.iter());
        all.extend(self.mixed_view.iter().flat_map(|v| [&v.x, &v.velocity]));
        all
    }

    /// Their size.
    pub fn bytes(&self) -> u64 {
        self.residents().iter().flat_map(|resident| resident.band_bytes()).sum()
    }
}

/// All recordings of a run after the prompt is encoded.
pub(super) struct RunRecordings {
    /// One step of each stage.
    pub steps: Vec<Recording>,
    /// Between the stages.
    pub jumps: Vec<Recording>,
    /// The half-size picture, under RALU.
    pub decode_low: Option<Recording>,
    /// The picture.
    pub decode: Recording,
    /// The estimate of a mixed stage, if wanted.
    pub decode_mixed: Option<Recording>,
}

impl RunRecordings {
    pub fn new(
        caps: Caps,
        config: &ModelConfig,
        flux: &Flux,
        vae: &VaeDecoder,
        schedule: &RunSchedule,
        memory: &RunMemory,
    ) -> Self {
        let steps = memory.stages.iter().enumerate().map(|(i, stage)| {
            record_step(caps, &format!("stage{}", i + 1), flux, &memory.shared, stage)
        });
        let jumps =
            memory.jumps.iter().zip(&schedule.jumps).enumerate().map(|(i, (jump, spec))| {
                let gains = [spec.gain as f32, spec.noise_gain as f32];
                let (from, to) = (&memory.stages[i].x, &memory.stages[i + 1].x);
                record_jump(caps, &format!("jump{}", i + 1), from, jump, gains, to)
            });
        let decoding = Decoding { caps, config, vae, step: &memory.shared.step };
        let cols = schedule.cols;
        let last = &memory.stages[memory.stages.len() - 1];
        RunRecordings {
            steps: steps.collect(),
            jumps: jumps.collect(),
            decode_low: memory.low_pixels.as_ref().map(|pixels| {
                decoding.grid("decode.low", (&memory.stages[0]).into(), cols / 2, pixels)
            }),
            decode: decoding.grid("decode", last.into(), cols, &memory.pixels),
            decode_mixed: memory.mixed_view.as_ref().map(|view| {
                let (stage, source) = (&memory.stages[1], &memory.jumps[1]);
                decoding.mixed("decode.mixed", stage, source, view, cols, &memory.pixels)
            }),
        }
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Recording> {
        self.steps
            .iter()
            .chain(&self.jumps)
            .chain(&self.decode_low)
            .chain([&self.decode])
            .chain(&self.decode_mixed)
    }
}
