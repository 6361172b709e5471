//! The text encoders' programs and their memory, used again for every text.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Error;
use super::device::Device;
use super::streaming::Feeder;
use crate::gpu::{Program, SlotPool, Store};
use crate::models::encoders::Shape;
use crate::sync::Locked;
use crate::tensor::{F16Range, Fallbacks, Recording, Resident};

/// One program for each text encoder.
#[derive(Default)]
pub(super) struct EncoderMemory {
    pool: SlotPool,
    programs: Locked<BTreeMap<usize, EncoderProgram>>,
}

struct EncoderProgram {
    residents: Vec<Resident>,
    /// Whether all of them are in the store: a run may be dropped while they are made.
    created: bool,
    compiled: Option<Arc<(Recording, Program)>>,
}

impl EncoderMemory {
    /// Frees everything.
    pub fn clear(&self, store: &Store) {
        for program in std::mem::take(&mut *self.programs.lock()).into_values() {
            program.residents.iter().for_each(|resident| store.free(resident.id));
        }
        self.pool.clear();
    }

    /// Runs encoder number `which`, as `record` records it on matrices of the shapes of `inputs` and `outputs`. Gives
    /// the outputs. Whatever an earlier text has left is used again. Blocks of `fallbacks` are done as it says;
    /// those that meet numbers beyond f16 even so are an error.
    pub async fn run(
        &self,
        feeder: &Feeder<'_>,
        which: usize,
        inputs: &[(Shape, &[f32])],
        outputs: &[Shape],
        fallbacks: &Fallbacks,
        record: impl FnOnce(&[Resident], Option<Arc<F16Range>>) -> Recording,
    ) -> Result<Vec<Vec<f32>>, Error> {
        let device = feeder.device;
        let Device { gpu, store, .. } = device;
        let mut shapes: Vec<Shape> =
            inputs.iter().map(|(shape, _)| *shape).chain(outputs.iter().copied()).collect();
        let rounds = gpu.caps().rounds_to_f16();
        if rounds {
            shapes.push(("f16 flags", 1, F16Range::FLAGS));
        }
        let residents = self.residents(device, which, &shapes).await?;
        let f16_range = residents
            .last()
            .filter(|_| rounds)
            .map(|flags| Arc::new(F16Range::new(flags.clone(), fallbacks.clone())));
        for (resident, (_, values)) in residents.iter().zip(inputs) {
            store.write(gpu, resident, values).await?;
        }
        let recording = record(&residents, f16_range.clone());
        let compiled = self.programs.lock().get_mut(&which).and_then(|p| p.compiled.take());
        let compiled = match compiled {
            Some(compiled) if compiled.1.update(gpu, &compiled.0, &recording) => compiled,
            _ => {
                let program = Program::compile(gpu, store, &self.pool, &recording).await?;
                Arc::new((recording, program))
            }
        };
        if let Some(program) = self.programs.lock().get_mut(&which) {
            program.compiled = Some(compiled.clone());
        }
        compiled.1.run_fed(gpu, feeder).await?;
        if let Some(range) = f16_range {
            let flags = store.read(gpu, range.flags()).await?;
            device.check_f16_range(&range, &flags)?;
        }
        let mut results = Vec::new();
        for resident in &residents[inputs.len()..inputs.len() + outputs.len()] {
            results.push(store.read(gpu, resident).await?);
        }
        Ok(results)
    }

    /// The matrices of encoder number `which`.
    async fn residents(
        &self,
        device: &Device,
        which: usize,
        shapes: &[Shape],
    ) -> Result<Vec<Resident>, Error> {
        let Device { ids, gpu, store, .. } = device;
        let before = self.programs.lock().remove(&which);
        if let Some(program) = before {
            let fits = |(resident, shape): (&Resident, &Shape)| {
                (resident.rows, resident.cols) == (shape.1, shape.2)
            };
            let kept = &program.residents;
            let fit = kept.len() == shapes.len() && kept.iter().zip(shapes).all(fits);
            if program.created && fit {
                let residents = kept.clone();
                self.programs.lock().insert(which, program);
                return Ok(residents);
            }
            kept.iter().for_each(|resident| store.free(resident.id));
        }
        let matrix = |(label, rows, cols): &Shape| {
            ids.matrix(label, *rows, *cols, gpu.caps().max_binding_bytes)
        };
        let residents: Vec<Resident> = shapes.iter().map(matrix).collect();
        let program =
            EncoderProgram { residents: residents.clone(), created: false, compiled: None };
        self.programs.lock().insert(which, program);
        for resident in &residents {
            store.create(gpu, resident).await?;
        }
        if let Some(program) = self.programs.lock().get_mut(&which) {
            program.created = true;
        }
        Ok(residents)
    }
}
