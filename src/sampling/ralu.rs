//! A RALU run in numbers: presets, stages, and the jump between two stages.
//!
//! [`RaluParams`] is what a person chooses (or a [`Preset`] chooses for them); [`RaluSchedule`] is
//! what a sampler needs: sigmas per stage and one [`Jump`] between neighbours. [`Rules`] are the
//! four places where the authors' published code does something the paper's own derivation, or
//! plain sense, does not: each can be chosen on its own, [`Variant`] chooses all at once.
//!
//! ```
//! use ralu::sampling::{KeptNoise, Preset, Rules, Variant};
//!
//! let params = "4x".parse::<Preset>()?.params();
//! let schedule = params.resolve(1024)?;
//! assert_eq!(schedule.steps(), 5 + 6 + 7);
//! assert!(schedule.stages[1].sigmas[0] > schedule.stages[0].sigmas[5]); // back toward noise
//!
//! // The authors' choices, but for one.
//! let rules = Rules { kept_noise: KeptNoise::Exact, ..Variant::Official.rules() };
//! # let _ = rules;
//! # Ok::<(), ralu::sampling::Error>(())
//! ```

use std::fmt;
use std::str::FromStr;

use super::Error;
use super::ntdm::{self, Solution, stage_start};
use super::schedule::stage_sigmas;

/// A named speed-up of FLUX.1-dev over 50 plain steps, counted in linear-layer FLOPs.
///
/// `X4` and `X7` are those of the authors' code, `X5` that of the paper (v3). `X2` and `X3` were
/// found with the same optimiser for this engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Preset {
    /// 12 + 12 + 14 evaluations, 30 % of the coarse tokens refined early.
    X2,
    /// 7 + 8 + 10 evaluations, 30 %.
    X3,
    /// 5 + 6 + 7 evaluations, 30 %.
    X4,
    /// 4 + 5 + 6 evaluations, 20 %.
    X5,
    /// 2 + 3 + 5 evaluations, 10 %.
    X7,
}

impl Preset {
    /// All presets, slowest first.
    pub const ALL: [Preset; 5] = [Preset::X2, Preset::X3, Preset::X4, Preset::X5, Preset::X7];

    /// The preset's numbers, for a base time shift of 3.
    pub fn params(self) -> RaluParams {
        let near = [0.3, 0.45, 1.0];
        let (stage_steps, stage_ends, up_ratio, shifts, z) = match self {
            Preset::X2 => ([12, 12, 14], near, 0.3, [4.514, 2.343, 2.226], 4.276),
            Preset::X3 => ([7, 8, 10], near, 0.3, [4.954, 2.598, 2.324], 6.415),
            Preset::X4 => ([5, 6, 7], near, 0.3, [5.019, 2.589, 2.226], 6.317),
            // The paper prints c = 0.0177 here, not Z.
            Preset::X5 => ([4, 5, 6], near, 0.2, [5.12, 2.64, 2.25], 1.0 / libm::sqrt(0.0177)),
            // r = 0.1 is the code's; the paper's text says 0.2 but its printed cost fits 0.1.
            Preset::X7 => ([2, 3, 5], [0.2, 0.3, 1.0], 0.1, [8.141, 2.856, 2.193], 6.261),
        };
        RaluParams {
            stage_steps,
            stage_ends,
            up_ratio,
            shifts,
            z,
            base_time_shift: BASE_TIME_SHIFT,
        }
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Preset::X2 => "2x",
            Preset::X3 => "3x",
            Preset::X4 => "4x",
            Preset::X5 => "5x",
            Preset::X7 => "7x",
        })
    }
}

impl FromStr for Preset {
    type Err = Error;

    /// Reads `2x`, `3x`, `4x`, `5x` or `7x`.
    fn from_str(s: &str) -> Result<Self, Error> {
        Preset::ALL
            .into_iter()
            .find(|preset| preset.to_string().eq_ignore_ascii_case(s.trim()))
            .ok_or_else(|| Error::Unknown {
                what: "preset",
                found: s.to_string(),
                expected: "2x, 3x, 4x, 5x, 7x",
            })
    }
}

/// The base model's time shift as the authors set it for FLUX.1-dev and SD3 (`h_ori`).
///
/// It is the static `shift` of FLUX's scheduler file, not the `exp(mu)` a plain FLUX run uses.
pub const BASE_TIME_SHIFT: f64 = 3.0;

