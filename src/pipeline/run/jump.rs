//! From one of RALU's stages to the next: latents gathered, repeated and given noise.

use super::Run;
use crate::pipeline::device::Device;
use crate::pipeline::event::{Event, PictureKind};
use crate::pipeline::picture::{self, Picture};
use crate::pipeline::programs::JumpMemory;
use crate::pipeline::{Error, StageKind};
use crate::sampling::{self, JumpNoise, Transition, Upsample};
use crate::turns::Turns;

/// Tokens whose noise is drawn between two turns: each takes some ten microseconds.
const TOKENS_BETWEEN_TURNS: usize = 32;

impl Run {
    /// Carries the latents over to the next stage: gather, repeat, add noise.
    pub(super) async fn jump(&mut self, stage: usize) -> Result<(), Error> {
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
        let channels = self.context.model.config.transformer.token_channels();
        let shape = [transition.n_tokens(), channels];
        let turns = Turns::new();
        let noise = match self.given.numbers(&format!("ralu_{name}"), &shape)? {
            Some(noise) => noise.to_vec(),
            None if rules.jump_noise == JumpNoise::Bound => {
                let (h, w) = (2 * self.schedule.rows, 2 * self.schedule.cols);
                sampling::bound_noise(&self.image.noise, h, w, &transition)?
            }
            None => {
                let kept = jump.kept_amplitude(rules.kept_noise);
                let number = stage as u32 + 1;
                let mut noise = Vec::with_capacity(shape[0] * shape[1]);
                for entries in transition.entries.chunks(TOKENS_BETWEEN_TURNS) {
                    noise.extend(sampling::jump_noise_of(
                        self.image.seed,
                        number,
                        entries,
                        jump.kappa,
                        kept,
                        rules.upsample,
                        channels,
                    ));
                    turns.yield_if_due().await;
                }
                noise
            }
        };
        if self.collect_tensors {
            self.image.tensors.insert(&name, &shape, noise.clone());
        }
        turns.yield_if_due().await;
        let (transition, noise) = match to {
            StageKind::Full => (transition.raster(), transition.sort_rows(&noise)?),
            _ => (transition, noise),
        };
        if from == StageKind::Mixed && self.stage_pictures {
            self.show_mixed(stage, &transition).await?;
        }
        let memory = &self.memory().jumps[stage];
        self.write_sources(memory, &transition, rules.upsample).await?;
        self.write(&memory.noise, &noise).await?;
        self.programs().jumps[stage].run(&self.context.device.gpu).await?;
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
        let Device { gpu, store, .. } = &self.context.device;
        let bytes = bytemuck::cast_slice(&sources);
        Ok(store.write_bytes(gpu, memory.source.id, 0, 0, bytes).await?)
    }

    /// Shows the clean estimate of a mixed stage at full size. Coarse tokens are enlarged pixel by pixel, whatever
    /// the jump does: repeated patches would show a grid that is not in the estimate.
    async fn show_mixed(&mut self, stage: usize, transition: &Transition) -> Result<(), Error> {
        let programs = self.programs();
        let Some(program) = &programs.decode_mixed else { return Ok(()) };
        let sources = &programs.memory.jumps[stage];
        self.write_sources(sources, transition, Upsample::Latent).await?;
        program.run_fed(&self.context.device.gpu, &self.context.feeder()).await?;
        let values = self.read(&programs.memory.pixels).await?;
        let turns = Turns::new();
        self.check_finite("the clean estimate of stage 2", &values).await?;
        turns.yield_if_due().await;
        let planes = picture::planes(&values);
        turns.yield_if_due().await;
        let planes = picture::to_unit(&planes);
        turns.yield_if_due().await;
        let picture = Picture::from_planes(&planes, self.schedule.width, self.schedule.height);
        self.events.push_back(Event::StagePicture {
            image: self.image.number,
            stage: stage + 1,
            kind: PictureKind::Estimate,
            picture,
        });
        Ok(())
    }
}
