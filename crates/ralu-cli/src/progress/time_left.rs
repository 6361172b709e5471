//! How long a picture will still take, by how long its steps took.

/// Steps whose rates count: the latest.
const LATEST: usize = 5;

/// An estimate that follows the steps of a picture.
///
/// Work is known in advance as shares of the picture's operations, so a step that takes `s` seconds for a share `d` says that
/// the rest takes `(1 - done) * s / d`. What happens once (loading, compiling kernels, choosing regions) is in no step but,
/// in part, in the first one of a stage; so the latest steps that are not the first of their stage count, and a first one
/// only as long as there is no other.
#[derive(Default)]
pub struct TimeLeft {
    done: f64,
    /// Seconds and shares of the steps that are not the first of their stage.
    steps: Vec<(f64, f64)>,
    /// Those of the latest that is.
    first: Option<(f64, f64)>,
}

impl TimeLeft {
    /// Seconds left after step number `step` (from 1) of a stage, which took `seconds`, and after which the share `done` of the
    /// work is done.
    pub fn after_step(&mut self, step: usize, seconds: f64, done: f64) -> f64 {
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
        let sum = |of: fn(&(f64, f64)) -> f64| latest.iter().map(of).sum::<f64>();
        let (seconds, share) = (sum(|step| step.0), sum(|step| step.1));
        if share > 0.0 { (1.0 - done).max(0.0) * seconds / share } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten steps of two seconds, of which the first compiles for thirty: what is left is never wrong by half after it.
    #[test]
    fn what_happens_once_is_not_extrapolated() {
        let mut left = TimeLeft::default();
        assert!((left.after_step(1, 32.0, 0.1) - 288.0).abs() < 1e-9);
        for step in 2..=10 {
            let expected = 2.0 * (10 - step) as f64;
            let told = left.after_step(step, 2.0, step as f64 / 10.0);
            assert!(
                (told - expected).abs() < 1e-9,
                "{told} instead of {expected} after step {step}"
            );
        }
    }

    /// Stages differ in tokens, so steps in their shares: the next stage's first step changes nothing.
    #[test]
    fn stages_share_a_rate() {
        let mut left = TimeLeft::default();
        left.after_step(1, 9.0, 0.05);
        assert!((left.after_step(2, 1.0, 0.1) - 18.0).abs() < 1e-9);
        // Four times as many tokens, and kernels of its own to compile.
        assert!((left.after_step(1, 20.0, 0.3) - 14.0).abs() < 1e-9);
        assert!((left.after_step(2, 4.0, 0.5) - 0.5 * 5.0 / 0.25).abs() < 1e-9);
        assert_eq!(left.after_step(3, 4.0, 1.0), 0.0);
    }

    /// A step without a share of the work gives no rate.
    #[test]
    fn nothing_done_says_nothing() {
        let mut left = TimeLeft::default();
        assert_eq!(left.after_step(1, 1.0, 0.0), 0.0);
        assert_eq!(left.after_step(2, 1.0, 0.0), 0.0);
    }
}
