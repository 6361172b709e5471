//! MagCache (arXiv 2506.09045): steps are skipped by how the network's residual is known to shrink
//! from step to step, measured once for a model.
//!
//! `gamma[i]` is the mean magnitude of the residual (output - input of all blocks) at step `i` over
//! that at step `i - 1`. Its running product since the last full step tells how much too large or
//! too small the kept residual is; the sum of those errors is bounded.

/// The rule's state within a stage.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Magnitude {
    threshold: f64,
    max_skips: usize,
    retention: f64,
    ratios: Vec<f64>,
    /// The stage's ratios, one a step.
    gammas: Vec<f64>,
    /// Product of the gammas since the last full step.
    ratio: f64,
    /// Sum of `|1 - ratio|` since then.
    error: f64,
    /// Steps since then.
    skips: usize,
}

impl Magnitude {
    pub(super) fn new(
        threshold: f64,
        max_skips: usize,
        retention: f64,
        ratios: Vec<f64>,
    ) -> Magnitude {
        Magnitude {
            threshold,
            max_skips,
            retention,
            ratios,
            gammas: Vec::new(),
            ratio: 1.0,
            error: 0.0,
            skips: 0,
        }
    }

    /// The first step is full, and clears what was summed in an earlier stage.
    ///
    /// `sigmas`: one per step. `plain_sigmas`: where each of the ratios was measured; without it
    /// the stage is a plain run, and ratios are spread over it by index.
    pub(super) fn begin_stage(&mut self, sigmas: &[f64], plain_sigmas: Option<&[f64]>) {
        self.gammas = match plain_sigmas {
            None => (0..sigmas.len())
                .map(|i| self.ratios[nearest_index(i, sigmas.len(), self.ratios.len())])
                .collect(),
            // A stage covers part of the noise levels, so its index says nothing. Its steps are
            // also longer or shorter than those measured, which is left as it is: the bound on the
            // sum is a rule of thumb in any case.
            Some(plain) => sigmas.iter().map(|&sigma| self.gamma_at(sigma, plain)).collect(),
        };
    }

    pub(super) fn is_full(&mut self, step: usize, forced: bool) -> bool {
        if !forced && step >= self.retained_steps() {
            self.ratio *= self.gammas[step];
            self.error += (1.0 - self.ratio).abs();
            self.skips += 1;
            // The error of a ratio of exactly 1 is 0, and a threshold of 0 is to skip nothing.
            if self.threshold > 0.0 && self.error <= self.threshold && self.skips <= self.max_skips
            {
                return false;
            }
        }
        self.step_was_full();
        true
    }

    fn step_was_full(&mut self) {
        (self.ratio, self.error, self.skips) = (1.0, 0.0, 0);
    }

    /// Steps at the start of the stage that are never skipped, besides the first; rounded down, as
    /// in the authors' code.
    fn retained_steps(&self) -> usize {
        (self.gammas.len() as f64 * self.retention) as usize
    }

    /// The ratio of the plain step whose sigma is nearest; of two as near, the noisier one's.
    fn gamma_at(&self, sigma: f64, plain_sigmas: &[f64]) -> f64 {
        let distance = |plain: f64| (plain - sigma).abs();
        let nearest = self
            .ratios
            .iter()
            .zip(plain_sigmas)
            .min_by(|(_, a), (_, b)| distance(**a).total_cmp(&distance(**b)));
        nearest.map_or(1.0, |(gamma, _)| *gamma)
    }
}

/// Which of `n_ratios` belongs to step `i` of `n_steps`: MagCache's `nearest_interp`, with numpy's
/// rounding of halves to even numbers. A single step is full whatever its ratio.
fn nearest_index(i: usize, n_steps: usize, n_ratios: usize) -> usize {
    let scale = (n_ratios - 1) as f64 / (n_steps - 1).max(1) as f64;
    libm::rint(i as f64 * scale) as usize
}
