//! How fast the steps of a run were, kept for `ralu plan`.

use ralu::pipeline::{Event, MemoryBudget, Pipeline};

use crate::args::GenerateArgs;
use crate::speeds;

/// Fewer steps than these say nothing.
const LEAST_STEPS: usize = 3;

/// Steps that are not the first of their stage, in which kernels are compiled.
#[derive(Default)]
pub struct Speed {
    /// Of the picture that is being drawn: their seconds, their share of its work, and how many they are.
    seconds: f64,
    share: f64,
    counted: usize,
    /// Stage and number of the latest step, and the share of the work that was done after it.
    latest: Option<(usize, usize, f64)>,
    /// Of the last picture: operations of a step, and operations a second.
    found: Option<(f64, f64)>,
}

impl Speed {
    /// Takes note of an event.
    pub fn event(&mut self, event: &Event) {
        match event {
            Event::Step(step) => {
                // A run that is resumed tells nothing of the steps before.
                if let Some((stage, number, done)) = self.latest
                    && (stage, number + 1) == (step.stage, step.step)
                    && !step.reused
                {
                    self.seconds += step.seconds;
                    self.share += step.done - done;
                    self.counted += 1;
                }
                self.latest = Some((step.stage, step.step, step.done));
            }
            Event::Image { report, .. } if self.counted >= LEAST_STEPS && self.seconds > 0.0 => {
                let per_step =
                    report.flops / report.computed.iter().flatten().count().max(1) as f64;
                let rate = report.flops * self.share / self.seconds;
                *self = Speed { found: Some((per_step, rate)), ..Speed::default() };
            }
            Event::Image { .. } => *self = Speed { found: self.found, ..Speed::default() },
            _ => {}
        }
    }

    /// Keeps it, unless something else than computing took the time.
    pub fn note(&self, args: &GenerateArgs, pipeline: &Pipeline) {
        let is_bound = matches!(args.request.memory_budget, Some(MemoryBudget::Bytes(_)));
        if let (Some((per_step, rate)), false, false) =
            (self.found, is_bound, args.profile.is_some())
        {
            let report = pipeline.gpu().report();
            speeds::note(&args.tuning, report, |speed| speed.note_run(per_step, rate));
        }
    }
}
