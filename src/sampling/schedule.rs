//! Noise levels of a run: which sigmas the network is asked at.
//!
//! A schedule is `n + 1` sigmas falling from near 1 (noise) to 0 (clean). The network is evaluated
//! at the first `n`; an Euler step is `x += (sigma[i + 1] - sigma[i]) * velocity`, with the
//! velocity in diffusers' sign, `noise - data`.
//!
//! ```
//! use ralu::sampling::FlowMatch;
//!
//! let sigmas = FlowMatch::FLUX_SCHNELL.sigmas(4, 4096)?;
//! assert_eq!(sigmas, [1.0, 0.75, 0.5, 0.25, 0.0]);
//! # Ok::<(), ralu::sampling::Error>(())
//! ```
//!
//! The `time_shift` says how strongly a schedule dwells on the noisy end. Larger pictures need
//! more of it (Stable Diffusion 3 paper, arXiv 2403.03206, section 5.3.2).

use super::Error;

/// The largest step count accepted anywhere. Far beyond any use; it keeps a slip of the finger
/// from asking for gigabytes.
pub const MAX_STEPS: usize = 10_000;

/// Diffusers' `FlowMatchEulerDiscreteScheduler`, reduced to what decides its sigmas.
///
/// Field names are those of the `scheduler_config.json` that comes with a model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FlowMatch {
    /// Static `time_shift`, used when `dynamic` is `None`.
    pub shift: f64,
    /// `time_shift` that follows the picture's size (`use_dynamic_shifting`).
    pub dynamic: Option<DynamicShift>,
    /// If given, sigmas are stretched so that the last one before 0 has this value.
    pub shift_terminal: Option<f64>,
    /// Training steps; of the noise levels only those of [`FlowMatch::sigmas_sd3`] depend on it.
    pub num_train_timesteps: u32,
}

/// How the `time_shift` follows the number of image tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DynamicShift {
    /// `mu` at `base_image_seq_len` tokens.
    pub base_shift: f64,
    /// `mu` at `max_image_seq_len` tokens.
    pub max_shift: f64,
    /// Tokens of the smaller reference picture.
    pub base_image_seq_len: f64,
    /// Tokens of the larger reference picture. `mu` goes on rising beyond it, unclamped.
    pub max_image_seq_len: f64,
    /// What `mu` means.
    pub kind: ShiftKind,
}

/// Meaning of `mu` (`time_shift_type` in diffusers).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ShiftKind {
    /// `time_shift = exp(mu)`; what FLUX uses.
    #[default]
    Exponential,
    /// `time_shift = mu`.
    Linear,
}

impl FlowMatch {
    /// FLUX.1-dev: `mu` from 0.5 at 256 tokens to 1.15 at 4096. The static 3.0 is in its file too;
    /// a plain run never uses it, RALU's authors take it as the base time shift.
    pub const FLUX_DEV: FlowMatch = FlowMatch {
        shift: 3.0,
        dynamic: Some(DynamicShift {
            base_shift: 0.5,
            max_shift: 1.15,
            base_image_seq_len: 256.0,
            max_image_seq_len: 4096.0,
            kind: ShiftKind::Exponential,
        }),
        shift_terminal: None,
        num_train_timesteps: 1000,
    };

    /// FLUX.1-schnell: no shift at all.
    pub const FLUX_SCHNELL: FlowMatch =
        FlowMatch { shift: 1.0, dynamic: None, shift_terminal: None, num_train_timesteps: 1000 };

    /// Stable Diffusion 3 and 3.5: static shift 3.
    pub const SD3: FlowMatch =
        FlowMatch { shift: 3.0, dynamic: None, shift_terminal: None, num_train_timesteps: 1000 };

    /// The `time_shift` for a picture of `n_tokens` image tokens: `exp(mu)` or `mu` when dynamic,
    /// else the static shift.
    ///
    /// `mu` is the straight line through the two reference points, without clamping, as
    /// `calculate_shift` in diffusers has it.
    pub fn time_shift(&self, n_tokens: usize) -> f64 {
        match self.dynamic {
            None => self.shift,
            Some(d) => {
                let slope =
                    (d.max_shift - d.base_shift) / (d.max_image_seq_len - d.base_image_seq_len);
                let mu = n_tokens as f64 * slope + (d.base_shift - slope * d.base_image_seq_len);
                match d.kind {
                    ShiftKind::Exponential => libm::exp(mu),
                    ShiftKind::Linear => mu,
                }
            }
        }
    }

    /// The `steps + 1` sigmas of diffusers' `FluxPipeline`: `linspace(1, 1/steps, steps)`, shifted,
    /// and a 0 appended.
    ///
    /// `n_tokens`: image tokens at full size, `(H/16) * (W/16)`. Diffusers rounds to f32 on the
    /// way; this is the same grid in f64, equal to within one f32 rounding (about 1e-7).
    pub fn sigmas(&self, steps: usize, n_tokens: usize) -> Result<Vec<f64>, Error> {
        check_steps("the run", steps)?;
        self.shifted(linspace(1.0, 1.0 / steps as f64, steps), n_tokens)
    }