/// What defines a RALU run. Times are paper times, `t = 1 - sigma`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RaluParams {
    /// Evaluations of the network per stage. (The paper prints running totals.)
    pub stage_steps: [usize; 3],
    /// Paper time at which each stage ends; rising, the last is 1.
    pub stage_ends: [f64; 3],
    /// Share of coarse tokens refined at the first transition, 0 to 1 (`r`).
    pub up_ratio: f64,
    /// Time shift of each stage (`h`).
    pub shifts: [f64; 3],
    /// `Z = 1 / sqrt(c)`, at least 2: how strongly the transitions re-noise. Larger is noisier.
    pub z: f64,
    /// The base model's time shift (`h_ori`), needed when a run collapses to two stages.
    pub base_time_shift: f64,
}

impl RaluParams {
    /// Checks the numbers and fills in what is not given by NT-DM ([`ntdm::solve_with`]).
    ///
    /// `h_ori`: the base model's time shift, [`BASE_TIME_SHIFT`] unless there is a reason.
    pub fn custom(
        stage_steps: [usize; 3],
        stage_ends: [f64; 3],
        up_ratio: f64,
        shifts: Option<[f64; 3]>,
        z: Option<f64>,
        h_ori: f64,
    ) -> Result<RaluParams, Error> {
        // Everything given is checked before the search, which would otherwise turn one NaN into
        // another.
        let mut params = RaluParams {
            stage_steps,
            stage_ends,
            up_ratio,
            shifts: shifts.unwrap_or([1.0; 3]),
            z: z.unwrap_or(2.0),
            base_time_shift: h_ori,
        };
        params.validate()?;
        if shifts.is_none() || z.is_none() {
            let found = ntdm::solve_with(stage_steps, stage_ends, h_ori, shifts, z)?;
            params.shifts = found.shifts;
            params.z = found.z;
        }
        Ok(params)
    }

    /// Rejects numbers no run can have.
    pub fn validate(&self) -> Result<(), Error> {
        ntdm::check_run(&self.stage_steps, &self.stage_ends, self.base_time_shift)?;
        if !(0.0..=1.0).contains(&self.up_ratio) {
            return Err(Error::Value {
                what: "the up ratio",
                found: self.up_ratio,
                expected: "0 to 1",
                hint: "it is the share of coarse tokens refined early; 0.1 to 0.3 is usual",
            });
        }
        for h in self.shifts {
            if !(h.is_finite() && h > 0.0) {
                return Err(Error::Value {
                    what: "a stage's time shift",
                    found: h,
                    expected: "a finite number above 0",
                    hint: "leave it out to have it computed; 0.5 to 10 is usual",
                });
            }
        }
        if !(self.z.is_finite() && self.z >= 2.0) {
            return Err(Error::Value {
                what: "Z",
                found: self.z,
                expected: "a finite number of at least 2 (c = 1 / Z^2 is at most 1/4)",
                hint: "leave it out to have it computed; 4 to 8 is usual",
            });
        }
        Ok(())
    }

    /// Number of coarse tokens refined early: `floor(up_ratio * low_tokens)`, as the authors' code
    /// rounds.
    pub fn region_count(&self, low_tokens: usize) -> usize {
        super::regions::region_count(self.up_ratio, low_tokens)
    }

    /// The schedule for a picture with `low_tokens` coarse tokens.
    ///
    /// Three stages, unless the up ratio leaves no token, or every token, to the mixed stage
    /// (`r = 0`, `r = 1`, or rounding): see [`RaluParams::resolve_regions`].
    pub fn resolve(&self, low_tokens: usize) -> Result<RaluSchedule, Error> {
        self.resolve_regions(low_tokens, self.region_count(low_tokens))
    }

