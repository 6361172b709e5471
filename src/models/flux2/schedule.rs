//! How FLUX.2's schedule follows the size of the picture and the number of steps.

use crate::sampling::{DynamicShift, FlowMatch};

/// diffusers' `compute_empirical_mu`: two straight lines over the number of image tokens, for 200 steps and for 10, and
/// between them a straight line over the number of steps. From 4301 tokens on, only that for 200 steps.
pub(super) fn mu(n_tokens: usize, steps: usize) -> f64 {
    let n_tokens = n_tokens as f64;
    let of_200 = 0.000_169_27 * n_tokens + 0.456_666_66;
    if n_tokens > 4300.0 {
        return of_200;
    }
    let of_10 = 8.738_095_24e-5 * n_tokens + 1.898_333_33;
    let slope = (of_200 - of_10) / 190.0;
    slope * steps as f64 + (of_200 - 200.0 * slope)
}

/// `flow` with that `mu`, whatever the scheduler's file says about it; a file without a dynamic time shift keeps its own.
pub(super) fn schedule(flow: FlowMatch, steps: usize, n_tokens: usize) -> FlowMatch {
    let mu = mu(n_tokens, steps);
    let dynamic = flow.dynamic.map(|own| DynamicShift { base_shift: mu, max_shift: mu, ..own });
    FlowMatch { dynamic, ..flow }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// e^mu, from diffusers.
    #[test]
    fn mu_is_that_of_diffusers() {
        for (n_tokens, steps, expected) in [
            (1024, 4, 7.619),
            (1024, 50, 5.485),
            (4096, 4, 9.887),
            (4096, 8, 9.659),
            (4096, 20, 9.007),
            (4096, 28, 8.597),
            (4096, 50, 7.564),
        ] {
            let found = libm::exp(mu(n_tokens, steps));
            assert!((found - expected).abs() < 6e-4, "{n_tokens}, {steps}: {found}");
        }
        // 1056 x 1056: no longer what the steps say.
        assert!((mu(4356, 4) - 1.194).abs() < 1e-3);
        assert_eq!(mu(4356, 4), mu(4356, 50));
    }
}
