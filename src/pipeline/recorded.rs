//! What a run's recordings say: its operations and its memory.

use super::arrivals::StepArrivals;
use super::decoder_memory::{DecoderMemory, Decoding, place};
use super::model::Parts;
use super::placement::{PhaseBytes, Placement};
use super::plan::{PlannedDecoder, PlannedMemory, PlannedPart, PlannedStreaming};
use super::programs::{
    CacheMemory, DecodeRecordings, Models, ModulationMemory, ResidentPlanner, RunMemory,
    RunRecordings, StepRecordings, record_modulations, rehearse_encoder,
};
use super::{Error, Options, Part, RunSchedule, Settings};
use crate::checkpoint::source::Source;
use crate::models::config::ModelConfig;
use crate::models::layers::{LoadContext, Precision};
use crate::tensor::{
    Caps, Fallbacks, Flops, MemoryPlan, Recording, Resident, ResidentIds, plan_memory,
};

/// Operations of a stage's step.
pub(super) struct StepFlops {
    computed: Flops,
    /// Where a temporal cache stands in.
    reused: Flops,
}

impl StepFlops {
    /// `modulations` are those of one step.
    fn new(step: &StepRecordings, modulations: Flops) -> Self {
        let products =
            |recording: Option<&Recording>| recording.map_or(Flops::default(), Recording::products);
        let always = modulations + products(step.probe.as_ref());
        StepFlops {
            computed: always + step.full.products(),
            reused: always + products(step.reuse.as_ref()),
        }
    }

    /// Of a step that is computed, or of one that a cache stands in for.
    pub fn of(&self, computed: bool) -> Flops {
        if computed { self.computed } else { self.reused }
    }
}

/// What of a run its settings do not say.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    /// Whether all stages' pictures are made.
    pub stage_pictures: bool,
    /// Whether stages have modulations that differ in more than time.
    pub has_stage_modulations: bool,
}

/// Whether changes of weights are multiplied by other numbers in one of the last `stages` stages than in another.
pub(super) fn differ(change_weights: &[[f64; 3]], stages: usize) -> bool {
    let last = |of: &[f64; 3]| of[of.len().saturating_sub(stages)..].to_vec();
    change_weights.iter().map(last).any(|of| of.windows(2).any(|pair| pair[0] != pair[1]))
}

/// What a run's recordings say.
pub(super) struct Recorded {
    /// All text encoders, once.
    pub text_encoders: Flops,
    /// For each stage.
    pub steps: Vec<StepFlops>,
    /// For each stage, of its steps that are computed.
    pub arrivals: Vec<StepArrivals>,
    /// Of the picture.
    pub decode: Flops,
    /// Of the half-size picture, if regions are found in it.
    pub decode_low: Flops,
    pub memory: PlannedMemory,
    /// What is streamed.
    pub placement: Placement,
    /// See [`Plan::not_quantised`].
    pub not_quantised: Vec<String>,
}

impl Recorded {
    /// The most that is needed at any time, staging memory included.
    pub fn peak_with_staging(&self) -> u64 {
        let staging = match self.memory.streaming {
            Some(streaming) => streaming.staging_bytes,
            None => self.placement.staging_bytes(),
        };
        self.memory.peak_bytes + staging
    }

    /// Of a model whose files are not read, but for what `source` says of them.
    pub fn new(
        config: &ModelConfig,
        source: Option<&dyn Source>,
        settings: &Settings,
        schedule: &RunSchedule,
        caps: Caps,
        options: Options,
    ) -> Result<Self, Error> {
        let ids = ResidentIds::default();
        let limit = caps.max_binding_bytes;
        // Without a checkpoint every weight would count as f32; FLUX.1 is published in 16 bits.
        let precision = if source.is_none() { Precision::F16 } else { options.precision };
        let context = LoadContext::new(&ids, precision, limit).quantised(options.quantise);
        let parts = Parts::plan(source, config, &context)?;
        let model = Models { config, denoiser: &*parts.denoiser.model, vae: &parts.vae.model };
        let change_weights = source.map_or(vec![], Source::change_weights);
        let asked = Asked {
            stage_pictures: false,
            has_stage_modulations: differ(&change_weights, schedule.stages.len()),
        };
        Recorded::of_parts(&parts, model, &ids, settings, schedule, caps, options, asked)
    }

