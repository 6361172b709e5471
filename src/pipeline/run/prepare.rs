//! Before the first step: the programs and their memory, the embeddings.

use super::{Prepared, Run};
use crate::pipeline::Error;
use crate::pipeline::context::RunContext;
use crate::pipeline::programs::{Models, Programs, ResidentPlanner, RunMemory, RunRecordings};
use crate::pipeline::run_cache::ProgramsKey;
use crate::turns::Turns;

impl Run {
    /// Records and compiles everything, and allocates all memory of the run; or takes what an earlier run has left.
    pub(super) async fn prepare(&self) -> Result<Programs, Error> {
        let RunContext { model, device, cache, .. } = &*self.context;
        if let Some(programs) = cache.take_programs(&self.programs_key(), &device.store) {
            return Ok(Programs { allocated_bytes: 0, ..programs });
        }
        let (config, parts) = (model.config(), &model.parts);
        let models = Models { config, denoiser: &*parts.denoiser.model, vae: &parts.vae.model };
        let (settings, fallbacks) = (&self.settings, &self.fallbacks);
        let caps = device.gpu.caps();
        let planner = ResidentPlanner { ids: &device.ids, caps, config, settings, fallbacks };
        let schedule = &self.schedule;
        let memory = RunMemory::new(&planner, schedule, models.denoiser, self.stage_pictures);
        let turns = Turns::new();
        let decoder = self.context.residency.streaming.placement().decoder;
        let recordings = RunRecordings::new(caps, models, settings, schedule, &memory, decoder);
        turns.yield_if_due().await;
        Programs::compile(device, &recordings, memory).await
    }

    /// What the run's programs are known by.
    pub(super) fn programs_key(&self) -> ProgramsKey {
        ProgramsKey::new(&self.settings, &self.schedule, self.stage_pictures, &self.fallbacks)
    }

    /// Leaves the programs to the next run.
    pub(super) fn keep_programs(&mut self) {
        if let Some(Prepared { programs, .. }) = self.prepared.take() {
            let RunContext { cache, device, .. } = &*self.context;
            cache.keep_programs(self.programs_key(), programs, &device.store);
        }
    }

    pub(super) async fn write_conditioning(&self) -> Result<(), Error> {
        let Prepared { programs, encoded, .. } = self.prepared();
        let shared = &programs.memory.shared;
        let branches = || [&encoded.positive].into_iter().chain(&encoded.negative);
        let txt: Vec<f32> = branches().flat_map(|branch| &branch.txt).copied().collect();
        self.write(&shared.txt, &txt).await
    }

    /// Compiles the programs again for a changed number of regions; the latents of stage 1 carry over.
    pub(super) async fn replan(&mut self) -> Result<(), Error> {
        let x = self.read(&self.memory().stages[0].x).await?;
        let velocity = self.read(&self.memory().stages[0].velocity).await?;
        if let Some(Prepared { programs, encoded, modulations }) = self.prepared.take() {
            programs.free(&self.context.device.store);
            let programs = self.prepare().await?;
            self.prepared = Some(Prepared { programs, encoded, modulations });
        }
        self.write_conditioning().await?;
        self.write(&self.memory().stages[0].x, &x).await?;
        self.write(&self.memory().stages[0].velocity, &velocity).await
    }
}
