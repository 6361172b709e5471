//! Rules that count steps: TaylorSeer, and FORA as its order 0.
//!
//! At a full step the value `y` and its finite differences are kept as factors `F0, F1, F2`; a
//! reused step extrapolates them. Time is counted in steps, as in TaylorSeer's own code.

/// How a full step renews the Taylor factors from its value `y`, all in place and in this order,
/// so that each line still reads the old factors below it:
///
/// ```text
/// F2 = second[0] y + second[1] F0 + second[2] F1
/// F1 = first[0]  y + first[1]  F0
/// F0 = y
/// ```
///
/// That is `F[i + 1] = (F[i] - F[i] before) / D`, `D` steps after the last full one (TaylorSeer,
/// arXiv 2503.06923). An order for which the stage has too few full steps becomes 0, whatever the
/// factors held, as long as that is finite: an engine clears them once, when it makes them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TaylorUpdate {
    /// Weights of `y`, `F0`, `F1` in the new `F2`.
    pub second: [f32; 3],
    /// Weights of `y`, `F0` in the new `F1`.
    pub first: [f32; 2],
}

impl TaylorUpdate {
    /// Only `F0` is renewed; the differences become 0.
    pub(super) const NOTHING_YET: TaylorUpdate = TaylorUpdate { second: [0.0; 3], first: [0.0; 2] };
}

/// The rule's state within a stage.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Interval {
    order: usize,
    interval: usize,
    warmup: usize,
    /// The current step.
    step: usize,
    last_full: usize,
    /// Steps from the full step before `last_full` to `last_full`.
    spacing: usize,
    /// Full steps of the stage, up to the current step.
    n_full: usize,
}

impl Interval {
    pub(super) fn new(order: usize, interval: usize, warmup: usize) -> Interval {
        Interval { order, interval, warmup, step: 0, last_full: 0, spacing: 0, n_full: 0 }
    }

    pub(super) fn begin_stage(&mut self) {
        *self = Interval::new(self.order, self.interval, self.warmup);
    }

    pub(super) fn is_full(&mut self, step: usize, forced: bool) -> bool {
        self.step = step;
        let since_full = step - self.last_full;
        let full = forced || step < self.warmup || since_full >= self.interval;
        if full {
            self.spacing = since_full;
            self.last_full = step;
            self.n_full += 1;
        }
        full
    }

    /// The highest order gathered: each takes one full step more.
    fn available(&self) -> usize {
        self.order.min(self.n_full.saturating_sub(1))
    }

    pub(super) fn predict_weights(&self) -> [f32; 3] {
        let d = (self.step - self.last_full) as f64;
        let available = self.available();
        let weight = |order: usize, w: f64| if order <= available { w as f32 } else { 0.0 };
        [1.0, weight(1, d), weight(2, d * d / 2.0)]
    }

    pub(super) fn update_weights(&self) -> TaylorUpdate {
        let mut update = TaylorUpdate::NOTHING_YET;
        let per_step = 1.0 / self.spacing.max(1) as f64;
        if self.available() >= 1 {
            update.first = [per_step as f32, -per_step as f32];
        }
        if self.available() >= 2 {
            // (F1 - F1 before) / D, with the new F1 written out.
            let squared = per_step * per_step;
            update.second = [squared as f32, -squared as f32, -per_step as f32];
        }
        update
    }
}
