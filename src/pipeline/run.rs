//! A run: the stages of one request, one event at a time.

use std::collections::VecDeque;
use std::rc::Rc;

use web_time::Instant;

use super::event::{Event, Part, PictureKind, StageEnd, StageStart, StepDone};
use super::picture::{self, Picture};
use super::programs::{JumpMemory, Layout, RunMemory, RunRecordings, step};
use super::prompt::{Embedding, Encoded, Encoder, UPLOADS_PER_EVENT, check_finite};
use super::{Error, NamedTensors, Pipeline, Request, Rng, RunSchedule, Settings, StageKind};
use crate::gpu::{Counters, Program};
use crate::models::flux::rope_table;
use crate::models::layers::timestep_embedding;
use crate::sampling::{self, EdgeMap, RaluParams, TieBreak, TokenLayout, Transition, Upsample};
use crate::tensor::{Resident, plan_memory};

/// A request in progress. Pull events with [`Run::next`]; drop it to cancel.
pub struct Run<'p> {
    pipeline: &'p Pipeline,
    settings: Settings,
    schedule: RunSchedule,
    given: NamedTensors,
    stage_pictures: bool,
    collect_tensors: bool,
    events: VecDeque<Event>,
    phase: Phase<'p>,
    encoded: Option<Encoded>,
    programs: Option<Programs<'p>>,
    image: ImageState,
}

/// What happens at the next pull.
enum Phase<'p> {
    Start,
    Encode(Encoder<'p>, Instant),
    Load { next: usize, bytes: u64 },
    Prepare,
    BeginImage(usize),
    BeginStage(usize),
    Step(usize, usize),
    EndStage(usize),
    Decode,
    Done,
}

/// The compiled programs of a run and the memory they work on.
struct Programs<'p> {
    pipeline: &'p Pipeline,
    memory: RunMemory,
    steps: Vec<Rc<Program>>,
    jumps: Vec<Program>,
    decode_low: Option<Program>,
    decode: Program,
    decode_mixed: Option<Program>,
    /// Bytes that were newly allocated for the temporaries of all stages together.
    allocated_bytes: u64,
}

impl Drop for Programs<'_> {
    fn drop(&mut self) {
        for resident in self.memory.residents() {
            self.pipeline.store.free(resident.id);
        }
    }
}

/// What belongs to the picture in work.
#[derive(Default)]
struct ImageState {
    number: usize,
    seed: u64,
    started: Option<Instant>,
    stage_seconds: f64,
    counters: Option<Counters>,
    selected: Vec<u32>,
    tensors: NamedTensors,
    flops_done: f64,
}

impl<'p> Run<'p> {
    pub(super) fn new(pipeline: &'p Pipeline, request: Request) -> Result<Self, Error> {
        let settings = Settings::resolve(&request, &pipeline.config)?;
        let schedule = RunSchedule::new(&settings, &pipeline.config)?;
        let mut events: VecDeque<Event> =
            settings.warnings.iter().cloned().map(Event::Warning).collect();
        for (dir, names) in pipeline.extra_weights() {
            let shown: Vec<&str> = names.iter().take(5).map(String::as_str).collect();
            let more = if names.len() > shown.len() { ", …" } else { "" };
            events.push_back(Event::Warning(format!(
                "{dir}: {} weights are not used by this kind of model: {}{more}",
                names.len(),
                shown.join(", ")
            )));
        }
        Ok(Run {
            pipeline,
            settings,
            schedule,
            given: request.given,
            stage_pictures: request.stage_pictures,
            collect_tensors: request.collect_tensors,
            events,
            phase: Phase::Start,
            encoded: None,
            programs: None,
            image: ImageState::default(),
        })
    }

    /// Every choice of this run.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The stages of this run.
    pub fn schedule(&self) -> &RunSchedule {
        &self.schedule
    }

