//! What the runs of a pipeline leave to each other, so that a second prompt starts with its first step.

use std::sync::Arc;

use super::encoders::EncoderMemory;
use super::modulation::ModulationTable;
use super::preview::LatentColors;
use super::programs::Programs;
use super::text_cache::TextCache;
use super::{Rng, RunSchedule, Settings};
use crate::gpu::Store;
use crate::models::position_table::Interpolation;
use crate::sync::Locked;
use crate::tensor::Fallbacks;

/// What a run may use again of those before it.
#[derive(Default)]
pub(super) struct RunCache {
    /// The text encoders' programs.
    pub encoders: EncoderMemory,
    /// Encoded texts.
    pub texts: TextCache,
    /// The modulations that were made last.
    pub modulations: Locked<Option<Arc<ModulationTable>>>,
    /// How to find positions between two entries of a table of positions; `None` until that was checked.
    pub interpolation: Locked<Option<Interpolation>>,
    /// The colours of the VAE's latents, for estimates.
    pub colors: Locked<LatentColors>,
    programs: Locked<Option<(ProgramsKey, Programs)>>,
}

/// All that a run's recordings depend on.
#[derive(PartialEq)]
pub(super) struct ProgramsKey {
    /// Without what is written into buffers before or between the steps.
    settings: Settings,
    schedule: RunSchedule,
    stage_pictures: bool,
    fallbacks: Fallbacks,
}

impl ProgramsKey {
    pub fn new(
        settings: &Settings,
        schedule: &RunSchedule,
        stage_pictures: bool,
        fallbacks: &Fallbacks,
    ) -> Self {
        let settings = Settings {
            prompt: String::new(),
            negative_prompt: settings.negative_prompt.as_ref().map(|_| String::new()),
            guidance: 0.0,
            true_cfg: 0.0,
            seed: 0,
            count: 0,
            rng: Rng::default(),
            mask: None,
            warnings: vec![],
            ..settings.clone()
        };
        let (schedule, fallbacks) = (schedule.clone(), fallbacks.clone());
        ProgramsKey { settings, schedule, stage_pictures, fallbacks }
    }
}

impl RunCache {
    /// A cache with all of this one that does not depend on the device.
    pub fn for_other_device(&self) -> Self {
        RunCache {
            texts: self.texts.clone(),
            interpolation: Locked::new(self.interpolation.get()),
            colors: Locked::new(self.colors.lock().clone()),
            ..RunCache::default()
        }
    }

    /// The programs that were kept, if they are those of `key`; others are freed.
    pub fn take_programs(&self, key: &ProgramsKey, store: &Store) -> Option<Programs> {
        let (kept_key, programs) = self.programs.take()?;
        if kept_key == *key {
            return Some(programs);
        }
        programs.free(store);
        None
    }

    /// Whether no programs are kept but those of `key`.
    pub fn holds_programs(&self, key: &ProgramsKey) -> bool {
        self.programs.lock().as_ref().is_none_or(|(kept, _)| kept == key)
    }

    /// Frees the programs that were kept.
    pub fn forget_programs(&self, store: &Store) {
        if let Some((_, programs)) = self.programs.take() {
            programs.free(store);
        }
    }

    /// Keeps programs instead of those that were kept before.
    pub fn keep_programs(&self, key: ProgramsKey, programs: Programs, store: &Store) {
        if let Some((_, programs)) = self.programs.replace(Some((key, programs))) {
            programs.free(store);
        }
    }
}
