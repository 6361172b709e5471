//! The configurations of published models, so that a run can be planned without having the model.
//!
//! Each family lists its own ([`Family::known_models`]); here is what finds them, and the parts that several share.

use std::sync::Arc;

use super::config::{
    ClipAct, ClipConfig, ModelConfig, SchedulerConfig, T5Config, TextEncoderPart, TimeShiftType,
    VaeConfig,
};
use super::cost::Parameters;
use super::encoders::TextEncoderConfig;
use super::family::{FAMILIES, Family, KnownModel};

/// All published models that are known.
pub fn known() -> impl Iterator<Item = &'static KnownModel> {
    FAMILIES.iter().flat_map(|family| family.known_models())
}

/// The names [`get`] knows.
pub fn names() -> Vec<&'static str> {
    known().map(|model| model.name).collect()
}

/// The configuration of a published model by name: one of [`names`], or that of its repository on the Hugging Face hub.
/// Case does not matter.
pub fn get(name: &str) -> Option<ModelConfig> {
    find(name).map(|model| (model.config)())
}

/// A published model by the names that [`get`] knows.
pub fn find(name: &str) -> Option<&'static KnownModel> {
    known().find(|model| {
        let mut names = model.repositories.iter().chain([&model.name]);
        names.any(|known| known.eq_ignore_ascii_case(name))
    })
}

/// Bytes of a model's weights, part by part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightBytes {
    /// The denoiser.
    pub transformer: u64,
    /// The text encoders, in order.
    pub text_encoders: Vec<u64>,
    /// The decoder alone.
    pub vae_decoder: u64,
}

/// What a model's weights weigh in a storage type of `bytes_per_weight` (2 for the published bf16).
pub fn weight_bytes(config: &ModelConfig, bytes_per_weight: u64) -> WeightBytes {
    let n = Parameters::of(config);
    WeightBytes {
        transformer: n.transformer * bytes_per_weight,
        text_encoders: n.text_encoders.iter().map(|n| n * bytes_per_weight).collect(),
        vae_decoder: n.vae_decoder * bytes_per_weight,
    }
}

/// The text encoders of a family, with the lengths that their tokenizers say.
pub(super) fn encoders(
    family: &dyn Family,
    configs: Vec<(Option<usize>, Arc<dyn TextEncoderConfig>)>,
) -> Vec<TextEncoderPart> {
    let slots = family.text_encoders().iter().zip(configs);
    slots
        .map(|(slot, (max_length, config))| TextEncoderPart::new(slot, max_length, config))
        .collect()
}

pub(super) fn part(name: &str, library: &str, class: &str) -> (String, String, String) {
    (name.to_string(), library.to_string(), class.to_string())
}

pub(super) fn clip_l() -> ClipConfig {
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

pub(super) fn clip_g() -> ClipConfig {
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

pub(super) fn t5_xxl() -> T5Config {
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

pub(super) fn vae(scaling_factor: f64, shift_factor: f64) -> VaeConfig {
    VaeConfig {
        block_out_channels: vec![128, 256, 512, 512],
        layers_per_block: 2,
        latent_channels: 16,
        out_channels: 3,
        norm_num_groups: 32,
        scaling_factor,
        shift_factor,
        batch_norm_eps: None,
        use_post_quant_conv: false,
        mid_block_add_attention: true,
    }
}

pub(super) fn scheduler(shift: f64, use_dynamic_shifting: bool) -> SchedulerConfig {
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
