//! The recordings that turn latents into pictures.

use super::memory::{JumpMemory, MixedView, SharedInputs, StageMemory};
use crate::models::config::ModelConfig;
use crate::models::vae::VaeDecoder;
use crate::ops::{renoise, unpack};
use crate::pipeline::decoder_memory::DecoderMemory;
use crate::tensor::{Caps, Recorder, Recording, Resident};

/// Latents and the velocity that leads from them to the clean picture, both `[N, 4 C]`.
#[derive(Clone, Copy)]
pub(super) struct Estimate<'a> {
    x: &'a Resident,
    velocity: &'a Resident,
}

impl<'a> From<&'a StageMemory> for Estimate<'a> {
    fn from(stage: &'a StageMemory) -> Self {
        Estimate { x: &stage.x, velocity: &stage.velocity }
    }
}

/// Records the decoding of clean estimates.
pub(super) struct Decoding<'a> {
    pub caps: Caps,
    pub config: &'a ModelConfig,
    pub vae: &'a VaeDecoder,
    pub shared: &'a SharedInputs,
    pub memory: DecoderMemory,
}

impl Decoding<'_> {
    /// An estimate in raster order of a grid of `cols` columns.
    pub(super) fn grid(
        &self,
        label: &str,
        estimate: Estimate<'_>,
        cols: usize,
        pixels: &Resident,
    ) -> Recording {
        let recorder = self.recorder();
        self.decode(&recorder, estimate, cols, pixels);
        self.memory.fit(recorder.finish(label))
    }

    /// The estimate of a mixed stage at full size, where coarse tokens count four times: `source` says which
    /// token is where, `view` is memory for the full grid.
    pub(super) fn mixed(
        &self,
        label: &str,
        stage: &StageMemory,
        source: &JumpMemory,
        view: &MixedView,
        cols: usize,
        pixels: &Resident,
    ) -> Recording {
        let recorder = self.recorder();
        for (name, from, to) in
            [("view.x", &stage.x, &view.x), ("view.velocity", &stage.velocity, &view.velocity)]
        {
            let (from, to) = (recorder.resident(from), recorder.resident(to));
            let noise = recorder.resident(&source.noise);
            renoise(name, from, recorder.resident(&source.source), noise, 1.0, 0.0, to);
        }
        let estimate = Estimate { x: &view.x, velocity: &view.velocity };
        self.decode(&recorder, estimate, cols, pixels);
        self.memory.fit(recorder.finish(label))
    }

    fn recorder(&self) -> Recorder {
        let recorder = Recorder::with_f16_range(self.caps, self.shared.f16_range.clone());
        self.memory.in_bands(recorder)
    }

    fn decode(&self, recorder: &Recorder, estimate: Estimate<'_>, cols: usize, pixels: &Resident) {
        let vae = &self.config.vae;
        let rows = estimate.x.rows / cols;
        let latents = recorder.image("latents", 2 * rows, 2 * cols, vae.latent_channels);
        let [x, velocity] = [estimate.x, estimate.velocity].map(|m| recorder.resident(m));
        let [x, velocity] = self.vae.without_norm(x, velocity);
        unpack(
            "unpack",
            x,
            velocity,
            recorder.resident(&self.shared.step),
            cols,
            vae.scaling_factor as f32,
            vae.shift_factor as f32,
            latents,
        );
        self.vae.forward(latents, 2 * cols, recorder.resident(pixels));
    }
}
