//! Where a run was, kept on the host step by step: if the device is lost, the run goes on from there on another one.

use std::sync::Arc;

use web_time::Instant;

use super::{Phase, Run};
use crate::pipeline::device::Device;
use crate::pipeline::programs::step;
use crate::pipeline::{Error, NamedTensors, Settings};
use crate::sampling::cache::CacheRule;
use crate::tensor::{F16Range, Fallbacks};

/// Where a run was after a step. [`super::super::Request::resume`] goes on from it, to the same picture.
///
/// Runs without a temporal cache have one after every step; with one, whose memory stays on the GPU, at the end of every
/// stage, where it starts again.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    pub(super) settings: Settings,
    pub(super) image: usize,
    pub(super) stage: usize,
    /// Steps of the stage that are done.
    pub(super) steps: usize,
    /// Latents, `[N, 4 C]`; empty before the first step.
    pub(super) x: Vec<f32>,
    /// The last velocity, `[N, 4 C]`, at the end of a stage that another one follows.
    pub(super) velocity: Option<Vec<f32>>,
    pub(super) state: State,
}

/// What a run knows besides its latents.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pub(super) started: Option<Instant>,
    pub(super) selected: Vec<u32>,
    pub(super) estimates: Vec<Vec<f32>>,
    pub(super) computed: Vec<Vec<bool>>,
    pub(super) step_seconds: f64,
    pub(super) flops_done: f64,
    pub(super) cache: Option<CacheRule>,
    pub(super) tensors: NamedTensors,
    pub(super) fallbacks: Fallbacks,
}

impl Checkpoint {
    /// Number of the picture, from 0.
    pub fn image(&self) -> usize {
        self.image
    }

    /// Number of the stage, from 1.
    pub fn stage(&self) -> usize {
        self.stage + 1
    }

    /// Steps of the stage that are done.
    pub fn steps(&self) -> usize {
        self.steps
    }
}

impl Run {
    /// Where this run was when last seen; `None` before its first step.
    pub fn checkpoint(&self) -> Option<Arc<Checkpoint>> {
        self.checkpoint.clone()
    }

    /// Checks that this run can go on from where its request says another one was.
    pub(super) fn check_resume(&mut self) -> Result<(), Error> {
        let Some(at) = &self.resume else { return Ok(()) };
        if at.settings != self.settings {
            let expected = "one of a run of the same request; leave it out to run from the start";
            return Err(Error::setting("the checkpoint", "of other settings", expected));
        }
        if !at.state.selected.is_empty() && at.state.selected.len() != self.schedule.regions {
            self.schedule.set_regions(at.state.selected.len());
        }
        self.fallbacks.clone_from(&at.state.fallbacks);
        Ok(())
    }

    /// Goes on from where another run was, if it was in this picture.
    pub(super) async fn take_checkpoint(&mut self) -> Result<Option<Phase>, Error> {
        let Some(at) = self.resume.take() else { return Ok(None) };
        self.checkpoint = Some(at.clone());
        if at.x.is_empty() {
            return Ok(None);
        }
        let Checkpoint { stage, steps, state, .. } = &*at;
        self.image.started = state.started;
        self.image.selected.clone_from(&state.selected);
        self.image.estimates.clone_from(&state.estimates);
        self.image.flops_done = state.flops_done;
        self.image.tensors = state.tensors.clone();
        self.image.report.step_seconds = state.step_seconds;
        self.image.report.computed = state.computed[..*stage].to_vec();
        self.begin_stage(*stage).await?;
        if let (Some(last), Some(computed)) =
            (self.image.report.computed.last_mut(), state.computed.get(*stage))
        {
            last.clone_from(computed);
        }
        if state.cache.is_some() {
            self.image.cache.clone_from(&state.cache);
        }
        if self.estimates {
            self.image.latents.clone_from(&at.x);
        }
        let memory = self.memory();
        self.write(&memory.stages[*stage].x, &at.x).await?;
        if let Some(velocity) = &at.velocity {
            self.write(&memory.stages[*stage].velocity, velocity).await?;
        }
        // What decodes the clean estimate reads there how noisy the latents are.
        let sigmas = &self.schedule.stages[*stage].sigmas;
        let mut scalars = [0.0; step::LEN];
        scalars[step::SIGMA] = sigmas[*steps] as f32;
        self.write(&memory.shared.step, &scalars).await?;
        let at_end = *steps + 1 == sigmas.len();
        let phase = if at_end { Phase::EndStage(*stage) } else { Phase::Step(*stage, *steps) };
        Ok(Some(phase))
    }

