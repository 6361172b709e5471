//! The programs of a run as recordings, without weights and without a device: what they cost the host can be measured,
//! what they dispatch can be counted and compiled, for models that do not fit on the machine at hand.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::decoder_memory::DecoderMemory;
use super::model::{ModelPart, Parts, check_widths};
use super::programs::{
    DecodeRecordings, Models, ModulationMemory, ResidentPlanner, RunMemory, RunRecordings,
    record_modulations, rehearse_encoder,
};
use super::{Error, RunSchedule, Settings};
use crate::checkpoint::changes::{LowRank, Matrix, Rows};
use crate::checkpoint::dtype::StoredDType;
use crate::models::config::ModelConfig;
use crate::models::denoiser::Denoiser;
use crate::models::layers::{LoadContext, Precision, Upload};
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
        let ids = ResidentIds::default();
        let context = LoadContext::new(&ids, Precision::Auto, caps.max_binding_bytes);
        let parts = Parts::stored_as(dtype, config, &context)?;
        Rehearsal::of_parts(&parts, &ids, config, settings, caps)
    }

    /// [`Rehearsal::new`] with a LoRA of `rank` on every layer of the denoiser, each with a down of its own.
    pub fn with_lora(
        rank: usize,
        config: &ModelConfig,
        settings: &Settings,
        caps: Caps,
    ) -> Result<Self, Error> {
        check_widths(config)?;
        let ids = ResidentIds::default();
        let context = LoadContext::new(&ids, Precision::Auto, caps.max_binding_bytes);
        let dtype = StoredDType::named("F16");
        let plain = Parts::stored_as(&dtype, config, &context)?;
        let low_rank = low_rank_of(&plain.denoiser, rank);
        let parts = Parts::changed(&dtype, &low_rank, config, &context)?;
        Rehearsal::of_parts(&parts, &ids, config, settings, caps)
    }

    fn of_parts(
        parts: &Parts,
        ids: &ResidentIds,
        config: &ModelConfig,
        settings: &Settings,
        caps: Caps,
    ) -> Result<Self, Error> {
        let schedule = RunSchedule::new(settings, config)?;
        let length = settings.max_sequence_length;
        let encoders = parts.text_encoders.iter().zip(&config.text_encoders);
        let encoders = encoders
            .map(|(part, own)| rehearse_encoder(ids, caps, own, &*part.model, length).0)
            .collect();
        let models = Models { config, denoiser: &*parts.denoiser.model, vae: &parts.vae.model };
        let fallbacks = Fallbacks::default();
        let planner = ResidentPlanner { ids, caps, config, settings, fallbacks: &fallbacks };
        let rows = schedule.steps() * planner.branches();
        let table = ModulationMemory::new(ids, caps, config, models.denoiser, rows);
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

/// Products of `rank` for all matrices of a part, of zeros.
fn low_rank_of(part: &ModelPart<dyn Denoiser>, rank: usize) -> BTreeMap<String, Vec<LowRank>> {
    let uploads = part.uploads.iter().chain(&part.modulation_uploads);
    let sources = uploads.flat_map(|upload| match upload {
        Upload::Packed { sources, .. } => &sources[..],
        _ => &[],
    });
    let changes = sources.filter_map(|source| {
        let layer = source.tensor.name.strip_suffix(".weight")?;
        let of = *source.tensor.shape.first()?;
        let k = source.tensor.shape.iter().skip(1).product::<usize>();
        let zeros = |rows, cols| Arc::new(Matrix::new(rows, vec![0.0; rows * cols]));
        let rows = Rows { first: 0, of, are_swapped: false };
        let change =
            LowRank { down: zeros(rank, k), up: zeros(of, rank), rows, scale: 1.0, file: 0 };
        Some((layer.to_owned(), vec![change]))
    });
    changes.collect()
}
