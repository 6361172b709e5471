//! Submissions on their way: how many are queued, how long each may be, and what became of them.
//!
//! The queue is the device's, not a program's: the first slice of a step is submitted while the last ones of the step
//! before still run. What a slice's error scopes caught is looked at when the slice has ended, so that no submission
//! waits for an answer.

use std::collections::VecDeque;
use std::sync::Arc;

use web_time::Instant;

use super::signal::Signal;
use super::{Error, Gpu};
use crate::sync::{BoxFuture, Locked};
use crate::turns::yield_now;

/// What error scopes have caught, as soon as it is known.
pub(super) type Caught = BoxFuture<'static, Option<wgpu::Error>>;

/// FLOPs of the least slice, of which a fast device has done many before a submission costs what it does.
const LEAST_SLICE_FLOPS: f64 = 1e8;

/// Slices that may be queued while the host prepares the next: enough for the GPU never to wait, and few enough that
/// a dropped run leaves little work queued.
const QUEUED: usize = 2;
/// Seconds that a slice should take where the GPU's speed is known.
const SLICE_SECONDS: f64 = 0.2;
/// Seconds of a dispatch that are too many: half of those after which Windows takes a device away.
const OVERLONG_SECONDS: f64 = 1.0;
/// FLOPs of the largest slice, whatever the GPU's speed was taken for.
const MOST_SLICE_FLOPS: f64 = 25e12;

/// The submissions of one start of a program, or of several; see [`Gpu::finish`]. What goes wrong in them is told to the
/// holder of the ticket, even if another run waits for the same queue.
#[derive(Clone, Debug, Default)]
pub struct Ticket {
    /// The number of the last submission.
    last: u64,
    /// The first error that was found in any of them.
    failure: Arc<Locked<Option<Error>>>,
}

/// Slices whose end was not yet seen, oldest first.
#[derive(Default)]
pub(super) struct InFlight {
    slices: Locked<VecDeque<Slice>>,
    /// The number of the last one.
    last: Locked<u64>,
    pace: Locked<Pace>,
    overlong: Locked<Option<Overlong>>,
    /// How long a slice may be where others want the device too.
    slice_seconds: Locked<Option<f64>>,
}

/// A dispatch that took dangerously long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Overlong {
    /// Seconds that its submission took.
    pub seconds: f64,
    /// Its estimated FLOPs.
    pub flops: f64,
}

struct Slice {
    number: u64,
    /// Where its ticket finds an error of this slice.
    failure: Arc<Locked<Option<Error>>>,
    label: Arc<str>,
    flops: f64,
    /// FLOPs of its largest dispatch.
    largest: f64,
    submitted: Instant,
    /// When it ends, where time is simulated.
    end: Option<f64>,
    /// What native executors sleep for; in a browser the event loop does that.
    #[cfg(not(target_arch = "wasm32"))]
    index: wgpu::SubmissionIndex,
    done: Signal,
    caught: Caught,
}

/// How fast this GPU was found to be.
#[derive(Clone, Copy, Default)]
struct Pace {
    flops_per_second: Option<f64>,
    /// When the last slice ended, if the host saw it end.
    last_end: Option<Instant>,
}

impl Gpu {
    /// Estimated FLOPs that one slice should hold. Cautious at first; where the host can watch slices end, as many as
    /// take a fifth of a second: that is far from any driver's time-out, quick to cancel, and costs few submissions.
    pub(super) fn slice_flops(&self) -> f64 {
        let first = self.first_slice_flops;
        match (self.in_flight.pace.get().flops_per_second, self.in_flight.slice_seconds.get()) {
            (None, None) => first,
            (Some(rate), seconds) => {
                let flops = rate * seconds.unwrap_or(SLICE_SECONDS) * self.work_share;
                flops.clamp(LEAST_SLICE_FLOPS, MOST_SLICE_FLOPS)
            }
            (None, Some(seconds)) => (first * seconds).max(LEAST_SLICE_FLOPS),
        }
    }

    /// `flops`, or those of the least slice that is worth a submission.
    pub(super) fn least_slice_flops(&self, flops: f64) -> f64 {
        flops.max(LEAST_SLICE_FLOPS)
    }

    /// Submits a slice for `ticket`, and waits until few enough are queued. Fails if an earlier slice of the ticket did.
    pub(super) async fn enqueue(
        &self,
        ticket: &mut Ticket,
        label: &Arc<str>,
        flops: f64,
        largest: f64,
        encode: impl FnOnce() -> wgpu::CommandBuffer,
    ) -> Result<(), Error> {
        let submitted = Instant::now();
        let (_index, caught) = self.scoped_later(|| self.queue.submit([encode()]));
        self.ledger().update(|c| c.submissions += 1);
        let done = Signal::default();
        let set = done.clone();
        self.queue.on_submitted_work_done(move || set.set());
        ticket.last = self.in_flight.last.get() + 1;
        self.in_flight.last.set(ticket.last);
        let slice = Slice {
            number: ticket.last,
            failure: ticket.failure.clone(),
            label: label.clone(),
            flops,
            largest,
            submitted,
            end: self.faults.submit(flops),
            #[cfg(not(target_arch = "wasm32"))]
            index: _index,
            done,
            caught,
        };
        self.in_flight.slices.lock().push_back(slice);
        while self.in_flight.slices.lock().len() > QUEUED {
            self.retire_oldest().await?;
        }
        yield_now().await;
        ticket.outcome()
    }

    /// A dispatch that took so long that a driver might have taken the device away, if there was one since this was asked
    /// last. Never on processors, which nobody takes away.
    pub(crate) fn take_overlong(&self) -> Option<Overlong> {
        self.in_flight.overlong.take()
    }