    /// What is known now, for a checkpoint after step `i` of a stage.
    pub(super) fn state(&self, stage: usize, i: usize) -> State {
        let mut computed = self.image.report.computed.clone();
        if let Some(stage) = computed.get_mut(stage) {
            stage.truncate(i + 1);
        }
        State {
            started: self.image.started,
            selected: self.image.selected.clone(),
            estimates: self.image.estimates.clone(),
            computed,
            step_seconds: self.image.report.step_seconds,
            flops_done: self.image.flops_done,
            cache: self.image.cache.clone(),
            tensors: self.image.tensors.clone(),
            fallbacks: self.fallbacks.clone(),
        }
    }

    /// Whether a run can go on after step `i` with nothing but its latents.
    fn is_resumable(&self, stage: usize, i: usize) -> bool {
        // Regions are chosen with the last velocity, too: the end of a stage is kept by `keep_stage_end`.
        let is_last_stage = stage + 1 == self.schedule.stages.len();
        self.settings.cache.is_none()
            && (is_last_stage || i + 1 < self.schedule.stages[stage].steps())
    }

    /// Starts to read back the latents that step `i` leaves, if that is a place to go on from, or if they are shown.
    pub(super) async fn read_ahead(&self, stage: usize, i: usize) -> Result<(), Error> {
        let programs = self.programs();
        if !self.is_read(stage, i) {
            return Ok(());
        }
        let mut residents = vec![&programs.memory.stages[stage].x];
        residents.extend(programs.memory.shared.f16_range.as_ref().map(|range| range.flags()));
        let Device { gpu, store, .. } = &self.context.device;
        Ok(programs.read_backs[i % 2].start(gpu, store, &residents).await?)
    }

    /// The latents that step `i`, which has run, has left; `None` where they are not read back. Fails if a product met
    /// numbers beyond f16.
    pub(super) async fn latents_read_back(
        &self,
        stage: usize,
        i: usize,
    ) -> Result<Option<Vec<f32>>, Error> {
        if !self.is_read(stage, i) {
            return Ok(None);
        }
        let programs = self.programs();
        let mut read = programs.read_backs[i % 2].finish(&self.context.device.gpu).await?;
        if let Some(range) = &programs.memory.shared.f16_range {
            let flags = read.split_off(read.len().saturating_sub(F16Range::FLAGS));
            self.context.device.check_f16_range(range, &flags)?;
        }
        Ok(Some(read))
    }

    fn is_read(&self, stage: usize, i: usize) -> bool {
        let checks_range = self.context.device.gpu.caps().rounds_to_f16();
        self.estimates || checks_range || self.is_resumable(stage, i)
    }

    /// Keeps the latents that step `i` has left, if that is a place to go on from.
    pub(super) fn keep_checkpoint(&mut self, stage: usize, i: usize, x: Vec<f32>, state: State) {
        if self.is_resumable(stage, i) {
            let step_seconds = self.image.report.step_seconds;
            self.set_checkpoint(stage, i + 1, x, None, State { step_seconds, ..state });
        }
    }

    /// The clean estimate at the end of a stage, whose latents are at `sigma`, as far as its end was kept.
    pub(super) fn kept_estimate(&self, stage: usize, sigma: f64) -> Option<Vec<f32>> {
        let at = self.checkpoint.as_deref()?;
        let is_end = (at.image, at.stage, at.steps)
            == (self.image.number, stage, self.schedule.stages[stage].steps());
        match &at.velocity {
            _ if !is_end => None,
            None => (sigma == 0.0).then(|| at.x.clone()),
            Some(velocity) => {
                let clean = |(x, v): (&f32, &f32)| x - sigma as f32 * v;
                Some(at.x.iter().zip(velocity).map(clean).collect())
            }
        }
    }

    /// Keeps the end of a stage, with all that the next one is made from.
    pub(super) async fn keep_stage_end(&mut self, stage: usize) -> Result<(), Error> {
        let steps = self.schedule.stages[stage].steps();
        let memory = &self.memory().stages[stage];
        let x = self.read(&memory.x).await?;
        let is_last = stage + 1 == self.schedule.stages.len();
        let velocity = match is_last {
            true => None,
            false => Some(self.read(&memory.velocity).await?),
        };
        let state = self.state(stage, steps.saturating_sub(1));
        self.set_checkpoint(stage, steps, x, velocity, state);
        Ok(())
    }

    /// Notes that the picture is done: the next one begins with nothing.
    pub(super) fn keep_image_end(&mut self) {
        self.checkpoint = Some(Arc::new(Checkpoint {
            settings: self.settings.clone(),
            image: self.image.number + 1,
            stage: 0,
            steps: 0,
            x: vec![],
            velocity: None,
            state: State::default(),
        }));
    }

    fn set_checkpoint(
        &mut self,
        stage: usize,
        steps: usize,
        x: Vec<f32>,
        velocity: Option<Vec<f32>>,
        state: State,
    ) {
        let settings = self.settings.clone();
        let image = self.image.number;
        let checkpoint = Checkpoint { settings, image, stage, steps, x, velocity, state };
        self.checkpoint = Some(Arc::new(checkpoint));
    }
}
