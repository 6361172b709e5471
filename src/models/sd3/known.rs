//! The configurations of published Stable Diffusion 3 models.
//!
//! They equal what `ModelConfig::load` reads from the published folders.

use std::sync::Arc;

use super::config::Sd3Config;
use crate::models::builtin::{clip_g, clip_l, encoders, part, scheduler, t5_xxl, vae};
use crate::models::config::{GenerationConfig, ModelConfig, ModelIndex};
use crate::models::family::{KnownModel, QuantisedFiles};

/// SD3: <https://huggingface.co/stabilityai/stable-diffusion-3-medium-diffusers>,
/// SD3.5: <https://huggingface.co/stabilityai/stable-diffusion-3.5-large> and its neighbours.
pub(super) static MODELS: &[KnownModel] = &[
    KnownModel {
        name: "sd3-medium",
        repositories: &[
            "stabilityai/stable-diffusion-3-medium-diffusers",
            "stabilityai/stable-diffusion-3-medium",
        ],
        licence: "stabilityai-ai-community",
        quantised: None,
        config: || sd3(Sd3Size::Medium3),
    },
    KnownModel {
        name: "sd3.5-medium",
        repositories: &["stabilityai/stable-diffusion-3.5-medium"],
        licence: "stabilityai-ai-community",
        quantised: None,
        config: || sd3(Sd3Size::Medium35),
    },
    KnownModel {
        name: "sd3.5-large",
        repositories: &["stabilityai/stable-diffusion-3.5-large"],
        licence: "stabilityai-ai-community",
        quantised: Some(QuantisedFiles {
            repository: "city96/stable-diffusion-3.5-large-gguf",
            file: "sd3.5_large-{}.gguf",
            formats: FORMATS,
        }),
        config: || sd3(Sd3Size::Large35),
    },
    KnownModel {
        name: "sd3.5-large-turbo",
        repositories: &["stabilityai/stable-diffusion-3.5-large-turbo"],
        licence: "stabilityai-ai-community",
        quantised: None,
        config: || ModelConfig { distilled: true, ..sd3(Sd3Size::Large35) },
    },
];

/// The sizes of Stable Diffusion 3.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sd3Size {
    /// SD3-medium.
    Medium3,
    /// SD3.5-medium.
    Medium35,
    /// SD3.5-large and SD3.5-large-turbo.
    Large35,
}

fn sd3(size: Sd3Size) -> ModelConfig {
    let depth = if size == Sd3Size::Large35 { 38 } else { 24 };
    ModelConfig {
        index: ModelIndex {
            class: "StableDiffusion3Pipeline".into(),
            family: &super::Sd3,
            parts: vec![
                part("scheduler", "diffusers", "FlowMatchEulerDiscreteScheduler"),
                part("text_encoder", "transformers", "CLIPTextModelWithProjection"),
                part("text_encoder_2", "transformers", "CLIPTextModelWithProjection"),
                part("text_encoder_3", "transformers", "T5EncoderModel"),
                part("tokenizer", "transformers", "CLIPTokenizer"),
                part("tokenizer_2", "transformers", "CLIPTokenizer"),
                part("tokenizer_3", "transformers", "T5TokenizerFast"),
                part("transformer", "diffusers", "SD3Transformer2DModel"),
                part("vae", "diffusers", "AutoencoderKL"),
            ],
            is_distilled: None,
            name_or_path: None,
        },
        transformer: Arc::new(Sd3Config {
            in_channels: 16,
            out_channels: 16,
            num_layers: depth,
            attention_head_dim: 64,
            num_attention_heads: depth,
            joint_attention_dim: 4096,
            pooled_projection_dim: 2048,
            pos_embed_max_size: if size == Sd3Size::Medium35 { 384 } else { 192 },
            sample_size: 128,
            qk_norm: size != Sd3Size::Medium3,
            dual_attention_layers: match size {
                Sd3Size::Medium35 => (0..=12).collect(),
                Sd3Size::Medium3 | Sd3Size::Large35 => vec![],
            },
        }),
        text_encoders: encoders(
            &super::Sd3,
            vec![
                (Some(77), Arc::new(clip_l())),
                (Some(77), Arc::new(clip_g())),
                (Some(512), Arc::new(t5_xxl())),
            ],
        ),
        vae: vae(1.5305, 0.0609),
        scheduler: scheduler(3.0, false),
        generation: GenerationConfig::default(),
        distilled: false,
    }
}

/// city96's conversions; rows of this model are no multiple of the K-quants' blocks.
const FORMATS: &[(&str, &str)] =
    &[("q8_0", "Q8_0"), ("q5_1", "Q5_1"), ("q5_0", "Q5_0"), ("q4_1", "Q4_1"), ("q4_0", "Q4_0")];
