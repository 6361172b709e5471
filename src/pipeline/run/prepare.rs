//! Before the first step: the programs and their memory, the embeddings.

use std::rc::Rc;

use super::Run;
use crate::gpu::{Program, ReadBack, Store};
use crate::models::layers::{TIME_CHANNELS, timestep_embedding};
use crate::pipeline::kept::ProgramsKey;
use crate::pipeline::programs::{Layout, Models, RunMemory, RunRecordings, StepRecordings};
use crate::pipeline::{Error, Pipeline};
use crate::tensor::{Recording, Resident, ResidentId, plan_memory};
use crate::turns::Turns;

/// The compiled programs of a run and the memory they work on.
pub(in crate::pipeline) struct Programs {
    pub(super) memory: RunMemory,
    pub(super) steps: Vec<StepRecordings<Rc<Program>>>,
    pub(super) jumps: Vec<Program>,
    pub(super) decode_low: Option<Program>,
    pub(super) decode: Program,
    pub(super) decode_mixed: Option<Program>,
    /// For the latents of steps that run one behind the other.
    pub(super) read_backs: [ReadBack; 2],
    /// Bytes that were newly allocated for the temporaries of all stages together.
    pub(super) allocated_bytes: u64,
}

impl Programs {
    /// Frees the memory that only they use.
    pub(in crate::pipeline) fn free(self, store: &Store) {
        self.memory.residents().iter().for_each(|resident| store.free(resident.id));
    }
}

/// Frees the memory of programs whose compilation failed or was dropped.
struct Unfinished<'p> {
    store: &'p Store,
    ids: Vec<ResidentId>,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        self.ids.iter().for_each(|id| self.store.free(*id));
    }
}

impl<'p> Run<'p> {
    /// Records and compiles everything, and allocates all memory of the run; or takes what an earlier run has left.
    pub(super) async fn prepare(&self) -> Result<Programs, Error> {
        let Pipeline { gpu, store, config, parts, ids, kept, .. } = self.pipeline;
        if let Some(programs) = kept.take_programs(&self.programs_key(), store) {
            return Ok(Programs { allocated_bytes: 0, ..programs });
        }
        let models = Models { config, denoiser: &*parts.denoiser.model, vae: &parts.vae.model };
        let (settings, in_f32) = (&self.settings, &self.in_f32);
        let layout = Layout { ids, caps: gpu.caps(), config, settings, in_f32 };
        let memory = RunMemory::new(&layout, &self.schedule, models.denoiser, self.stage_pictures);
        let ids = memory.residents().iter().map(|resident| resident.id).collect();
        let mut unfinished = Unfinished { store, ids };
        let programs = self.compile(models, memory).await?;
        unfinished.ids.clear();
        Ok(programs)
    }

    fn programs_key(&self) -> ProgramsKey {
        ProgramsKey::new(&self.settings, &self.schedule, self.stage_pictures, &self.in_f32)
    }

    /// Leaves the programs to the next run.
    pub(super) fn keep_programs(&mut self) {
        if let Some(programs) = self.programs.take() {
            let Pipeline { kept, store, .. } = self.pipeline;
            kept.keep_programs(self.programs_key(), programs, store);
        }
    }

    async fn compile(&self, models: Models<'_>, memory: RunMemory) -> Result<Programs, Error> {
        let Pipeline { gpu, store, pool, .. } = self.pipeline;
        let (settings, schedule) = (&self.settings, &self.schedule);
        let turns = Turns::new();
        let recordings = RunRecordings::new(gpu.caps(), models, settings, schedule, &memory);
        turns.yield_if_due().await;
        for resident in memory.residents() {
            store.create(gpu, resident).await?;
        }
        let mut plans = Vec::new();
        for recording in recordings.all() {
            plans.push(plan_memory(recording));
            turns.yield_if_due().await;
        }
        let allocated_bytes = pool.reserve(gpu, &plans.iter().collect::<Vec<_>>()).await?;

        let mut steps = Vec::new();
        for StepRecordings { probe, full, reuse } in &recordings.steps {
            let compiled = async |recording: &Option<Recording>| match recording {
                None => Ok(None),
                Some(recording) => {
                    Program::compile(gpu, store, pool, recording).await.map(|p| Some(Rc::new(p)))
                }
            };
            steps.push(StepRecordings {
                probe: compiled(probe).await?,
                full: Rc::new(Program::compile(gpu, store, pool, full).await?),
                reuse: compiled(reuse).await?,
            });
        }
        let mut jumps = Vec::new();
        for recording in &recordings.jumps {
            jumps.push(Program::compile(gpu, store, pool, recording).await?);
        }
        let mut optional = [None, None];
        for (slot, recording) in
            optional.iter_mut().zip([&recordings.decode_low, &recordings.decode_mixed])
        {
            if let Some(recording) = recording {
                *slot = Some(Program::compile(gpu, store, pool, recording).await?);
            }
        }
        let [decode_low, decode_mixed] = optional;
        let decode = Program::compile(gpu, store, pool, &recordings.decode).await?;
        let latents = memory.stages.iter().map(|stage| stage.x.band_bytes().sum::<u64>());
        let flags = memory.shared.f16_range.iter().flat_map(|range| range.flags().band_bytes());
        let bytes = latents.max().unwrap_or(0) + flags.sum::<u64>();
        let read_backs = [ReadBack::new(gpu, bytes).await?, ReadBack::new(gpu, bytes).await?];
        Ok(Programs {
            memory,
            steps,
            jumps,
            decode_low,
            decode,
            decode_mixed,
            read_backs,
            allocated_bytes,
        })
    }

    pub(super) async fn write_conditioning(&self) -> Result<(), Error> {
        let (Some(programs), Some(encoded)) = (&self.programs, &self.encoded) else {
            return Ok(());
        };
        let shared = &programs.memory.shared;
        let branches = || [&encoded.positive].into_iter().chain(&encoded.negative);
        let txt: Vec<f32> = branches().flat_map(|branch| &branch.txt).copied().collect();
        self.write(&shared.txt, &txt).await?;
        if let Some(memory) = &shared.pooled {
            let pooled: Vec<f32> = branches().flat_map(|branch| &branch.pooled).copied().collect();
            self.write(memory, &pooled).await?;
        }
        // The reference computes 1000 * guidance in f32.
        let guidance = f64::from(self.settings.guidance as f32 * 1000.0);
        self.write_sinusoid(&shared.guidance, guidance).await
    }

    /// The same sinusoid for every branch of guidance.
    pub(super) async fn write_sinusoid(&self, to: &Resident, value: f64) -> Result<(), Error> {
        let sinusoid: [f32; TIME_CHANNELS] = timestep_embedding(value);
        self.write(to, &sinusoid.repeat(to.rows)).await
    }

    /// Compiles the programs anew for a changed number of regions; the latents of stage 1 carry over.
    pub(super) async fn replan(&mut self) -> Result<(), Error> {
        let x = self.read(&self.memory()?.stages[0].x).await?;
        let velocity = self.read(&self.memory()?.stages[0].velocity).await?;
        if let Some(programs) = self.programs.take() {
            programs.free(&self.pipeline.store);
        }
        self.programs = Some(self.prepare().await?);
        self.write_conditioning().await?;
        self.write(&self.memory()?.stages[0].x, &x).await?;
        self.write(&self.memory()?.stages[0].velocity, &velocity).await
    }
}