    /// The `steps + 1` sigmas of diffusers' `StableDiffusion3Pipeline`.
    ///
    /// It leaves the grid to the scheduler, whose ends are the largest and smallest training sigma
    /// *after* the static shift; the even grid between them is then shifted once more. That double
    /// shift is the reference's behaviour and is kept.
    pub fn sigmas_sd3(&self, steps: usize, n_tokens: usize) -> Result<Vec<f64>, Error> {
        check_steps("the run", steps)?;
        if self.num_train_timesteps == 0 {
            return Err(Error::Value {
                what: "num_train_timesteps",
                found: 0.0,
                expected: "at least 1",
                hint: "check the model's scheduler configuration (usually 1000)",
            });
        }
        let least = 1.0 / f64::from(self.num_train_timesteps);
        let least = match self.dynamic {
            None => shift_sigma(self.shift, least),
            Some(_) => least,
        };
        self.shifted(linspace(1.0, least, steps), n_tokens)
    }

    /// Shift, stretch and close an even grid.
    fn shifted(&self, even: Vec<f64>, n_tokens: usize) -> Result<Vec<f64>, Error> {
        let time_shift = self.time_shift(n_tokens);
        // Beyond f32 it gives diffusers NaN.
        if !((time_shift as f32).is_finite() && time_shift as f32 > 0.0) {
            return Err(Error::Value {
                what: "time_shift",
                found: time_shift,
                expected: "a finite number above 0",
                hint: "check the shift values in the model's scheduler configuration and the \
                       picture's size",
            });
        }
        let mut sigmas: Vec<f64> = even.into_iter().map(|u| shift_sigma(time_shift, u)).collect();
        if let Some(terminal) = self.shift_terminal {
            if !(0.0..1.0).contains(&terminal) {
                return Err(Error::Value {
                    what: "shift_terminal",
                    found: terminal,
                    expected: "0 up to, not including, 1",
                    hint: "check the model's scheduler configuration",
                });
            }
            // Diffusers treats 0 as "off" (`if self.config.shift_terminal`). It divides by zero
            // for a single step at sigma 1, where there is nothing to stretch; we leave that one.
            let room = 1.0 - sigmas.last().copied().unwrap_or(1.0);
            if terminal > 0.0 && room > 0.0 {
                let scale = room / (1.0 - terminal);
                for sigma in &mut sigmas {
                    *sigma = 1.0 - (1.0 - *sigma) / scale;
                }
            }
        }
        sigmas.push(0.0);
        Ok(sigmas)
    }
}

/// The `n + 1` sigmas of one RALU stage, from `1 - t_start` to `1 - t_end`, both hit exactly.
///
/// `h` is the stage's time shift; `t_start < t_end` are paper times (1 - sigma). The grid is even
/// in `F_h(t) = h t / (1 + (h - 1) t)`, the cumulative distribution of the shifted schedule, so a
/// stage is the piece of that schedule between its ends. RALU's supplement, "timestep
/// distribution"; the published code has the same grid.
///
/// The network is evaluated at the first `n`; the last is where the final Euler step lands. With
/// `n = 0` only the start is returned.
pub fn stage_sigmas(h: f64, t_start: f64, t_end: f64, n: usize) -> Vec<f64> {
    let (from, to) = (shift_sigma(h, t_start), shift_sigma(h, t_end));
    (0..=n)
        .map(|j| {
            // The two ends are written down rather than computed, so that a run ends at sigma 0
            // and not at 1e-16.
            if j == 0 {
                1.0 - t_start
            } else if j == n {
                1.0 - t_end
            } else {
                let u = from + (to - from) * j as f64 / n as f64;
                1.0 - u / (h - (h - 1.0) * u)
            }
        })
        .collect()
}

/// `h u / (1 + (h - 1) u)`: a sigma under a time shift, and also `F_h` of a paper time.
pub(super) fn shift_sigma(h: f64, u: f64) -> f64 {
    h * u / (1.0 + (h - 1.0) * u)
}

/// `n` values from `from` to `to`, as numpy's `linspace` spaces them.
fn linspace(from: f64, to: f64, n: usize) -> Vec<f64> {
    let gap = (to - from) / n.saturating_sub(1).max(1) as f64;
    (0..n).map(|i| if i > 0 && i + 1 == n { to } else { from + gap * i as f64 }).collect()
}

/// Rejects a step count of zero or beyond [`MAX_STEPS`].
pub(super) fn check_steps(what: &'static str, found: usize) -> Result<(), Error> {
    if (1..=MAX_STEPS).contains(&found) {
        Ok(())
    } else {
        Err(Error::Steps { what, found, max: MAX_STEPS })
    }
}
