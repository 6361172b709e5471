//! The end of RALU's first stage, kept: another run may go on from there with other regions.

use std::sync::Arc;

use super::Run;
use super::change_weights::FirstWeights;
use crate::models::adapters::LoraWeight;
use crate::pipeline::event::Event;
use crate::pipeline::programs::step;
use crate::pipeline::{Error, Settings, StageKind};

/// Where a run was at the end of its first stage. [`super::super::Request::first_stage`] goes on from it: with the same
/// settings but for the regions, the picture is the one that a whole run would have made. Weights of LoRAs may differ in later
/// stages, too.
#[derive(Clone, Debug, PartialEq)]
pub struct FirstStage {
    settings: Settings,
    weights: FirstWeights,
    sigmas: Vec<f64>,
    /// Latents, `[N, 4 C]`.
    x: Vec<f32>,
    /// The last velocity, `[N, 4 C]`.
    velocity: Vec<f32>,
    /// Earlier clean estimates, if regions are chosen by their changes.
    estimates: Vec<Vec<f32>>,
    computed: Vec<bool>,
    step_seconds: f64,
}

/// All that stage 1 depends on.
fn without_regions(settings: &Settings, seed: u64) -> Settings {
    Settings { seed, count: 1, mask: None, warnings: vec![], ..settings.clone() }
}

impl FirstStage {
    /// Seconds that its steps took.
    pub fn seconds(&self) -> f64 {
        self.step_seconds
    }

    /// Whether a run with `settings` can go on from here: whether nothing but the regions differs.
    pub fn fits(&self, settings: &Settings) -> bool {
        without_regions(settings, settings.seed) == self.settings && settings.count == 1
    }

    /// Whether a run with these weights of LoRAs, one for each file, can go on from here: whether they are the same in the first
    /// stage, and in text encoders if a file changes those.
    pub fn fits_lora_weights(&self, weights: &[LoraWeight]) -> bool {
        self.weights.fit(&weights.iter().map(|weight| weight.stages()).collect::<Vec<_>>())
    }
}

impl Run {
    /// Checks that this run can go on from the first stage that its request gives.
    pub(super) fn check_first_stage(&self) -> Result<(), Error> {
        let Some(first) = &self.first_stage else { return Ok(()) };
        let expected = "one of a run that differs in nothing but its regions; leave it out to run from the start";
        if !first.fits(&self.settings) {
            return Err(Error::setting("the kept first stage", "of other settings", expected));
        }
        if !first.weights.fit(&self.change_weights) {
            let expected = "one of a run with the same LoRAs, and the same weights of them in the first stage and in text encoders; \
                            leave it out to run from the start";
            return Err(Error::setting(
                "the kept first stage",
                "of other LoRAs or weights of them",
                expected,
            ));
        }
        if self.schedule.stages[0].sigmas != first.sigmas {
            // Runs of two stages have another schedule.
            let found = "of a run with regions, while this one refines none or all";
            return Err(Error::setting("the kept first stage", found, expected));
        }
        Ok(())
    }

    /// Goes on from a kept first stage. False if there is none.
    pub(super) async fn take_first_stage(&mut self) -> Result<bool, Error> {
        let Some(first) = self.first_stage.clone() else { return Ok(false) };
        let memory = self.memory();
        self.write(&memory.stages[0].x, &first.x).await?;
        self.write(&memory.stages[0].velocity, &first.velocity).await?;
        // What decodes the clean estimate reads there how noisy the latents are.
        let mut scalars = [0.0; step::LEN];
        scalars[step::SIGMA] = first.sigmas.last().map_or(0.0, |sigma| *sigma as f32);
        self.write(&memory.shared.step, &scalars).await?;
        self.image.estimates.clone_from(&first.estimates);
        self.image.report.computed.push(first.computed.clone());
        if let Some(rule) = &mut self.image.cache {
            rule.begin_stage(&first.sigmas, false);
        }
        Ok(true)
    }

    /// Keeps the end of the first stage, if the request asks for it.
    pub(super) async fn keep_first_stage(&mut self, stage: usize) -> Result<(), Error> {
        let wanted = self.keeps_first_stage
            && self.first_stage.is_none()
            && stage == 0
            && self.schedule.stages[stage].kind == StageKind::Low;
        if !wanted {
            return Ok(());
        }
        let memory = &self.memory().stages[stage];
        let first = FirstStage {
            settings: without_regions(&self.settings, self.image.seed),
            weights: self.first_change_weights(),
            sigmas: self.schedule.stages[stage].sigmas.clone(),
            x: self.read(&memory.x).await?,
            velocity: self.read(&memory.velocity).await?,
            estimates: self.image.estimates.clone(),
            computed: self.image.report.computed.first().cloned().unwrap_or_default(),
            step_seconds: self.image.stage_seconds,
        };
        self.events.push_back(Event::FirstStage(Arc::new(first)));
        Ok(())
    }
}
