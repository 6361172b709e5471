//! What a run does about faults of the device that need not end it: it works around the fault and restarts, from its
//! checkpoint if it has one.

use super::{Phase, Prepared, Run};
use crate::gpu;
use crate::ops::choice;
use crate::pipeline::memory_budget::Limit;
use crate::pipeline::{Error, Event, MemoryBudget};
use crate::tensor::Fallback;

/// Share of a dispatch that took too long which the next ones may be.
const RETRY_DISPATCH_SHARE: f64 = 0.25;
/// How often a run cuts its work finer: all programs are made again each time.
const MAX_RETRIES_FOR_TIME: u32 = 3;

impl Run {
    /// Where to go on after an error; the error, if nothing can be done about it.
    pub(super) fn recover(&mut self, error: Error) -> Result<Phase, Error> {
        let gpu = &self.context.device.gpu;
        let warning = match &error {
            Error::Gpu(gpu::Error::Kernel { shader, what, message }) => {
                let mut changed = false;
                gpu.change_caps(|caps| changed = choice::do_without(shader, caps));
                changed.then(|| {
                    let reason = message.lines().next().unwrap_or_default();
                    format!(
                        "this driver cannot compile {what} ({reason}); a slower kernel does its work"
                    )
                })
            }
            Error::Gpu(gpu::Error::OutOfMemory { what, allocated }) if !self.made_room => {
                self.made_room = true;
                Some(format!(
                    "GPU memory is full at {what} ({allocated} held): what was kept for later prompts is given back"
                ))
            }
            Error::Gpu(gpu::Error::OutOfMemory { what, allocated })
                if self.full_at.is_none()
                    && self.context.model.options.memory_budget != MemoryBudget::Off =>
            {
                self.full_at = Some([what.clone(), allocated.clone()]);
                let budget = self.context.device.gpu.counters().bytes_alive / 5 * 4;
                self.context.residency.set_limit(Some(Limit::fixed(budget)));
                Some(format!(
                    "GPU memory is full at {what} ({allocated} held): the run goes on within a budget of {}",
                    gpu::human_bytes(budget)
                ))
            }
            Error::BeyondF16 { blocks } => {
                let raised = self.fallbacks.raise(blocks);
                let told: Vec<String> =
                    [(Fallback::Scaled, "divided by 256"), (Fallback::F32, "in f32")]
                        .into_iter()
                        .map(|(kind, how)| (raised.of_kind(kind), how))
                        .filter(|(blocks, _)| !blocks.is_empty())
                        .map(|(blocks, how)| {
                            format!("in {}: done again, and from now on {how}", blocks.join(", "))
                        })
                        .collect();
                (!told.is_empty())
                    .then(|| format!("numbers beyond f16's largest, 65504, {}", told.join("; ")))
            }
            _ => None,
        };
        // It may have stopped half-way.
        self.context.cache.encoders.clear(&self.context.device.store);
        let Some(warning) = warning else { return Err(error) };
        Ok(self.start_over(warning))
    }

    /// After a call of [`Run::next`] that was dropped before its end.
    pub(super) fn restart_after_drop(&mut self) -> Phase {
        self.context.cache.encoders.clear(&self.context.device.store);
        self.start_over(
            "the run was stopped in the middle of its work; it continues from its last checkpoint"
                .into(),
        )
    }

    /// After a step in which a dispatch took so long that a driver might have taken the device away: shorter ones.
    pub(super) async fn split_finer(&mut self) -> Result<Option<Phase>, Error> {
        let context = self.context.clone();
        let gpu = &context.device.gpu;
        let Some(overlong) = gpu.take_overlong().filter(|_| self.cut_finer < MAX_RETRIES_FOR_TIME)
        else {
            return Ok(None);
        };
        self.cut_finer += 1;
        // Its end is a place to go on from.
        let last = self.image.submitted.take();
        self.report_step(last).await?;
        let most = overlong.flops * RETRY_DISPATCH_SHARE;
        gpu.change_caps(|caps| caps.max_dispatch_flops = caps.max_dispatch_flops.min(most));
        Ok(Some(self.start_over(format!(
            "a piece of work took {:.1} s, and drivers end those of 2 s: shorter ones from now on",
            overlong.seconds
        ))))
    }

    /// Frees the programs, and goes on from the checkpoint.
    fn start_over(&mut self, warning: String) -> Phase {
        self.events.push_back(Event::Warning(warning));
        if let Some(Prepared { programs, .. }) = self.prepared.take() {
            programs.free(&self.context.device.store);
        }
        if self.made_room {
            self.context.make_room();
        }
        if self.checkpoint.is_some() {
            self.resume.clone_from(&self.checkpoint);
        }
        self.profiler = None;
        self.image = Default::default();
        Phase::Start
    }
}
