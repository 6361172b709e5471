//! What was told of a run, so that one can go back in it.

use std::sync::Arc;

use eframe::egui::{self, ColorImage, TextureHandle, TextureOptions};
use ralu::gpu::Counters;
use ralu::pipeline::plan::Plan;
use ralu::pipeline::{
    Event, FirstStage, MemoryUse, Picture, PictureKind, Products, RunSchedule, Settings, StageKind,
};
use ralu::sampling::Grid;

use crate::engine::Model;
use crate::form::Form;
use crate::smooth;

/// How far a run is.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// What it does before its first step.
    Preparing(String),
    Running,
    Done,
    Stopped,
    Failed,
}

/// A picture to go back to.
#[derive(Clone)]
pub struct Moment {
    /// From 0.
    pub stage: usize,
    /// Steps of the stage that were done.
    pub step: usize,
    pub kind: MomentKind,
    pub texture: TextureHandle,
}

/// How a moment's picture was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MomentKind {
    /// From the latents, by colours.
    Estimate,
    /// By the decoder, on RALU's way.
    Decoded,
    /// The finished picture.
    Finished,
}

/// A step that was done.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    pub seconds: f64,
    pub reused: bool,
}

/// The regions that a run chose.
pub struct Regions {
    pub grid: Grid,
    pub chosen: Vec<bool>,
    /// Scores, as a picture with a pixel for each coarse token.
    pub heat: TextureHandle,
    pub seconds: f64,
}

/// A run.
pub struct Record {
    pub job: u64,
    /// What draws it, whatever is open by now.
    pub model: Model,
    /// The form that asked for it; `None` if an earlier process did.
    pub form: Option<Form>,
    pub settings: Settings,
    pub schedule: RunSchedule,
    pub plan: Option<Box<Plan>>,
    pub state: State,
    /// Of each stage.
    pub steps: Vec<Vec<Step>>,
    pub regions: Option<Regions>,
    pub moments: Vec<Moment>,
    /// The last picture of the run before, to look at until there is one.
    pub before: Option<Moment>,
    /// What the strip of stages shows beside the finished picture.
    pub strip: Vec<Picture>,
    pub picture: Option<Picture>,
    /// Of the picture.
    pub products: Products,
    pub seconds: Option<f64>,
    pub first_stage: Option<Arc<FirstStage>>,
    /// Whether it went on from another run's first stage.
    pub resumed: bool,
    /// Whether it went on after its GPU was lost: what was before that is not known here.
    pub goes_on: bool,
    pub warnings: Vec<String>,
    pub memory: MemoryUse,
    pub peak_bytes: u64,
}

impl Record {
    pub fn new(
        job: u64,
        model: Model,
        settings: Settings,
        schedule: RunSchedule,
        plan: Option<Box<Plan>>,
    ) -> Record {
        let steps = schedule.stages.iter().map(|_| vec![]).collect();
        Record {
            job,
            model,
            form: None,
            settings,
            schedule,
            plan,
            state: State::Preparing("starting".into()),
            steps,
            regions: None,
            moments: vec![],
            before: None,
            strip: vec![],
            picture: None,
            products: Products::default(),
            seconds: None,
            first_stage: None,
            resumed: false,
            goes_on: false,
            warnings: vec![],
            memory: MemoryUse::default(),
            peak_bytes: 0,
        }
    }

