//! The memory of a run that outlives its recordings.

use std::sync::Arc;

use crate::models::config::ModelConfig;
use crate::models::denoiser::{Denoiser, PerGrid, Positions};
use crate::models::vae::IMAGE_CHANNELS;
use crate::ops::change_rows;
use crate::pipeline::{RunSchedule, Settings, StageKind};
use crate::sampling::RopeMode;
use crate::sampling::cache::{CacheSpec, Cached, Probe};
use crate::tensor::{Caps, F16Range, Fallbacks, Recorder, Resident, ResidentIds};

/// Index of each number in the `step` vector.
pub(in crate::pipeline) mod step {
    /// `sigma_next - sigma`.
    pub const DELTA: usize = 0;
    /// Scale of classifier-free guidance.
    pub const CFG: usize = 1;
    /// Noise level of the latents, for the clean estimate.
    pub const SIGMA: usize = 2;
    /// Length of the vector.
    pub const LEN: usize = 4;
}

/// Index of each group of numbers in the vector of a Taylor cache's weights.
pub(in crate::pipeline) mod taylor {
    /// Of `F0, F1, F2` in the prediction.
    pub const PREDICT: usize = 0;
    /// Of `y, F0, F1` in the new `F2`.
    pub const SECOND: usize = 4;
    /// Of `y, F0` in the new `F1`.
    pub const FIRST: usize = 8;
    /// Length of the vector.
    pub const LEN: usize = 12;
}

/// What all stages of a run share. Matrices hold the branches of guidance one after the other: B of them.
pub(in crate::pipeline) struct SharedInputs {
    /// Text tokens, `[B * T, text_dim]`.
    pub txt: Resident,
    /// The modulations of the step at hand, `[B, width]`.
    pub modulations: Resident,
    /// See [`step`].
    pub step: Resident,
    /// On adapters where products may round to f16.
    pub f16_range: Option<Arc<F16Range>>,
}

/// The memory of one stage that outlives its steps.
pub(in crate::pipeline) struct StageMemory {
    /// Latents, `[N, 4 C]`.
    pub x: Resident,
    /// The last velocity, `[N, 4 C]`.
    pub velocity: Resident,
    /// Where the tokens are.
    pub positions: PositionMemory,
}

/// What a network is told of its tokens' places: see [`Positions`].
pub(in crate::pipeline) enum PositionMemory {
    /// `[T + N, head_dim]`.
    Rotations(Resident),
    /// Two tables `[T + N, head_dim]`.
    PerGrid { fine: Resident, coarse: Resident, n_coarse: usize },
    /// `[N, hidden]`.
    Added(Resident),
}

impl PositionMemory {
    /// In a recording.
    pub fn on<'r>(&self, recorder: &'r Recorder) -> Positions<'r> {
        match self {
            PositionMemory::Rotations(table) => Positions::Rotations(recorder.resident(table)),
            PositionMemory::Added(table) => Positions::Added(recorder.resident(table)),
            PositionMemory::PerGrid { fine, coarse, n_coarse } => Positions::PerGrid(PerGrid {
                fine: recorder.resident(fine),
                coarse: recorder.resident(coarse),
                n_coarse: *n_coarse,
            }),
        }
    }

    fn residents(&self) -> Vec<&Resident> {
        match self {
            PositionMemory::Rotations(table) | PositionMemory::Added(table) => vec![table],
            PositionMemory::PerGrid { fine, coarse, .. } => vec![fine, coarse],
        }
    }
}

/// What a jump reads besides the latents.
pub(in crate::pipeline) struct JumpMemory {
    /// Gather list.
    pub source: Resident,
    /// `[M, 4 C]`.
    pub noise: Resident,
}

/// The memory that shows a mixed stage's estimate on the full grid.
pub(in crate::pipeline) struct MixedView {
    pub x: Resident,
    pub velocity: Resident,
}

/// What a temporal cache keeps from step to step. All stages share it: it is forgotten at jumps, and has room for the
/// longest sequence.
pub(in crate::pipeline) enum CacheMemory {
    /// What some blocks add to the image stream.
    Residual {
        /// The first of these blocks; all that follow it are among them.
        first_block: usize,
        /// `[B * N, hidden]`.
        added: Resident,
        /// With a cache that looks at values.
        probe: Option<Box<ProbeMemory>>,
    },
    /// The guided velocity.
    Output {
        /// Its Taylor factors, `[N, 4 C]` each.
        factors: Vec<Resident>,
        /// Weights of the factors: see [`taylor`].
        weights: Resident,
    },
    /// The output of every module.
    Modules {
        /// Taylor factors of each, `[rows, hidden]` each.
        factors: Vec<Vec<Resident>>,
        /// Weights of the factors: see [`taylor`].
        weights: Resident,
    },
}

