//! Drawing on devices that may be lost.

use std::sync::Arc;

use ralu::gpu::{self, Gpu, block_on_while};
use ralu::pipeline::{Checkpoint, Error, Event, Pipeline, Recovery, Request};

use crate::device::Device;

/// An open model that outlives its device: drivers take devices away, and a run then goes on with another one.
pub struct Session {
    /// `None` after a loss in which the model could not be moved.
    pipeline: Option<Pipeline>,
}

/// How a run ended.
#[derive(Debug)]
pub enum End<E> {
    /// All its pictures are drawn.
    Finished,
    /// It was told to stop.
    Cancelled,
    /// It failed, or what takes its events did.
    Failed(E),
}

/// What is known of a run after its end.
#[derive(Debug)]
#[non_exhaustive]
pub struct Outcome<E> {
    /// How it ended.
    pub end: End<E>,
    /// The place that it came to: a later run with the same settings resumes there ([`Request::resume`]).
    pub checkpoint: Option<Arc<Checkpoint>>,
    /// How many devices were lost. If it finished, it was resumed as often.
    pub losses: u32,
}

impl Session {
    /// A session with a model that was just opened.
    pub fn new(pipeline: Pipeline) -> Session {
        Session { pipeline: Some(pipeline) }
    }

    /// The model on its device.
    ///
    /// # Errors
    ///
    /// If its device was lost, and its files could not be read for the next one.
    pub fn pipeline(&self) -> Result<&Pipeline, Error> {
        self.pipeline.as_ref().ok_or_else(|| {
            let reason = "the model could not be moved to another device; open it again".to_owned();
            Error::Gpu(gpu::Error::Lost { reason })
        })
    }

    /// Moves the model to another device, as after a loss: what was checked, encoded and learnt of it stays, and its
    /// weights are uploaded by the next run.
    ///
    /// # Errors
    ///
    /// If a device with other limits needs files of the model that cannot be read any more.
    pub fn move_to(&mut self, gpu: Gpu) -> Result<(), Error> {
        self.pipeline()?;
        if let Some(pipeline) = self.pipeline.take() {
            self.pipeline = Some(pollster::block_on(pipeline.revive(gpu))?);
        }
        Ok(())
    }

    /// Draws `request`. If the device is lost, opens another one with the same kernels, moves the model to it, and
    /// resumes from the last checkpoint, to the same picture; it gives up at the third loss without a step between them.
    /// On a shared [`Device`] a loss ends the run.
    ///
    /// `tell` hears every event, with the pipeline that it is from. That a device was lost, and where the run resumes, is
    /// a warning among them. An error of `tell` ends the run. `keep_going` is asked after every slice of GPU work, which
    /// takes at most about a second; an event that it refuses is not told.
    pub fn draw<E: From<Error>>(
        &mut self,
        device: &mut Device,
        request: &Request,
        keep_going: impl Fn() -> bool,
        mut tell: impl FnMut(&Pipeline, Event) -> Result<(), E>,
    ) -> Outcome<E> {
        let mut recovery = Recovery::new(request);
        let mut losses = 0;
        loop {
            let request = recovery.request(request);
            let resumed = request.resume.clone();
            let failed = |error: Error, checkpoint| Outcome {
                end: End::Failed(error.into()),
                checkpoint,
                losses,
            };
            let pipeline = match self.pipeline() {
                Ok(pipeline) => pipeline,
                Err(error) => return failed(error, resumed),
            };
            let mut run = match pipeline.start(request) {
                Ok(run) => run,
                Err(error) => return failed(error, resumed),
            };
            let (end, resumes) = loop {
                let next = block_on_while(pipeline.gpu(), run.next(), &keep_going);
                match next.filter(|_| keep_going()) {
                    None => break (End::Cancelled, None),
                    Some(Ok(None)) => break (End::Finished, None),
                    Some(Ok(Some(event))) => {
                        if let Err(error) = tell(pipeline, event) {
                            break (End::Failed(error), None);
                        }
                    }
                    Some(Err(error)) => {
                        losses += u32::from(error.is_lost());
                        let resumes = !device.is_shared() && recovery.should_resume(&error, &run);
                        let message =
                            format!("{error}. Opening it again, to go on {}", recovery.place());
                        break (End::Failed(error.into()), resumes.then_some(message));
                    }
                }
            };
            let checkpoint = run.checkpoint().or(resumed);
            drop(run);
            let Some(message) = resumes else { return Outcome { end, checkpoint, losses } };
            let end = match tell(pipeline, Event::Warning(message)) {
                Err(error) => Err(error),
                Ok(()) => self.move_on(device, &recovery).map_err(E::from),
            };
            if let Err(error) = end {
                return Outcome { end: End::Failed(error), checkpoint, losses };
            }
        }
    }

    /// Moves the model to the next device after a loss, with the kernels of the one before.
    fn move_on(&mut self, device: &mut Device, recovery: &Recovery) -> Result<(), Error> {
        let gpu = device.open()?.learn_from(self.pipeline()?.gpu());
        self.move_to(recovery.limit_work(gpu))
    }
}
