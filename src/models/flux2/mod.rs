//! FLUX.2 \[klein\]: two-stream and one-stream blocks with shared modulations, rotary positions on four axes, Qwen3.

pub mod config;
mod files;
mod known;
mod network;
mod presets;
mod schedule;

use std::borrow::Cow;
use std::sync::Arc;

pub use config::Flux2Config;
pub use presets::{BASE, DISTILLED};

use super::adapters::AdapterNames;
use super::config::{ModelConfig, Result, TimeShiftType, TransformerConfig};
use super::encoders::qwen3::Qwen3Encoder;
use super::family::{
    EncoderSlot, Family, FamilyDefaults, Guidance, KnownModel, PartsCheck, Recognised, TextLength,
};
use crate::checkpoint::source::Source;
use crate::checkpoint::weights::Weights;
use crate::sampling::{FlowMatch, PresetTable};

/// The family of FLUX.2 \[klein\] and its base models.
pub struct Flux2;

/// [`Family::name`].
const NAME: &str = "flux2";

/// After how many layers of Qwen3 the hidden states are taken.
const TAKEN: [usize; 3] = [9, 18, 27];

/// Steps of the distilled models.
const DISTILLED_STEPS: usize = 4;

/// Steps of the base models.
const BASE_STEPS: usize = 50;

impl Family for Flux2 {
    fn name(&self) -> &'static str {
        NAME
    }

    fn pipeline(&self) -> &'static str {
        "Flux2KleinPipeline"
    }

    fn examples(&self) -> &'static str {
        "FLUX.2-klein-4B, FLUX.2-klein-base-4B"
    }

    fn transformer(&self) -> &'static str {
        "Flux2Transformer2DModel"
    }

    fn vae(&self) -> &'static str {
        "AutoencoderKLFlux2"
    }

    fn text_encoders(&self) -> &'static [EncoderSlot] {
        &[EncoderSlot {
            folder: "text_encoder",
            tokenizer: "tokenizer",
            role: None,
            class: "Qwen3ForCausalLM",
            optional: false,
            gives_tokens: true,
            gives_pooled: false,
            length: TextLength::Asked,
            load: |source, path| Ok(Arc::new(Qwen3Encoder::load(source, path, &TAKEN)?)),
        }]
    }

    fn load_transformer(
        &self,
        source: &dyn Source,
        path: &str,
    ) -> Result<Arc<dyn TransformerConfig>> {
        Ok(Arc::new(Flux2Config::load(source, path)?))
    }

    fn check_parts(&self, check: &PartsCheck<'_>) -> Result<()> {
        if let Some(flux) = check.config.transformer_as::<Flux2Config>() {
            check.latent_channels([flux.in_channels, flux.out_channels], 4)?;
        }
        check.text_width()
    }

    /// What `model_index.json` says; the folders are otherwise alike.
    fn is_distilled(&self, config: &ModelConfig, _: &str) -> bool {
        config.index.is_distilled.unwrap_or(false)
    }

    /// diffusers' `Flux2KleinPipeline.__call__` and the model cards: 512 tokens, 1024 x 1024; 4 steps without guidance, of base
    /// models 50 with guidance 4.
    fn defaults(&self, config: &ModelConfig) -> FamilyDefaults {
        let (steps, guidance) =
            if config.distilled { (DISTILLED_STEPS, 1.0) } else { (BASE_STEPS, 4.0) };
        FamilyDefaults { side: 1024, steps, guidance, text_tokens: 512 }
    }

    /// The model cards: four megapixels.
    fn most_pixels(&self) -> usize {
        4 << 20
    }

    /// The distilled models have no use for guidance and no input for it either, so that diffusers ignores it.
    fn guidance(&self, config: &ModelConfig) -> Guidance {
        if config.distilled { Guidance::Distilled } else { Guidance::ClassifierFree }
    }

    /// The chat template of Qwen3, without thinking.
    fn prompt<'t>(&self, prompt: &'t str) -> Cow<'t, str> {
        format!(
            "<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
        )
        .into()
    }

    fn join_tokens(&self, _: &ModelConfig, tokens: &[Vec<f32>], _: usize) -> Vec<f32> {
        tokens.concat()
    }

    fn schedule(
        &self,
        _: &ModelConfig,
        flow: FlowMatch,
        steps: usize,
        n_tokens: usize,
    ) -> FlowMatch {
        schedule::schedule(flow, steps, n_tokens)
    }

    /// The time shift of plain sampling in [`Family::baseline_steps`].
    fn base_time_shift(&self, config: &ModelConfig, n_tokens: usize) -> f64 {
        let mu = schedule::mu(n_tokens, self.baseline_steps(config));
        match (config.scheduler.use_dynamic_shifting, config.scheduler.time_shift_type) {
            (false, _) => config.scheduler.shift,
            (true, TimeShiftType::Exponential) => libm::exp(mu),
            (true, TimeShiftType::Linear) => mu,
        }
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

    /// `Flux2KleinPipeline` divides the timestep by 1000, and `Flux2Transformer2DModel` multiplies it by 1000 again.
    fn timestep(&self, timestep: f32) -> f32 {
        timestep / 1000.0 * 1000.0
    }

    fn preset_tables(&self) -> &'static [&'static PresetTable] {
        const { &[&BASE, &DISTILLED] }
    }

    fn presets(&self, config: &ModelConfig) -> &'static PresetTable {
        if config.distilled { &DISTILLED } else { &BASE }
    }

    fn baseline_steps(&self, config: &ModelConfig) -> usize {
        if config.distilled { DISTILLED_STEPS } else { BASE_STEPS }
    }

    fn packs_noise(&self) -> bool {
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