/// What a cache compares to decide, and the sequence between that and what follows.
pub(in crate::pipeline) struct ProbeMemory {
    /// What is compared.
    pub kind: Probe,
    /// The sequence, `[B * (T + N), hidden]`.
    pub x: Resident,
    /// What is compared, of this step, `[B * N, hidden]`.
    pub new: Resident,
    /// What is compared, of an earlier step.
    pub old: Resident,
    /// Sums, for the host to finish.
    pub partials: Resident,
}

impl CacheMemory {
    /// The memory of the probe, with a cache that looks at values.
    pub fn probe(&self) -> Option<&ProbeMemory> {
        match self {
            CacheMemory::Residual { probe, .. } => probe.as_deref(),
            CacheMemory::Output { .. } | CacheMemory::Modules { .. } => None,
        }
    }

    /// The weights of the Taylor factors, with a cache that has such.
    pub fn taylor_weights(&self) -> Option<&Resident> {
        match self {
            CacheMemory::Residual { .. } => None,
            CacheMemory::Output { weights, .. } | CacheMemory::Modules { weights, .. } => {
                Some(weights)
            }
        }
    }

    fn residents(&self) -> Vec<&Resident> {
        match self {
            CacheMemory::Residual { added, probe, .. } => {
                let probed = probe.iter().flat_map(|p| [&p.x, &p.new, &p.old, &p.partials]);
                [added].into_iter().chain(probed).collect()
            }
            CacheMemory::Output { factors, weights } => factors.iter().chain([weights]).collect(),
            CacheMemory::Modules { factors, weights } => {
                factors.iter().flatten().chain([weights]).collect()
            }
        }
    }

    /// Bytes on the GPU.
    pub fn bytes(&self) -> u64 {
        self.residents().iter().flat_map(|resident| resident.band_bytes()).sum()
    }
}

/// Hands out the residents of a run.
pub(in crate::pipeline) struct ResidentPlanner<'a> {
    pub ids: &'a ResidentIds,
    pub caps: Caps,
    pub config: &'a ModelConfig,
    pub settings: &'a Settings,
    /// What becomes of blocks that met numbers beyond f16.
    pub fallbacks: &'a Fallbacks,
}

impl ResidentPlanner<'_> {
    pub fn matrix(&self, label: &str, rows: usize, cols: usize) -> Resident {
        self.ids.matrix(label, rows, cols, self.caps.max_binding_bytes)
    }

    /// Text tokens of a branch.
    pub fn n_text(&self) -> usize {
        self.config.text_tokens(self.settings.max_sequence_length)
    }

    /// Branches of guidance.
    pub fn branches(&self) -> usize {
        self.settings.evaluations_per_step()
    }

    fn shared(&self, denoiser: &dyn Denoiser) -> SharedInputs {
        let (b, network) = (self.branches(), &self.config.transformer);
        SharedInputs {
            txt: self.matrix("txt", b * self.n_text(), network.text_dim()),
            modulations: self.matrix("modulations", b, denoiser.modulations().width()),
            step: self.matrix("step", 1, step::LEN),
            f16_range: self.caps.rounds_to_f16().then(|| {
                let flags = self.matrix("f16 flags", 1, F16Range::FLAGS);
                Arc::new(F16Range::new(flags, self.fallbacks.clone()))
            }),
        }
    }

    fn stage(
        &self,
        number: usize,
        kind: StageKind,
        n_tokens: usize,
        regions: usize,
    ) -> StageMemory {
        let network = &self.config.transformer;
        let label = |name: &str| format!("stage{number}.{name}");
        let table =
            |name: &str| self.matrix(&label(name), self.n_text() + n_tokens, network.head_dim());
        let units_differ =
            kind == StageKind::Mixed && self.settings.rules.rope_mode == RopeMode::Crpa;
        let positions = match network.rope() {
            Some(_) if units_differ => PositionMemory::PerGrid {
                fine: table("pe.fine"),
                coarse: table("pe.coarse"),
                n_coarse: n_tokens - 4 * regions,
            },
            Some(_) => PositionMemory::Rotations(table("pe")),
            None => {
                let table = self.matrix(&label("positions"), n_tokens, network.hidden());
                PositionMemory::Added(table)
            }
        };
        StageMemory {
            x: self.matrix(&label("x"), n_tokens, network.token_channels()),
            velocity: self.matrix(&label("velocity"), n_tokens, network.token_channels()),
            positions,
        }
    }

    fn jump(&self, number: usize, n_tokens: usize) -> JumpMemory {
        let label = |name: &str| format!("jump{number}.{name}");
        let channels = self.config.transformer.token_channels();
        JumpMemory {
            source: self.matrix(&label("source"), 1, n_tokens.next_multiple_of(4)),
            noise: self.matrix(&label("noise"), n_tokens, channels),
        }
    }

    fn cache(&self, spec: &CacheSpec, denoiser: &dyn Denoiser, most_tokens: usize) -> CacheMemory {
        let network = &*self.config.transformer;
        let (b, t, d) = (self.branches(), self.n_text(), network.hidden());
        let images = |name: &str| self.matrix(name, b * most_tokens, d);
        let weights = || self.matrix("cache.weights", 1, taylor::LEN);
        let residual = |first_block| CacheMemory::Residual {
            first_block,
            added: images("cache.residual"),
            probe: spec.probe().map(|kind| {
                Box::new(ProbeMemory {
                    kind,
                    x: self.matrix("cache.x", b * (t + most_tokens), d),
                    new: images("cache.probe"),
                    old: images("cache.probe.old"),
                    partials: self.matrix("cache.change", change_rows(b * most_tokens), 4),
                })
            }),
        };
        match spec.cached() {
            Cached::BlocksTail => residual(1),
            Cached::AllBlocks => residual(0),
            Cached::Output { factors } => {
                let channels = network.token_channels();
                let factor = |i| self.matrix(&format!("cache.output.{i}"), most_tokens, channels);
                let factors = (0..factors).map(factor).collect();
                CacheMemory::Output { factors, weights: weights() }
            }
            Cached::Modules { factors } => {
                let rows = denoiser.module_rows(b, t, most_tokens, network).into_iter();
                let factors = rows.enumerate().map(|(module, rows)| {
                    let factor = |i| self.matrix(&format!("cache.module.{module}.{i}"), rows, d);
                    (0..factors).map(factor).collect()
                });
                CacheMemory::Modules { factors: factors.collect(), weights: weights() }
            }
        }
    }

    /// Decoded pixels of a grid of tokens.
    fn pixels(&self, label: &str, rows: usize, cols: usize) -> Resident {
        let size = [rows * 16, cols * 16, IMAGE_CHANNELS];
        self.ids.picture(label, size, self.caps.max_binding_bytes)
    }
}

