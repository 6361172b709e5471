//! What a program does when the device is lost in the middle of a run.

use std::sync::Arc;

use super::run::{Checkpoint, Run};
use super::{Error, Request};
use crate::gpu::Gpu;

/// Losses without a step between them after which it makes no sense to resume.
const LOSSES: u32 = 3;

/// Decides whether to resume a run that ended with a lost device, and from where.
///
/// ```no_run
/// # use ralu::{AdapterChoice, Error, Gpu, Pipeline, Recovery, Request, Run};
/// # async fn watch(run: &mut Run) -> Result<(), Error> { Ok(()) }
/// # async fn example(mut pipeline: Pipeline, request: Request) -> Result<(), Error> {
/// let mut recovery = Recovery::new(&request);
/// loop {
///     let mut run = pipeline.start(recovery.request(&request))?;
///     match watch(&mut run).await {
///         Err(error) if recovery.should_resume(&error, &run) => drop(run),
///         done => return done,
///     }
///     let gpu = recovery.limit_work(Gpu::open(&AdapterChoice::default()).await?);
///     pipeline = pipeline.revive(gpu).await?;
/// }
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Recovery {
    checkpoint: Option<Arc<Checkpoint>>,
    losses: u32,
    in_a_row: u32,
}

impl Recovery {
    /// For a run of `request`, which may itself resume an earlier one.
    pub fn new(request: &Request) -> Recovery {
        Recovery { checkpoint: request.resume.clone(), ..Recovery::default() }
    }

    /// Whether to resume a run that ended with `error`: if the device was lost, and not for the third time without a step
    /// between.
    pub fn should_resume(&mut self, error: &Error, run: &Run) -> bool {
        if !error.is_lost() {
            return false;
        }
        let place = |at: &Checkpoint| (at.image(), at.stage(), at.steps());
        let now = run.checkpoint();
        let moved = now.as_deref().map(place) > self.checkpoint.as_deref().map(place);
        self.in_a_row = if moved { 1 } else { self.in_a_row + 1 };
        self.losses += 1;
        if moved {
            self.checkpoint = now;
        }
        self.in_a_row < LOSSES
    }

    /// The request for the next run: `request`, resumed from where the last one was.
    pub fn request(&self, request: &Request) -> Request {
        Request { resume: self.checkpoint.clone(), ..request.clone() }
    }

    /// Where the next run resumes; `None` if it has to start again.
    pub fn checkpoint(&self) -> Option<&Checkpoint> {
        self.checkpoint.as_deref()
    }

    /// Where the next run resumes, in words: `after step 2 of stage 1`.
    pub fn place(&self) -> String {
        match self.checkpoint() {
            None => "from the start".to_owned(),
            Some(at) if at.steps() == 0 => format!("with picture {}", at.image() + 1),
            Some(at) => format!("after step {} of stage {}", at.steps(), at.stage()),
        }
    }

    /// Gives a device shorter pieces of work for every one that was lost before it: drivers take one away that is busy
    /// with one piece for too long.
    pub fn limit_work(&self, gpu: Gpu) -> Gpu {
        gpu.with_shorter_work(0.25f64.powi(self.losses as i32))
    }
}
