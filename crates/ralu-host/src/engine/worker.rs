//! What the engine's thread does.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use ralu::gpu::{Gpu, block_on_while};
use ralu::pipeline::tune::{Tuner, TuningEvent, usual_seconds};
use ralu::pipeline::{Checkpoint, Event, Pipeline, Request, Settings, unfamiliar};
use ralu::tensor::Tuning;

use super::event::{Ended, EngineEvent, Started};
use super::opening::Open;
use super::{Command, EngineOptions, Signals};
use crate::device::Device;
use crate::error::Error;
use crate::session::End;
use crate::{kernels, memory, pipelines};

/// How long the system may take to say that a destroyed device is lost, in turns of a few milliseconds.
const LOSS_TURNS: u32 = 400;
const LOSS_TURN: Duration = Duration::from_millis(5);

/// The thread's state.
pub struct Worker {
    pub(super) device: Device,
    pub(super) options: EngineOptions,
    signals: Arc<Signals>,
    pub(super) tell: Box<dyn FnMut(EngineEvent) + Send>,
    pub(super) open: Option<Open>,
}

/// A job on its way: what is known of it when it ends.
#[derive(Default)]
struct Progress {
    settings: Option<Settings>,
    checkpoint: Option<Arc<Checkpoint>>,
}

impl Worker {
    pub fn new(
        device: Device,
        options: EngineOptions,
        signals: Arc<Signals>,
        tell: Box<dyn FnMut(EngineEvent) + Send>,
    ) -> Worker {
        Worker { device, options, signals, tell, open: None }
    }

    /// Does what is asked until nobody can ask any more.
    pub fn work(mut self, commands: Receiver<Command>) {
        for command in commands {
            match command {
                Command::Open(model) => self.open(*model),
                Command::SetLoras(loras) => self.set_loras(loras),
                Command::Generate { job, request, resume } => {
                    self.job(job, |worker, progress| {
                        worker.generate(job, *request, resume.as_deref(), progress)
                    });
                }
                Command::Tune { job, request } => {
                    self.job(job, |worker, progress| worker.tune(job, &request, progress));
                }
                Command::Close => {
                    self.open = None;
                    (self.tell)(EngineEvent::Closed);
                }
                Command::DestroyDevice => self.destroy_device(),
            }
        }
    }

    /// Does a job, and tells how it ended.
    fn job(
        &mut self,
        job: u64,
        work: impl FnOnce(&mut Worker, &mut Progress) -> Result<End<Error>, Error>,
    ) {
        let mut progress = Progress::default();
        let end = work(self, &mut progress).unwrap_or_else(End::Failed);
        let Progress { settings, checkpoint } = progress;
        let pipeline = self.open.as_ref().and_then(|open| open.session.pipeline().ok());
        let colors = pipeline.map(Pipeline::latent_colors);
        self.signals.change(|cancelled| cancelled.jobs = cancelled.jobs.split_off(&(job + 1)));
        (self.tell)(EngineEvent::Ended(Box::new(Ended { job, end, settings, checkpoint, colors })));
    }

    fn is_cancelled(&self, job: u64) -> bool {
        self.signals.is_cancelled(job)
    }

    fn generate(
        &mut self,
        job: u64,
        mut request: Request,
        resume: Option<&[u8]>,
        progress: &mut Progress,
    ) -> Result<End<Error>, Error> {
        let settings = self.settings(&request)?;
        progress.settings = Some(settings.clone());
        if self.is_cancelled(job) {
            return Ok(End::Cancelled);
        }
        let mut warnings = vec![];
        if !self.choose_kernels(job, &settings, &mut warnings)? {
            return Ok(End::Cancelled);
        }
        let Worker { device, options, signals, tell, open } = self;
        let open = open.as_mut().ok_or(Error::NoModel)?;
        let source = open.source()?;
        let Open { session, info, options: opened, .. } = open;
        let pipeline = session.pipeline()?;
        warnings.extend(unfamiliar(&request, &settings, pipeline.config()));
        if let Some(bytes) = resume {
            match Checkpoint::read(bytes, &settings, pipeline.config()) {
                Ok(checkpoint) => request.resume = Some(Arc::new(checkpoint)),
                Err(error) => warnings.push(format!("it is drawn from the start: {error}")),
            }
        }
        progress.checkpoint.clone_from(&request.resume);
        let (gpu, config) = (pipeline.gpu(), pipeline.config());
        memory::tell(gpu);
        // That it cannot be told what a run will take is no reason not to try.
        let plan = memory::planned(gpu, config, &source, &settings, *opened).ok();
        let shortage = plan
            .as_ref()
            .and_then(|plan| memory::of_plan(gpu, config, &source, &settings, *opened, plan));
        if let Some(shortage) = shortage {
            return Err(Error::Memory(shortage));
        }
        // Whether it can be started is said before it is told that it is.
        let run = pipeline.start(request.clone())?;
        let schedule = run.schedule().clone();
        drop(run);
        let (model, is_resumed) = (info.clone(), request.resume.is_some());
        let started = Started { job, settings, schedule, plan, model, is_resumed };
        tell(EngineEvent::Started(Box::new(started)));
        let mut each = |pipeline: &Pipeline, event| {
            if signals.destroy.swap(false, Ordering::AcqRel) {
                pipeline.gpu().destroy();
            }
            let (memory, counters) = (pipeline.memory_use(), pipeline.gpu().counters());
            tell(EngineEvent::Event { job, event, memory, counters });
        };
        for warning in warnings {
            each(pipeline, Event::Warning(warning));
        }
        let going = || !signals.is_cancelled(job);
        let outcome = session.draw::<Error>(device, &request, going, |pipeline, event| {
            each(pipeline, event);
            Ok(())
        });
        progress.checkpoint = outcome.checkpoint;
        if let (End::Finished, Some(cache), Ok(pipeline)) =
            (&outcome.end, &options.cache, session.pipeline())
        {
            pipelines::keep(pipeline.gpu(), cache);
        }
        Ok(outcome.end)
    }