/// The memory of a run after the prompt is encoded.
pub(in crate::pipeline) struct RunMemory {
    pub shared: SharedInputs,
    pub stages: Vec<StageMemory>,
    pub jumps: Vec<JumpMemory>,
    /// Pixels of the half-size picture, if it is decoded.
    pub low_pixels: Option<Resident>,
    pub pixels: Resident,
    /// For the estimate of a mixed stage, if wanted.
    pub mixed_view: Option<MixedView>,
    /// Of the temporal cache, if there is one.
    pub cache: Option<CacheMemory>,
}

impl RunMemory {
    /// `stage_pictures` is whether all stages are to be shown.
    pub fn new(
        planner: &ResidentPlanner<'_>,
        schedule: &RunSchedule,
        denoiser: &dyn Denoiser,
        stage_pictures: bool,
    ) -> Self {
        let channels = planner.config.transformer.token_channels();
        let full = schedule.rows * schedule.cols;
        let stages = schedule
            .stages
            .iter()
            .enumerate()
            .map(|(i, spec)| planner.stage(i + 1, spec.kind, spec.n_tokens, schedule.regions));
        let jumps = schedule
            .jumps
            .iter()
            .enumerate()
            .map(|(i, _)| planner.jump(i + 1, schedule.stages[i + 1].n_tokens));
        let most_tokens = schedule.stages.iter().map(|stage| stage.n_tokens).max().unwrap_or(1);
        let (low_rows, low_cols) = (schedule.rows / 2, schedule.cols / 2);
        let decodes_low =
            schedule.is_ralu() && (stage_pictures || planner.settings.decodes_low_estimate());
        RunMemory {
            shared: planner.shared(denoiser),
            stages: stages.collect(),
            jumps: jumps.collect(),
            low_pixels: decodes_low.then(|| planner.pixels("low", low_rows, low_cols)),
            pixels: planner.pixels("pixels", schedule.rows, schedule.cols),
            mixed_view: (stage_pictures && schedule.has_regions()).then(|| MixedView {
                x: planner.matrix("view.x", full, channels),
                velocity: planner.matrix("view.velocity", full, channels),
            }),
            cache: (planner.settings.cache.as_ref())
                .map(|spec| planner.cache(spec, denoiser, most_tokens)),
        }
    }

    /// All residents of the run.
    pub fn residents(&self) -> Vec<&Resident> {
        let SharedInputs { txt, modulations, step, f16_range } = &self.shared;
        let mut all = vec![txt, modulations, step, &self.pixels];
        all.extend(f16_range.as_ref().map(|range| range.flags()));
        for stage in &self.stages {
            all.extend([&stage.x, &stage.velocity]);
            all.extend(stage.positions.residents());
        }
        all.extend(self.jumps.iter().flat_map(|j| [&j.source, &j.noise]));
        all.extend(self.low_pixels.iter());
        all.extend(self.mixed_view.iter().flat_map(|v| [&v.x, &v.velocity]));
        all.extend(self.cache.iter().flat_map(CacheMemory::residents));
        all
    }

    /// Their size.
    pub fn bytes(&self) -> u64 {
        self.residents().iter().flat_map(|resident| resident.band_bytes()).sum()
    }
}
