//! How long a picture will still take, by how long its steps took.

/// Steps whose rates count: the latest.
const LATEST: usize = 5;

/// An estimate that follows the steps of a picture.
///
/// Work is known in advance as shares of the picture's operations, so a step that takes `s` seconds for a share `d` says that
/// the rest takes `(1 - done) * s / d`. What happens once (loading, compiling kernels, choosing regions) is in no step but,
/// in part, in the first one of a stage; so the latest steps that are not the first of their stage count. A first one does as
/// long as there is no other, and nothing is said as long as its stage has a second one to come: with kernels that were never
/// compiled before it says three times too much.
#[derive(Default)]
pub struct TimeLeft {
    done: f64,
    /// Seconds and shares of the steps that are not the first of their stage.
    steps: Vec<(f64, f64)>,
    /// Those of the latest that is.
    first: Option<(f64, f64)>,
}

impl TimeLeft {
    /// Seconds left after step `step` (from 1) of the `of` steps of a stage, which took `seconds`, and after which the share
    /// `done` of the work is done; `None` if that cannot be said yet, and after the last step, behind which a picture is decoded.
    pub fn after_step(&mut self, step: usize, of: usize, seconds: f64, done: f64) -> Option<f64> {
        let share = done - self.done;
        self.done = done;
        if share > 0.0 {
            match step {
                1 => self.first = Some((seconds, share)),
                _ => self.steps.push((seconds, share)),
            }
        }
        let latest = &self.steps[self.steps.len().saturating_sub(LATEST)..];
        let latest = if latest.is_empty() { self.first.as_slice() } else { latest };
        let waits = self.steps.is_empty() && step == 1 && of > 1;
        if waits || done >= 1.0 {
            return None;
        }
        let sum = |of: fn(&(f64, f64)) -> f64| latest.iter().map(of).sum::<f64>();
        let (seconds, share) = (sum(|step| step.0), sum(|step| step.1));
        Some(if share > 0.0 { (1.0 - done).max(0.0) * seconds / share } else { 0.0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten steps of two seconds, of which the first compiles for thirty: what is told is never wrong by half.
    #[test]
    fn what_happens_once_is_not_extrapolated() {
        let mut left = TimeLeft::default();
        assert_eq!(left.after_step(1, 10, 32.0, 0.1), None);
        for step in 2..=10 {
            let expected = 2.0 * (10 - step) as f64;
            let told = left.after_step(step, 10, 2.0, step as f64 / 10.0);
            match told {
                Some(told) => assert!((told - expected).abs() < 1e-9, "{told} after step {step}"),
                None => assert_eq!(step, 10),
            }
        }
    }

    /// Stages differ in tokens, so steps in their shares: the next stage's first step changes nothing.
    #[test]
    fn stages_share_a_rate() {
        let mut left = TimeLeft::default();
        let mut after =
            |step, of, seconds, done| left.after_step(step, of, seconds, done).unwrap_or(f64::NAN);
        assert!(after(1, 2, 9.0, 0.05).is_nan());
        assert!((after(2, 2, 1.0, 0.1) - 18.0).abs() < 1e-9);
        // Four times as many tokens, and kernels of its own to compile.
        assert!((after(1, 3, 20.0, 0.3) - 14.0).abs() < 1e-9);
        assert!((after(2, 3, 4.0, 0.5) - 0.5 * 5.0 / 0.25).abs() < 1e-9);
        assert!(after(3, 3, 4.0, 1.0).is_nan());
    }

    /// A stage of one step has no better one to wait for.
    #[test]
    fn single_steps_count() {
        let mut left = TimeLeft::default();
        assert_eq!(left.after_step(1, 1, 6.0, 0.25), Some(18.0));
        assert_eq!(left.after_step(1, 1, 8.0, 0.75), Some(4.0));
    }

    /// A step without a share of the work gives no rate.
    #[test]
    fn nothing_done_says_nothing() {
        let mut left = TimeLeft::default();
        assert_eq!(left.after_step(1, 1, 1.0, 0.0), Some(0.0));
        assert_eq!(left.after_step(2, 2, 1.0, 0.0), Some(0.0));
    }
}
