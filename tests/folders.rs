//! Models' folders as tests read, edit and damage them, and the files that were published.

use std::path::PathBuf;

use ralu::checkpoint::source::{Folder, Memory, Source};
use ralu::models::config::*;
use ralu::models::cost::Flops;
use ralu::models::flux1::FluxConfig;
use ralu::models::sd3::Sd3Config;

pub fn repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The bundled model. Other weights, even of other widths, may replace it: nothing here knows its numbers.
pub fn bundled() -> Folder {
    Folder::open(repository("models/tiny-flux")).unwrap()
}

/// Configurations and tokenizers of the first tiny-flux, kept so that known answers stay known.
pub fn tiny_flux() -> Folder {
    Folder::open(repository("tests/fixtures/tiny-flux-text")).unwrap()
}

pub fn fixture(name: &str) -> Folder {
    Folder::open(repository("tests/fixtures").join(name).join("model")).unwrap()
}

pub fn flux(config: &ModelConfig) -> &FluxConfig {
    config.transformer_as().expect("FLUX")
}

pub fn sd3(config: &ModelConfig) -> &Sd3Config {
    config.transformer_as().expect("SD3")
}

pub fn clips(config: &ModelConfig) -> Vec<&ClipConfig> {
    config.text_encoders_as().collect()
}

pub fn t5(config: &ModelConfig) -> Option<&T5Config> {
    config.text_encoders_as().next()
}

/// Operations of one evaluation with `img` image tokens and `txt` text tokens.
pub fn step(config: &ModelConfig, img: usize, txt: usize) -> Flops {
    config.transformer.step_flops(img, txt)
}

/// The text files of a model folder, to be damaged in memory.
pub fn text_files(folder: &Folder) -> Memory {
    let mut memory = Memory::new("model");
    for dir in folder.list("").unwrap() {
        for name in folder
            .list(&dir)
            .unwrap()
            .into_iter()
            .map(|file| format!("{dir}/{file}"))
            .chain([dir.clone()])
        {
            let text = [".json", ".txt"].iter().any(|end| name.ends_with(end));
            if let Some(text) = text.then(|| folder.text(&name).unwrap()).flatten() {
                memory.insert(name, text);
            }
        }
    }
    memory
}

/// Replaces one field of a JSON file; `None` removes it.
pub fn edit(memory: &mut Memory, path: &str, field: &str, value: Option<serde_json::Value>) {
    let mut json: serde_json::Value =
        serde_json::from_str(&memory.text(path).unwrap().unwrap()).unwrap();
    match value {
        Some(value) => json[field] = value,
        None => drop(json.as_object_mut().unwrap().remove(field)),
    }
    memory.insert(path, json.to_string());
}

#[track_caller]
pub fn assert_mentions(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
}

/// Small, repeatable pseudo-random numbers.
pub struct Lcg(pub u64);

impl Lcg {
    pub fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 33) as usize) % n
    }
}

/// Overwrites, inserts, removes or cuts off a few bytes.
pub fn damage(bytes: &[u8], random: &mut Lcg) -> Vec<u8> {
    let mut out = bytes.to_vec();
    for _ in 0..=random.below(4) {
        if out.is_empty() {
            break;
        }
        let at = random.below(out.len());
        match random.below(6) {
            0 => out.truncate(at),
            1 => drop(out.remove(at)),
            2 => out.insert(at, random.below(256) as u8),
            3 => out[at] = b"0123456789-.eE[]{}\",:"[random.below(21)],
            _ => out[at] = random.below(256) as u8,
        }
    }
    out
}

/// The FLUX.1-dev repository's files, reduced to what is read.
pub const PUBLISHED_FLUX: &[(&str, &str)] = &[
    (
        "model_index.json",
        r#"{"_class_name": "FluxPipeline", "_diffusers_version": "0.30.0.dev0",
            "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
            "text_encoder": ["transformers", "CLIPTextModel"], "text_encoder_2": ["transformers", "T5EncoderModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"], "tokenizer_2": ["transformers", "T5TokenizerFast"],
            "transformer": ["diffusers", "FluxTransformer2DModel"], "vae": ["diffusers", "AutoencoderKL"]}"#,
    ),
    (
        "transformer/config.json",
        r#"{"_class_name": "FluxTransformer2DModel", "attention_head_dim": 128, "guidance_embeds": true,
            "in_channels": 64, "joint_attention_dim": 4096, "num_attention_heads": 24, "num_layers": 19,
            "num_single_layers": 38, "patch_size": 1, "pooled_projection_dim": 768}"#,
    ),
    (
        "text_encoder/config.json",
        r#"{"architectures": ["CLIPTextModel"], "bos_token_id": 0, "eos_token_id": 2, "hidden_act": "quick_gelu",
            "hidden_size": 768, "intermediate_size": 3072, "layer_norm_eps": 1e-05, "max_position_embeddings": 77,
            "num_attention_heads": 12, "num_hidden_layers": 12, "pad_token_id": 1, "vocab_size": 49408}"#,
    ),
    (
        "text_encoder_2/config.json",
        r#"{"architectures": ["T5EncoderModel"], "d_ff": 10240, "d_kv": 64, "d_model": 4096,
            "dense_act_fn": "gelu_new", "feed_forward_proj": "gated-gelu", "is_gated_act": true,
            "layer_norm_epsilon": 1e-06, "num_heads": 64, "num_layers": 24, "relative_attention_max_distance": 128,
            "relative_attention_num_buckets": 32, "vocab_size": 32128}"#,
    ),
    (
        "vae/config.json",
        r#"{"_class_name": "AutoencoderKL", "act_fn": "silu", "block_out_channels": [128, 256, 512, 512],
            "force_upcast": true, "in_channels": 3, "latent_channels": 16, "latents_mean": null, "latents_std": null,
            "layers_per_block": 2, "mid_block_add_attention": true, "norm_num_groups": 32, "out_channels": 3,
            "sample_size": 1024, "scaling_factor": 0.3611, "shift_factor": 0.1159,
            "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"],
            "use_post_quant_conv": false, "use_quant_conv": false}"#,
    ),
    (
        "scheduler/scheduler_config.json",
        r#"{"_class_name": "FlowMatchEulerDiscreteScheduler", "base_image_seq_len": 256, "base_shift": 0.5,
            "max_image_seq_len": 4096, "max_shift": 1.15, "num_train_timesteps": 1000, "shift": 3.0,
            "use_dynamic_shifting": true}"#,
    ),
    ("tokenizer_2/tokenizer_config.json", r#"{"model_max_length": 512}"#),
];

