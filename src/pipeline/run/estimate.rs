//! Cheap pictures of what a run has in mind, step by step.

use super::Run;
use crate::pipeline::event::Event;
use crate::pipeline::picture::to_unit;
use crate::pipeline::preview::{PROBE_WEIGHT, probe_latents};
use crate::pipeline::programs::step;
use crate::pipeline::{Error, StageKind, picture};
use crate::sampling::{self, Transition, Upsample};

impl Run {
    /// Shows the clean estimate after step `i` of a stage, which has left the latents `x`, if that is asked for.
    ///
    /// Nothing but the latents is read for it, which are read back in any case: the velocity of an Euler step is the
    /// change that it made.
    pub(super) fn show_estimate(&mut self, stage: usize, i: usize, x: &[f32]) -> Result<(), Error> {
        if !self.estimates {
            return Ok(());
        }
        let sigmas = &self.schedule.stages[stage].sigmas;
        let (before, now) = (sigmas[i], sigmas[i + 1]);
        let ahead = (now / (before - now)) as f32;
        let clean =
            x.iter().zip(&self.image.latents).map(|(x, old)| x + ahead * (x - old)).collect();
        self.image.latents = x.to_vec();
        let (latents, rows, cols) = self.latents_of(stage, clean)?;
        let picture = self.context.cache.colors.lock().picture(&latents, rows, cols);
        self.events.extend(picture.map(|picture| Event::Estimate {
            image: self.image.number,
            stage: stage + 1,
            step: i + 1,
            picture,
        }));
        Ok(())
    }

    /// Learns colours from the planes, in the decoder's range, that a stage's clean estimate at `sigma` was decoded to.
    pub(super) async fn learn_colors(
        &self,
        stage: usize,
        sigma: f64,
        planes: &[f32],
    ) -> Result<(), Error> {
        if !self.estimates || planes.is_empty() {
            return Ok(());
        }
        let tokens = match self.kept_estimate(stage, sigma) {
            Some(tokens) => tokens,
            None => self.clean_tokens(stage, sigma).await?,
        };
        let (latents, rows, cols) = self.latents_of(stage, tokens)?;
        self.context.cache.colors.lock().learn(&latents, &to_unit(planes), rows, cols);
        Ok(())
    }

    /// Decodes a few patches of noise, if no colours are known yet: the first steps of the first run have some then.
    pub(super) async fn probe_colors(&self) -> Result<(), Error> {
        if !self.estimates || self.context.cache.colors.lock().is_fitted() {
            return Ok(());
        }
        let programs = self.programs();
        let memory = &programs.memory;
        let (stage, program, pixels) = match (&programs.decode_low, &memory.low_pixels) {
            (Some(program), Some(pixels)) => (0, program, pixels),
            _ => (memory.stages.len() - 1, &programs.decode, &memory.pixels),
        };
        let (rows, cols) = self.latent_size(stage);
        let channels = self.context.model.config.vae.latent_channels;
        let latents = probe_latents(channels, rows, cols);
        self.write(&memory.shared.step, &[0.0; step::LEN]).await?;
        self.write(&memory.stages[stage].x, &sampling::pack(&latents, rows, cols)?).await?;
        let velocity = &memory.stages[stage].velocity;
        self.write(velocity, &vec![0.0; velocity.rows * velocity.cols]).await?;
        program.run_fed(&self.context.device.gpu, &self.context.feeder()).await?;
        let planes = to_unit(&picture::planes(&self.read(pixels).await?));
        let mut colors = self.context.cache.colors.lock();
        colors.learn_weighted(&latents, &planes, rows, cols, PROBE_WEIGHT);
        Ok(())
    }

    /// Latents of a stage's tokens, `[16, rows, cols]`; where a stage is mixed, coarse tokens are enlarged.
    fn latents_of(
        &self,
        stage: usize,
        tokens: Vec<f32>,
    ) -> Result<(Vec<f32>, usize, usize), Error> {
        let (rows, cols) = self.latent_size(stage);
        let tokens = match self.schedule.stages[stage].kind {
            StageKind::Low | StageKind::Full => tokens,
            StageKind::Mixed => {
                Transition::mixed_to_full(self.schedule.grid(), &self.image.selected)?
                    .raster()
                    .gather(&tokens, Upsample::Latent)?
            }
        };
        Ok((sampling::unpack(&tokens, rows, cols)?, rows, cols))
    }

    /// Rows and columns of latents that a stage's estimate has.
    fn latent_size(&self, stage: usize) -> (usize, usize) {
        let (rows, cols) = (self.schedule.rows, self.schedule.cols);
        match self.schedule.stages[stage].kind {
            StageKind::Low => (rows, cols),
            StageKind::Mixed | StageKind::Full => (2 * rows, 2 * cols),
        }
    }
}
