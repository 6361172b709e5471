//! A picture, from its first noise through the steps of every stage to its pixels.

use std::cmp::Ordering;
use std::sync::Arc;

use web_time::Instant;

use super::{ImageState, Prepared, Run, SubmittedStep};
use crate::gpu::{Program, Ticket};
use crate::ops::{change_rows, relative_change};
use crate::pipeline::event::{Event, StageEnd, StageStart, StepDone};
use crate::pipeline::picture::{self, Picture};
use crate::pipeline::programs::{CacheMemory, StepRecordings, step, taylor};
use crate::pipeline::text_cache::Embedding;
use crate::pipeline::{Error, Rng, StageKind};
use crate::sampling::cache::{CacheRule, Decision, TaylorUpdate};
use crate::sampling::{self, JumpNoise, RegionScore};
use crate::tensor::Fallback;
use crate::turns::Turns;

impl Run {
    /// Draws the initial noise.
    pub(super) async fn begin_image(&mut self, number: usize) -> Result<(), Error> {
        let seed = self.settings.seed.wrapping_add(number as u64);
        self.image = ImageState {
            number,
            seed,
            started: Some(Instant::now()),
            cache: self.cache_rule()?,
            ..Default::default()
        };
        let (h, w) = (2 * self.schedule.rows, 2 * self.schedule.cols);
        let channels = self.context.model.config.vae.latent_channels;
        let packs = self.context.model.config.family().packs_noise();
        let shape = if packs { [1, 4 * channels, h / 2, w / 2] } else { [1, channels, h, w] };
        let unpacked = |noise: Vec<f32>| match packs {
            true => sampling::unpack_planes(&noise, h, w),
            false => Ok(noise),
        };
        let turns = Turns::new();
        let noise = match self.given.numbers("initial_noise", &shape)? {
            Some(noise) => unpacked(noise.to_vec())?,
            None => match self.settings.rng {
                Rng::Philox => {
                    let mut noise = vec![0.0; channels * h * w];
                    for row in 0..h {
                        sampling::initial_noise_row(seed, row, [channels, h, w], &mut noise);
                        turns.yield_if_due().await;
                    }
                    noise
                }
                Rng::Torch => unpacked(sampling::torch_randn(seed, channels * h * w))?,
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
        turns.yield_if_due().await;
        self.write(&self.memory().stages[0].x, &tokens).await?;
        if self.estimates {
            self.image.latents.clone_from(&tokens);
        }
        if self.settings.rules.jump_noise == JumpNoise::Bound {
            self.image.noise.clone_from(&noise);
        }
        if self.collect_tensors {
            self.collect_prompt();
            let noise = if packs { sampling::pack_planes(&noise, h, w)? } else { noise };
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

    /// The temporal cache's rule for one picture.
    fn cache_rule(&self) -> Result<Option<CacheRule>, Error> {
        let Some(spec) = &self.settings.cache else { return Ok(None) };
        let n_tokens = self.schedule.rows * self.schedule.cols;
        let plain = match spec.plain_steps() {
            Some(steps) => self.context.model.config.plain_sigmas(steps, n_tokens)?,
            None => vec![],
        };
        Ok(Some(CacheRule::new(spec.clone(), plain)?))
    }

    fn collect_prompt(&mut self) {
        let Some(Prepared { encoded, .. }) = &self.prepared else {
            unreachable!("a picture begins before Prepare");
        };
        let n_text = self.context.model.config.text_tokens(self.settings.max_sequence_length);
        let tensors = &mut self.image.tensors;
        let mut collect = |prefix: &str, embedding: &Embedding| {
            for (name, ids) in &embedding.ids {
                let ids: Vec<i64> = ids.iter().map(|id| i64::from(*id)).collect();
                tensors.insert_indices(&format!("{prefix}{name}"), &[1, ids.len()], ids);
            }
            let txt = embedding.txt.clone();
            let shape = [1, n_text, txt.len() / n_text];
            tensors.insert(&format!("{prefix}prompt_embeds"), &shape, txt);
            if !embedding.pooled.is_empty() {
                let pooled = embedding.pooled.clone();
                let shape = [1, pooled.len()];
                tensors.insert(&format!("{prefix}pooled_prompt_embeds"), &shape, pooled);
            }
        };
        collect("", &encoded.positive);
        if let Some(negative) = &encoded.negative {
            collect("negative_", negative);
        }
    }

    /// Positions of a stage's tokens, and the event that announces it.
    pub(super) async fn begin_stage(&mut self, stage: usize) -> Result<(), Error> {
        self.write_positions(stage).await?;
        let spec = &self.schedule.stages[stage];
        let is_last = stage + 1 == self.schedule.stages.len();
        if let Some(rule) = &mut self.image.cache {
            rule.begin_stage(&spec.sigmas, is_last);
        }
        self.image.report.computed.push(vec![]);
        let programs = self.programs();
        let bytes =
            programs.steps[stage].iter().map(|program| program.slot_bytes()).max().unwrap_or(0);
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
        if self.estimates && stage > 0 {
            self.image.latents = self.read(&self.memory().stages[stage].x).await?;
        }
        Ok(())
    }

    /// Submits one evaluation of the network and one Euler step, and reports the step before.
    pub(super) async fn step(&mut self, stage: usize, i: usize) -> Result<(), Error> {
        let started = Instant::now();
        let sigmas = &self.schedule.stages[stage].sigmas;
        let (sigma, next, steps) = (sigmas[i], sigmas[i + 1], sigmas.len() - 1);
        let programs = self.programs();
        let shared = &programs.memory.shared;
        let before: usize = self.schedule.stages[..stage].iter().map(|stage| stage.steps()).sum();
        let modulations = &self.prepared().modulations;
        modulations.copy_step(&self.context.device, before + i, &shared.modulations).await?;
        let mut scalars = [0.0; step::LEN];
        scalars[step::DELTA] = next as f32 - sigma as f32;
        scalars[step::CFG] = self.settings.true_cfg as f32;
        // After the step the latents are at the next noise level.
        scalars[step::SIGMA] = next as f32;
        self.write(&shared.step, &scalars).await?;
        self.context.use_change_weights(&self.stage_change_weights(stage)).await?;
        let (decision, ticket) = self.evaluate(stage, i).await?;
        self.keep_estimate(stage, next).await?;

        if i == 0 {
            self.image.counters = Some(self.context.device.gpu.counters());
            if self.collect_tensors && stage == 0 {
                let velocity = &self.memory().stages[0].velocity;
                let values = self.read(velocity).await?;
                let shape = [1, velocity.rows, velocity.cols];
                self.image.tensors.insert("transformer_out_step0", &shape, values);
                // The read-back's own staging buffer does not count.
                self.image.counters = Some(self.context.device.gpu.counters());
            }
        }
        if let Some(stage) = self.image.report.computed.last_mut() {
            stage.push(decision == Decision::Full);
        }
        let done = self.done(stage, i)?;
        let event = StepDone {
            image: self.image.number,
            stage: stage + 1,
            step: i + 1,
            of: steps,
            sigma,
            seconds: 0.0,
            done,
            reused: decision == Decision::Reuse,
        };
        self.read_ahead(stage, i).await?;
        let state = self.state(stage, i);
        let this = SubmittedStep { event, ticket: ticket.clone(), started, state };
        let before = self.image.submitted.replace(this);
        self.report_step(before).await?;
        if self.context.device.gpu.has_run(&ticket) {
            let this = self.image.submitted.take();
            self.report_step(this).await?;
        }
        Ok(())
    }

    /// Waits for a submitted step and reports it. The step after it is already queued, so the GPU does not wait.
    pub(super) async fn report_step(&mut self, step: Option<SubmittedStep>) -> Result<(), Error> {
        let Some(SubmittedStep { mut event, ticket, started, state }) = step else {
            return Ok(());
        };
        self.context.device.gpu.finish(&ticket).await?;
        let (stage, i) = (event.stage - 1, event.step - 1);
        let now = Instant::now();
        let latents = self.latents_read_back(stage, i).await?;
        // It was submitted before the step in front of it had ended.
        let started = self.image.step_end.map_or(started, |end| end.max(started));
        self.image.step_end = Some(now);
        event.seconds = (now - started).as_secs_f64();
        self.image.stage_seconds += event.seconds;
        self.image.report.step_seconds += event.seconds;
        self.events.push_back(Event::Step(event));
        if let Some(x) = latents {
            self.show_estimate(stage, i, &x)?;
            self.keep_checkpoint(stage, i, x, state);
        }
        Ok(())
    }

    /// Submits what the temporal cache asks for, or the whole network without one. Gives what becomes of the step.
    async fn evaluate(&mut self, stage: usize, i: usize) -> Result<(Decision, Ticket), Error> {
        let mut decision = match &mut self.image.cache {
            Some(rule) => rule.next(i),
            None => Decision::Full,
        };
        let mut ticket = Ticket::default();
        if let Some(probe) = self.programs().steps[stage].probe.clone() {
            ticket = self.submit(&probe, ticket).await?;
            if decision == Decision::Probe {
                let change = self.change(stage).await?;
                if let Some(rule) = &mut self.image.cache {
                    decision = rule.probed(change);
                }
            }
        }
        self.write_taylor(decision).await?;
        let programs = &self.programs().steps[stage];
        let program = match (decision, &programs.reuse) {
            (Decision::Reuse, Some(reuse)) => reuse.clone(),
            (Decision::Reuse, None) => unreachable!("a rule reuses where nothing is kept"),
            (Decision::Full | Decision::Probe, _) => programs.full.clone(),
        };
        Ok((decision, self.submit(&program, ticket).await?))
    }

    async fn submit(&mut self, program: &Program, ticket: Ticket) -> Result<Ticket, Error> {
        self.image.flops_done += program.flops();
        let context = &self.context;
        program.start_fed(&context.device.gpu, ticket, &context.feeder()).await
    }

    /// The change that a probe measured.
    async fn change(&self, stage: usize) -> Result<f64, Error> {
        let memory = self.memory();
        let Some(probe) = memory.cache.as_ref().and_then(CacheMemory::probe) else {
            unreachable!("a rule looks at values where memory was made for none")
        };
        let partials = self.read(&probe.partials).await?;
        let rows = self.settings.evaluations_per_step() * memory.stages[stage].x.rows;
        Ok(relative_change(&partials[..4 * change_rows(rows)]))
    }

    /// Weights of the Taylor factors for the current step, if the cache has such.
    async fn write_taylor(&self, decision: Decision) -> Result<(), Error> {
        let cache = self.memory().cache.as_ref();
        let (Some(rule), Some(memory)) =
            (&self.image.cache, cache.and_then(CacheMemory::taylor_weights))
        else {
            return Ok(());
        };
        let mut weights = [0.0; taylor::LEN];
        let mut set = |at: usize, values: &[f32]| {
            weights[at..at + values.len()].copy_from_slice(values);
        };
        match decision {
            Decision::Reuse => set(taylor::PREDICT, &rule.predict_weights()),
            _ => {
                let TaylorUpdate { second, first } = rule.update_weights();
                set(taylor::SECOND, &second);
                set(taylor::FIRST, &first);
            }
        }
        self.write(memory, &weights).await
    }

    /// Keeps the clean estimate of stage 1 if regions are chosen by its changes. The latents are at `sigma` now.
    async fn keep_estimate(&mut self, stage: usize, sigma: f64) -> Result<(), Error> {
        let wanted = self.settings.rules.region_score == RegionScore::Variance
            && self.schedule.stages[stage].kind == StageKind::Low
            && self.schedule.has_regions();
        if wanted {
            let estimate = self.clean_tokens(stage, sigma).await?;
            self.image.estimates.push(estimate);
        }
        Ok(())
    }

    /// `x - sigma * velocity` of a stage's tokens, `[N, 4 C]`.
    pub(super) async fn clean_tokens(&self, stage: usize, sigma: f64) -> Result<Vec<f32>, Error> {
        let memory = &self.memory().stages[stage];
        let mut x = self.read(&memory.x).await?;
        let velocity = self.read(&memory.velocity).await?;
        x.iter_mut().zip(velocity).for_each(|(x, v)| *x -= sigma as f32 * v);
        self.check_finite(&format!("the clean estimate of stage {}", stage + 1), &x).await?;
        Ok(x)
    }

    /// Share of the picture's work that is done after step `i` of a stage. What a cache leaves out counts as done.
    fn done(&self, stage: usize, i: usize) -> Result<f64, Error> {
        let programs = self.programs();
        let step = |programs: &StepRecordings<Arc<Program>>| {
            programs.full.flops() + programs.probe.as_ref().map_or(0.0, |probe| probe.flops())
        };
        let low = programs.decode_low.as_ref().map_or(0.0, Program::flops);
        let (mut done, mut all) = (0.0, programs.decode.flops() + low);
        for (number, (programs, spec)) in
            programs.steps.iter().zip(&self.schedule.stages).enumerate()
        {
            let steps = match number.cmp(&stage) {
                Ordering::Less => spec.steps(),
                Ordering::Equal => i + 1,
                Ordering::Greater => 0,
            };
            done += step(programs) * steps as f64;
            all += step(programs) * spec.steps() as f64;
        }
        Ok((done + if stage > 0 { low } else { 0.0 }) / all)
    }

    /// Reports a stage.
    pub(super) async fn end_stage(&mut self, stage: usize) -> Result<(), Error> {
        let last = self.image.submitted.take();
        self.report_step(last).await?;
        let now = self.context.device.gpu.counters();
        let then = self.image.counters.unwrap_or(now);
        self.events.push_back(Event::StageEnd(StageEnd {
            image: self.image.number,
            stage: stage + 1,
            seconds: self.image.stage_seconds,
            buffers_created: now.buffers - then.buffers,
            bind_groups_created: now.bind_groups - then.bind_groups,
        }));
        let is_last = stage + 1 == self.schedule.stages.len();
        if !is_last || self.settings.cache.is_some() {
            self.keep_stage_end(stage).await?;
        }
        if self.collect_tensors && !is_last {
            let x = &self.memory().stages[stage].x;
            let values = self.read(x).await?;
            let name = format!("stage{}_latents", stage + 1);
            let shape = [1, x.rows, x.cols];
            self.image.tensors.insert(&name, &shape, values);
        }
        Ok(())
    }

    /// Jumps to the stage after `stage`, with regions where they are to be chosen.
    pub(super) async fn leave_stage(&mut self, stage: usize) -> Result<(), Error> {
        self.keep_first_stage(stage).await?;
        match self.schedule.stages[stage].kind {
            StageKind::Low if self.schedule.has_regions() => self.choose_regions(stage).await?,
            StageKind::Low => {
                if self.stage_pictures {
                    let planes = self.low_estimate(stage).await?;
                    self.push_low_picture(stage, &planes);
                }
            }
            StageKind::Mixed | StageKind::Full => {}
        }
        self.jump(stage).await
    }

    /// Decodes the finished latents.
    pub(super) async fn finish_image(&mut self) -> Result<(), Error> {
        let programs = self.programs();
        programs.decode.run_fed(&self.context.device.gpu, &self.context.feeder()).await?;
        let values = self.read(&programs.memory.pixels).await?;
        let turns = Turns::new();
        self.check_finite("the decoded picture", &values).await?;
        turns.yield_if_due().await;
        self.image.report.flops = self.image.flops_done + self.programs().decode.flops();
        self.image.report.products = self.products();
        self.image.report.scaled = self.fallbacks.of_kind(Fallback::Scaled);
        self.image.report.in_f32 = self.fallbacks.of_kind(Fallback::F32);
        let planes = picture::planes(&values);
        self.learn_colors(self.schedule.stages.len() - 1, 0.0, &planes).await?;
        turns.yield_if_due().await;
        let planes = picture::to_unit(&planes);
        turns.yield_if_due().await;
        let (width, height) = (self.schedule.width, self.schedule.height);
        let picture = Picture::from_planes(&planes, width, height);
        turns.yield_if_due().await;
        let picture = picture.crop(self.settings.width, self.settings.height);
        let tensors = if self.collect_tensors {
            let memory = self.memory();
            let x = &memory.stages[memory.stages.len() - 1].x;
            let latents = self.read(x).await?;
            let (latents, shape) = self.as_diffusers_has_them(latents)?;
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
            report: std::mem::take(&mut self.image.report),
        });
        self.keep_image_end();
        Ok(())
    }

    /// Finished latents in diffusers' form: packed, `[1, N, 4 C]`, or `[1, C, H/8, W/8]`.
    fn as_diffusers_has_them(&self, tokens: Vec<f32>) -> Result<(Vec<f32>, Vec<usize>), Error> {
        let (h, w) = (2 * self.schedule.rows, 2 * self.schedule.cols);
        let channels = self.context.model.config.vae.latent_channels;
        Ok(match self.context.model.config.family().packs_latents() {
            true => (tokens, vec![1, h * w / 4, 4 * channels]),
            false => (sampling::unpack(&tokens, h, w)?, vec![1, channels, h, w]),
        })
    }
}