pub fn flux_1_dev_files() -> Memory {
    PUBLISHED_FLUX
        .iter()
        .fold(Memory::new("FLUX.1-dev"), |files, (path, text)| files.with(*path, text))
}

/// The SD3-medium repository's files, reduced to what is read.
pub const PUBLISHED_SD3: &[(&str, &str)] = &[
    (
        "model_index.json",
        r#"{"_class_name": "StableDiffusion3Pipeline", "_diffusers_version": "0.29.0.dev0",
            "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
            "text_encoder": ["transformers", "CLIPTextModelWithProjection"],
            "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
            "text_encoder_3": ["transformers", "T5EncoderModel"], "tokenizer": ["transformers", "CLIPTokenizer"],
            "tokenizer_2": ["transformers", "CLIPTokenizer"], "tokenizer_3": ["transformers", "T5TokenizerFast"],
            "transformer": ["diffusers", "SD3Transformer2DModel"], "vae": ["diffusers", "AutoencoderKL"]}"#,
    ),
    (
        "transformer/config.json",
        r#"{"_class_name": "SD3Transformer2DModel", "attention_head_dim": 64, "caption_projection_dim": 1536,
            "in_channels": 16, "joint_attention_dim": 4096, "num_attention_heads": 24, "num_layers": 24,
            "out_channels": 16, "patch_size": 2, "pooled_projection_dim": 2048, "pos_embed_max_size": 192,
            "sample_size": 128}"#,
    ),
    (
        "text_encoder/config.json",
        r#"{"architectures": ["CLIPTextModelWithProjection"], "bos_token_id": 0, "eos_token_id": 2,
            "hidden_act": "quick_gelu", "hidden_size": 768, "intermediate_size": 3072, "layer_norm_eps": 1e-05,
            "max_position_embeddings": 77, "num_attention_heads": 12, "num_hidden_layers": 12, "pad_token_id": 1,
            "projection_dim": 768, "vocab_size": 49408}"#,
    ),
    (
        "text_encoder_2/config.json",
        r#"{"architectures": ["CLIPTextModelWithProjection"], "bos_token_id": 0, "eos_token_id": 2,
            "hidden_act": "gelu", "hidden_size": 1280, "intermediate_size": 5120, "layer_norm_eps": 1e-05,
            "max_position_embeddings": 77, "num_attention_heads": 20, "num_hidden_layers": 32, "pad_token_id": 1,
            "projection_dim": 1280, "vocab_size": 49408}"#,
    ),
    (
        "text_encoder_3/config.json",
        r#"{"architectures": ["T5EncoderModel"], "d_ff": 10240, "d_kv": 64, "d_model": 4096,
            "dense_act_fn": "gelu_new", "feed_forward_proj": "gated-gelu", "is_gated_act": true,
            "layer_norm_epsilon": 1e-06, "num_heads": 64, "num_layers": 24, "relative_attention_max_distance": 128,
            "relative_attention_num_buckets": 32, "vocab_size": 32128}"#,
    ),
    (
        "vae/config.json",
        r#"{"_class_name": "AutoencoderKL", "act_fn": "silu", "block_out_channels": [128, 256, 512, 512],
            "force_upcast": true, "in_channels": 3, "latent_channels": 16, "latents_mean": null, "latents_std": null,
            "layers_per_block": 2, "mid_block_add_attention": true, "norm_num_groups": 32, "out_channels": 3,
            "sample_size": 1024, "scaling_factor": 1.5305, "shift_factor": 0.0609,
            "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"],
            "use_post_quant_conv": false, "use_quant_conv": false}"#,
    ),
    (
        "scheduler/scheduler_config.json",
        r#"{"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0}"#,
    ),
    ("tokenizer_3/tokenizer_config.json", r#"{"model_max_length": 512}"#),
];

pub fn sd3_medium_files() -> Memory {
    PUBLISHED_SD3.iter().fold(Memory::new("SD3"), |files, (path, text)| files.with(*path, text))
}

/// A safetensors file of that header.
pub fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}