    /// The schedule when `regions` of `low_tokens` coarse tokens are to be refined early, for
    /// instance because somebody painted them.
    ///
    /// With none or all of them there is no mixed stage: the run becomes two stages, coarse until
    /// `stage_ends[0]` and full after it. The middle stage's evaluations go to the last one, and
    /// time shifts and `Z` are solved anew for two stages (where the authors' code fails on empty
    /// tensors, or spends a transition on noise alone). It is [`ntdm::solve_least_noise`] that
    /// solves: the least distance of two stages would throw the coarse one away.
    pub fn resolve_regions(
        &self,
        low_tokens: usize,
        regions: usize,
    ) -> Result<RaluSchedule, Error> {
        self.validate()?;
        if regions > 0 && regions < low_tokens {
            return RaluSchedule::new(self);
        }
        let [n1, n2, n3] = self.stage_steps;
        let steps = [n1, n2 + n3];
        let ends = [self.stage_ends[0], 1.0];
        let Solution { shifts, z, .. } =
            ntdm::solve_least_noise(steps, ends, self.base_time_shift)?;
        Ok(RaluSchedule::build(&steps, &ends, &shifts, z))
    }
}

/// Sigmas of each stage, and the jump between neighbours.
#[derive(Debug, Clone, PartialEq)]
pub struct RaluSchedule {
    /// Three stages, or two (coarse, full) for a collapsed run.
    pub stages: Vec<StagePlan>,
    /// One fewer than stages.
    pub jumps: Vec<Jump>,
}

/// One stage's noise levels.
#[derive(Debug, Clone, PartialEq)]
pub struct StagePlan {
    /// `n + 1` sigmas: the network is evaluated at the first `n`, the last Euler step lands on the
    /// last one.
    pub sigmas: Vec<f64>,
    /// The stage's time shift, for reports.
    pub time_shift: f64,
}

impl StagePlan {
    /// Evaluations of the network.
    pub fn steps(&self) -> usize {
        self.sigmas.len().saturating_sub(1)
    }
}

/// How the state is carried over a transition: `x_new = gain * Up(x) + noise_gain * z`.
///
/// A copied token has the noise of its parent in all four places, so fresh noise `z` must be
/// *anti*-correlated between them: `z ~ N(0, I - c J)` per block of four, `J` all ones. The
/// numbers follow from asking that the new state have mean `s * x1` and covariance `(1 - s)^2 I`.
/// RALU, equations of section "noise-timestep rescheduling"; `noise_gain` is also the sigma at
/// which the next stage starts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Jump {
    /// Signal gain `a` (`beta` in the authors' code).
    pub gain: f64,
    /// Noise gain `b` (`alpha` in the authors' code); equals the next stage's first sigma.
    pub noise_gain: f64,
    /// Coefficient that correlates four iid normals: `z_i = eps_i + kappa * sum(eps)`.
    /// `-1/4 <= kappa <= 0`.
    pub kappa: f64,
    /// Correlation `c = 1 / Z^2`, at most 1/4.
    pub c: f64,
}

impl Jump {
    /// The jump out of a stage that ended at paper time `end`.
    pub fn new(end: f64, z: f64) -> Jump {
        let delta = z * (1.0 - end);
        let c = 1.0 / (z * z);
        Jump {
            gain: 1.0 / (delta + end),
            noise_gain: delta / (delta + end),
            // The symmetric square root of I - c J; Z = 2 may round to just below zero.
            kappa: (libm::sqrt((1.0 - 4.0 * c).max(0.0)) - 1.0) / 4.0,
            c,
        }
    }

    /// Standard deviation of the noise given to tokens that are *not* refined in this transition.
    pub fn kept_amplitude(&self, rule: KeptNoise) -> f64 {
        match rule {
            KeptNoise::Official => 1.0,
            KeptNoise::Exact => libm::sqrt(1.0 - self.c),
        }
    }

    /// `gain * up + noise_gain * noise`, value by value, in f32: the plain definition, against
    /// which a kernel can be checked.
    pub fn renoise(&self, up: &[f32], noise: &[f32]) -> Vec<f32> {
        let (a, b) = (self.gain as f32, self.noise_gain as f32);
        up.iter().zip(noise).map(|(x, z)| a * x + b * z).collect()
    }
}

impl RaluSchedule {
    /// The three-stage schedule of `params`, whatever the picture's size. For a picture, use
    /// [`RaluParams::resolve`], which also knows when three stages make no sense.
    pub fn new(params: &RaluParams) -> Result<RaluSchedule, Error> {
        params.validate()?;
        Ok(RaluSchedule::build(&params.stage_steps, &params.stage_ends, &params.shifts, params.z))
    }

    /// Evaluations of the network in the whole run.
    pub fn steps(&self) -> usize {
        self.stages.iter().map(StagePlan::steps).sum()
    }

