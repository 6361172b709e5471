//! The programs of a run as recordings, without weights and without a device: what they cost the host can be measured,
//! what they dispatch can be counted and compiled, for models that do not fit on the machine at hand.

use super::decoder_memory::DecoderMemory;
use super::model::{Parts, check_widths};
use super::programs::{
    DecodeRecordings, Models, ModulationMemory, ResidentPlanner, RunMemory, RunRecordings,
    record_modulations, rehearse_encoder,
};
use super::{Error, RunSchedule, Settings};
use crate::checkpoint::dtype::StoredDType;
use crate::models::config::ModelConfig;
use crate::models::layers::{LoadContext, Precision};
use crate::tensor::{Caps, Fallbacks, Recording, Resident, ResidentIds};

/// The programs of a run, recorded.
pub struct Rehearsal {
    /// Each text encoder, once.
    pub encoders: Vec<Recording>,
    /// A whole evaluation of the network and an Euler step, for each stage.
    pub steps: Vec<Recording>,
    /// All modulations, the jumps between the stages, and decoding.
    pub others: Vec<Recording>,
    /// The modulations of the step at hand, which are copied on the GPU before each step.
    pub modulations: Resident,
    /// What the host writes before each step: its scalars.
    pub scalars: Resident,
}

impl Rehearsal {
    /// Records what `settings` ask of `config`, with weights in 16 bits.
    pub fn new(config: &ModelConfig, settings: &Settings, caps: Caps) -> Result<Self, Error> {
        Rehearsal::stored_as(&StoredDType::named("F16"), config, settings, caps)
    }

    /// Records what `settings` ask of `config`, with weights that are stored as `dtype` and kept on the GPU as they are.
    pub fn stored_as(
        dtype: &StoredDType,
        config: &ModelConfig,
        settings: &Settings,
        caps: Caps,
    ) -> Result<Self, Error> {
        check_widths(config)?;
        let schedule = RunSchedule::new(settings, config)?;
        let ids = ResidentIds::default();
        let context = LoadContext::new(&ids, Precision::Auto, caps.max_binding_bytes);
        let parts = Parts::stored_as(dtype, config, &context)?;
        let length = settings.max_sequence_length;
        let encoders = parts.text_encoders.iter().zip(&config.text_encoders);
        let encoders = encoders
            .map(|(part, own)| rehearse_encoder(&ids, caps, own, &*part.model, length).0)
            .collect();
        let models = Models { config, denoiser: &*parts.denoiser.model, vae: &parts.vae.model };
        let fallbacks = Fallbacks::default();
        let planner = ResidentPlanner { ids: &ids, caps, config, settings, fallbacks: &fallbacks };
        let rows = schedule.steps() * planner.branches();
        let table = ModulationMemory::new(&ids, caps, config, models.denoiser, rows);
        let modulations = record_modulations(caps, models.denoiser, &table);
        let memory = RunMemory::new(&planner, &schedule, models.denoiser, false);
        let decoder = DecoderMemory::default();
        let recordings = RunRecordings::new(caps, models, settings, &schedule, &memory, decoder);
        let RunRecordings { steps, jumps, decodes: DecodeRecordings { low, full, mixed } } =
            recordings;
        let decodes = low.into_iter().chain([full]).chain(mixed);
        Ok(Rehearsal {
            encoders,
            steps: steps.into_iter().map(|step| step.full).collect(),
            others: [modulations].into_iter().chain(jumps).chain(decodes).collect(),
            modulations: memory.shared.modulations,
            scalars: memory.shared.step,
        })
    }
}
