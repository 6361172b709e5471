//! The steps of a run as recordings, without weights and without a device: what they cost the host can be measured,
//! and what they dispatch can be counted, for models that do not fit on the machine at hand.

use super::model::{Parts, check_widths};
use super::programs::{Models, ResidentPlanner, RunMemory, RunRecordings};
use super::{Error, RunSchedule, Settings};
use crate::models::config::ModelConfig;
use crate::models::layers::{LoadContext, Precision};
use crate::tensor::{Blocks, Caps, Recording, Resident, ResidentIds};

/// One step of every stage of a run, recorded.
pub struct Rehearsal {
    /// A whole evaluation of the network and an Euler step, for each stage.
    pub steps: Vec<Recording>,
    /// The modulations of the step at hand, which are copied on the GPU before each step.
    pub modulations: Resident,
    /// What the host writes before each step: its scalars.
    pub scalars: Resident,
}

impl Rehearsal {
    /// Records what `settings` ask of `config`, with weights in 16 bits.
    pub fn new(config: &ModelConfig, settings: &Settings, caps: Caps) -> Result<Self, Error> {
        check_widths(config)?;
        let schedule = RunSchedule::new(settings, config)?;
        let ids = ResidentIds::default();
        let context = LoadContext::new(&ids, Precision::F16, caps.max_binding_bytes);
        let parts = Parts::plan(None, config, &context)?;
        let models = Models { config, denoiser: &*parts.denoiser.model, vae: &parts.vae.model };
        let in_f32 = Blocks::default();
        let planner = ResidentPlanner { ids: &ids, caps, config, settings, in_f32: &in_f32 };
        let memory = RunMemory::new(&planner, &schedule, models.denoiser, false);
        let recordings = RunRecordings::new(caps, models, settings, &schedule, &memory);
        Ok(Rehearsal {
            steps: recordings.steps.into_iter().map(|step| step.full).collect(),
            modulations: memory.shared.modulations,
            scalars: memory.shared.step,
        })
    }
}
