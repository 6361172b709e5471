//! Before the first step: the denoiser's weights, the programs and their memory, the embeddings.

use std::rc::Rc;

use super::{Phase, Run};
use crate::gpu::Program;
use crate::models::layers::timestep_embedding;
use crate::pipeline::event::{Event, Part};
use crate::pipeline::programs::{Layout, RunMemory, RunRecordings};
use crate::pipeline::prompt::UPLOADS_PER_EVENT;
use crate::pipeline::{Error, Pipeline};
use crate::tensor::plan_memory;

/// The compiled programs of a run and the memory they work on.
pub(super) struct Programs<'p> {
    pipeline: &'p Pipeline,
    pub(super) memory: RunMemory,
    pub(super) steps: Vec<Rc<Program>>,
    pub(super) jumps: Vec<Program>,
    pub(super) decode_low: Option<Program>,
    pub(super) decode: Program,
    pub(super) decode_mixed: Option<Program>,
    /// Bytes that were newly allocated for the temporaries of all stages together.
    pub(super) allocated_bytes: u64,
}

impl Drop for Programs<'_> {
    fn drop(&mut self) {
        for resident in self.memory.residents() {
            self.pipeline.store.free(resident.id);
        }
    }
}

impl<'p> Run<'p> {
    /// Uploads some of the denoiser's and decoder's weights, if they are not there yet.
    pub(super) async fn load_some(
        &mut self,
        mut next: usize,
        mut bytes: u64,
    ) -> Result<Phase<'p>, Error> {
        let Pipeline { flux, vae, gpu, store, denoiser_loaded, .. } = self.pipeline;
        if *denoiser_loaded.borrow() {
            return Ok(Phase::Prepare);
        }
        let of = flux.bytes() + vae.bytes();
        let start = bytes;
        while bytes - start < UPLOADS_PER_EVENT {
            if let Some(upload) = flux.uploads.get(next) {
                flux.upload(gpu, store, upload).await?;
                bytes += upload.bytes();
            } else if let Some(upload) = vae.uploads.get(next - flux.uploads.len()) {
                vae.upload(gpu, store, upload).await?;
                bytes += upload.bytes();
            } else {
                store.flush(gpu).await?;
                *denoiser_loaded.borrow_mut() = true;
                self.events.push_back(Event::Loading { part: Part::Denoiser, bytes, of });
                return Ok(Phase::Prepare);
            }
            next += 1;
        }
        self.events.push_back(Event::Loading { part: Part::Denoiser, bytes, of });
        Ok(Phase::Load { next, bytes })
    }

    /// Records and compiles everything, and allocates all memory of the run.
    pub(super) async fn prepare(&self) -> Result<Programs<'p>, Error> {
        let pipeline = self.pipeline;
        let Pipeline { gpu, store, pool, config, flux, vae, ids, .. } = pipeline;
        let layout = Layout { ids, caps: gpu.caps(), config };
        let n_text = self.settings.max_sequence_length;
        let guided = self.settings.negative_prompt.is_some();
        let memory = RunMemory::new(&layout, &self.schedule, n_text, guided, self.stage_pictures);
        let recordings = RunRecordings::new(
            gpu.caps(),
            config,
            &flux.model,
            &vae.model,
            &self.schedule,
            &memory,
        );
        for resident in memory.residents() {
            store.create(gpu, resident).await?;
        }
        let plans: Vec<_> = recordings.all().map(plan_memory).collect();
        let allocated_bytes = pool.reserve(gpu, &plans.iter().collect::<Vec<_>>()).await?;

        let mut steps = Vec::new();
        for recording in &recordings.steps {
            steps.push(Rc::new(Program::compile(gpu, store, pool, recording).await?));
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
        Ok(Programs {
            pipeline,
            memory,
            steps,
            jumps,
            decode_low,
            decode,
            decode_mixed,
            allocated_bytes,
        })
    }

    pub(super) async fn write_conditioning(&self) -> Result<(), Error> {
        let (Some(programs), Some(encoded)) = (&self.programs, &self.encoded) else {
            return Ok(());
        };
        let shared = &programs.memory.shared;
        let mut pairs = vec![(&shared.positive, &encoded.positive)];
        pairs.extend(shared.negative.iter().zip(&encoded.negative));
        for (memory, embedding) in pairs {
            self.write(&memory.txt, &embedding.txt).await?;
            self.write(&memory.pooled, &embedding.pooled).await?;
        }
        // The reference computes 1000 * guidance in f32.
        let guidance = f64::from(self.settings.guidance as f32 * 1000.0);
        self.write(&shared.guidance, &timestep_embedding(guidance)).await
    }

    /// Compiles the programs anew for a changed number of regions; the latents of stage 1 carry over.
    pub(super) async fn replan(&mut self) -> Result<(), Error> {
        let x = self.read(&self.memory()?.stages[0].x).await?;
        self.programs = None;
        self.programs = Some(self.prepare().await?);
        self.write_conditioning().await?;
        self.write(&self.memory()?.stages[0].x, &x).await
    }
}
