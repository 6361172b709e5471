//! All modulations of a run, made before its first step: see [`models::modulation`](crate::models::modulation).

use std::iter;
use std::sync::Arc;

use super::conditioning::Encoded;
use super::context::RunContext;
use super::device::{Device, FreeWhenDropped};
use super::programs::{ModulationMemory, record_modulations};
use super::{Error, RunSchedule, Settings};
use crate::gpu::{Program, SlotPool};
use crate::models::layers::timestep_embedding;
use crate::tensor::Resident;

/// What modulations depend on.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ModulationKey {
    /// What the network is told of time, for each step.
    timesteps: Vec<f64>,
    /// 1000 times the guidance scale.
    guidance: f64,
    /// For each branch of guidance.
    pooled: Vec<Vec<f32>>,
    /// Steps of each stage, and what low-rank changes are multiplied by in it.
    stages: Vec<(usize, Vec<f64>)>,
}

impl ModulationKey {
    pub fn new(
        context: &RunContext,
        settings: &Settings,
        schedule: &RunSchedule,
        encoded: &Encoded,
        change_weights: Vec<Vec<f64>>,
    ) -> Self {
        let config = context.model.config();
        let steps = schedule.stages.iter().flat_map(|stage| &stage.sigmas[..stage.steps()]);
        let branches = [&encoded.positive].into_iter().chain(&encoded.negative);
        ModulationKey {
            timesteps: steps.map(|sigma| config.timestep(*sigma)).collect(),
            // The reference computes it in f32.
            guidance: f64::from(settings.guidance as f32 * 1000.0),
            pooled: branches.map(|branch| branch.pooled.clone()).collect(),
            stages: schedule.stages.iter().map(|stage| stage.steps()).zip(change_weights).collect(),
        }
    }

    /// Whether low-rank changes are multiplied by the same numbers in all stages.
    fn has_same_weights(&self) -> bool {
        self.stages.windows(2).all(|pair| pair[0].1 == pair[1].1)
    }

    fn branches(&self) -> usize {
        self.pooled.len()
    }

    fn rows(&self) -> usize {
        self.timesteps.len() * self.branches()
    }
}

/// The modulations of all steps of a run, on the GPU.
pub(super) struct ModulationTable {
    key: ModulationKey,
    memory: ModulationMemory,
    _memory: FreeWhenDropped,
    /// Where stages differ in more than time: the rows of each.
    stages: Vec<StageRows>,
    /// What makes another table in the same memory; `None` if the weights that it reads have left.
    program: Option<(Program, SlotPool)>,
}

/// The modulations of one stage's steps.
struct StageRows {
    first_step: usize,
    rows: Resident,
    _memory: FreeWhenDropped,
}

impl ModulationTable {
    /// The table that was made last, if it is `key`'s.
    pub fn find(context: &RunContext, key: &ModulationKey) -> Option<Arc<Self>> {
        context.cache.modulations.lock().clone().filter(|table| table.key == *key)
    }

    /// Makes the table for `key`, and keeps it for later runs. The weights of [`Part::Modulation`](super::Part) are on the
    /// GPU.
    pub async fn make(context: &RunContext, key: ModulationKey) -> Result<(), Error> {
        let device = &context.device;
        // Unless another run still reads it, its memory serves again.
        let before = context.cache.modulations.take().and_then(Arc::into_inner);
        let fits = |table: &ModulationTable| table.memory.rows.rows == key.rows();
        let mut table = match before.filter(fits) {
            Some(table) => ModulationTable { key, stages: vec![], ..table },
            None => ModulationTable::allocate(context, key).await?,
        };
        table.write_conditions(device).await?;
        let (program, pool) = match table.program.take() {
            Some(program) => program,
            None => table.compile(context).await?,
        };
        let mut first_step = 0;
        for (steps, weights) in table.key.stages.clone() {
            context.use_change_weights(&weights).await?;
            program.run_fed(&device.gpu, &context.feeder()).await?;
            if table.key.has_same_weights() {
                break;
            }
            table.keep_stage(device, first_step, steps).await?;
            first_step += steps;
        }
        if context.residency.keeps_all_parts() {
            table.program = Some((program, pool));
        }
        context.cache.modulations.set(Some(table.into()));
        Ok(())
    }

    async fn allocate(context: &RunContext, key: ModulationKey) -> Result<Self, Error> {
        let RunContext { model, device, .. } = context;
        let Device { gpu, store, ids, .. } = device;
        let denoiser = &*model.parts.denoiser.model;
        let memory = ModulationMemory::new(ids, gpu.caps(), model.config(), denoiser, key.rows());
        let owner = device.free_when_dropped(memory.residents());
        for resident in memory.residents() {
            store.create(gpu, resident).await?;
        }
        Ok(ModulationTable { key, memory, _memory: owner, stages: vec![], program: None })
    }

    /// Keeps the rows of `steps` steps from `first_step` on, before the next stage's are made in the same memory.
    async fn keep_stage(
        &mut self,
        device: &Device,
        first_step: usize,
        steps: usize,
    ) -> Result<(), Error> {
        let Device { gpu, store, ids, .. } = device;
        let (branches, all) = (self.key.branches(), &self.memory.rows);
        let limit = gpu.caps().max_binding_bytes;
        let rows = ids.matrix("modulations of a stage", steps * branches, all.cols, limit);
        let memory = device.free_when_dropped([&rows]);
        store.create(gpu, &rows).await?;
        store.copy_rows(gpu, all, first_step * branches, &rows).await?;
        self.stages.push(StageRows { first_step, rows, _memory: memory });
        Ok(())
    }

    /// Writes what the modulations are made from.
    async fn write_conditions(&self, device: &Device) -> Result<(), Error> {
        let ModulationTable { key, memory, .. } = self;
        let sinusoids = |values: &mut dyn Iterator<Item = f64>| -> Vec<f32> {
            values.flat_map(timestep_embedding).collect()
        };
        let steps = key.timesteps.iter();
        let mut times = steps.flat_map(|time| iter::repeat_n(*time, key.branches()));
        device.write(&memory.time, &sinusoids(&mut times)).await?;
        let mut scales = iter::repeat_n(key.guidance, key.rows());
        device.write(&memory.guidance, &sinusoids(&mut scales)).await?;
        if let Some(pooled) = &memory.pooled {
            device.write(pooled, &key.pooled.concat().repeat(key.timesteps.len())).await?;
        }
        Ok(())
    }

    async fn compile(&self, context: &RunContext) -> Result<(Program, SlotPool), Error> {
        let Device { gpu, store, .. } = &context.device;
        let denoiser = &*context.model.parts.denoiser.model;
        let recording = record_modulations(gpu.caps(), denoiser, &self.memory);
        let pool = SlotPool::default();
        let program = Program::compile(gpu, store, &pool, &recording).await?;
        Ok((program, pool))
    }

    /// Copies the rows of step number `step` of the run to `to` `[branches, width]`.
    pub async fn copy_step(
        &self,
        device: &Device,
        step: usize,
        to: &Resident,
    ) -> Result<(), Error> {
        let (rows, first_step) = match self.stages.iter().rfind(|s| s.first_step <= step) {
            Some(stage) => (&stage.rows, stage.first_step),
            None => (&self.memory.rows, 0),
        };
        let first = (step - first_step) * self.key.branches();
        Ok(device.store.copy_rows(&device.gpu, rows, first, to).await?)
    }
}
