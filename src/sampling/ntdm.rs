//! NT-DM: choosing the stages' time shifts and the amount of re-noising.
//!
//! RALU walks some stretches of time twice, because each transition jumps back toward noise. NT-DM
//! ("noise-timestep distribution matching", called NT-Matching in later versions of the paper)
//! picks the time shift of each stage and the correlation `c = 1 / Z^2` so that the timesteps of
//! all stages together are spread like those of the base model: once over the whole of `[0, 1]`,
//! and once more over each stretch walked twice.
//!
//! [`js_distance`] measures the mismatch, [`solve`] minimises it, both for any number of stages.
//! The published presets are *not* recomputed: their numbers stopped
//! a little before the minimum, and a picture should come out as published.
//!
//! ```
//! use ralu::models::flux1;
//! use ralu::sampling::{Preset, ntdm};
//!
//! let p = flux1::PRESETS.params(Preset::X7, 3.0)?;
//! let published = ntdm::js_distance(&p.stage_steps, &p.stage_ends, &p.shifts, p.z, 3.0);
//! let solved = ntdm::solve(&p.stage_steps, &p.stage_ends, 3.0)?;
//! assert!((published - 0.0266).abs() < 1e-4 && solved.distance <= published);
//! # Ok::<(), ralu::sampling::Error>(())
//! ```
//!
//! The distance is almost flat in `Z` from about 5 up, so the solver's `Z` can differ much from
//! another optimiser's at nearly the same distance. Without a mixed stage it falls all the way: the
//! least distance then has `Z` at its bound of 100, which is to forget the coarse stage and start
//! over from noise. [`solve_least_noise`] stops where the mismatch is small enough instead.

use super::Error;
use super::schedule::{check_steps, shift_sigma};

/// Points at which the two densities are compared, `linspace(0, 1, 1000)` as in the authors' code.
const POINTS: usize = 1000;

/// Densities below this are lifted to it, so that no logarithm of zero occurs (authors' code).
const FLOOR: f64 = 1e-10;

/// Search range of a time shift. The authors' upper end, 10, is for an `h_ori` of up to 3; from there on a stage may need
/// several times the base model's shift, and four times is beyond all that was found best.
pub fn shift_bounds(h_ori: f64) -> [f64; 2] {
    [0.5, if h_ori > 3.0 { 4.0 * h_ori } else { 10.0 }]
}

/// Search range of `Z`. Below 2 the noise covariance would not be positive.
pub const Z_BOUNDS: [f64; 2] = [2.0, 100.0];

/// Below this distance the authors saw no more mismatch artifacts (paper v3, Fig. 3).
pub const GOOD_DISTANCE: f64 = 0.03;

/// Time shifts and `Z` found for a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Solution {
    /// Time shift `h` of each stage.
    pub shifts: Vec<f64>,
    /// `Z = 1 / sqrt(c)`.
    pub z: f64,
    /// The Jensen-Shannon distance reached.
    pub distance: f64,
}

/// Paper time at which stage `k + 1` starts after stage `k` ended at `end`, for a given `Z`.
///
/// `s = e / (Z (1 - e) + e)`: always before `end`, toward noise.
pub fn stage_start(end: f64, z: f64) -> f64 {
    end / (z * (1.0 - end) + end)
}

/// Jensen-Shannon distance between the timesteps of a RALU run and those it should imitate.
///
/// `stage_steps`: evaluations per stage (not cumulative); `ends`: paper times; `shifts`: time
/// shift per stage; `h_ori`: the base model's. The square root of the divergence in nats; this is
/// the figure the paper calls JSD (0.026 for its 7x preset). Nonsense in gives NaN, and so do lists
/// of different lengths.
///
/// RALU, section on NT-Matching; grid and clipping as in the authors' code.
pub fn js_distance(stage_steps: &[usize], ends: &[f64], shifts: &[f64], z: f64, h_ori: f64) -> f64 {
    if ends.len() != stage_steps.len() || shifts.len() != stage_steps.len() {
        return f64::NAN;
    }
    Objective::new(stage_steps, ends, h_ori).distance(shifts, z)
}

/// Time shifts and `Z` of a run with the smallest distance, under the bounds [`shift_bounds`] and
/// [`Z_BOUNDS`]. The lists have a number for each stage.
///
/// Deterministic; some tens of milliseconds for three stages.
pub fn solve(stage_steps: &[usize], ends: &[f64], h_ori: f64) -> Result<Solution, Error> {
    solve_with(stage_steps, ends, h_ori, None, None)
}