    fn build(steps: &[usize], ends: &[f64], shifts: &[f64], z: f64) -> RaluSchedule {
        let mut start = 0.0;
        let mut stages = Vec::with_capacity(steps.len());
        let mut jumps = Vec::with_capacity(steps.len());
        for ((&n, &end), &h) in steps.iter().zip(ends).zip(shifts) {
            stages.push(StagePlan { sigmas: stage_sigmas(h, start, end, n), time_shift: h });
            if stages.len() < steps.len() {
                jumps.push(Jump::new(end, z));
                start = stage_start(end, z);
            }
        }
        RaluSchedule { stages, jumps }
    }
}

/// All of the choices in [`Rules`] at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Variant {
    /// What the authors' published code does, for comparing results with it.
    Official,
    /// What the derivation asks for.
    #[default]
    Exact,
}

impl Variant {
    /// The choices this variant makes.
    pub fn rules(self) -> Rules {
        Rules {
            kept_noise: self.kept_noise(),
            gray_map: self.gray_map(),
            upsample: self.upsample(),
            tie_break: self.tie_break(),
        }
    }

    /// Noise of tokens that are not refined in a transition.
    pub fn kept_noise(self) -> KeptNoise {
        match self {
            Variant::Official => KeptNoise::Official,
            Variant::Exact => KeptNoise::Exact,
        }
    }

    /// How a decoded picture becomes grey.
    pub fn gray_map(self) -> GrayMap {
        match self {
            Variant::Official => GrayMap::Official,
            Variant::Exact => GrayMap::Fixed,
        }
    }

    /// How a coarse token becomes four fine ones. `Token` in both: the published results come from
    /// it, and nobody has yet shown on real weights that `Latent` is better.
    pub fn upsample(self) -> Upsample {
        Upsample::Token
    }

    /// Which of two patches with equally many edge pixels is refined.
    pub fn tie_break(self) -> TieBreak {
        match self {
            Variant::Official => TieBreak::Index,
            Variant::Exact => TieBreak::Gradient,
        }
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Variant::Official => "official",
            Variant::Exact => "exact",
        })
    }
}

impl FromStr for Variant {
    type Err = Error;

    /// Reads `official` or `exact`.
    fn from_str(s: &str) -> Result<Self, Error> {
        match s.trim().to_ascii_lowercase().as_str() {
            "official" => Ok(Variant::Official),
            "exact" => Ok(Variant::Exact),
            _ => Err(Error::Unknown {
                what: "variant",
                found: s.to_string(),
                expected: "official, exact",
            }),
        }
    }
}

/// Where one may follow the authors' code or correct it, each on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rules {
    /// Noise of tokens that are not refined in a transition.
    pub kept_noise: KeptNoise,
    /// How a decoded picture becomes grey.
    pub gray_map: GrayMap,
    /// How a coarse token becomes four fine ones.
    pub upsample: Upsample,
    /// Which of two equally edgy patches is refined.
    pub tie_break: TieBreak,
}

impl Default for Rules {
    fn default() -> Self {
        Variant::default().rules()
    }
}

impl From<Variant> for Rules {
    fn from(variant: Variant) -> Rules {
        variant.rules()
    }
}

/// Noise of tokens that are not refined in a transition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeptNoise {
    /// Unit variance, as the code has it: these tokens end up `sqrt(1 + c)` too noisy.
    Official,
    /// Variance `1 - c`, which is what the derivation gives for tokens without copies.
    Exact,
}

/// How a decoder's output, nominally in `[-1, 1]`, becomes grey in `[0, 1]` for the edge search.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GrayMap {
    /// `clip(y)`, as the code has it: the darker half of the picture is black and has no edges.
    Official,
    /// `clip(y / 2 + 1/2)`.
    Fixed,
}

/// How a coarse token becomes four fine ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Upsample {
    /// The packed 2x2 patch is repeated four times (the code, and the paper's figure).
    Token,
    /// Each latent pixel is repeated four times, so that child `(p, q)` is filled with pixel
    /// `(p, q)` of its parent: nearest neighbour on the latent itself.
    Latent,
}

/// Which of two patches with equally many edge pixels is refined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TieBreak {
    /// The earlier one in raster order. The code adds unseeded noise of 1e-6 instead, which in f32
    /// decides only between patches without any edge; this is one of its possible outcomes.
    Index,
    /// The one with more gradient, then the earlier one.
    Gradient,
}
