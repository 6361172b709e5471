//! FLUX.1: two-stream and one-stream blocks, rotary positions, CLIP-L and T5-XXL.

pub mod config;
mod files;
mod known;
mod network;
mod presets;

use std::sync::Arc;

pub use config::FluxConfig;
pub use network::Flux;
pub use presets::PRESETS;

use super::adapters::AdapterNames;
use super::config::{ClipConfig, ModelConfig, Result, T5Config, TransformerConfig};
use super::family::{
    EncoderSlot, Family, FamilyDefaults, Guidance, KnownModel, PartsCheck, Recognised, TextLength,
};
use super::files::Role;
use crate::checkpoint::source::Source;
use crate::checkpoint::weights::Weights;
use crate::sampling::{DISTILLED_PRESETS, FlowMatch, PresetTable};

/// The family of FLUX.1-dev and FLUX.1-schnell.
pub struct Flux1;

/// [`Family::name`].
const NAME: &str = "flux";

impl Family for Flux1 {
    fn name(&self) -> &'static str {
        NAME
    }

    fn pipeline(&self) -> &'static str {
        "FluxPipeline"
    }

    fn examples(&self) -> &'static str {
        "FLUX.1-dev, FLUX.1-schnell"
    }

    fn transformer(&self) -> &'static str {
        "FluxTransformer2DModel"
    }

    fn text_encoders(&self) -> &'static [EncoderSlot] {
        &[
            EncoderSlot {
                folder: "text_encoder",
                tokenizer: "tokenizer",
                role: Some(Role::ClipL),
                class: "CLIPTextModel",
                optional: false,
                gives_tokens: false,
                gives_pooled: true,
                length: TextLength::Fixed,
                load: |source, path| Ok(Arc::new(ClipConfig::load(source, path, false)?)),
            },
            EncoderSlot {
                folder: "text_encoder_2",
                tokenizer: "tokenizer_2",
                role: Some(Role::T5),
                class: "T5EncoderModel",
                optional: false,
                gives_tokens: true,
                gives_pooled: false,
                length: TextLength::Asked,
                load: |source, path| Ok(Arc::new(T5Config::load(source, path)?)),
            },
        ]
    }

    fn load_transformer(
        &self,
        source: &dyn Source,
        path: &str,
    ) -> Result<Arc<dyn TransformerConfig>> {
        Ok(Arc::new(FluxConfig::load(source, path)?))
    }

    fn check_parts(&self, check: &PartsCheck<'_>) -> Result<()> {
        if let Some(flux) = check.config.transformer_as::<FluxConfig>() {
            check.latent_channels([flux.in_channels, flux.out_channels], 4)?;
        }
        check.text_width()
    }

    /// FLUX.1-schnell has neither a guidance input nor a dynamic time shift.
    fn is_distilled(&self, config: &ModelConfig, _: &str) -> bool {
        !config.transformer.has_guidance_input() && !config.scheduler.use_dynamic_shifting
    }

    /// diffusers' `FluxPipeline.__call__`: 28 steps, guidance 3.5, 512 tokens, 1024 x 1024; the FLUX.1-schnell model card:
    /// 4 steps, 256 tokens.
    fn defaults(&self, config: &ModelConfig) -> FamilyDefaults {
        let (steps, text_tokens) = if config.distilled { (4, 256) } else { (28, 512) };
        FamilyDefaults { side: 1024, steps, guidance: 3.5, text_tokens }
    }

    fn guidance(&self, _: &ModelConfig) -> Guidance {
        Guidance::Distilled
    }

    /// As `FluxPipeline` does for textual inversions.
    fn expands_tokens(&self) -> bool {
        true
    }

    fn join_tokens(&self, _: &ModelConfig, tokens: &[Vec<f32>], _: usize) -> Vec<f32> {
        tokens.concat()
    }

    fn sigmas(
        &self,
        config: &ModelConfig,
        flow: &FlowMatch,
        steps: usize,
        n_tokens: usize,
    ) -> std::result::Result<Vec<f64>, crate::sampling::Error> {
        match config.scheduler.use_flow_sigmas {
            false => flow.sigmas(steps, n_tokens),
            true => flow.sigmas_sd3(steps, n_tokens),
        }
    }

    /// `FluxPipeline` divides the timestep by 1000, and `FluxTransformer2DModel` multiplies it by 1000 again.
    fn timestep(&self, timestep: f32) -> f32 {
        timestep / 1000.0 * 1000.0
    }

    fn preset_tables(&self) -> &'static [&'static PresetTable] {
        const { &[&PRESETS, &DISTILLED_PRESETS] }
    }

    fn presets(&self, config: &ModelConfig) -> &'static PresetTable {
        if config.distilled { &DISTILLED_PRESETS } else { &PRESETS }
    }

    /// RALU's paper compares with 50 steps of FLUX.1-dev.
    fn baseline_steps(&self, config: &ModelConfig) -> usize {
        if config.distilled { 4 } else { 50 }
    }

    /// On FLUX.1-dev.
    fn has_measured_caches(&self) -> bool {
        true
    }

    fn fuses_layers(&self) -> bool {
        true
    }

    fn packs_latents(&self) -> bool {
        true
    }

    fn recognise(&self, tensors: &Weights) -> Recognised {
        files::recognise(tensors)
    }

    fn adapter_names(&self) -> Option<&'static AdapterNames> {
        Some(files::ADAPTERS)
    }

    fn known_models(&self) -> &'static [KnownModel] {
        known::MODELS
    }
}
