//! A run: the stages of one request, one event at a time.
//!
//! This file says what follows what; [`place`], [`prepare`], [`stages`], [`positions`], [`regions`] and [`jump`] say what is done,
//! [`estimate`] and [`first_stage`] what is shown and kept of it.

mod change_weights;
mod checkpoint;
mod checkpoint_file;
mod estimate;
mod f16_range;
mod first_stage;
mod jump;
mod place;
mod positions;
mod prepare;
mod recover;
mod regions;
mod stages;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use web_time::Instant;

use super::conditioning::{Encoded, Prompts, TextModel};
use super::context::RunContext;
use super::event::{Event, ImageReport, Part, StepDone};
use super::memory_budget::Limit;
use super::modulation::{ModulationKey, ModulationTable};
use super::programs::{Programs, RunMemory};
use super::residency::{NeedsPart, Working};
use super::speed::measure_speed;
use super::tune::prove_matrices;
use super::{Error, NamedTensors, Products, Request, RunSchedule, Settings};
use crate::escape::Escaped;
use crate::gpu::{Counters, RunProfiler, Ticket};
use crate::models::layers::Precision;
use crate::sampling::cache::CacheRule;
use crate::tensor::{Fallbacks, Resident};
pub use checkpoint::Checkpoint;
use checkpoint::State;
pub use first_stage::FirstStage;

/// A request in progress. Pull events with [`Run::next`]; drop it to cancel.
///
/// It borrows nothing: it keeps what it needs of its pipeline alive, and natively it may be pulled from any thread, from one
/// after the other too.
pub struct Run {
    context: Arc<RunContext>,
    settings: Settings,
    schedule: RunSchedule,
    given: NamedTensors,
    /// What low-rank changes are multiplied by in the three stages, for each of their files.
    change_weights: Vec<[f64; 3]>,
    stage_pictures: bool,
    estimates: bool,
    keeps_first_stage: bool,
    first_stage: Option<Arc<FirstStage>>,
    resume: Option<Arc<Checkpoint>>,
    checkpoint: Option<Arc<Checkpoint>>,
    made_room: bool,
    /// At what memory was full even so, and how much was held: since then there is a budget.
    full_at: Option<[String; 2]>,
    /// How often work was found to take too long.
    cut_finer: u32,
    /// What has become of blocks that met numbers beyond f16.
    fallbacks: Fallbacks,
    collect_tensors: bool,
    profile: bool,
    profiler: Option<Arc<RunProfiler>>,
    events: VecDeque<Event>,
    phase: Phase,
    /// While it is under way.
    working: Option<Working>,
    /// Until its modulations are made.
    needs_modulation: Option<NeedsPart>,
    /// From [`Phase::Prepare`] on.
    prepared: Option<Prepared>,
    image: ImageState,
}

/// What the pictures of a run are drawn with.
struct Prepared {
    encoded: Encoded,
    modulations: Arc<ModulationTable>,
    programs: Programs,
}

