//! A picture, from its first noise through the steps of every stage to its pixels.

use web_time::Instant;

use super::{ImageState, Run};
use crate::gpu::Program;
use crate::models::flux::rope_table;
use crate::models::layers::timestep_embedding;
use crate::pipeline::event::{Event, StageEnd, StageStart, StepDone};
use crate::pipeline::picture::{self, Picture};
use crate::pipeline::programs::step;
use crate::pipeline::prompt::{Embedding, check_finite};
use crate::pipeline::{Error, Rng, StageKind};
use crate::sampling::{self, TokenLayout};

impl<'p> Run<'p> {
    /// Draws the initial noise.
    pub(super) async fn begin_image(&mut self, number: usize) -> Result<(), Error> {
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
    pub(super) async fn begin_stage(&mut self, stage: usize) -> Result<(), Error> {
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
    pub(super) async fn step(&mut self, stage: usize, i: usize) -> Result<(), Error> {
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
    pub(super) async fn end_stage(&mut self, stage: usize) -> Result<(), Error> {
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

    /// Decodes the finished latents.
    pub(super) async fn finish_image(&mut self) -> Result<(), Error> {
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
}