    /// Waits until the submissions of `ticket`, and all before them, have run, and reports what went wrong in its own.
    pub async fn finish(&self, ticket: &Ticket) -> Result<(), Error> {
        let is_due =
            || self.in_flight.slices.lock().front().is_some_and(|s| s.number <= ticket.last);
        while is_due() {
            self.retire_oldest().await?;
        }
        ticket.outcome()
    }

    /// Whether the submissions of `ticket` have run, as far as can be said without waiting. Where a driver runs commands
    /// as they are submitted, they always have.
    pub fn has_run(&self, ticket: &Ticket) -> bool {
        self.has_ended(ticket.last)
    }

    /// Whether slice number `number` and all before it have run.
    fn has_ended(&self, number: u64) -> bool {
        // Natively, callbacks run inside `poll`.
        let _ = self.device.poll(wgpu::PollType::Poll);
        let slices = self.in_flight.slices.lock();
        let has_ended = |slice: &Slice| {
            self.faults.has_passed(slice.end).unwrap_or_else(|| slice.done.is_set())
        };
        slices.iter().take_while(|slice| slice.number <= number).all(has_ended)
    }

    /// Waits for the oldest slice. What went wrong in it is left to its ticket; a lost device is everybody's error.
    async fn retire_oldest(&self) -> Result<(), Error> {
        let oldest = self.in_flight.slices.lock().front().map(|s| (s.number, s.done.clone()));
        let Some((number, done)) = oldest else { return Ok(()) };
        let watched = !self.has_ended(number);
        done.wait(self).await;
        let slice = {
            let mut slices = self.in_flight.slices.lock();
            // Another run on this device may have taken it meanwhile.
            let is_first = slices.front().is_some_and(|slice| slice.number == number);
            if is_first { slices.pop_front() } else { None }
        };
        let Some(slice) = slice else { return Ok(()) };
        self.faults.wait(slice.end);
        let pace = self.in_flight.pace.get();
        let (pace, seconds) = match self.faults.flops_per_second.get() {
            Some(speed) => pace.at_speed(&slice, speed),
            None => pace.after(&slice, watched),
        };
        self.in_flight.pace.set(pace);
        // Of many dispatches, the next slice has fewer: no reason to do more about it.
        if let Some(seconds) = seconds.filter(|seconds| *seconds > OVERLONG_SECONDS)
            && slice.largest > slice.flops / 4.0
            && !self.caps().is_cpu
        {
            self.in_flight.overlong.set(Some(Overlong { seconds, flops: slice.largest }));
        }
        let unseen = Unseen(&slice.failure, &slice.label);
        let outcome = self.judge(&slice.label, slice.caught.await).await;
        std::mem::forget(unseen);
        match outcome {
            Err(error) if !matches!(error, Error::Lost { .. }) => {
                slice.failure.lock().get_or_insert(error);
                Ok(())
            }
            outcome => outcome,
        }
    }

    /// The submission to sleep for: the oldest that has not ended. `None` if there is none.
    #[cfg(not(target_arch = "wasm32"))]
    pub(super) fn oldest_pending(&self) -> Option<wgpu::SubmissionIndex> {
        let slices = self.in_flight.slices.lock();
        slices.iter().find(|slice| !slice.done.is_set()).map(|slice| slice.index.clone())
    }
}

/// Dropped while the outcome of another run's slice is awaited: that run must not take silence for success.
struct Unseen<'a>(&'a Locked<Option<Error>>, &'a str);

impl Drop for Unseen<'_> {
    fn drop(&mut self) {
        let message = "nobody was left to see how it ended".to_owned();
        self.0.lock().get_or_insert(Error::Rejected { what: self.1.to_owned(), message });
    }
}

impl Ticket {
    /// The error that was found in its submissions, once.
    fn outcome(&self) -> Result<(), Error> {
        self.failure.lock().take().map_or(Ok(()), Err)
    }
}

impl InFlight {
    pub(super) fn yield_every(&self, seconds: f64) {
        self.slice_seconds.set(Some(seconds));
    }

    pub(super) fn assume_speed(&self, flops_per_second: f64) {
        let flops_per_second = Some(flops_per_second);
        self.pace.set(Pace { flops_per_second, ..self.pace.get() });
    }
}

impl Pace {
    /// A slice has just been seen to end, or, if not `watched`, had ended some time ago.
    /// Gives also the seconds that it took, if that is known.
    fn after(self, slice: &Slice, watched: bool) -> (Pace, Option<f64>) {
        if !watched {
            return (Pace { last_end: None, ..self }, None);
        }
        let now = Instant::now();
        let Some(last_end) = self.last_end else {
            return (Pace { last_end: Some(now), ..self }, None);
        };
        let seconds = (now - last_end.max(slice.submitted)).as_secs_f64();
        let rate = slice.flops / seconds.max(1e-4);
        // Slices differ in how their estimate fits: no single one may lengthen the next ones by much.
        let blended = self.flops_per_second.map_or(rate, |old| (old + rate.min(2.0 * old)) / 2.0);
        (Pace { flops_per_second: Some(blended), last_end: Some(now) }, Some(seconds))
    }

    /// A slice has ended on a device whose speed a test has set.
    fn at_speed(self, slice: &Slice, flops_per_second: f64) -> (Pace, Option<f64>) {
        let pace = Pace { flops_per_second: Some(flops_per_second), last_end: None };
        (pace, Some(slice.flops / flops_per_second))
    }
}
