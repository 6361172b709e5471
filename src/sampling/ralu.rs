//! A RALU run in numbers: stages, and the jump between two stages.
//!
//! [`RaluParams`] is what a person chooses (or a [`Preset`](super::Preset) chooses for them);
//! [`RaluSchedule`] is what a sampler needs: sigmas per stage and one [`Jump`] between neighbours.
//!
//! ```
//! use ralu::models::flux1;
//! use ralu::sampling::Preset;
//!
//! let params = flux1::PRESETS.params(Preset::X4, 3.0)?;
//! let schedule = params.resolve(1024)?;
//! assert_eq!(schedule.steps(), 5 + 6 + 7);
//! assert!(schedule.stages[1].sigmas[0] > schedule.stages[0].sigmas[5]); // back toward noise
//! # Ok::<(), ralu::sampling::Error>(())
//! ```

use serde::{Deserialize, Serialize};

use super::Error;
use super::ntdm::{self, Solution, stage_start};
use super::rules::{KeptNoise, ZPolicy};
use super::schedule::stage_sigmas;

/// The base model's time shift as the authors set it for FLUX.1-dev and SD3 (`h_ori`).
///
/// It is the static `shift` of FLUX's scheduler file, not the `exp(mu)` a plain FLUX run uses.
pub const BASE_TIME_SHIFT: f64 = 3.0;

/// What defines a RALU run. Times are paper times, `t = 1 - sigma`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RaluParams {
    /// Evaluations of the network per stage. (The paper prints running totals.)
    pub stage_steps: Vec<usize>,
    /// Paper time at which each stage ends; rising, the last is 1.
    pub stage_ends: Vec<f64>,
    /// Share of coarse tokens refined at the first transition, 0 to 1 (`r`).
    pub up_ratio: f64,
    /// Time shift of each stage (`h`).
    #[serde(rename = "stage_shifts")]
    pub shifts: Vec<f64>,
    /// `Z = 1 / sqrt(c)`, at least 2: how strongly the transitions re-noise. Larger is noisier.
    #[serde(rename = "stage_z")]
    pub z: f64,
    /// The base model's time shift (`h_ori`), needed when a run collapses to two stages.
    pub base_time_shift: f64,
}

/// Numbers of a RALU run that a user chooses: lists have one number for each stage. What is absent is solved by NT-DM.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct CustomStages {
    /// Evaluations of the network in each stage.
    pub stage_steps: Vec<usize>,
    /// Paper time (0 is noise, 1 the picture) at the end of each stage; the last is 1.
    pub stage_ends: Vec<f64>,
    /// Share of coarse tokens that are refined early, 0 to 1.
    pub up_ratio: f64,
    /// Time shift of each stage; solved if absent.
    #[serde(alias = "shifts", skip_serializing_if = "Option::is_none")]
    pub stage_shifts: Option<Vec<f64>>,
    /// Strength of the noise between stages, at least 2; solved if absent.
    #[serde(alias = "z", skip_serializing_if = "Option::is_none")]
    pub stage_z: Option<f64>,
}

impl From<&RaluParams> for CustomStages {
    /// The same run, with nothing to solve.
    fn from(params: &RaluParams) -> Self {
        CustomStages {
            stage_steps: params.stage_steps.clone(),
            stage_ends: params.stage_ends.clone(),
            up_ratio: params.up_ratio,
            stage_shifts: Some(params.shifts.clone()),
            stage_z: Some(params.z),
        }
    }
}

/// Stages that RALU is defined for: coarse, mixed, full. (Without a mixed one it is two, which a run falls back to by
/// itself.)
const STAGES: usize = 3;

/// Rejects a list, called `what`, that has not one number for each of RALU's stages.
pub fn check_stages(what: &'static str, found: usize) -> Result<(), Error> {
    if found == STAGES {
        return Ok(());
    }
    Err(Error::Stages { what, found, expected: "three numbers" })
}