    /// Works until something is worth telling; `None` when everything is done. After an error the run is over.
    pub async fn next(&mut self) -> Result<Option<Event>, Error> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            if matches!(self.phase, Phase::Done) {
                return Ok(None);
            }
            let phase = std::mem::replace(&mut self.phase, Phase::Done);
            self.phase = self.advance(phase).await?;
        }
    }

    async fn advance(&mut self, phase: Phase<'p>) -> Result<Phase<'p>, Error> {
        Ok(match phase {
            Phase::Start => Phase::Encode(Encoder::new(self.pipeline), Instant::now()),
            Phase::Encode(mut encoder, started) => {
                if let Some(event) = encoder.upload_some().await? {
                    self.events.push_back(event);
                    return Ok(Phase::Encode(encoder, started));
                }
                let mut warnings = Vec::new();
                let encoded = encoder.encode(&self.settings, &self.given, &mut warnings).await;
                encoder.release();
                self.encoded = Some(encoded?);
                self.events.extend(warnings.into_iter().map(Event::Warning));
                self.events.push_back(Event::Encoded {
                    n_tokens: self.settings.max_sequence_length,
                    seconds: started.elapsed().as_secs_f64(),
                });
                Phase::Load { next: 0, bytes: 0 }
            }
            Phase::Load { next, bytes } => self.load_some(next, bytes).await?,
            Phase::Prepare => {
                self.programs = Some(self.prepare().await?);
                self.write_conditioning().await?;
                Phase::BeginImage(0)
            }
            Phase::BeginImage(number) if number >= self.settings.count => {
                self.programs = None;
                Phase::Done
            }
            Phase::BeginImage(number) => {
                self.begin_image(number).await?;
                Phase::BeginStage(0)
            }
            Phase::BeginStage(stage) => {
                self.begin_stage(stage).await?;
                Phase::Step(stage, 0)
            }
            Phase::Step(stage, i) => {
                self.step(stage, i).await?;
                if i + 1 < self.schedule.stages[stage].steps() {
                    Phase::Step(stage, i + 1)
                } else {
                    Phase::EndStage(stage)
                }
            }
            Phase::EndStage(stage) => {
                self.end_stage(stage).await?;
                if stage + 1 < self.schedule.stages.len() {
                    Phase::BeginStage(stage + 1)
                } else {
                    Phase::Decode
                }
            }
            Phase::Decode => {
                self.finish_image().await?;
                Phase::BeginImage(self.image.number + 1)
            }
            Phase::Done => Phase::Done,
        })
    }

    /// Uploads some of the denoiser's and decoder's weights, if they are not there yet.
    async fn load_some(&mut self, mut next: usize, mut bytes: u64) -> Result<Phase<'p>, Error> {
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
    async fn prepare(&self) -> Result<Programs<'p>, Error> {
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

    async fn write_conditioning(&self) -> Result<(), Error> {
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

    /// Draws the initial noise.
    async fn begin_image(&mut self, number: usize) -> Result<(), Error> {
        let seed = self.settings.seed.wrapping_add(number as u64);
        self.image =
            ImageState { number, seed, started: Some(Instant::now()), ..Default::default() };
        let (h, w) = (2 * self.schedule.rows, 2 * self.schedule.cols);
        let channels = self.pipeline.config.vae.latent_channels;
        let shape = [1, channels, h, w];
        let noise = match self.given.numbers("initial_noise", &shape)? {
            Some(noise) => noise.to_vec(),
            None => match self.settings.rng {
                Rng::Philox => sampling::initial_noise(seed, h, w),
                Rng::Torch => sampling::torch_randn(seed, channels * h * w),
            },
        };
        let tokens = match self.schedule.stages[0].kind {
            // Every second row and column of white noise is white noise. RALU code.
            StageKind::Low => {
                let low = sampling::low_noise(&noise, h, w)?;
                sampling::pack(&low, h / 2, w / 2)?
            }
            _ => sampling::pack(&noise, h, w)?,
        };
        self.write(&self.memory()?.stages[0].x, &tokens).await?;
        if self.collect_tensors {
            self.collect_prompt();
            self.image.tensors.insert("initial_noise", &shape, noise);
            let sigmas: Vec<f32> = self
                .schedule
                .stages
                .iter()
                .flat_map(|stage| stage.sigmas.iter().map(|sigma| *sigma as f32))
                .collect();
            self.image.tensors.insert("sigmas", &[sigmas.len()], sigmas);
        }
        Ok(())
    }

    fn collect_prompt(&mut self) {
        let Some(encoded) = &self.encoded else { return };
        let n_text = self.settings.max_sequence_length;
        let tensors = &mut self.image.tensors;
        let mut collect = |prefix: &str, embedding: &Embedding| {
            for (name, ids) in [("clip_ids", &embedding.clip_ids), ("t5_ids", &embedding.t5_ids)] {
                let ids: Vec<i64> = ids.iter().map(|id| i64::from(*id)).collect();
                tensors.insert_indices(&format!("{prefix}{name}"), &[1, ids.len()], ids);
            }
            let txt = embedding.txt.clone();
            let shape = [1, n_text, txt.len() / n_text];
            tensors.insert(&format!("{prefix}prompt_embeds"), &shape, txt);
            let pooled = embedding.pooled.clone();
            let shape = [1, pooled.len()];
            tensors.insert(&format!("{prefix}pooled_prompt_embeds"), &shape, pooled);
        };
        collect("", &encoded.positive);
        if let Some(negative) = &encoded.negative {
            collect("negative_", negative);
        }
    }

    /// Positions of a stage's tokens, and the event that announces it.
    async fn begin_stage(&mut self, stage: usize) -> Result<(), Error> {
        let spec = &self.schedule.stages[stage];
        let positions = match (spec.kind, self.schedule.is_ralu()) {
            (StageKind::Low, _) => TokenLayout::low(self.schedule.grid())?.positions(),
            (StageKind::Mixed, _) => {
                TokenLayout::mixed(self.schedule.grid(), &self.image.selected)?.positions()
            }
            (StageKind::Full, true) => TokenLayout::full(self.schedule.grid())?.positions(),
            // Plain sampling: the grid may have odd sides.
            (StageKind::Full, false) => (0..self.schedule.rows)
                .flat_map(|row| (0..self.schedule.cols).map(move |col| [row as f32, col as f32]))
                .collect(),
        };
        let axes = &self.pipeline.config.flux().axes_dims_rope;
        let table = rope_table(axes, self.settings.max_sequence_length, &positions);
        let programs = self.programs()?;
        self.write(&programs.memory.stages[stage].pe, &table).await?;

        let bytes = programs.steps[stage].slot_bytes();
        let first = stage == 0 && self.image.number == 0;
        let allocated_bytes = if first { programs.allocated_bytes } else { 0 };
        self.events.push_back(Event::Stage(StageStart {
            image: self.image.number,
            stage: stage + 1,
            of: self.schedule.stages.len(),
            n_tokens: spec.n_tokens,
            n_steps: spec.steps(),
            bytes,
            reused_bytes: if first { bytes.saturating_sub(allocated_bytes) } else { bytes },
            allocated_bytes,
        }));
        self.image.stage_seconds = 0.0;
        Ok(())
    }

    /// One evaluation of the network and one Euler step.
    async fn step(&mut self, stage: usize, i: usize) -> Result<(), Error> {
        let started = Instant::now();
        let sigmas = &self.schedule.stages[stage].sigmas;
        let (sigma, next, steps) = (sigmas[i], sigmas[i + 1], sigmas.len() - 1);
        let programs = self.programs()?;
        let shared = &programs.memory.shared;
        // The reference rounds the timestep to f32 on its way through the pipeline.
        let timestep = f64::from((sigma as f32 * 1000.0) / 1000.0 * 1000.0);
        self.write(&shared.time, &timestep_embedding(timestep)).await?;
        let mut scalars = [0.0; step::LEN];
        scalars[step::DELTA] = next as f32 - sigma as f32;
        scalars[step::TRUE_CFG] = self.settings.true_cfg as f32;
        // After the step the latents are at the next noise level.
        scalars[step::SIGMA] = next as f32;
        self.write(&shared.step, &scalars).await?;
        let program = programs.steps[stage].clone();
        program.run(&self.pipeline.gpu).await?;

        if i == 0 {
            self.image.counters = Some(self.pipeline.gpu.counters());
            if self.collect_tensors && stage == 0 {
                let velocity = &self.memory()?.stages[0].velocity;
                let values = self.read(velocity).await?;
                let shape = [1, velocity.rows, velocity.cols];
                self.image.tensors.insert("transformer_out_step0", &shape, values);
                // The read-back's own staging buffer does not count.
                self.image.counters = Some(self.pipeline.gpu.counters());
            }
        }
        let seconds = started.elapsed().as_secs_f64();
        self.image.stage_seconds += seconds;
        self.image.flops_done += program.flops();
        let done = self.image.flops_done / self.flops()?;
        self.events.push_back(Event::Step(StepDone {
            image: self.image.number,
            stage: stage + 1,
            step: i + 1,
            of: steps,
            sigma,
            seconds,
            done,
        }));
        Ok(())
    }

    /// Estimated operations of one picture.
    fn flops(&self) -> Result<f64, Error> {
        let programs = self.programs()?;
        let steps: f64 = programs
            .steps
            .iter()
            .zip(&self.schedule.stages)
            .map(|(program, spec)| program.flops() * spec.steps() as f64)
            .sum();
        let low = programs.decode_low.as_ref().map_or(0.0, Program::flops);
        Ok(steps + low + programs.decode.flops())
    }

    /// Reports a stage, and jumps to the next one.
    async fn end_stage(&mut self, stage: usize) -> Result<(), Error> {
        let now = self.pipeline.gpu.counters();
        let then = self.image.counters.unwrap_or(now);
        self.events.push_back(Event::StageEnd(StageEnd {
            image: self.image.number,
            stage: stage + 1,
            seconds: self.image.stage_seconds,
            buffers_created: now.buffers - then.buffers,
            bind_groups_created: now.bind_groups - then.bind_groups,
        }));
        let is_last = stage + 1 == self.schedule.stages.len();
        if self.collect_tensors && !is_last {
            let x = &self.memory()?.stages[stage].x;
            let values = self.read(x).await?;
            let name = format!("stage{}_latents", stage + 1);
            let shape = [1, x.rows, x.cols];
            self.image.tensors.insert(&name, &shape, values);
        }
        if is_last {
            return Ok(());
        }
        match self.schedule.stages[stage].kind {
            StageKind::Low if self.schedule.has_regions() => self.choose_regions(stage).await?,
            StageKind::Low => {
                if self.stage_pictures {
                    let planes = self.low_estimate().await?;
                    self.push_low_picture(stage, &planes);
                }
            }
            StageKind::Mixed | StageKind::Full => {}
        }
        self.jump(stage).await
    }

    /// Decodes the half-size clean estimate: planes in the decoder's range.
    async fn low_estimate(&mut self) -> Result<Vec<f32>, Error> {
        let programs = self.programs()?;
        let (Some(program), Some(pixels)) = (&programs.decode_low, &programs.memory.low_pixels)
        else {
            return Ok(vec![]);
        };
        program.run(&self.pipeline.gpu).await?;
        let values = self.read(pixels).await?;
        self.image.flops_done += self.programs()?.decode_low.as_ref().map_or(0.0, Program::flops);
        check_finite("the clean estimate of stage 1", &values)?;
        Ok(picture::planes(&values))
    }

    fn push_low_picture(&mut self, stage: usize, planes: &[f32]) -> Picture {
        let (width, height) = (self.schedule.width / 2, self.schedule.height / 2);
        let picture = Picture::from_planes(&picture::to_unit(planes), width, height);
        self.events.push_back(Event::StagePicture {
            image: self.image.number,
            stage: stage + 1,
            kind: PictureKind::Estimate,
            picture: picture.clone(),
        });
        picture
    }

    /// Finds the tokens to refine early: decode the estimate, find its edges, rank the patches.
    async fn choose_regions(&mut self, stage: usize) -> Result<(), Error> {
        let started = Instant::now();
        let planes = self.low_estimate().await?;
        let preview = self.push_low_picture(stage, &planes);
        let grid = self.schedule.grid();
        let (width, height) = (self.schedule.width / 2, self.schedule.height / 2);
        let edges = sampling::edge_map(&planes, width, height, self.settings.rules.gray_map)?;
        let density = sampling::edge_density(&edges, grid)?;
        let fine = match self.settings.rules.tie_break {
            TieBreak::Index => vec![],
            TieBreak::Gradient => sampling::gradient_sum(&edges, grid)?,
        };
        let k =
            self.settings.ralu.as_ref().map_or(0, |r: &RaluParams| r.region_count(grid.n_tokens()));
        let selected = match (self.given.indices("ralu_selected")?, &self.settings.mask) {
            (Some(given), _) => self.check_selected(given)?,
            (None, None) => sampling::select(&density, &fine, k),
            (None, Some(mask)) => {
                let shares = sampling::mask_regions(&mask.luma, mask.width, mask.height, grid)?;
                sampling::select_with_mask(mask.mode, &shares, &density, &fine, k)
            }
        };
        self.push_region_pictures(stage, &preview, &edges, &selected);
        if self.collect_tensors {
            let tensors = &mut self.image.tensors;
            // The official code sums pixels of value 255.
            let sums: Vec<f32> = density.iter().map(|count| *count as f32 * 255.0).collect();
            tensors.insert("edges", &[sums.len()], sums);
            let indices: Vec<i64> = selected.iter().map(|i| i64::from(*i)).collect();
            tensors.insert_indices("selected", &[indices.len()], indices);
        }
        self.events.push_back(Event::Regions {
            image: self.image.number,
            grid,
            selected: selected.clone(),
            density,
            seconds: started.elapsed().as_secs_f64(),
        });
        if selected.len() != self.schedule.regions {
            // Painted regions overlapped with found ones: the mixed stage is shorter than was planned.
            self.schedule.set_regions(selected.len());
            self.replan().await?;
        }
        self.image.selected = selected;
        Ok(())
    }

    fn check_selected(&self, given: &[i64]) -> Result<Vec<u32>, Error> {
        let n = self.schedule.grid().n_tokens();
        let mut selected = Vec::with_capacity(given.len());
        for &index in given {
            let Some(index) = u32::try_from(index).ok().filter(|i| (*i as usize) < n) else {
                return Err(Error::Given {
                    name: "ralu_selected".into(),
                    found: format!("[{}], with the index {index}", given.len()),
                    expected: format!("indices from 0 to {}", n - 1),
                });
            };
            selected.push(index);
        }
        selected.sort_unstable();
        selected.dedup();
        if selected.is_empty() || selected.len() == n {
            return Err(Error::Given {
                name: "ralu_selected".into(),
                found: format!("[{}]", selected.len()),
                expected: format!("between 1 and {} different indices", n - 1),
            });
        }
        Ok(selected)
    }

    fn push_region_pictures(
        &mut self,
        stage: usize,
        preview: &Picture,
        edges: &EdgeMap,
        selected: &[u32],
    ) {
        let drawn = picture::draw_regions(preview, self.schedule.grid(), selected);
        for (kind, picture) in
            [(PictureKind::Edges, picture::draw_edges(edges)), (PictureKind::Regions, drawn)]
        {
            let image = self.image.number;
            self.events.push_back(Event::StagePicture { image, stage: stage + 1, kind, picture });
        }
    }

    /// Compiles the programs anew for a changed number of regions; the latents of stage 1 carry over.
    async fn replan(&mut self) -> Result<(), Error> {
        let x = self.read(&self.memory()?.stages[0].x).await?;
        self.programs = None;
        self.programs = Some(self.prepare().await?);
        self.write_conditioning().await?;
        self.write(&self.memory()?.stages[0].x, &x).await
    }

    /// Carries the latents over to the next stage: gather, repeat, add noise.
    async fn jump(&mut self, stage: usize) -> Result<(), Error> {
        let grid = self.schedule.grid();
        let selected = &self.image.selected;
        let from = self.schedule.stages[stage].kind;
        let to = self.schedule.stages[stage + 1].kind;
        // In the authors' order, which given and saved noises have.
        let transition = match (from, to) {
            (StageKind::Low, StageKind::Mixed) => Transition::to_mixed(grid, selected)?,
            (StageKind::Low, _) => Transition::low_to_full(grid)?,
            _ => Transition::mixed_to_full(grid, selected)?,
        };
        let jump = self.schedule.jumps[stage];
        let rules = self.settings.rules;
        let name = format!("noise_stage{}", stage + 2);
        let channels = self.pipeline.config.flux().in_channels;
        let shape = [transition.n_tokens(), channels];
        let noise = match self.given.numbers(&format!("ralu_{name}"), &shape)? {
            Some(noise) => noise.to_vec(),
            None => sampling::jump_noise(
                self.image.seed,
                stage as u32 + 1,
                &transition,
                jump.kappa,
                jump.kept_amplitude(rules.kept_noise),
                rules.upsample,
            ),
        };
        if self.collect_tensors {
            self.image.tensors.insert(&name, &shape, noise.clone());
        }
        let (transition, noise) = match to {
            StageKind::Full => (transition.raster(), transition.sort_rows(&noise)?),
            _ => (transition, noise),
        };
        if from == StageKind::Mixed && self.stage_pictures {
            self.show_mixed(stage, &transition).await?;
        }
        let memory = &self.memory()?.jumps[stage];
        self.write_sources(memory, &transition, rules.upsample).await?;
        self.write(&memory.noise, &noise).await?;
        self.programs()?.jumps[stage].run(&self.pipeline.gpu).await?;
        Ok(())
    }

    async fn write_sources(
        &self,
        memory: &JumpMemory,
        transition: &Transition,
        upsample: Upsample,
    ) -> Result<(), Error> {
        /// See `shaders/renoise.wgsl`.
        const COPY_PATCH: u32 = 4;
        let mut sources: Vec<u32> = transition
            .entries
            .iter()
            .map(|entry| {
                let code = match (entry.child, upsample) {
                    (Some(child), Upsample::Latent) => u32::from(child),
                    _ => COPY_PATCH,
                };
                entry.src * 8 + code
            })
            .collect();
        sources.resize(memory.source.cols, COPY_PATCH);
        let Pipeline { gpu, store, .. } = self.pipeline;
        let bytes = bytemuck::cast_slice(&sources);
        Ok(store.write_bytes(gpu, memory.source.id, 0, 0, bytes).await?)
    }

    /// Shows the clean estimate of a mixed stage at full size. Coarse tokens are enlarged pixel by pixel, whatever
    /// the jump does: repeated patches would show a grid that is not in the estimate.
    async fn show_mixed(&mut self, stage: usize, transition: &Transition) -> Result<(), Error> {
        let programs = self.programs()?;
        let Some(program) = &programs.decode_mixed else { return Ok(()) };
        let sources = &programs.memory.jumps[stage];
        self.write_sources(sources, transition, Upsample::Latent).await?;
        program.run(&self.pipeline.gpu).await?;
        let values = self.read(&programs.memory.pixels).await?;
        check_finite("the clean estimate of stage 2", &values)?;
        let planes = picture::to_unit(&picture::planes(&values));
        let picture = Picture::from_planes(&planes, self.schedule.width, self.schedule.height);
        self.events.push_back(Event::StagePicture {
            image: self.image.number,
            stage: stage + 1,
            kind: PictureKind::Estimate,
            picture,
        });
        Ok(())
    }

    /// Decodes the finished latents.
    async fn finish_image(&mut self) -> Result<(), Error> {
        let programs = self.programs()?;
        programs.decode.run(&self.pipeline.gpu).await?;
        let values = self.read(&programs.memory.pixels).await?;
        check_finite("the decoded picture", &values)?;
        let planes = picture::to_unit(&picture::planes(&values));
        let (width, height) = (self.schedule.width, self.schedule.height);
        let picture = Picture::from_planes(&planes, width, height)
            .crop(self.settings.width, self.settings.height);
        let tensors = if self.collect_tensors {
            let memory = self.memory()?;
            let x = &memory.stages[memory.stages.len() - 1].x;
            let latents = self.read(x).await?;
            let shape = [1, x.rows, x.cols];
            let tensors = &mut self.image.tensors;
            tensors.insert("latents", &shape, latents);
            tensors.insert("image", &[1, 3, height, width], planes);
            Some(std::mem::take(tensors))
        } else {
            None
        };
        self.events.push_back(Event::Image {
            image: self.image.number,
            seed: self.image.seed,
            picture,
            tensors,
            seconds: self.image.started.map_or(0.0, |started| started.elapsed().as_secs_f64()),
        });
        Ok(())
    }

    #[track_caller]
    fn programs(&self) -> Result<&Programs<'p>, Error> {
        match &self.programs {
            Some(programs) => Ok(programs),
            None => unreachable!("a phase after Prepare runs without programs"),
        }
    }

    fn memory(&self) -> Result<&RunMemory, Error> {
        Ok(&self.programs()?.memory)
    }

    async fn write(&self, resident: &Resident, values: &[f32]) -> Result<(), Error> {
        let Pipeline { gpu, store, .. } = self.pipeline;
        Ok(store.write(gpu, resident, values).await?)
    }

    async fn read(&self, resident: &Resident) -> Result<Vec<f32>, Error> {
        let Pipeline { gpu, store, .. } = self.pipeline;
        Ok(store.read(gpu, resident).await?)
    }
}