    /// Takes note of an event.
    pub fn event(
        &mut self,
        context: &egui::Context,
        event: Event,
        memory: MemoryUse,
        counters: Counters,
    ) {
        self.memory = memory;
        self.peak_bytes = counters.bytes_peak;
        match event {
            Event::Warning(text) => self.warnings.push(text),
            Event::Loading { bytes, of, .. } => {
                let share = 100.0 * bytes as f64 / of.max(1) as f64;
                self.state = State::Preparing(match bytes < of {
                    true => format!("loading weights, {share:.0} %"),
                    false => "encoding the prompt".into(),
                });
            }
            Event::Encoded { .. } => {
                self.state = State::Preparing("preparing the GPU's programs".into());
            }
            Event::Stage(_) => self.state = State::Running,
            Event::Step(step) => {
                let done = Step { seconds: step.seconds, reused: step.reused };
                self.state = State::Running;
                if let Some(stage) = self.steps.get_mut(step.stage - 1) {
                    // Those before a loss took no time here.
                    let before = Step { seconds: 0.0, reused: true };
                    stage.resize(stage.len().max(step.step - 1), before);
                    stage.push(done);
                }
            }
            Event::Estimate { stage, step, picture, .. } => {
                self.moment(context, stage - 1, step, MomentKind::Estimate, &picture);
            }
            Event::StagePicture { stage, kind: PictureKind::Estimate, picture, .. } => {
                let step = self.schedule.stages.get(stage - 1).map_or(0, |s| s.steps());
                self.moment(context, stage - 1, step, MomentKind::Decoded, &picture);
                self.strip.push(picture);
            }
            Event::StagePicture { kind: PictureKind::Regions, picture, .. } => {
                self.strip.push(picture);
            }
            Event::Regions { grid, selected, score, seconds, .. } => {
                let mut chosen = vec![false; grid.n_tokens()];
                selected.iter().for_each(|i| chosen[*i as usize] = true);
                // Painted regions may be fewer than planned.
                self.schedule.set_regions(selected.len());
                let heat = heat(grid, &score);
                let heat = context.load_texture("heat", heat, TextureOptions::NEAREST);
                self.regions = Some(Regions { grid, chosen, heat, seconds });
            }
            Event::FirstStage(first) => self.first_stage = Some(first),
            Event::Image { picture, seconds, report, .. } => {
                self.products = report.products;
                let last = self.schedule.stages.len() - 1;
                let step = self.schedule.stages[last].steps();
                self.moment(context, last, step, MomentKind::Finished, &picture);
                self.picture = Some(picture);
                self.seconds = Some(seconds);
            }
            _ => {}
        }
    }

    fn moment(
        &mut self,
        context: &egui::Context,
        stage: usize,
        step: usize,
        kind: MomentKind,
        picture: &Picture,
    ) {
        let enlarged = match kind {
            MomentKind::Finished => None,
            MomentKind::Estimate | MomentKind::Decoded => Some(smooth::enlarged(picture)),
        };
        let picture = enlarged.as_ref().unwrap_or(picture);
        let size = [picture.width, picture.height];
        let image = ColorImage::from_rgb(size, &picture.rgb);
        // Small pictures are enlarged softly, finished ones shown pixel by pixel where they are large enough.
        let options = match kind {
            MomentKind::Finished => TextureOptions {
                magnification: egui::TextureFilter::Nearest,
                ..TextureOptions::LINEAR
            },
            _ => TextureOptions::LINEAR,
        };
        let name = format!("run {} stage {stage} step {step}", self.job);
        let texture = context.load_texture(name, image, options);
        self.moments.push(Moment { stage, step, kind, texture });
    }

