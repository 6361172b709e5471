//! Stable Diffusion 3 and 3.5: two-stream blocks, a table of positions, CLIP-L, CLIP-G and T5-XXL.

pub mod config;
mod files;
mod known;
mod network;
mod presets;

use std::sync::Arc;

pub use config::Sd3Config;
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

/// The family of Stable Diffusion 3 and 3.5.
pub struct Sd3;

/// [`Family::name`].
const NAME: &str = "sd3";

/// The most steps that a timestep-distilled model asks for.
const DISTILLED_STEPS: usize = 8;

const fn clip(folder: &'static str, tokenizer: &'static str, role: Role) -> EncoderSlot {
    EncoderSlot {
        folder,
        tokenizer,
        role: Some(role),
        class: "CLIPTextModelWithProjection",
        optional: false,
        gives_tokens: true,
        gives_pooled: true,
        length: TextLength::Fixed,
        load: |source, path| Ok(Arc::new(ClipConfig::load(source, path, true)?)),
    }
}

static TEXT_ENCODERS: [EncoderSlot; 3] = [
    clip("text_encoder", "tokenizer", Role::ClipL),
    clip("text_encoder_2", "tokenizer_2", Role::ClipG),
    EncoderSlot {
        folder: "text_encoder_3",
        tokenizer: "tokenizer_3",
        role: Some(Role::T5),
        class: "T5EncoderModel",
        // As in diffusers, which has zeros in place of its tokens.
        optional: true,
        gives_tokens: true,
        gives_pooled: false,
        length: TextLength::Asked,
        load: |source, path| Ok(Arc::new(T5Config::load(source, path)?)),
    },
];

impl Family for Sd3 {
    fn name(&self) -> &'static str {
        NAME
    }

    fn pipeline(&self) -> &'static str {
        "StableDiffusion3Pipeline"
    }

    fn examples(&self) -> &'static str {
        "SD3, SD3.5"
    }

    fn transformer(&self) -> &'static str {
        "SD3Transformer2DModel"
    }

    fn text_encoders(&self) -> &'static [EncoderSlot] {
        &TEXT_ENCODERS
    }

    fn load_transformer(
        &self,
        source: &dyn Source,
        path: &str,
    ) -> Result<Arc<dyn TransformerConfig>> {
        Ok(Arc::new(Sd3Config::load(source, path)?))
    }

    fn check_parts(&self, check: &PartsCheck<'_>) -> Result<()> {
        if let Some(sd3) = check.config.transformer_as::<Sd3Config>() {
            check.latent_channels([sd3.in_channels, sd3.out_channels], 1)?;
        }
        check.text_width()?;
        // The CLIPs' tokens lie next to each other in a text token.
        let clips = || check.config.text_encoders.iter().filter(|e| e.length == TextLength::Fixed);
        let width: usize = clips().map(|clip| clip.config.token_dim()).sum();
        let text_dim = check.config.transformer.text_dim();
        if width > text_dim {
            let files: Vec<_> = clips().map(|e| check.file(e.folder)).collect();
            let other = format!("the hidden_size of {} together", files.join(" and "));
            let expected = format!("at least {width}");
            return check.mismatch("joint_attention_dim", text_dim, expected, other);
        }
        Ok(())
    }

    /// A model is if its `generation_config.json` asks for at most 8 steps, or, without that, if its folder or
    /// `_name_or_path` has "turbo" in its name: the files of SD3.5-large-turbo are otherwise those of SD3.5-large.
    fn is_distilled(&self, config: &ModelConfig, source_name: &str) -> bool {
        match config.generation.num_inference_steps {
            Some(steps) => steps <= DISTILLED_STEPS,
            None => {
                let name = config.index.name_or_path.as_deref();
                says_turbo(source_name) || name.is_some_and(says_turbo)
            }
        }
    }

    /// `StableDiffusion3Pipeline.__call__`: 28 steps, guidance 7, 256 tokens, the transformer's `sample_size`; the
    /// SD3.5-large-turbo model card: 4 steps, no guidance.
    fn defaults(&self, config: &ModelConfig) -> FamilyDefaults {
        let sample_size = config.transformer_as::<Sd3Config>().map_or(128, |sd3| sd3.sample_size);
        let (steps, guidance) = if config.distilled { (4, 1.0) } else { (28, 7.0) };
        let side = sample_size * config.vae.scale();
        FamilyDefaults { side, steps, guidance, text_tokens: 256 }
    }

    fn guidance(&self, _: &ModelConfig) -> Guidance {
        Guidance::ClassifierFree
    }

    /// CLIP's 77, then T5's. A folder without T5 has as many tokens of zeros in its place, as in diffusers.
    fn text_tokens(&self, config: &ModelConfig, n: usize) -> usize {
        config.fixed_text_length() + n
    }

    /// The CLIPs' tokens side by side, padded with zeros, then T5's: SD3 paper, figure 2.
    fn join_tokens(&self, config: &ModelConfig, tokens: &[Vec<f32>], n_text: usize) -> Vec<f32> {
        let width = config.transformer.text_dim();
        let mut joined = vec![0.0; config.fixed_text_length() * width];
        let mut column = 0;
        for (encoder, tokens) in config.text_encoders.iter().zip(tokens) {
            let d = encoder.config.token_dim();
            match encoder.length {
                TextLength::Fixed => {
                    for (row, values) in tokens.chunks_exact(d).enumerate() {
                        let at = row * width + column;
                        joined[at..at + d].copy_from_slice(values);
                    }
                    column += d;
                }
                TextLength::Asked => joined.extend(tokens),
            }
        }
        joined.resize(n_text * width, 0.0);
        joined
    }

    fn sigmas(
        &self,
        _: &ModelConfig,
        flow: &FlowMatch,
        steps: usize,
        n_tokens: usize,
    ) -> std::result::Result<Vec<f64>, crate::sampling::Error> {
        flow.sigmas_sd3(steps, n_tokens)
    }

    fn preset_tables(&self) -> &'static [&'static PresetTable] {
        const { &[&PRESETS, &DISTILLED_PRESETS] }
    }

    fn presets(&self, config: &ModelConfig) -> &'static PresetTable {
        if config.distilled { &DISTILLED_PRESETS } else { &PRESETS }
    }

    /// RALU's paper compares with 28 steps.
    fn baseline_steps(&self, config: &ModelConfig) -> usize {
        if config.distilled { 4 } else { 28 }
    }

    fn fuses_layers(&self) -> bool {
        true
    }

    fn packs_latents(&self) -> bool {
        false
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

/// Whether the last part of a path has "turbo" in it, or the part that is a model's name in the Hugging Face cache:
/// `models--OWNER--NAME/snapshots/HASH`.
fn says_turbo(path: &str) -> bool {
    let mut parts = path.rsplit(['/', '\\']).filter(|part| !part.is_empty());
    let named = |part: &str| part.to_ascii_lowercase().contains("turbo");
    parts.next().is_some_and(named) || parts.any(|part| part.starts_with("models--") && named(part))
}
