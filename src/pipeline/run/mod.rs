//! A run: the stages of one request, one event at a time.
//!
//! This file says what follows what; [`prepare`], [`stages`], [`positions`], [`regions`] and [`jump`] say what is done,
//! [`estimate`] and [`first_stage`] what is shown and kept of it.

mod checkpoint;
mod checkpoint_file;
mod estimate;
mod f16_range;
mod first_stage;
mod jump;
mod meanwhile;
mod positions;
mod prepare;
mod recover;
mod regions;
mod stages;

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use web_time::Instant;

use super::event::{Event, ImageReport, Part, StepDone};
use super::loading::Loading;
use super::programs::RunMemory;
use super::prompt::{Encoded, Prompts};
use super::{Error, NamedTensors, Pipeline, Request, RunSchedule, Settings};
use crate::escape::Escaped;
use crate::gpu::{Counters, Profiler, Ticket};
use crate::sampling::cache::CacheRule;
use crate::tensor::{Blocks, Resident};
pub use checkpoint::Checkpoint;
use checkpoint::State;
pub use first_stage::FirstStage;
use meanwhile::meanwhile;
pub(super) use prepare::Programs;

/// A request in progress. Pull events with [`Run::next`]; drop it to cancel.
pub struct Run<'p> {
    pipeline: &'p Pipeline,
    settings: Settings,
    schedule: RunSchedule,
    given: NamedTensors,
    stage_pictures: bool,
    estimates: bool,
    keeps_first_stage: bool,
    first_stage: Option<Arc<FirstStage>>,
    resume: Option<Arc<Checkpoint>>,
    checkpoint: Option<Arc<Checkpoint>>,
    made_room: bool,
    /// How often work was found to take too long.
    cut_finer: u32,
    /// Blocks whose products do not round to f16, as they met numbers beyond it.
    in_f32: Blocks,
    collect_tensors: bool,
    profile: bool,
    profiler: Option<Rc<Profiler<'p>>>,
    events: VecDeque<Event>,
    phase: Phase<'p>,
    encoded: Option<Encoded>,
    programs: Option<Programs>,
    image: ImageState,
}

