//! The configurations of published models, so that a run can be planned without having the model.
//!
//! They equal what `ModelConfig::load` reads from the published folders.

use super::config::{
    ClipAct, ClipConfig, Family, FluxConfig, GenerationConfig, ModelConfig, ModelIndex,
    SchedulerConfig, T5Config, TimeShiftType, TransformerConfig, VaeConfig,
};
use super::cost::Parameters;

/// The names [`get`] knows.
pub const NAMES: [&str; 2] = ["flux.1-dev", "flux.1-schnell"];

/// The configuration of a published model by name: upper case and a `black-forest-labs/` in front do not matter.
///
/// FLUX.1-dev: <https://huggingface.co/black-forest-labs/FLUX.1-dev>,
/// FLUX.1-schnell: <https://huggingface.co/black-forest-labs/FLUX.1-schnell>.
pub fn get(name: &str) -> Option<ModelConfig> {
    let name = name.to_ascii_lowercase();
    match name.strip_prefix("black-forest-labs/").unwrap_or(&name) {
        "flux.1-dev" => Some(flux_1(true)),
        "flux.1-schnell" => Some(flux_1(false)),
        _ => None,
    }
}

/// Bytes of a model's weights, part by part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeightBytes {
    /// The denoiser.
    pub transformer: u64,
    /// The CLIP text encoder.
    pub clip: u64,
    /// The T5 encoder.
    pub t5: u64,
    /// The decoder alone.
    pub vae_decoder: u64,
}

/// What a model's weights weigh in a storage type of `bytes_per_weight` (2 for the published bf16).
pub fn weight_bytes(config: &ModelConfig, bytes_per_weight: u64) -> WeightBytes {
    let n = Parameters::of(config);
    WeightBytes {
        transformer: n.transformer * bytes_per_weight,
        clip: n.clip * bytes_per_weight,
        t5: n.t5 * bytes_per_weight,
        vae_decoder: n.vae_decoder * bytes_per_weight,
    }
}

fn flux_1(dev: bool) -> ModelConfig {
    let part = |name: &str, library: &str, class: &str| {
        (name.to_string(), library.to_string(), class.to_string())
    };
    ModelConfig {
        index: ModelIndex {
            class: "FluxPipeline".into(),
            family: Family::Flux,
            parts: vec![
                part("scheduler", "diffusers", "FlowMatchEulerDiscreteScheduler"),
                part("text_encoder", "transformers", "CLIPTextModel"),
                part("text_encoder_2", "transformers", "T5EncoderModel"),
                part("tokenizer", "transformers", "CLIPTokenizer"),
                part("tokenizer_2", "transformers", "T5TokenizerFast"),
                part("transformer", "diffusers", "FluxTransformer2DModel"),
                part("vae", "diffusers", "AutoencoderKL"),
            ],
        },
        transformer: TransformerConfig::Flux(FluxConfig {
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
        clip: ClipConfig {
            vocab_size: 49408,
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            max_position_embeddings: 77,
            hidden_act: ClipAct::QuickGelu,
            layer_norm_eps: 1e-5,
            eos_token_id: 2,
        },
        t5: T5Config {
            vocab_size: 32128,
            d_model: 4096,
            d_kv: 64,
            d_ff: 10240,
            num_heads: 64,
            num_layers: 24,
            relative_attention_num_buckets: 32,
            relative_attention_max_distance: 128,
            layer_norm_epsilon: 1e-6,
        },
        vae: VaeConfig {
            block_out_channels: vec![128, 256, 512, 512],
            layers_per_block: 2,
            latent_channels: 16,
            out_channels: 3,
            norm_num_groups: 32,
            scaling_factor: 0.3611,
            shift_factor: 0.1159,
            use_post_quant_conv: false,
            mid_block_add_attention: true,
        },
        scheduler: SchedulerConfig {
            num_train_timesteps: 1000,
            shift: if dev { 3.0 } else { 1.0 },
            use_dynamic_shifting: dev,
            base_shift: 0.5,
            max_shift: 1.15,
            base_image_seq_len: 256,
            max_image_seq_len: 4096,
            shift_terminal: None,
            time_shift_type: TimeShiftType::Exponential,
        },
        generation: GenerationConfig::default(),
        t5_max_length: Some(if dev { 512 } else { 256 }),
    }
}
