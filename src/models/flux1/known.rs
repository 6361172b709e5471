//! The configurations of published FLUX.1 models.
//!
//! They equal what `ModelConfig::load` reads from the published folders.

use std::sync::Arc;

use super::config::FluxConfig;
use crate::models::builtin::{clip_l, encoders, part, scheduler, t5_xxl, vae};
use crate::models::config::{ClipConfig, GenerationConfig, ModelConfig, ModelIndex};
use crate::models::family::{KnownModel, QuantisedFiles};

/// FLUX.1-dev: <https://huggingface.co/black-forest-labs/FLUX.1-dev>,
/// FLUX.1-schnell: <https://huggingface.co/black-forest-labs/FLUX.1-schnell>.
pub(super) static MODELS: &[KnownModel] = &[
    KnownModel {
        name: "flux.1-dev",
        repositories: &["black-forest-labs/FLUX.1-dev"],
        licence: "flux-1-dev-non-commercial-license",
        quantised: Some(QuantisedFiles {
            repository: "city96/FLUX.1-dev-gguf",
            file: "flux1-dev-{}.gguf",
            formats: FORMATS,
        }),
        config: || flux_1(true),
    },
    KnownModel {
        name: "flux.1-schnell",
        repositories: &["black-forest-labs/FLUX.1-schnell"],
        licence: "apache-2.0",
        quantised: Some(QuantisedFiles {
            repository: "city96/FLUX.1-schnell-gguf",
            file: "flux1-schnell-{}.gguf",
            formats: FORMATS,
        }),
        config: || flux_1(false),
    },
];

fn flux_1(dev: bool) -> ModelConfig {
    ModelConfig {
        index: ModelIndex {
            class: "FluxPipeline".into(),
            family: &super::Flux1,
            parts: vec![
                part("scheduler", "diffusers", "FlowMatchEulerDiscreteScheduler"),
                part("text_encoder", "transformers", "CLIPTextModel"),
                part("text_encoder_2", "transformers", "T5EncoderModel"),
                part("tokenizer", "transformers", "CLIPTokenizer"),
                part("tokenizer_2", "transformers", "T5TokenizerFast"),
                part("transformer", "diffusers", "FluxTransformer2DModel"),
                part("vae", "diffusers", "AutoencoderKL"),
            ],
            is_distilled: None,
            name_or_path: None,
        },
        transformer: Arc::new(FluxConfig {
            in_channels: 64,
            out_channels: 64,
            num_layers: 19,
            num_single_layers: 38,
            attention_head_dim: 128,
            num_attention_heads: 24,
            joint_attention_dim: 4096,
            pooled_projection_dim: 768,
            guidance_embeds: dev,
            axes_dims_rope: vec![16, 56, 56],
        }),
        text_encoders: encoders(
            &super::Flux1,
            vec![
                (Some(77), Arc::new(ClipConfig { projection_dim: None, ..clip_l() })),
                (Some(if dev { 512 } else { 256 }), Arc::new(t5_xxl())),
            ],
        ),
        vae: vae(0.3611, 0.1159),
        scheduler: scheduler(if dev { 3.0 } else { 1.0 }, dev),
        generation: GenerationConfig::default(),
        distilled: !dev,
    }
}

/// city96's conversions. Where the K-quants come in sizes, the one with the most numbers in the named format.
const FORMATS: &[(&str, &str)] = &[
    ("q8_0", "Q8_0"),
    ("q6_k", "Q6_K"),
    ("q5_k", "Q5_K_S"),
    ("q5_1", "Q5_1"),
    ("q5_0", "Q5_0"),
    ("q4_k", "Q4_K_S"),
    ("q4_1", "Q4_1"),
    ("q4_0", "Q4_0"),
    ("q3_k", "Q3_K_S"),
    ("q2_k", "Q2_K"),
];