/// Time shifts and the *smallest* `Z` with a distance of at most [`GOOD_DISTANCE`], so that as much
/// of the coarse stages' work as possible is kept. Where even the least distance is worse than
/// that, the smallest `Z` within 5 % of it. `Z` is found to 1 %. Deterministic; some hundreds of
/// milliseconds.
pub fn solve_least_noise(
    stage_steps: &[usize],
    ends: &[f64],
    h_ori: f64,
) -> Result<Solution, Error> {
    let mut best = solve_with(stage_steps, ends, h_ori, None, None)?;
    let good = if best.distance <= GOOD_DISTANCE { GOOD_DISTANCE } else { 1.05 * best.distance };
    let least_noise = solve_with(stage_steps, ends, h_ori, None, Some(Z_BOUNDS[0]))?;
    if least_noise.distance <= good {
        return Ok(least_noise);
    }
    // The least distance at a given Z falls from Z = 2 to the valley, so bisection finds the wall.
    // A few percent of Z are nothing one could see.
    let mut too_low = Z_BOUNDS[0];
    while best.z > 1.01 * too_low {
        let z = libm::sqrt(too_low * best.z);
        let found = solve_with(stage_steps, ends, h_ori, None, Some(z))?;
        if found.distance <= good {
            best = found;
        } else {
            too_low = z;
        }
    }
    Ok(best)
}

/// As [`solve`], with the time shifts or `Z` held where given.
pub fn solve_with(
    stage_steps: &[usize],
    ends: &[f64],
    h_ori: f64,
    shifts: Option<&[f64]>,
    z: Option<f64>,
) -> Result<Solution, Error> {
    check_run(stage_steps, ends, h_ori)?;
    let n_stages = stage_steps.len();
    if let Some(shifts) = shifts {
        check_length("the stage shifts", shifts.len(), n_stages)?;
    }
    let objective = Objective::new(stage_steps, ends, h_ori);
    let shift_bounds = shift_bounds(h_ori);

    // The search runs over logarithms: all unknowns are positive scales. Bounds are applied inside
    // the objective, so the simplex may wander outside but never gains by it.
    let decode = |x: &[f64]| -> (Vec<f64>, f64) {
        let mut rest = x.iter();
        let mut next = |bounds: [f64; 2]| {
            libm::exp(rest.next().copied().unwrap_or(0.0)).clamp(bounds[0], bounds[1])
        };
        let found = match shifts {
            Some(shifts) => shifts.to_vec(),
            None => (0..n_stages).map(|_| next(shift_bounds)).collect(),
        };
        let found_z = z.unwrap_or_else(|| next(Z_BOUNDS));
        (found, found_z)
    };
    let cost = |x: &[f64]| {
        let (shifts, z) = decode(x);
        objective.distance(&shifts, z)
    };

    // Several first guesses of Z, because the valley along Z is long and has shallow dents.
    let guesses: &[f64] = if z.is_some() { &[4.0] } else { &[2.2, 4.0, 8.0, 16.0] };
    let guess_h = h_ori.clamp(shift_bounds[0], shift_bounds[1]);
    let mut best: Option<(f64, Vec<f64>)> = None;
    for &guess in guesses {
        let mut start = Vec::with_capacity(n_stages + 1);
        if shifts.is_none() {
            start.resize(n_stages, libm::log(guess_h));
        }
        if z.is_none() {
            start.push(libm::log(guess));
        }
        let found = nelder_mead(&cost, start, 0.3, 300);
        if best.as_ref().is_none_or(|b| found.0 < b.0) {
            best = Some(found);
        }
    }
    // A simplex can collapse before the bottom; a fresh small one finishes the descent.
    let start = best.map(|b| b.1).unwrap_or_default();
    let (distance, x) = nelder_mead(&cost, start, 0.05, 300);
    let (shifts, z) = decode(&x);
    Ok(Solution { shifts, z, distance })
}

/// Rejects step counts, ends or a base time shift no run can have.
pub(super) fn check_run(stage_steps: &[usize], ends: &[f64], h_ori: f64) -> Result<(), Error> {
    check_length("the stage ends", ends.len(), stage_steps.len())?;
    const NAMES: [&str; 3] = ["stage 1", "stage 2", "stage 3"];
    for (k, &n) in stage_steps.iter().enumerate() {
        check_steps(NAMES.get(k).copied().unwrap_or("a later stage"), n)?;
    }
    let rising = ends.windows(2).all(|pair| pair[0] < pair[1]);
    let inside = ends.iter().all(|e| *e > 0.0 && *e <= 1.0);
    if !(rising && inside && ends.last() == Some(&1.0)) {
        return Err(Error::StageEnds { found: ends.to_vec() });
    }
    if !(h_ori.is_finite() && h_ori > 0.0) {
        return Err(Error::Value {
            what: "the base time shift",
            found: h_ori,
            expected: "a finite number above 0",
            hint: "the authors use 3 for FLUX.1-dev and SD3",
        });
    }
    Ok(())
}

/// Rejects a list that has not a number for each stage.
fn check_length(what: &'static str, found: usize, n_stages: usize) -> Result<(), Error> {
    if found == n_stages {
        return Ok(());
    }
    Err(Error::Stages { what, found, expected: "as many as the stage steps" })
}

/// The distance as a function of shifts and `Z`, with all that does not depend on them computed.
struct Objective {
    steps: Vec<f64>,
    ends: Vec<f64>,
    h_ori: f64,
    /// Paper time and base density at each point.
    points: Vec<(f64, f64)>,
}

