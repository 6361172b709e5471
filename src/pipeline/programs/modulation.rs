//! The recording that makes all modulations of a run.

use crate::models::config::ModelConfig;
use crate::models::denoiser::Denoiser;
use crate::models::layers::TIME_CHANNELS;
use crate::models::modulation::Conditions;
use crate::tensor::{Caps, Recorder, Recording, Resident, ResidentIds};

/// What modulations are made from, and where they go: R rows, one for each step and branch of guidance.
pub(in crate::pipeline) struct ModulationMemory {
    /// Sinusoids of the timesteps, `[R, 256]`.
    pub time: Resident,
    /// Sinusoids of the guidance scale, `[R, 256]`.
    pub guidance: Resident,
    /// Pooled text vectors, `[R, pooled_dim]`, if the network reads them.
    pub pooled: Option<Resident>,
    /// The modulations, `[R, width]`.
    pub rows: Resident,
}

impl ModulationMemory {
    pub fn new(
        ids: &ResidentIds,
        caps: Caps,
        config: &ModelConfig,
        denoiser: &dyn Denoiser,
        rows: usize,
    ) -> Self {
        let matrix = |label: &str, cols| ids.matrix(label, rows, cols, caps.max_binding_bytes);
        ModulationMemory {
            time: matrix("time", TIME_CHANNELS),
            guidance: matrix("guidance", TIME_CHANNELS),
            pooled: config.transformer.pooled_dim().map(|dim| matrix("pooled", dim)),
            rows: matrix("all modulations", denoiser.modulations().width()),
        }
    }

    /// All of it.
    pub fn residents(&self) -> impl Iterator<Item = &Resident> {
        [&self.time, &self.guidance, &self.rows].into_iter().chain(&self.pooled)
    }
}

/// Records all modulations of a run. In f32 everywhere: it is little work, and every step depends on it.
pub(in crate::pipeline) fn record_modulations(
    caps: Caps,
    denoiser: &dyn Denoiser,
    memory: &ModulationMemory,
) -> Recording {
    let recorder = Recorder::new(Caps { f16: false, ..caps });
    let conditions = Conditions {
        time: recorder.resident(&memory.time),
        guidance: recorder.resident(&memory.guidance),
        pooled: memory.pooled.as_ref().map(|pooled| recorder.resident(pooled)),
    };
    denoiser.modulations().record(conditions, recorder.resident(&memory.rows));
    recorder.finish("modulations")
}
