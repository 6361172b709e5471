//! Rules that follow a measured change: first-block cache and TeaCache.
//!
//! Both compare with `<`, so that a threshold of 0 never reuses; a change that is not a number
//! compares false and makes the step full.

/// First-block cache: what the first block adds has hardly changed since the last full step, so
/// neither will what the others add.
///
/// ParaAttention's `first_block_cache`, diffusers' `FirstBlockCacheConfig`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct FirstBlock {
    threshold: f64,
}

impl FirstBlock {
    pub(super) fn new(threshold: f64) -> FirstBlock {
        FirstBlock { threshold }
    }

    pub(super) fn is_full(&self, change: f64) -> bool {
        !below(change, self.threshold)
    }
}

/// TeaCache (arXiv 2411.19108): the change of the first block's modulated input, rescaled by a
/// polynomial fitted to the model, is summed until it is too much.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TeaCache {
    threshold: f64,
    /// Highest power first.
    coefficients: Vec<f64>,
    /// Estimated change of the output since the last full step.
    accumulated: f64,
}

impl TeaCache {
    pub(super) fn new(threshold: f64, coefficients: Vec<f64>) -> TeaCache {
        TeaCache { threshold, coefficients, accumulated: 0.0 }
    }

    pub(super) fn step_was_full(&mut self) {
        self.accumulated = 0.0;
    }

    pub(super) fn is_full(&mut self, change: f64) -> bool {
        let estimate = self.coefficients.iter().fold(0.0, |sum, c| sum * change + c);
        // A fitted polynomial may dip below 0, and a change undoes no earlier one. (The authors'
        // polynomials are summed as they are; FLUX's is above 0.18 everywhere.) Not `max`, which
        // would turn "not a number" into 0.
        self.accumulated += if estimate < 0.0 { 0.0 } else { estimate };
        let full = !below(self.accumulated, self.threshold);
        if full {
            self.step_was_full();
        }
        full
    }
}

/// `value < threshold`; false for what is not a number.
fn below(value: f64, threshold: f64) -> bool {
    value < threshold
}