    /// What a request comes to with the open model.
    fn settings(&self, request: &Request) -> Result<Settings, Error> {
        let open = self.open.as_ref().ok_or(Error::NoModel)?;
        Ok(open.session.pipeline()?.settings(request)?)
    }

    /// Chooses kernels before a model's first run, when nothing of it is on the GPU yet. Whether the job goes on.
    ///
    /// What goes wrong is a warning, and the defaults run; a lost device that is not ours is an error.
    fn choose_kernels(
        &mut self,
        job: u64,
        settings: &Settings,
        warnings: &mut Vec<String>,
    ) -> Result<bool, Error> {
        let Worker { device, options, signals, tell, open } = self;
        let open = open.as_mut().ok_or(Error::NoModel)?;
        if open.chosen || !options.tune {
            return Ok(true);
        }
        let source = open.source()?;
        let pipeline = open.session.pipeline()?;
        let gpu = pipeline.gpu();
        let (config, opened) = (pipeline.config(), open.options);
        let seconds = usual_seconds(gpu);
        let tuner = Tuner::new(gpu, config, Some(&source), settings, opened, seconds)?;
        let going = || !signals.is_cancelled(job);
        let mut watch = |event: &TuningEvent| {
            tell(EngineEvent::Tuning { job, event: event.clone() });
        };
        let chosen = kernels::choose(gpu, tuner, options.cache.as_ref(), going, &mut watch);
        let tuning = match chosen {
            Ok(None) => return Ok(false),
            Ok(Some(chosen)) => {
                warnings.extend(chosen.not_kept.map(|error| {
                    format!(
                        "could not save the measurements; the next run will repeat them: {error}"
                    )
                }));
                if let Some(record) = chosen.measured {
                    let (record, file) = (Box::new(record), chosen.file);
                    tell(EngineEvent::Tuned { job, record, file });
                }
                Some(chosen.tuning).filter(|tuning| *tuning != gpu.caps().tuning)
            }
            Err(error @ ralu::gpu::Error::Lost { .. }) if device.is_shared() => {
                return Err(error.into());
            }
            Err(error) => {
                warnings.push(format!(
                    "kernels cannot be measured on this adapter; the defaults run: {error}"
                ));
                Some(gpu.caps().tuning)
            }
        };
        open.chosen = true;
        match tuning {
            None => Ok(true),
            Some(tuning) => self.change_kernels(tuning).map(|()| true),
        }
    }

    /// Moves the open model to the device opened once more, with other kernels.
    fn change_kernels(&mut self, tuning: Tuning) -> Result<(), Error> {
        let open = self.open.as_mut().ok_or(Error::NoModel)?;
        if let Some(cache) = &self.options.cache {
            pipelines::keep(open.session.pipeline()?.gpu(), cache);
        }
        let gpu = self.device.open()?.learn_from(open.session.pipeline()?.gpu());
        Ok(open.session.move_to(gpu.with_caps(|caps| caps.tuning = tuning))?)
    }

    fn tune(
        &mut self,
        job: u64,
        request: &Request,
        progress: &mut Progress,
    ) -> Result<End<Error>, Error> {
        let settings = self.settings(request)?;
        progress.settings = Some(settings.clone());
        let Worker { options, signals, tell, open, .. } = self;
        let open = open.as_mut().ok_or(Error::NoModel)?;
        let source = open.source()?;
        let pipeline = open.session.pipeline()?;
        let gpu = pipeline.gpu();
        let (config, opened) = (pipeline.config(), open.options);
        let seconds = usual_seconds(gpu);
        let tuner = Tuner::new(gpu, config, Some(&source), &settings, opened, seconds)?;
        let going = || !signals.is_cancelled(job);
        let watch = |event: &TuningEvent| {
            tell(EngineEvent::Tuning { job, event: event.clone() });
        };
        let Some(record) = kernels::measure(gpu, tuner, going, watch)? else {
            return Ok(End::Cancelled);
        };
        let file: Option<PathBuf> = match &options.cache {
            Some(cache) => Some(kernels::keep(cache, &record)?),
            None => None,
        };
        open.chosen = true;
        let tuning = record.tuning;
        if tuning != gpu.caps().tuning {
            self.change_kernels(tuning)?;
        }
        (self.tell)(EngineEvent::Tuned { job, record: Box::new(record), file });
        Ok(End::Finished)
    }

    fn destroy_device(&mut self) {
        let is_due = self.signals.destroy.swap(false, Ordering::AcqRel);
        let open = self.open.as_ref().and_then(|open| open.session.pipeline().ok());
        match open {
            Some(pipeline) if is_due => {
                pipeline.gpu().destroy();
                await_loss(pipeline.gpu());
            }
            // The job in which it was destroyed has seen it, unless that was the job's last event.
            Some(pipeline) if self.device.is_shared() => await_loss(pipeline.gpu()),
            None if is_due && self.device.is_shared() => {
                if let Ok(gpu) = self.device.open() {
                    gpu.destroy();
                    await_loss(&gpu);
                }
            }
            _ => {}
        }
    }
}

/// Waits until a destroyed device is known to be lost: wgpu says so when it is polled, once nothing is under way on it.
fn await_loss(gpu: &Gpu) {
    let mut turns = 0;
    block_on_while(gpu, std::future::pending::<()>(), || {
        std::thread::sleep(LOSS_TURN);
        turns += 1;
        turns < LOSS_TURNS && gpu.check().is_ok()
    });
}
