//! How long frames take.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Frames that are remembered.
const KEPT: usize = 2000;
/// A pause between frames that is no slowness, as nothing was to be drawn.
const IDLE: Duration = Duration::from_millis(500);

/// Times of the last frames.
#[derive(Default)]
pub struct Frames {
    last: Option<Instant>,
    between: VecDeque<f64>,
    work: VecDeque<f64>,
}

impl Frames {
    /// A frame begins; `work` is what egui and the driver took for the one before it.
    pub fn begin(&mut self, work: Option<f32>) {
        let now = Instant::now();
        if let Some(last) = self.last.replace(now)
            && now - last < IDLE
        {
            push(&mut self.between, (now - last).as_secs_f64());
        }
        if let Some(work) = work {
            push(&mut self.work, f64::from(work));
        }
    }

    /// Forgets what was measured.
    pub fn clear(&mut self) {
        *self = Frames::default();
    }

    /// Frames that are remembered now.
    pub fn count(&self) -> usize {
        self.between.len()
    }

    /// Median and the slowest of a hundred, in milliseconds, from one frame to the next.
    pub fn between(&self) -> Option<[f64; 2]> {
        quantiles(&self.between)
    }

    /// The same of the work that the window's thread did for a frame.
    pub fn work(&self) -> Option<[f64; 2]> {
        quantiles(&self.work)
    }
}

fn push(times: &mut VecDeque<f64>, seconds: f64) {
    if times.len() == KEPT {
        times.pop_front();
    }
    times.push_back(seconds);
}

fn quantiles(times: &VecDeque<f64>) -> Option<[f64; 2]> {
    let mut sorted: Vec<f64> = times.iter().copied().collect();
    sorted.sort_by(f64::total_cmp);
    let at = |share: f64| sorted.get((share * (sorted.len() - 1) as f64) as usize).copied();
    (!sorted.is_empty()).then(|| [at(0.5), at(0.99)].map(|seconds| 1e3 * seconds.unwrap_or(0.0)))
}