    /// Of a model with these parts. `ids` are for what the run would have.
    #[allow(clippy::too_many_arguments, reason = "all that a run depends on")]
    pub fn of_parts(
        parts: &Parts,
        models: Models<'_>,
        ids: &ResidentIds,
        settings: &Settings,
        schedule: &RunSchedule,
        caps: Caps,
        options: Options,
        Asked { stage_pictures, has_stage_modulations }: Asked,
    ) -> Result<Self, Error> {
        let config = models.config;
        let caps = options.precision.limit(caps);
        let mut encoding = Vec::new();
        let mut scratch = Vec::new();
        let mut text_encoders = Flops::default();
        // In the order in which they are compiled.
        for (part, own) in parts.text_encoders.iter().zip(&config.text_encoders) {
            let (recording, matrices) =
                rehearse_encoder(ids, caps, own, &*part.model, settings.max_sequence_length);
            encoding.push(plan_memory(&recording));
            text_encoders += recording.products();
            scratch.extend(matrices);
        }
        let scratch: u64 = scratch.iter().flat_map(|resident| resident.band_bytes()).sum();
        let text_encoder_weights_bytes = parts.bytes_of(Part::TextEncoders);
        let encoding = scratch + grown_pool_bytes(&encoding);

        let fallbacks = Fallbacks::default();
        let planner = ResidentPlanner { ids, caps, config, settings, fallbacks: &fallbacks };
        let (steps, branches) = (schedule.steps(), planner.branches());
        let rows = steps * branches;
        let table = ModulationMemory::new(ids, caps, config, models.denoiser, rows);
        let modulations = record_modulations(caps, models.denoiser, &table);
        let states = RunMemory::new(&planner, schedule, models.denoiser, stage_pictures);
        let unlimited = DecoderMemory::default();
        let recordings = RunRecordings::new(caps, models, settings, schedule, &states, unlimited);
        let modulation_weights_bytes = parts.bytes_of(Part::Modulation);
        let table_bytes = table.residents().flat_map(Resident::band_bytes).sum::<u64>();
        // The rows of each stage are kept apart from those that the next one's are made in.
        let table_bytes = match has_stage_modulations {
            true => table_bytes + table.rows.band_bytes().sum::<u64>(),
            false => table_bytes,
        };
        let modulation_pool_bytes = pool_bytes(&[plan_memory(&modulations)]);
        let plans: Vec<MemoryPlan> = recordings.before_decoding().map(plan_memory).collect();
        let denoiser_weights_bytes = parts.bytes_of(Part::Denoiser);
        let mut states_bytes = states.bytes() + table_bytes;
        let phases = |decoding: &Decoding| {
            let denoising = decoding.temporaries_bytes + decoding.staging_bytes + states_bytes;
            PhaseBytes {
                encoding,
                modulating: table_bytes + modulation_pool_bytes,
                modulations: table_bytes,
                denoising,
                // The last is for the next run.
                together: encoding + denoising + modulation_pool_bytes,
            }
        };
        let budget = options.memory_budget.bytes();
        let whole = Decoding::new(unlimited, &recordings.decodes, &plans);
        let (placement, decoding) = match budget {
            None => (Placement::resident(options.keeps_all_parts(parts)), whole),
            Some(budget) => {
                let record = |decoder| {
                    let decodes = DecodeRecordings::new(caps, models, schedule, &states, decoder);
                    Decoding::new(decoder, &decodes, &plans)
                };
                place(budget, parts, steps, whole, record, phases)?
            }
        };
        let temporaries_bytes = decoding.temporaries_bytes;
        let keeps_text_encoders = placement.keeps_all_parts;
        if keeps_text_encoders {
            states_bytes += modulation_pool_bytes;
        }
        let on_gpu = |part| placement.bytes_of(parts, part).total();
        let encoding_bytes = on_gpu(Part::TextEncoders) + encoding;
        let modulating = table_bytes + modulation_pool_bytes;
        let modulating_bytes = on_gpu(Part::Modulation) + modulating;
        let denoising_bytes = on_gpu(Part::Denoiser) + temporaries_bytes + states_bytes;
        // The next prompt's modulations take the place of this one's.
        let before_bytes = encoding_bytes.max(modulating_bytes - table_bytes);
        let memory = PlannedMemory {
            text_encoder_weights_bytes,
            keeps_text_encoders,
            modulation_weights_bytes,
            denoiser_weights_bytes,
            encoding_bytes,
            temporaries_bytes,
            states_bytes,
            cache_bytes: states.cache.as_ref().map_or(0, CacheMemory::bytes),
            peak_bytes: match keeps_text_encoders {
                true => encoding_bytes + modulation_weights_bytes + denoising_bytes,
                false if placement.keeps_denoiser => denoising_bytes + before_bytes,
                false => encoding_bytes.max(modulating_bytes).max(denoising_bytes),
            },
            streaming: budget.map(|budget| {
                let part = |part| {
                    let bytes = placement.bytes_of(parts, part);
                    PlannedPart {
                        resident_bytes: bytes.resident,
                        slot_bytes: bytes.slots,
                        slots: placement.slots_of(part),
                        streamed_bytes: bytes.streamed,
                        streamed_blocks: placement
                            .blocks_of(part)
                            .filter(|(_, block)| !block.is_decoders)
                            .count(),
                    }
                };
                PlannedStreaming {
                    budget_bytes: budget,
                    staging_bytes: placement.staging_bytes() + decoding.staging_bytes,
                    keeps_denoiser: keeps_text_encoders || placement.keeps_denoiser,
                    text_encoders: part(Part::TextEncoders),
                    modulation: part(Part::Modulation),
                    denoiser: part(Part::Denoiser),
                    decoder: PlannedDecoder {
                        streamed_bytes: placement.bytes_of(parts, Part::Denoiser).decoder,
                        spilled_bytes: decoding.spilled_bytes,
                    },
                }
            }),
        };
        Ok(Recorded {
            text_encoders,
            steps: (recordings.steps.iter())
                .map(|step| StepFlops::new(step, modulations.products() * (1.0 / steps as f64)))
                .collect(),
            arrivals: (recordings.steps.iter())
                .map(|step| StepArrivals::new(&step.full, parts, &placement))
                .collect(),
            decode: recordings.decodes.full.products(),
            decode_low: recordings
                .decodes
                .low
                .as_ref()
                .map_or(Flops::default(), Recording::products),
            memory,
            placement,
            not_quantised: options.quantise.map_or(vec![], |q| parts.not_quantised(q)),
        })
    }
}

/// Bytes of a pool that serves all of `plans` in turn: see [`crate::gpu::SlotPool`].
pub(super) fn pool_bytes(plans: &[MemoryPlan]) -> u64 {
    let slots = plans.iter().map(|plan| plan.slots.len()).max().unwrap_or(0);
    (0..slots)
        .map(|i| plans.iter().filter_map(|plan| plan.slots.get(i)).max().copied().unwrap_or(0))
        .sum()
}

/// Bytes of a pool that grows from program to program: a program keeps the buffers that it was compiled with, also where
/// a later one needed larger ones.
fn grown_pool_bytes(plans: &[MemoryPlan]) -> u64 {
    let mut largest = Vec::new();
    let mut bytes = 0;
    for plan in plans {
        for (i, slot) in plan.slots.iter().enumerate() {
            if i == largest.len() {
                largest.push(0);
            }
            if *slot > largest[i] {
                largest[i] = *slot;
                bytes += slot;
            }
        }
    }
    bytes
}
