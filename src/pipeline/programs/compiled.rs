//! The recordings of a run, compiled, and the memory they work on.

use std::sync::Arc;

use super::{RunMemory, RunRecordings, StepRecordings};
use crate::gpu::{Program, ReadBack, Store};
use crate::ops::choice::is_in_int8;
use crate::pipeline::Error;
use crate::pipeline::device::Device;
use crate::tensor::{Command, plan_memory};
use crate::turns::Turns;

/// The compiled programs of a run and the memory they work on.
pub(in crate::pipeline) struct Programs {
    pub memory: RunMemory,
    pub steps: Vec<StepRecordings<Arc<Program>>>,
    pub jumps: Vec<Program>,
    pub decode_low: Option<Program>,
    pub decode: Program,
    pub decode_mixed: Option<Program>,
    /// Whether any of their products is of bytes.
    pub in_int8: bool,
    /// For the latents of steps that run one after the other.
    pub read_backs: [ReadBack; 2],
    /// Bytes that were newly allocated for the temporaries of all stages together.
    pub allocated_bytes: u64,
}

impl Programs {
    /// Frees the memory that only they use.
    pub fn free(self, store: &Store) {
        self.memory.residents().iter().for_each(|resident| store.free(resident.id));
    }

    /// Allocates `memory` and the temporaries, and compiles the recordings that work on it.
    ///
    /// What was allocated is freed if that fails, or is dropped before its end.
    pub async fn compile(
        device: &Device,
        recordings: &RunRecordings,
        memory: RunMemory,
    ) -> Result<Self, Error> {
        let Device { gpu, store, pool, .. } = device;
        let unfinished = device.free_when_dropped(memory.residents());
        let turns = Turns::new();
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
            let mut optional = [None, None];
            for (slot, recording) in optional.iter_mut().zip([probe, reuse]) {
                if let Some(recording) = recording {
                    let program = Program::compile(gpu, store, pool, recording).await?;
                    *slot = Some(Arc::new(program));
                }
            }
            let [probe, reuse] = optional;
            let full = Arc::new(Program::compile(gpu, store, pool, full).await?);
            steps.push(StepRecordings { probe, full, reuse });
        }
        let mut jumps = Vec::new();
        for recording in &recordings.jumps {
            jumps.push(Program::compile(gpu, store, pool, recording).await?);
        }
        let mut optional = [None, None];
        for (slot, recording) in
            optional.iter_mut().zip([&recordings.decodes.low, &recordings.decodes.mixed])
        {
            if let Some(recording) = recording {
                *slot = Some(Program::compile(gpu, store, pool, recording).await?);
            }
        }
        let [decode_low, decode_mixed] = optional;
        let decode = Program::compile(gpu, store, pool, &recordings.decodes.full).await?;
        let latents = memory.stages.iter().map(|stage| stage.x.band_bytes().sum::<u64>());
        let flags = memory.shared.f16_range.iter().flat_map(|range| range.flags().band_bytes());
        let bytes = latents.max().unwrap_or(0) + flags.sum::<u64>();
        let read_backs = [ReadBack::new(gpu, bytes).await?, ReadBack::new(gpu, bytes).await?];
        let mut commands = recordings.all().flat_map(|recording| &recording.commands);
        let in_int8 = commands.any(|command| match command {
            Command::Dispatch(dispatch) => is_in_int8(dispatch.pipeline.shader),
            _ => false,
        });
        unfinished.keep();
        Ok(Programs {
            memory,
            steps,
            jumps,
            decode_low,
            decode,
            decode_mixed,
            in_int8,
            read_backs,
            allocated_bytes,
        })
    }
}