/// What happens at the next pull.
enum Phase<'p> {
    Start,
    LoadEncoders(Box<Loading<'p>>, Prompts<'p>, Instant),
    Encode(Prompts<'p>, Instant),
    Load(Loading<'p>),
    Prepare,
    BeginImage(usize),
    BeginStage(usize),
    Step(usize, usize),
    EndStage(usize),
    Decode,
    Done,
    /// Work is under way; found at the next pull only if the one before was dropped in the middle of it.
    Unfinished,
}

/// What belongs to the picture in work.
#[derive(Default)]
struct ImageState {
    number: usize,
    seed: u64,
    started: Option<Instant>,
    stage_seconds: f64,
    /// The step that is on its way.
    submitted: Option<SubmittedStep>,
    /// When the last step was seen to end.
    step_end: Option<Instant>,
    counters: Option<Counters>,
    selected: Vec<u32>,
    tensors: NamedTensors,
    flops_done: f64,
    /// The full-size noise that it started from, if jumps need it again.
    noise: Vec<f32>,
    /// Clean estimates of stage 1, if regions are chosen by their variance.
    estimates: Vec<Vec<f32>>,
    /// What the stage began with, or the last reported step has left, `[N, 4 C]`, if estimates are shown.
    latents: Vec<f32>,
    /// The temporal cache's decisions.
    cache: Option<CacheRule>,
    report: ImageReport,
}

/// A step that is on its way, and what will be told of it.
struct SubmittedStep {
    event: StepDone,
    ticket: Ticket,
    started: Instant,
    /// For a checkpoint.
    state: State,
}

impl<'p> Run<'p> {
    pub(super) fn new(pipeline: &'p Pipeline, request: Request) -> Result<Self, Error> {
        let settings = Settings::resolve(&request, &pipeline.config)?;
        request.given.check_finite()?;
        let schedule = RunSchedule::new(&settings, &pipeline.config)?;
        let mut events: VecDeque<Event> =
            settings.warnings.iter().cloned().map(Event::Warning).collect();
        for (dir, names) in pipeline.extra_weights() {
            let shown: Vec<&str> = names.iter().take(5).map(String::as_str).collect();
            let more = if names.len() > shown.len() { ", …" } else { "" };
            events.push_back(Event::Warning(format!(
                "{dir}: {} weights are not used by this kind of model: {}{more}",
                names.len(),
                Escaped(&shown.join(", "))
            )));
        }
        let mut run = Run {
            pipeline,
            settings,
            schedule,
            given: request.given,
            stage_pictures: request.stage_pictures,
            estimates: request.estimates,
            keeps_first_stage: request.keep_first_stage,
            first_stage: request.first_stage,
            resume: request.resume,
            checkpoint: None,
            made_room: false,
            cut_finer: 0,
            in_f32: Blocks::default(),
            collect_tensors: request.collect_tensors,
            profile: request.profile,
            profiler: None,
            events,
            phase: Phase::Start,
            encoded: None,
            programs: None,
            image: ImageState::default(),
        };
        run.check_first_stage()?;
        run.check_resume()?;
        Ok(run)
    }

    /// Every choice of this run.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The stages of this run.
    pub fn schedule(&self) -> &RunSchedule {
        &self.schedule
    }

    /// Works until there is an event; `None` when everything is done. After an error the run is over.
    ///
    /// Runs of one pipeline take turns: this waits while another one works, so do not keep a future of this kind
    /// unpolled while others are awaited. Dropping the future in the middle of its work loses what was not finished: the
    /// next call warns, and continues from the last checkpoint ([`Run::checkpoint`]) to the same picture.
    pub async fn next(&mut self) -> Result<Option<Event>, Error> {
        if let Some(event) = self.events.pop_front() {
            return Ok(Some(event));
        }
        if matches!(self.phase, Phase::Done) {
            return Ok(None);
        }
        let _turn = self.pipeline.turn.lock().await;
        loop {
            let profiling = self.profiler.clone().map(Profiler::resume);
            let phase = std::mem::replace(&mut self.phase, Phase::Unfinished);
            let advanced = match phase {
                Phase::Unfinished => Ok(self.restart_after_drop()),
                phase => match self.advance(phase).await {
                    Ok(phase) => Ok(phase),
                    Err(error) => self.recover(error),
                },
            };
            self.phase = match advanced {
                Ok(phase) => phase,
                Err(error) => {
                    self.phase = Phase::Done;
                    return Err(error);
                }
            };
            if let Some(profiler) = &self.profiler {
                for times in profiler.take().into_iter().rev() {
                    self.events.push_front(Event::Profile(times));
                }
            }
            drop(profiling);
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            if matches!(self.phase, Phase::Done) {
                return Ok(None);
            }
        }
    }

    async fn advance(&mut self, phase: Phase<'p>) -> Result<Phase<'p>, Error> {
        Ok(match phase {
            Phase::Start => {
                if self.profile {
                    let profiler = self.pipeline.gpu.profile().await?;
                    profiler.pause();
                    self.profiler = Some(Rc::new(profiler));
                }
                let started = Instant::now();
                let mut warnings = Vec::new();
                let (settings, in_f32) = (&self.settings, &self.in_f32);
                let prompts =
                    Prompts::new(self.pipeline, settings, &self.given, in_f32, &mut warnings)?;
                self.events.extend(warnings.into_iter().map(Event::Warning));
                match prompts.need_encoders() {
                    true => {
                        let loading = Loading::new(self.pipeline, Part::TextEncoders);
                        Phase::LoadEncoders(Box::new(loading), prompts, started)
                    }
                    false => Phase::Encode(prompts, started),
                }
            }
            Phase::LoadEncoders(mut loading, prompts, started) => match loading.some().await? {
                Some(event) => {
                    self.events.push_back(event);
                    Phase::LoadEncoders(loading, prompts, started)
                }
                None => Phase::Encode(prompts, started),
            },
            // Another run may have freed them since they were loaded, when memory was short.
            Phase::Encode(prompts, started)
                if prompts.need_encoders() && !self.pipeline.is_loaded(Part::TextEncoders) =>
            {
                let loading = Loading::new(self.pipeline, Part::TextEncoders);
                Phase::LoadEncoders(Box::new(loading), prompts, started)
            }
            Phase::Encode(prompts, started) => {
                let loading = self.encode(prompts).await?;
                self.events.push_back(Event::Encoded {
                    n_tokens: self.settings.max_sequence_length,
                    seconds: started.elapsed().as_secs_f64(),
                });
                Phase::Load(loading)
            }
            Phase::Load(mut loading) => match loading.some().await? {
                Some(event) => {
                    self.events.push_back(event);
                    Phase::Load(loading)
                }
                None => Phase::Prepare,
            },
            Phase::Prepare => {
                self.programs = Some(self.prepare().await?);
                self.write_conditioning().await?;
                self.probe_colors().await?;
                Phase::BeginImage(0)
            }
            Phase::BeginImage(number) if number >= self.settings.count => {
                self.keep_programs();
                Phase::Done
            }
            Phase::BeginImage(number)
                if self.resume.as_ref().is_some_and(|r| r.image() > number) =>
            {
                Phase::BeginImage(number + 1)
            }
            Phase::BeginImage(number) => {
                self.begin_image(number).await?;
                if let Some(phase) = self.take_checkpoint().await? {
                    return Ok(phase);
                }
                match self.take_first_stage().await? {
                    true => Phase::EndStage(0),
                    false => Phase::BeginStage(0),
                }
            }
            Phase::BeginStage(stage) => {
                self.begin_stage(stage).await?;
                Phase::Step(stage, 0)
            }
            Phase::Step(stage, i) => {
                self.step(stage, i).await?;
                if let Some(phase) = self.split_finer().await? {
                    return Ok(phase);
                }
                if i + 1 < self.schedule.stages[stage].steps() {
                    Phase::Step(stage, i + 1)
                } else {
                    Phase::EndStage(stage)
                }
            }
            Phase::EndStage(stage) => {
                self.end_stage(stage).await?;
                if stage + 1 < self.schedule.stages.len() {
                    Phase::BeginStage(stage + 1)
                } else {
                    Phase::Decode
                }
            }
            Phase::Decode => {
                self.finish_image().await?;
                Phase::BeginImage(self.image.number + 1)
            }
            Phase::Done | Phase::Unfinished => Phase::Done,
        })
    }

    /// Encodes the prompts. Where the text encoders stay on the GPU anyway, the denoiser is loaded while they work.
    async fn encode(&mut self, prompts: Prompts<'p>) -> Result<Loading<'p>, Error> {
        let mut loading = Loading::new(self.pipeline, Part::Denoiser);
        let encoded = if self.pipeline.keeps_text_encoders.get() {
            let events = &mut self.events;
            meanwhile(prompts.encode(), async || {
                let event = loading.some().await?;
                let more = event.is_some();
                events.extend(event);
                Ok::<_, Error>(more)
            })
            .await?
        } else {
            let encoded = prompts.encode().await;
            drop(prompts);
            self.pipeline.release_text_encoders();
            encoded
        };
        self.encoded = Some(encoded?);
        Ok(loading)
    }

    #[track_caller]
    fn programs(&self) -> Result<&Programs, Error> {
        match &self.programs {
            Some(programs) => Ok(programs),
            None => unreachable!("a phase after Prepare runs without programs"),
        }
    }

    fn memory(&self) -> Result<&RunMemory, Error> {
        Ok(&self.programs()?.memory)
    }

    async fn write(&self, resident: &Resident, values: &[f32]) -> Result<(), Error> {
        let Pipeline { gpu, store, .. } = self.pipeline;
        Ok(store.write(gpu, resident, values).await?)
    }

    async fn read(&self, resident: &Resident) -> Result<Vec<f32>, Error> {
        let Pipeline { gpu, store, .. } = self.pipeline;
        Ok(store.read(gpu, resident).await?)
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        self.keep_programs();
    }
}
