//! Before the first step: the denoiser's weights, the programs and their memory, the embeddings.

use std::rc::Rc;

use super::{Phase, Run};
use crate::gpu::Program;
use crate::models::layers::{TIME_CHANNELS, timestep_embedding};
use crate::pipeline::event::{Event, Part};
use crate::pipeline::programs::{Layout, Models, RunMemory, RunRecordings, StepRecordings};
use crate::pipeline::prompt::UPLOADS_PER_EVENT;
use crate::pipeline::{Error, Pipeline};
use crate::tensor::{Recording, Resident, plan_memory};

/// The compiled programs of a run and the memory they work on.
pub(super) struct Programs<'p> {
    pipeline: &'p Pipeline,
    pub(super) memory: RunMemory,
    pub(super) steps: Vec<StepRecordings<Rc<Program>>>,
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
        let Pipeline { parts, gpu, store, denoiser_loaded, .. } = self.pipeline;
        if denoiser_loaded.get() {
            return Ok(Phase::Prepare);
        }
        let (denoiser, vae) = (&parts.denoiser, &parts.vae);
        let of = parts.denoiser_bytes();
        let start = bytes;
        while bytes - start < UPLOADS_PER_EVENT {
            if let Some(upload) = denoiser.uploads.get(next) {
                denoiser.upload(gpu, store, upload).await?;
                bytes += upload.bytes();
            } else if let Some(upload) = vae.uploads.get(next - denoiser.uploads.len()) {
                vae.upload(gpu, store, upload).await?;
                bytes += upload.bytes();
            } else {
                store.flush(gpu).await?;
                denoiser_loaded.set(true);
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
        let Pipeline { gpu, store, pool, config, parts, ids, .. } = pipeline;
        let settings = &self.settings;
        let models = Models { config, denoiser: &parts.denoiser.model, vae: &parts.vae.model };
        let layout = Layout { ids, caps: gpu.caps(), config, settings };
        let memory = RunMemory::new(&layout, &self.schedule, models.denoiser, self.stage_pictures);
        let recordings = RunRecordings::new(gpu.caps(), models, settings, &self.schedule, &memory);
        for resident in memory.residents() {
            store.create(gpu, resident).await?;
        }
        let plans: Vec<_> = recordings.all().map(plan_memory).collect();
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
        let branches = || [&encoded.positive].into_iter().chain(&encoded.negative);
        let txt: Vec<f32> = branches().flat_map(|branch| &branch.txt).copied().collect();
        self.write(&shared.txt, &txt).await?;
        let pooled: Vec<f32> = branches().flat_map(|branch| &branch.pooled).copied().collect();
        self.write(&shared.pooled, &pooled).await?;
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
        self.programs = None;
        self.programs = Some(self.prepare().await?);
        self.write_conditioning().await?;
        self.write(&self.memory()?.stages[0].x, &x).await?;
        self.write(&self.memory()?.stages[0].velocity, &velocity).await
    }
}