fn check_lists(steps: &[usize], ends: &[f64], shifts: Option<&[f64]>) -> Result<(), Error> {
    check_stages("the stage steps", steps.len())?;
    check_stages("the stage ends", ends.len())?;
    check_stages("the stage shifts", shifts.map_or(STAGES, <[f64]>::len))
}

impl RaluParams {
    /// Checks the numbers and fills in what is not given by NT-DM ([`ntdm::solve_with`]).
    ///
    /// `h_ori`: the base model's time shift, [`BASE_TIME_SHIFT`] unless there is a reason.
    pub fn custom(chosen: &CustomStages, h_ori: f64) -> Result<RaluParams, Error> {
        let CustomStages { stage_steps, stage_ends, up_ratio, stage_shifts, stage_z } = chosen;
        // Everything given is checked before the search, which would otherwise turn one NaN into
        // another.
        let mut params = RaluParams {
            stage_steps: stage_steps.clone(),
            stage_ends: stage_ends.clone(),
            up_ratio: *up_ratio,
            shifts: stage_shifts.clone().unwrap_or_else(|| vec![1.0; stage_steps.len()]),
            z: stage_z.unwrap_or(2.0),
            base_time_shift: h_ori,
        };
        params.validate()?;
        if stage_shifts.is_none() || stage_z.is_none() {
            let found = ntdm::solve_with(
                stage_steps,
                stage_ends,
                h_ori,
                stage_shifts.as_deref(),
                *stage_z,
            )?;
            params.shifts = found.shifts;
            params.z = found.z;
        }
        Ok(params)
    }

    /// The same run with the `Z` that `policy` asks for, and time shifts solved for that `Z`.
    ///
    /// Rejects a fixed `Z` below 2. Below a second.
    pub fn with_z_policy(&self, policy: ZPolicy) -> Result<RaluParams, Error> {
        let (steps, ends) = (&self.stage_steps, &self.stage_ends);
        let Solution { shifts, z, .. } = match policy {
            ZPolicy::Published => return Ok(self.clone()),
            ZPolicy::MinNoise => ntdm::solve_least_noise(steps, ends, self.base_time_shift)?,
            ZPolicy::Fixed(z) => {
                RaluParams { z, ..self.clone() }.validate()?;
                ntdm::solve_with(steps, ends, self.base_time_shift, None, Some(z))?
            }
        };
        Ok(RaluParams { shifts, z, ..self.clone() })
    }

    /// Rejects numbers no run can have.
    pub fn validate(&self) -> Result<(), Error> {
        check_lists(&self.stage_steps, &self.stage_ends, Some(&self.shifts))?;
        ntdm::check_run(&self.stage_steps, &self.stage_ends, self.base_time_shift)?;
        if !(0.0..=1.0).contains(&self.up_ratio) {
            return Err(Error::Value {
                what: "the up ratio",
                found: self.up_ratio,
                expected: "0 to 1",
                hint: "it is the share of coarse tokens refined early; 0.1 to 0.3 is usual",
            });
        }
        for &h in &self.shifts {
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
    /// time shifts and `Z` are solved again for two stages (where the authors' code fails on empty
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
        let steps = [self.stage_steps[0], self.stage_steps[1..].iter().sum()];
        let ends = [self.stage_ends[0], 1.0];
        let Solution { shifts, z, .. } =
            ntdm::solve_least_noise(&steps, &ends, self.base_time_shift)?;
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

    /// Gains of the clean estimate and of the noise field under [`super::JumpNoise::Bound`]:
    /// `[s, 1 - s]`, where the next stage starts at paper time `s`.
    ///
    /// A state of the flow at `s` is `s x1 + (1 - s) n`. Take the repeated clean estimate for `x1`
    /// and the field, which has unit variance and is white, for `n`: the noise has covariance
    /// `(1 - s)^2 I` as the model expects. The estimate carries none that copies could share, so
    /// nothing has to be anti-correlated.
    pub fn bound_gains(&self) -> [f64; 2] {
        [1.0 - self.noise_gain, self.noise_gain]
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