impl Objective {
    fn new(stage_steps: &[usize], ends: &[f64], h_ori: f64) -> Self {
        let points = (0..POINTS)
            .map(|i| {
                let t = i as f64 / (POINTS - 1) as f64;
                (t, density(h_ori, t))
            })
            .collect();
        let steps = stage_steps.iter().map(|n| *n as f64).collect();
        Objective { steps, ends: ends.to_vec(), h_ori, points }
    }

    fn distance(&self, shifts: &[f64], z: f64) -> f64 {
        let n_stages = self.steps.len();
        let mut starts = vec![0.0; n_stages];
        let mut total = 1.0; // weight of the target: 1 and the length of each stretch walked twice
        let mut again = vec![0.0; n_stages]; // weight of stretch k over the base model's mass there
        let mut used = vec![0.0; n_stages]; // evaluations of stage k over its own mass
        for k in 0..n_stages {
            if k > 0 {
                let (s, e) = (stage_start(self.ends[k - 1], z), self.ends[k - 1]);
                starts[k] = s;
                total += e - s;
                again[k - 1] = (e - s) / (shift_sigma(self.h_ori, e) - shift_sigma(self.h_ori, s));
            }
            used[k] = self.steps[k]
                / (shift_sigma(shifts[k], self.ends[k]) - shift_sigma(shifts[k], starts[k]));
        }
        let all_steps: f64 = self.steps.iter().sum();

        let mut p = [0.0; POINTS]; // target
        let mut q = [0.0; POINTS]; // the run
        let (mut p_sum, mut q_sum) = (0.0, 0.0);
        for (i, &(t, base)) in self.points.iter().enumerate() {
            let mut target = base;
            let mut run = 0.0;
            for k in 0..n_stages {
                if k + 1 < n_stages && t >= starts[k + 1] && t <= self.ends[k] {
                    target += again[k] * base;
                }
                if t >= starts[k] && t <= self.ends[k] {
                    run += used[k] * density(shifts[k], t);
                }
            }
            p[i] = (target / total).max(FLOOR);
            q[i] = (run / all_steps).max(FLOOR);
            p_sum += p[i];
            q_sum += q[i];
        }
        let divergence: f64 = p
            .iter()
            .zip(&q)
            .map(|(p, q)| {
                let (p, q) = (p / p_sum, q / q_sum);
                let m = 0.5 * (p + q);
                0.5 * (p * libm::log(p / m) + q * libm::log(q / m))
            })
            .sum();
        // Rounding may leave a tiny negative number where the two densities are equal.
        libm::sqrt(divergence.max(0.0))
    }
}

/// Density of timesteps under a time shift: `h / (1 + (h - 1) t)^2`.
fn density(h: f64, t: f64) -> f64 {
    let w = 1.0 + (h - 1.0) * t;
    h / (w * w)
}

/// Nelder-Mead downhill simplex with the usual coefficients. Returns the least cost and its place.
fn nelder_mead(
    cost: &dyn Fn(&[f64]) -> f64,
    start: Vec<f64>,
    size: f64,
    rounds: usize,
) -> (f64, Vec<f64>) {
    // NaN must lose every comparison, so it counts as the worst cost.
    let eval = |x: Vec<f64>| {
        let f = cost(&x);
        (if f.is_nan() { f64::INFINITY } else { f }, x)
    };
    let n = start.len();
    let mut simplex = Vec::with_capacity(n + 1);
    simplex.push(eval(start.clone()));
    for i in 0..n {
        let mut x = start.clone();
        x[i] += size;
        simplex.push(eval(x));
    }
    for _ in 0..rounds {
        simplex.sort_by(|a, b| a.0.total_cmp(&b.0));
        if n == 0 || simplex[n].0 - simplex[0].0 < 1e-9 {
            break;
        }
        let centre: Vec<f64> =
            (0..n).map(|d| simplex[..n].iter().map(|s| s.1[d]).sum::<f64>() / n as f64).collect();
        let worst = simplex[n].clone();
        let along = |c: f64| -> Vec<f64> {
            (0..n).map(|d| centre[d] + c * (worst.1[d] - centre[d])).collect()
        };
        let reflected = eval(along(-1.0));
        if reflected.0 < simplex[0].0 {
            let expanded = eval(along(-2.0));
            simplex[n] = if expanded.0 < reflected.0 { expanded } else { reflected };
        } else if reflected.0 < simplex[n - 1].0 {
            simplex[n] = reflected;
        } else {
            let contracted = eval(along(if reflected.0 < worst.0 { -0.5 } else { 0.5 }));
            if contracted.0 < worst.0.min(reflected.0) {
                simplex[n] = contracted;
            } else {
                let best = simplex[0].1.clone();
                for s in &mut simplex[1..] {
                    *s = eval((0..n).map(|d| 0.5 * (best[d] + s.1[d])).collect());
                }
            }
        }
    }
    simplex.sort_by(|a, b| a.0.total_cmp(&b.0));
    simplex.swap_remove(0)
}
