//! The configurations of published models, so that a run can be planned without having the model.
//!
//! They equal what `ModelConfig::load` reads from the published folders.

use super::config::{
    ClipAct, ClipConfig, Family, FluxConfig, GenerationConfig, ModelConfig, ModelIndex,
    SchedulerConfig, Sd3Config, T5Config, TimeShiftType, TransformerConfig, VaeConfig,
};
use super::cost::Parameters;

/// The names [`get`] knows.
pub const NAMES: [&str; 6] = [
    "flux.1-dev",
    "flux.1-schnell",
    "sd3-medium",
    "sd3.5-medium",
    "sd3.5-large",
    "sd3.5-large-turbo",
];

/// The configuration of a published model by name: one of [`NAMES`], or that of its repository on the Hugging Face hub.
/// Case does not matter.
///
/// FLUX.1-dev: <https://huggingface.co/black-forest-labs/FLUX.1-dev>,
/// FLUX.1-schnell: <https://huggingface.co/black-forest-labs/FLUX.1-schnell>,
/// SD3: <https://huggingface.co/stabilityai/stable-diffusion-3-medium-diffusers>,
/// SD3.5: <https://huggingface.co/stabilityai/stable-diffusion-3.5-large> and its neighbours.
pub fn get(name: &str) -> Option<ModelConfig> {
    match name.to_ascii_lowercase().as_str() {
        "flux.1-dev" | "black-forest-labs/flux.1-dev" => Some(flux_1(true)),
        "flux.1-schnell" | "black-forest-labs/flux.1-schnell" => Some(flux_1(false)),
        "sd3-medium"
        | "stabilityai/stable-diffusion-3-medium"
        | "stabilityai/stable-diffusion-3-medium-diffusers" => Some(sd3(Sd3Size::Medium3)),
        "sd3.5-medium" | "stabilityai/stable-diffusion-3.5-medium" => Some(sd3(Sd3Size::Medium35)),
        "sd3.5-large" | "stabilityai/stable-diffusion-3.5-large" => Some(sd3(Sd3Size::Large35)),
        "sd3.5-large-turbo" | "stabilityai/stable-diffusion-3.5-large-turbo" => {
            Some(ModelConfig { distilled: true, ..sd3(Sd3Size::Large35) })
        }
        _ => None,
    }
}

/// Bytes of a model's weights, part by part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeightBytes {
    /// The denoiser.
    pub transformer: u64,
    /// The CLIP text encoders.
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

fn part(name: &str, library: &str, class: &str) -> (String, String, String) {
    (name.to_string(), library.to_string(), class.to_string())
}

fn flux_1(dev: bool) -> ModelConfig {
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
            name_or_path: None,
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
        clips: vec![ClipConfig { projection_dim: None, ..clip_l() }],
        t5: Some(t5_xxl()),
        vae: vae(0.3611, 0.1159),
        scheduler: scheduler(if dev { 3.0 } else { 1.0 }, dev),
        generation: GenerationConfig::default(),
        clip_max_length: 77,
        t5_max_length: Some(if dev { 512 } else { 256 }),
        distilled: !dev,
    }
}

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
            family: Family::Sd3,
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
            name_or_path: None,
        },
        transformer: TransformerConfig::Sd3(Sd3Config {
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
        clips: vec![clip_l(), clip_g()],
        t5: Some(t5_xxl()),
        vae: vae(1.5305, 0.0609),
        scheduler: scheduler(3.0, false),
        generation: GenerationConfig::default(),
        clip_max_length: 77,
        t5_max_length: Some(512),
        distilled: false,
    }
}

fn clip_l() -> ClipConfig {
    ClipConfig {
        vocab_size: 49408,
        hidden_size: 768,
        intermediate_size: 3072,
        num_hidden_layers: 12,
        num_attention_heads: 12,
        max_position_embeddings: 77,
        hidden_act: ClipAct::QuickGelu,
        layer_norm_eps: 1e-5,
        eos_token_id: 2,
        projection_dim: Some(768),
    }
}

fn clip_g() -> ClipConfig {
    ClipConfig {
        hidden_size: 1280,
        intermediate_size: 5120,
        num_hidden_layers: 32,
        num_attention_heads: 20,
        hidden_act: ClipAct::Gelu,
        projection_dim: Some(1280),
        ..clip_l()
    }
}

fn t5_xxl() -> T5Config {
    T5Config {
        vocab_size: 32128,
        d_model: 4096,
        d_kv: 64,
        d_ff: 10240,
        num_heads: 64,
        num_layers: 24,
        relative_attention_num_buckets: 32,
        relative_attention_max_distance: 128,
        layer_norm_epsilon: 1e-6,
    }
}

fn vae(scaling_factor: f64, shift_factor: f64) -> VaeConfig {
    VaeConfig {
        block_out_channels: vec![128, 256, 512, 512],
        layers_per_block: 2,
        latent_channels: 16,
        out_channels: 3,
        norm_num_groups: 32,
        scaling_factor,
        shift_factor,
        use_post_quant_conv: false,
        mid_block_add_attention: true,
    }
}

fn scheduler(shift: f64, use_dynamic_shifting: bool) -> SchedulerConfig {
    SchedulerConfig {
        num_train_timesteps: 1000,
        shift,
        use_dynamic_shifting,
        base_shift: 0.5,
        max_shift: 1.15,
        base_image_seq_len: 256,
        max_image_seq_len: 4096,
        shift_terminal: None,
        time_shift_type: TimeShiftType::Exponential,
        use_flow_sigmas: false,
    }
}