/// What happens at the next pull.
enum Phase {
    Start,
    LoadEncoders(Prompts, Instant),
    Encode(Prompts, Instant),
    Modulate(Encoded),
    Load(Encoded, Arc<ModulationTable>),
    Prepare(Encoded, Arc<ModulationTable>),
    BeginImage(usize),
    BeginStage(usize),
    Step(usize, usize),
    EndStage(usize),
    LeaveStage(usize),
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

impl Run {
    pub(super) fn new(context: Arc<RunContext>, request: Request) -> Result<Self, Error> {
        let config = context.model.config();
        let settings = Settings::resolve(&request, config)?;
        request.given.check_finite()?;
        let schedule = RunSchedule::new(&settings, config)?;
        let mut events: VecDeque<Event> =
            settings.warnings.iter().cloned().map(Event::Warning).collect();
        events.extend(context.model.source.warnings().into_iter().map(Event::Warning));
        events.extend(context.model.not_quantised().into_iter().map(Event::Warning));
        for (dir, names) in context.model.extra_weights() {
            let shown: Vec<&str> = names.iter().take(5).map(String::as_str).collect();
            let more = if names.len() > shown.len() { ", …" } else { "" };
            events.push_back(Event::Warning(format!(
                "{dir}: {} weights are not used by this kind of model: {}{more}",
                names.len(),
                Escaped(&shown.join(", "))
            )));
        }
        let caps = context.device.gpu.caps();
        if context.model.options.precision == Precision::Int8 && !caps.int8 {
            let (reason, products) = match caps.rounds_to_f16() {
                true => ("multiplies f16 faster", Products::F16),
                false => {
                    ("has no instruction for products of bytes, or does not tell", Products::F32)
                }
            };
            events.push_back(Event::Warning(format!(
                "precision int8 changes nothing here: this adapter {reason}; products are in {products}"
            )));
        }
        let change_weights = context.change_weights.lock().clone();
        let mut run = Run {
            context,
            change_weights,
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
            full_at: None,
            cut_finer: 0,
            fallbacks: Fallbacks::default(),
            collect_tensors: request.collect_tensors,
            profile: request.profile,
            profiler: None,
            events,
            phase: Phase::Start,
            working: None,
            needs_modulation: None,
            prepared: None,
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
        let context = self.context.clone();
        let _turn = context.turn.lock().await;
        loop {
            let gpu = &context.device.gpu;
            let profiling = self.profiler.as_ref().map(|profiler| profiler.resume(gpu));
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
                    self.working = None;
                    if self.full_at.is_some() {
                        // The budget did not help; a later run may find more memory.
                        let asked = context.model.options.memory_budget.bytes();
                        context.residency.set_limit(asked.map(Limit::fixed));
                    }
                    return Err(error);
                }
            };
            if let Some(profiler) = &self.profiler {
                for times in profiler.take(gpu).into_iter().rev() {
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

    async fn advance(&mut self, phase: Phase) -> Result<Phase, Error> {
        Ok(match phase {
            Phase::Start => {
                if let Some(warning) = prove_matrices(&self.context.device.gpu).await? {
                    self.events.push_back(Event::Warning(warning));
                    // It is told whatever follows: if the device was lost in the test, the run ends.
                    return Ok(Phase::Start);
                }
                measure_speed(&self.context.device.gpu).await?;
                if self.profile {
                    let profiler = RunProfiler::new(&self.context.device.gpu).await?;
                    self.profiler = Some(Arc::new(profiler));
                }
                let started = Instant::now();
                self.place()?;
                let mut warnings = Vec::new();
                let RunContext { model, cache, residency, .. } = &*self.context;
                self.needs_modulation = Some(NeedsPart::modulation(residency));
                let text_model = TextModel {
                    model,
                    texts: &cache.texts,
                    residency,
                    change_weights: &self.text_change_weights(),
                };
                let prompts = Prompts::new(
                    text_model,
                    &self.settings,
                    &self.given,
                    &self.fallbacks,
                    &mut warnings,
                )?;
                self.events.extend(warnings.into_iter().map(Event::Warning));
                match prompts.need_encoders() {
                    true => Phase::LoadEncoders(prompts, started),
                    false => Phase::Encode(prompts, started),
                }
            }
            Phase::LoadEncoders(prompts, started) => {
                self.context.make_room_for(Part::TextEncoders, &self.programs_key());
                match self.context.upload_next(Part::TextEncoders).await? {
                    Some(event) => {
                        self.events.push_back(event);
                        Phase::LoadEncoders(prompts, started)
                    }
                    None => Phase::Encode(prompts, started),
                }
            }
            // Another run may have freed them since they were loaded, when memory was short.
            Phase::Encode(prompts, started)
                if prompts.need_encoders()
                    && !self.context.residency.is_loaded(Part::TextEncoders) =>
            {
                Phase::LoadEncoders(prompts, started)
            }
            Phase::Encode(prompts, started) => {
                let encoded = self.encode(prompts).await?;
                self.events.push_back(Event::Encoded {
                    n_tokens: self.settings.max_sequence_length,
                    seconds: started.elapsed().as_secs_f64(),
                });
                Phase::Modulate(encoded)
            }
            Phase::Modulate(encoded) => self.modulate(encoded).await?,
            Phase::Load(encoded, modulations) => {
                match self.context.upload_next(Part::Denoiser).await? {
                    Some(event) => {
                        self.events.push_back(event);
                        Phase::Load(encoded, modulations)
                    }
                    None => Phase::Prepare(encoded, modulations),
                }
            }
            Phase::Prepare(encoded, modulations) => {
                let programs = self.prepare().await?;
                self.prepared = Some(Prepared { encoded, modulations, programs });
                self.write_conditioning().await?;
                self.probe_colors().await?;
                Phase::BeginImage(0)
            }
            Phase::BeginImage(number) if number >= self.settings.count => {
                self.keep_programs();
                self.working = None;
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
                    Phase::LeaveStage(stage)
                } else {
                    Phase::Decode
                }
            }
            Phase::LeaveStage(stage) => {
                self.leave_stage(stage).await?;
                Phase::BeginStage(stage + 1)
            }
            Phase::Decode => {
                self.finish_image().await?;
                Phase::BeginImage(self.image.number + 1)
            }
            Phase::Done | Phase::Unfinished => Phase::Done,
        })
    }

    /// Encodes the prompts. Where the text encoders stay on the GPU anyway, the denoiser is loaded while they work.
    async fn encode(&mut self, prompts: Prompts) -> Result<Encoded, Error> {
        let context = &*self.context;
        if prompts.need_encoders() {
            context.use_change_weights(&self.text_change_weights()).await?;
        }
        if context.residency.keeps_all_parts() {
            let mut encoding = pin!(prompts.encode(context.encoders()));
            loop {
                if let Poll::Ready(encoded) = poll_once(encoding.as_mut()).await {
                    return encoded;
                }
                match context.upload_next(Part::Denoiser).await? {
                    Some(event) => self.events.push_back(event),
                    None => return encoding.await,
                }
            }
        }
        let encoded = prompts.encode(context.encoders()).await;
        drop(prompts);
        context.release_text_encoders();
        encoded
    }

    /// Makes the modulations of all steps, or loads more of the layers that make them.
    async fn modulate(&mut self, encoded: Encoded) -> Result<Phase, Error> {
        let context = &*self.context;
        let weights = (0..self.schedule.stages.len()).map(|stage| self.stage_change_weights(stage));
        let key = ModulationKey::new(
            context,
            &self.settings,
            &self.schedule,
            &encoded,
            weights.collect(),
        );
        if let Some(table) = ModulationTable::find(context, &key) {
            self.needs_modulation = None;
            context.release_modulation();
            return Ok(Phase::Load(encoded, table));
        }
        context.make_room_for(Part::Modulation, &self.programs_key());
        match context.upload_next(Part::Modulation).await? {
            Some(event) => self.events.push_back(event),
            None => ModulationTable::make(context, key).await?,
        }
        Ok(Phase::Modulate(encoded))
    }

    #[track_caller]
    fn prepared(&self) -> &Prepared {
        match &self.prepared {
            Some(prepared) => prepared,
            None => unreachable!("a phase after Prepare runs without programs"),
        }
    }

    #[track_caller]
    fn programs(&self) -> &Programs {
        &self.prepared().programs
    }

    #[track_caller]
    fn memory(&self) -> &RunMemory {
        &self.programs().memory
    }

    async fn write(&self, resident: &Resident, values: &[f32]) -> Result<(), Error> {
        self.context.device.write(resident, values).await
    }

    async fn read(&self, resident: &Resident) -> Result<Vec<f32>, Error> {
        self.context.device.read(resident).await
    }
}

/// Whether `future` has come to its end, without waiting for it.
async fn poll_once<F: Future>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await
}

impl Drop for Run {
    fn drop(&mut self) {
        self.keep_programs();
    }
}
