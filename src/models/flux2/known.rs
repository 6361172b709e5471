//! The configurations of published FLUX.2 \[klein\] models.

use std::sync::Arc;

use super::config::Flux2Config;
use super::{Flux2, TAKEN};
use crate::models::builtin::{encoders, part, scheduler, vae};
use crate::models::config::{GenerationConfig, ModelConfig, ModelIndex, Qwen3Config, VaeConfig};
use crate::models::encoders::qwen3::Qwen3Encoder;
use crate::models::family::KnownModel;

/// FLUX.2-klein-4B: <https://huggingface.co/black-forest-labs/FLUX.2-klein-4B>, and its neighbours.
pub(super) static MODELS: &[KnownModel] = &[
    KnownModel {
        name: "flux.2-klein-4b",
        repositories: &["black-forest-labs/FLUX.2-klein-4B"],
        licence: "apache-2.0",
        quantised: None,
        config: || klein_4b(true),
    },
    KnownModel {
        name: "flux.2-klein-base-4b",
        repositories: &["black-forest-labs/FLUX.2-klein-base-4B"],
        licence: "apache-2.0",
        quantised: None,
        config: || klein_4b(false),
    },
    KnownModel {
        name: "flux.2-klein-9b",
        repositories: &["black-forest-labs/FLUX.2-klein-9B"],
        licence: "flux-non-commercial-license",
        quantised: None,
        config: || klein_9b(true),
    },
    KnownModel {
        name: "flux.2-klein-base-9b",
        repositories: &["black-forest-labs/FLUX.2-klein-base-9B"],
        licence: "flux-non-commercial-license",
        quantised: None,
        config: || klein_9b(false),
    },
];

fn klein_4b(distilled: bool) -> ModelConfig {
    klein(distilled, [5, 20], 24, Qwen3Config::QWEN3_4B)
}

fn klein_9b(distilled: bool) -> ModelConfig {
    klein(distilled, [8, 24], 32, Qwen3Config::QWEN3_8B)
}

/// With that many double and single blocks, and that many heads.
fn klein(
    distilled: bool,
    [num_layers, num_single_layers]: [usize; 2],
    num_attention_heads: usize,
    qwen3: Qwen3Config,
) -> ModelConfig {
    ModelConfig {
        index: ModelIndex {
            class: "Flux2KleinPipeline".into(),
            family: &Flux2,
            parts: vec![
                part("scheduler", "diffusers", "FlowMatchEulerDiscreteScheduler"),
                part("text_encoder", "transformers", "Qwen3ForCausalLM"),
                part("tokenizer", "transformers", "Qwen2Tokenizer"),
                part("transformer", "diffusers", "Flux2Transformer2DModel"),
                part("vae", "diffusers", "AutoencoderKLFlux2"),
            ],
            is_distilled: Some(distilled),
            name_or_path: None,
        },
        transformer: Arc::new(Flux2Config {
            in_channels: 128,
            out_channels: 128,
            num_layers,
            num_single_layers,
            attention_head_dim: 128,
            num_attention_heads,
            joint_attention_dim: TAKEN.len() * qwen3.hidden_size,
            mlp: 3 * 128 * num_attention_heads,
            axes_dims_rope: vec![32; 4],
            rope_theta: 2000.0,
        }),
        text_encoders: encoders(
            &Flux2,
            vec![(Some(131_072), Arc::new(Qwen3Encoder { config: qwen3, taken: TAKEN.to_vec() }))],
        ),
        vae: VaeConfig {
            latent_channels: 32,
            batch_norm_eps: Some(1e-4),
            use_post_quant_conv: true,
            ..vae(1.0, 0.0)
        },
        scheduler: scheduler(3.0, true),
        generation: GenerationConfig::default(),
        distilled,
    }
}