    /// The last picture of this run, if `next`'s are as large.
    pub fn picture_before(&self, next: &Record) -> Option<Moment> {
        let size = |record: &Record| (record.settings.width, record.settings.height);
        self.moments.last().or(self.before.as_ref()).filter(|_| size(self) == size(next)).cloned()
    }

    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Done | State::Stopped | State::Failed)
    }

    /// Whether it makes a picture without RALU.
    pub fn is_plain(&self) -> bool {
        self.settings.ralu.is_none()
    }

    /// What to call it.
    pub fn name(&self) -> String {
        match self.is_plain() {
            true => format!("plain, {} steps", self.settings.steps),
            false => format!("RALU {}", self.settings.ralu_name),
        }
    }

    /// Seconds of a stage's steps so far.
    pub fn stage_seconds(&self, stage: usize) -> f64 {
        self.steps[stage].iter().map(|step| step.seconds).sum()
    }

    /// Seconds that the rest of a stage will take: its planned work, at the speed of the steps so far.
    pub fn seconds_to_come(&self, stage: usize) -> Option<f64> {
        let plan = self.plan.as_ref()?;
        let work = |stage: usize| Some(plan.stages.get(stage)?.tflops_per_step.with_attention);
        let (mut seconds, mut done) = (0.0, 0.0);
        for (i, steps) in self.steps.iter().enumerate() {
            let computed = steps.iter().filter(|step| !step.reused);
            for step in computed {
                seconds += step.seconds;
                done += work(i)?;
            }
        }
        let left = self.schedule.stages[stage].steps().saturating_sub(self.steps[stage].len());
        (done > 0.0 && left > 0).then_some(left as f64 * work(stage)? * seconds / done)
    }

    /// Seconds of all steps so far, of a kept first stage too.
    pub fn step_seconds(&self) -> f64 {
        let kept = match (&self.first_stage, self.resumed) {
            (Some(first), true) => first.seconds(),
            _ => 0.0,
        };
        kept + (0..self.steps.len()).map(|stage| self.stage_seconds(stage)).sum::<f64>()
    }

    /// Seconds of a full-size step on average, of those that no cache stood in for.
    pub fn full_step_seconds(&self) -> Option<f64> {
        let last = self.schedule.stages.last()?;
        let steps = self.steps.last()?.iter().filter(|step| !step.reused);
        let (sum, n) = steps.fold((0.0, 0), |(sum, n), step| (sum + step.seconds, n + 1));
        (last.kind == StageKind::Full && n > 0).then(|| sum / f64::from(n))
    }

    /// How many times faster the steps were than as many full-size ones as plain sampling has.
    pub fn measured_speedup(&self) -> Option<f64> {
        let plain = self.plan.as_ref()?.baseline.steps as f64 * self.full_step_seconds()?;
        let is_whole = self.state == State::Done && !self.goes_on;
        is_whole.then(|| plain / self.step_seconds().max(1e-9))
    }

    /// Whether the picture that is shown at a moment, the latest if `None`, is the finished one.
    pub fn is_finished_at(&self, moment: Option<usize>) -> bool {
        let shown = moment.and_then(|i| self.moments.get(i)).or(self.moments.last());
        self.picture.is_some() && shown.is_some_and(|shown| shown.kind == MomentKind::Finished)
    }

    /// Where the run is: stage and steps done, both from 0.
    pub fn position(&self) -> (usize, usize) {
        let stage = self.steps.iter().rposition(|steps| !steps.is_empty()).unwrap_or(0);
        (stage, self.steps[stage].len())
    }

    /// A line about where it is.
    pub fn status(&self) -> String {
        match &self.state {
            State::Preparing(what) => what.clone(),
            State::Running => {
                let (stage, step) = self.position();
                let of = self.schedule.stages[stage].steps();
                match self.schedule.stages.len() {
                    1 => format!("step {step} of {of}"),
                    _ => format!("stage {}, step {step} of {of}", stage + 1),
                }
            }
            State::Done => format!("done in {:.1} s", self.seconds.unwrap_or(0.0)),
            State::Stopped => "stopped".into(),
            State::Failed => "failed".into(),
        }
    }
}

/// From nothing to much: dark, amber, white.
fn heat(grid: Grid, score: &[f32]) -> ColorImage {
    let most = score.iter().copied().fold(f32::MIN_POSITIVE, f32::max);
    let pixels = score.iter().map(|score| {
        let share = (score / most).clamp(0.0, 1.0).sqrt();
        let mix = |a: [f32; 4], b: [f32; 4], t: f32| -> [f32; 4] {
            std::array::from_fn(|i| a[i] + (b[i] - a[i]) * t)
        };
        let (cold, warm, hot) =
            ([20.0, 30.0, 60.0, 150.0], [242.0, 160.0, 60.0, 150.0], [255.0, 244.0, 214.0, 200.0]);
        let [r, g, b, a] = match share {
            t if t < 0.6 => mix(cold, warm, t / 0.6),
            t => mix(warm, hot, (t - 0.6) / 0.4),
        };
        egui::Color32::from_rgba_unmultiplied(r as u8, g as u8, b as u8, a as u8)
    });
    ColorImage::new([grid.cols, grid.rows], pixels.collect())
}
