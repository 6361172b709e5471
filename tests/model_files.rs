//! Model folders on disk and in memory: sources, configurations, weights, costs and tokenizers.
//!
//! None of this needs a GPU. Expected token ids come from transformers 5.23, numbers of parameters from diffusers 0.42,
//! FLOPs from the RALU paper's tables.
#![cfg(not(target_arch = "wasm32"))]

use std::path::PathBuf;

use ralu::checkpoint::source::{Folder, Memory, Source, SourceError};
use ralu::checkpoint::weights::*;
use ralu::models::builtin;
use ralu::models::config::*;
use ralu::models::cost::{self, Flops, Parameters};
use ralu::models::encoders::TextEncoderConfig;
use ralu::models::flux1::FluxConfig;
use ralu::models::layers::{LoadContext, Loader, Precision};
use ralu::models::position_table::Interpolation;
use ralu::models::sd3::Sd3Config;
use ralu::pipeline::check_model;
use ralu::sampling::layout::table_positions;
use ralu::sampling::{Grid, TokenLayout};
use ralu::tensor::ResidentIds;
use ralu::text::*;

fn repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The bundled model. Other weights, even of other widths, may replace it: nothing here knows its numbers.
fn bundled() -> Folder {
    Folder::open(repository("models/tiny-flux")).unwrap()
}

/// Configurations and tokenizers of the first tiny-flux, kept so that known answers stay known.
fn tiny_flux() -> Folder {
    Folder::open(repository("tests/fixtures/tiny-flux-text")).unwrap()
}

fn fixture(name: &str) -> Folder {
    Folder::open(repository("tests/fixtures").join(name).join("model")).unwrap()
}

fn flux(config: &ModelConfig) -> &FluxConfig {
    config.transformer_as().expect("FLUX")
}

fn sd3(config: &ModelConfig) -> &Sd3Config {
    config.transformer_as().expect("SD3")
}

fn clips(config: &ModelConfig) -> Vec<&ClipConfig> {
    config.text_encoders_as().collect()
}

fn t5(config: &ModelConfig) -> Option<&T5Config> {
    config.text_encoders_as().next()
}

/// Operations of one evaluation with `img` image tokens and `txt` text tokens.
fn step(config: &ModelConfig, img: usize, txt: usize) -> Flops {
    config.transformer.step_flops(img, txt)
}

/// The text files of a model folder, to be damaged in memory.
fn text_files(folder: &Folder) -> Memory {
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
fn edit(memory: &mut Memory, path: &str, field: &str, value: Option<serde_json::Value>) {
    let mut json: serde_json::Value =
        serde_json::from_str(&memory.text(path).unwrap().unwrap()).unwrap();
    match value {
        Some(value) => json[field] = value,
        None => drop(json.as_object_mut().unwrap().remove(field)),
    }
    memory.insert(path, json.to_string());
}

#[track_caller]
fn assert_mentions(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
}

/// Small, repeatable pseudo-random numbers.
struct Lcg(u64);

impl Lcg {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 33) as usize) % n
    }
}

/// Overwrites, inserts, removes or cuts off a few bytes.
fn damage(bytes: &[u8], random: &mut Lcg) -> Vec<u8> {
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

// ---------------------------------------------------------------------------------------------------------------------
// Sources

#[test]
fn folder_says_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let message = Folder::open(dir.path().join("nowhere")).unwrap_err().to_string();
    assert_mentions(&message, &["nowhere", "no such folder", "model_index.json"]);

    std::fs::write(dir.path().join("file"), "x").unwrap();
    assert!(matches!(Folder::open(dir.path().join("file")), Err(SourceError::NotAFolder { .. })));

    std::fs::create_dir(dir.path().join("sub")).unwrap();
    std::fs::write(dir.path().join("sub/empty"), "").unwrap();
    std::fs::write(dir.path().join("sub/latin1"), [b'a', 0xe9]).unwrap();
    let folder = Folder::open(dir.path()).unwrap();
    assert!(matches!(folder.blob("none").err(), Some(SourceError::MissingFile { .. })));
    assert!(matches!(folder.blob("file/none").err(), Some(SourceError::MissingFile { .. })));
    assert!(matches!(folder.blob("sub").err(), Some(SourceError::NotAFile { .. })));
    assert!(matches!(folder.blob("sub/empty").err(), Some(SourceError::Empty { .. })));
    assert!(matches!(folder.text("sub/latin1"), Err(SourceError::NotText { offset: 1, .. })));
    assert_eq!(folder.text("none").unwrap(), None);
    assert_eq!(folder.list("sub").unwrap(), ["empty", "latin1"]);
    assert_eq!(folder.list("").unwrap(), ["file", "sub"]);
    assert!(folder.list("none").unwrap().is_empty());
    assert!(folder.exists("file") && !folder.exists("sub"));
    for path in ["../x", "/etc/passwd", "a/../../x", "a\\b", "C:x", "a\0b"] {
        assert!(matches!(folder.text(path), Err(SourceError::BadPath { .. })), "{path:?}");
        assert!(!folder.exists(path));
    }
}

#[test]
fn blobs_read_ranges() {
    let dir = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> = (0..40_000u32).map(|i| (i % 251) as u8).collect();
    std::fs::write(dir.path().join("f"), &bytes).unwrap();
    let folder = Folder::open(dir.path()).unwrap();
    let memory = Memory::new("m").with("f", &bytes);
    for source in [&folder as &dyn Source, &memory] {
        let blob = source.blob("f").unwrap();
        assert_eq!(blob.len(), 40_000);
        assert!(!blob.is_empty());
        assert_eq!(*blob.bytes(5_000..17_000).unwrap(), bytes[5_000..17_000]);
        assert_eq!(*blob.bytes(0..40_000).unwrap(), bytes[..]);
        assert!(blob.bytes(7..7).unwrap().is_empty());
        let backwards = std::ops::Range { start: 2, end: 1 };
        for range in [0..40_001, u64::MAX - 1..u64::MAX, backwards] {
            assert!(matches!(blob.bytes(range), Err(SourceError::OutOfRange { len: 40_000, .. })));
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Configurations

#[test]
fn tiny_flux_config() {
    let config = ModelConfig::load(&tiny_flux()).unwrap();
    assert_eq!(config.family().name(), "flux");
    assert_eq!(config.index.part("vae"), Some("AutoencoderKL"));
    let flux = flux(&config);
    assert_eq!((flux.hidden(), flux.num_layers, flux.num_single_layers), (320, 2, 6));
    assert_eq!((flux.in_channels, flux.out_channels), (64, 64));
    assert_eq!(flux.axes_dims_rope, [8, 28, 28]);
    assert!(flux.guidance_embeds && !config.distilled);
    let [clip] = clips(&config)[..] else { panic!("one CLIP") };
    assert_eq!((clip.hidden_size, clip.eos_token_id), (256, 1506));
    assert_eq!((clip.hidden_act, clip.projection_dim), (ClipAct::QuickGelu, None));
    let t5 = t5(&config).unwrap();
    assert_eq!((t5.d_ff, t5.inner()), (640, 256));
    assert_eq!((config.fixed_text_length(), config.text_tokens(24)), (77, 24));
    assert_eq!(config.vae.scale(), 8);
    assert_eq!((config.vae.scaling_factor, config.vae.shift_factor), (0.5835, -0.0191));
    assert_eq!((config.scheduler.shift, config.scheduler.max_image_seq_len), (3.0, 1024));
    let defaults = config.defaults();
    assert_eq!((defaults.width, defaults.height, defaults.steps), (256, 256, 28));
    assert_eq!((defaults.guidance, defaults.true_cfg), (Some(3.5), 3.0));
    assert_eq!(defaults.negative_prompt.as_deref(), Some(""));
    assert_eq!(defaults.max_sequence_length, 24);

    // Without its generation_config.json: the family's habits, and the tokenizer's limit.
    let mut memory = text_files(&tiny_flux());
    assert!(memory.remove("generation_config.json"));
    let defaults = ModelConfig::load(&memory).unwrap().defaults();
    assert_eq!((defaults.width, defaults.steps, defaults.true_cfg), (1024, 28, 1.0));
    assert_eq!((defaults.negative_prompt, defaults.max_sequence_length), (None, 24));
    let path = "tokenizer_2/tokenizer_config.json";
    for (limit, expected) in
        [("1000000000000000019884624838656", 512), ("1e30", 512), ("300", 300), ("4096", 512)]
    {
        memory.insert(path, format!("{{\"model_max_length\": {limit}}}"));
        assert_eq!(
            ModelConfig::load(&memory).unwrap().defaults().max_sequence_length,
            expected,
            "{limit}"
        );
    }
    memory.insert(path, "{\"model_max_length\": 0}");
    assert_mentions(
        &ModelConfig::load(&memory).unwrap_err().to_string(),
        &[path, "model_max_length"],
    );
}

#[test]
fn fixture_configs() {
    let a = ModelConfig::load(&fixture("flux-a")).unwrap();
    let b = ModelConfig::load(&fixture("flux-b")).unwrap();
    assert_eq!((flux(&a).num_attention_heads, flux(&b).num_attention_heads), (4, 2));
    assert_eq!(a.defaults().guidance, Some(3.5));
    assert_eq!(b.defaults().guidance, None);
    // No guidance input, but dynamic shifting: not the schnell kind.
    assert!(!b.distilled);
    assert_eq!((b.defaults().steps, b.defaults().max_sequence_length), (28, 512));
}

#[test]
fn sd3_fixture_configs() {
    let config = ModelConfig::load(&fixture("sd3-a")).unwrap();
    assert_eq!(
        (config.family().name(), config.index.class.as_str()),
        ("sd3", "StableDiffusion3Pipeline")
    );
    assert_eq!(config.index.part("text_encoder_3"), Some("T5EncoderModel"));
    assert_eq!(
        (config.index.part("image_encoder"), config.index.name_or_path.as_deref()),
        (None, None)
    );
    let expected = Sd3Config {
        in_channels: 16,
        out_channels: 16,
        num_layers: 3,
        attention_head_dim: 16,
        num_attention_heads: 4,
        joint_attention_dim: 96,
        pooled_projection_dim: 72,
        pos_embed_max_size: 48,
        sample_size: 32,
        qk_norm: false,
        dual_attention_layers: vec![],
    };
    assert_eq!(*sd3(&config), expected);
    let network = &config.transformer;
    assert_eq!((network.hidden(), network.head_dim(), network.token_channels()), (64, 16, 64));
    assert_eq!((network.text_dim(), network.pooled_dim()), (96, Some(72)));
    assert!(!network.has_guidance_input());
    let [l, g] = clips(&config)[..] else { panic!("two CLIPs") };
    assert_eq!((l.hidden_size, l.num_attention_heads, l.hidden_act), (32, 4, ClipAct::QuickGelu));
    assert_eq!((g.hidden_size, g.num_attention_heads, g.hidden_act), (40, 5, ClipAct::Gelu));
    assert_eq!((l.projection_dim, g.projection_dim), (Some(32), Some(40)));
    assert_eq!((l.eos_token_id, l.vocab_size, l.intermediate_size), (602, 603, 96));
    let t5 = t5(&config).unwrap();
    assert_eq!((t5.d_model, t5.inner(), t5.num_layers), (96, 48, 2));
    assert_eq!((config.vae.scaling_factor, config.vae.shift_factor), (1.5305, 0.0609));
    assert_eq!((config.scheduler.shift, config.scheduler.use_dynamic_shifting), (3.0, false));
    assert_eq!((config.fixed_text_length(), config.text_tokens(64)), (77, 141));
    assert_eq!((config.text_encoders[2].max_length, config.distilled), (Some(512), false));
    let defaults = Defaults {
        width: 256,
        height: 256,
        steps: 28,
        guidance: None,
        true_cfg: 7.0,
        negative_prompt: None,
        max_sequence_length: 256,
    };
    assert_eq!(config.defaults(), defaults);

    let config = ModelConfig::load(&fixture("sd35m-b")).unwrap();
    assert_eq!(
        *sd3(&config),
        Sd3Config { qk_norm: true, dual_attention_layers: vec![0, 1], ..expected }
    );
}

/// As in diffusers, `[null, null]` or no entry at all: zeros take T5's place.
#[test]
fn sd3_may_come_without_t5() {
    let whole = text_files(&fixture("sd3-a"));
    let mut files = whole.clone();
    for name in [
        "text_encoder_3/config.json",
        "tokenizer_3/tokenizer_config.json",
        "tokenizer_3/tokenizer.json",
    ] {
        assert!(files.remove(name), "{name}");
    }
    // Announced but not there is a mistake.
    let message = ModelConfig::load(&files).unwrap_err().to_string();
    assert_mentions(&message, &["text_encoder_3/config.json", "no such file"]);
    for absent in [Some(serde_json::json!([null, null])), None] {
        edit(&mut files, "model_index.json", "text_encoder_3", absent.clone());
        edit(&mut files, "model_index.json", "tokenizer_3", absent);
        let config = ModelConfig::load(&files).unwrap();
        assert_eq!((t5(&config), config.text_encoders.len()), (None, 2));
        assert_eq!((config.text_tokens(64), config.defaults().max_sequence_length), (141, 256));
        assert_eq!(Parameters::of(&config).text_encoders.len(), 2);
        let clips = clips(&config).iter().map(|clip| clip.flops(77)).sum::<Flops>();
        assert_eq!(cost::text_encoders(&config, 64), clips);
        assert_eq!(builtin::weight_bytes(&config, 2).text_encoders.len(), 2);
    }
    // Nobody's width to agree with but that of the CLIPs.
    edit(&mut files, "transformer/config.json", "joint_attention_dim", Some(72.into()));
    assert_eq!(ModelConfig::load(&files).unwrap().transformer.text_dim(), 72);
    edit(&mut files, "transformer/config.json", "joint_attention_dim", Some(71.into()));
    let message = ModelConfig::load(&files).unwrap_err().to_string();
    assert_mentions(
        &message,
        &["\"joint_attention_dim\" is 71", "text_encoder_2/config.json", "at least 72"],
    );
    edit(&mut files, "transformer/config.json", "joint_attention_dim", Some(96.into()));
    // The first two are not optional.
    for part in ["text_encoder", "text_encoder_2"] {
        let mut files = whole.clone();
        edit(&mut files, "model_index.json", part, None);
        let message = ModelConfig::load(&files).unwrap_err().to_string();
        assert_mentions(&message, &["model_index.json", part, "CLIPTextModelWithProjection"]);
    }
}

/// A few steps without guidance: which models ask for that is told by several files.
#[test]
fn distilled_models_are_recognised() {
    let load = |name: &str, steps: Option<u32>, name_or_path: Option<&str>| {
        let mut files = Memory::new(name);
        let whole = text_files(&fixture("sd3-a"));
        for dir in whole.list("").unwrap() {
            for file in whole.list(&dir).unwrap() {
                let path = format!("{dir}/{file}");
                files.insert(&path, whole.text(&path).unwrap().unwrap());
            }
        }
        files.insert("model_index.json", whole.text("model_index.json").unwrap().unwrap());
        if let Some(name) = name_or_path {
            edit(&mut files, "model_index.json", "_name_or_path", Some(name.into()));
        }
        if let Some(steps) = steps {
            let json = serde_json::json!({"num_inference_steps": steps});
            files.insert("generation_config.json", json.to_string());
        }
        ModelConfig::load(&files).unwrap()
    };
    let turbo = "stabilityai/stable-diffusion-3.5-large-turbo";
    let cache = "hub/models--stabilityai--stable-diffusion-3.5-large-turbo/snapshots/ab12cd";
    for (name, steps, name_or_path, expected) in [
        ("models/sd3.5-large", None, None, false),
        ("models/sd3.5-large-turbo", None, None, true),
        ("models/sd3.5-large-turbo/", None, None, true),
        ("models\\SD3.5-Large-Turbo", None, None, true),
        ("turbo", None, None, true),
        (cache, None, None, true),
        ("hub/models--stabilityai--stable-diffusion-3.5-large/snapshots/ab12cd", None, None, false),
        // Somebody's folder of models says nothing about one of them.
        ("turbo/sd3.5-large", None, None, false),
        ("", None, None, false),
        ("model", None, Some(turbo), true),
        ("model", None, Some("stabilityai/stable-diffusion-3.5-large"), false),
        ("model", Some(4), None, true),
        ("model", Some(8), None, true),
        ("model", Some(9), None, false),
        // What the model asks for counts for more than what it is called.
        ("models/sd3.5-large-turbo", Some(28), Some(turbo), false),
    ] {
        let config = load(name, steps, name_or_path);
        assert_eq!(config.distilled, expected, "{name:?} {steps:?} {name_or_path:?}");
        let defaults = config.defaults();
        let own = if expected { (4, 1.0) } else { (28, 7.0) };
        assert_eq!(defaults.steps as u32, steps.unwrap_or(own.0), "{name:?}");
        assert_eq!((defaults.true_cfg, defaults.guidance), (own.1, None), "{name:?}");
    }

    // FLUX: neither a guidance input nor a dynamic time shift; names do not count.
    let mut files = Memory::new("turbo").with("model_index.json", "{}");
    let whole = flux_1_dev_files();
    for (path, _) in PUBLISHED_FLUX {
        files.insert(*path, whole.text(path).unwrap().unwrap());
    }
    assert!(!ModelConfig::load(&files).unwrap().distilled);
    edit(&mut files, "transformer/config.json", "guidance_embeds", Some(false.into()));
    assert!(!ModelConfig::load(&files).unwrap().distilled);
    edit(&mut files, "scheduler/scheduler_config.json", "use_dynamic_shifting", Some(false.into()));
    assert!(ModelConfig::load(&files).unwrap().distilled);
    edit(&mut files, "transformer/config.json", "guidance_embeds", Some(true.into()));
    assert!(!ModelConfig::load(&files).unwrap().distilled);
}

/// What `generation_config.json` says of SD3 holds; diffusers calls its scale of classifier-free guidance guidance.
#[test]
fn sd3_defaults_can_be_given() {
    let mut files = text_files(&fixture("sd3-a"));
    let given = r#"{"width": 128, "height": 192, "num_inference_steps": 20, "guidance_scale": 4.5,
        "negative_prompt": "blurry", "max_sequence_length": 77}"#;
    files.insert("generation_config.json", given);
    let defaults = ModelConfig::load(&files).unwrap().defaults();
    assert_eq!((defaults.width, defaults.height, defaults.steps), (128, 192, 20));
    assert_eq!((defaults.guidance, defaults.true_cfg), (None, 4.5));
    assert_eq!(defaults.negative_prompt.as_deref(), Some("blurry"));
    assert_eq!(defaults.max_sequence_length, 77);
    files.remove("generation_config.json");
    files.insert("tokenizer_3/tokenizer_config.json", r#"{"model_max_length": 100}"#);
    assert_eq!(ModelConfig::load(&files).unwrap().defaults().max_sequence_length, 100);
}

/// The FLUX.1-dev repository's files, reduced to what is read.
const PUBLISHED_FLUX: &[(&str, &str)] = &[
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

fn flux_1_dev_files() -> Memory {
    PUBLISHED_FLUX
        .iter()
        .fold(Memory::new("FLUX.1-dev"), |files, (path, text)| files.with(*path, text))
}

/// The SD3-medium repository's files, reduced to what is read.
const PUBLISHED_SD3: &[(&str, &str)] = &[
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

fn sd3_medium_files() -> Memory {
    PUBLISHED_SD3.iter().fold(Memory::new("SD3"), |files, (path, text)| files.with(*path, text))
}

#[test]
fn builtin_configs_equal_the_published_files() {
    let mut files = flux_1_dev_files();
    assert_eq!(builtin::get("flux.1-dev"), Some(ModelConfig::load(&files).unwrap()));
    edit(&mut files, "transformer/config.json", "guidance_embeds", Some(false.into()));
    edit(&mut files, "scheduler/scheduler_config.json", "use_dynamic_shifting", Some(false.into()));
    edit(&mut files, "scheduler/scheduler_config.json", "shift", Some(1.0.into()));
    edit(&mut files, "tokenizer_2/tokenizer_config.json", "model_max_length", Some(256.into()));
    assert_eq!(
        builtin::get("black-forest-labs/FLUX.1-schnell"),
        Some(ModelConfig::load(&files).unwrap())
    );

    let dev = builtin::get(builtin::names()[0]).unwrap().defaults();
    assert_eq!((dev.width, dev.height, dev.steps, dev.max_sequence_length), (1024, 1024, 28, 512));
    assert_eq!(dev.guidance, Some(3.5));
    let schnell = builtin::get(builtin::names()[1]).unwrap().defaults();
    assert_eq!((schnell.steps, schnell.guidance, schnell.max_sequence_length), (4, None, 256));
    assert_eq!(builtin::get("flux.2-dev"), None);

    let mut files = sd3_medium_files();
    let load = |files: &Memory| Some(ModelConfig::load(files).unwrap());
    for name in [
        "sd3-medium",
        "stabilityai/stable-diffusion-3-medium",
        "stabilityai/stable-diffusion-3-medium-diffusers",
    ] {
        assert_eq!(builtin::get(name), load(&files), "{name}");
    }
    let path = "transformer/config.json";
    let dual: Vec<usize> = (0..=12).collect();
    edit(&mut files, path, "qk_norm", Some("rms_norm".into()));
    edit(&mut files, path, "pos_embed_max_size", Some(384.into()));
    edit(&mut files, path, "dual_attention_layers", Some(dual.into()));
    for name in ["SD3.5-medium", "stabilityai/stable-diffusion-3.5-medium"] {
        assert_eq!(builtin::get(name), load(&files), "{name}");
    }
    edit(&mut files, path, "pos_embed_max_size", Some(192.into()));
    edit(&mut files, path, "dual_attention_layers", Some(serde_json::json!([])));
    for field in ["num_layers", "num_attention_heads"] {
        edit(&mut files, path, field, Some(38.into()));
    }
    edit(&mut files, path, "caption_projection_dim", Some(2432.into()));
    for name in ["sd3.5-large", "stabilityai/stable-diffusion-3.5-large"] {
        assert_eq!(builtin::get(name), load(&files), "{name}");
    }
    let large = builtin::get("sd3.5-large").unwrap();
    for name in ["sd3.5-large-turbo", "stabilityai/stable-diffusion-3.5-large-turbo"] {
        let turbo = builtin::get(name).unwrap();
        assert_eq!(turbo, ModelConfig { distilled: true, ..large.clone() });
        let defaults = turbo.defaults();
        assert_eq!((defaults.steps, defaults.true_cfg, defaults.guidance), (4, 1.0, None));
    }
    let defaults = large.defaults();
    assert_eq!((defaults.width, defaults.height, defaults.steps), (1024, 1024, 28));
    assert_eq!((defaults.true_cfg, defaults.max_sequence_length), (7.0, 256));
    for name in builtin::names() {
        assert!(builtin::get(name).is_some(), "{name}");
        assert_eq!(builtin::get(&format!("models/{name}")), None, "a path is not a name");
    }
}

#[test]
fn absent_fields_have_the_defaults_of_diffusers_and_transformers() {
    let empty = Memory::new("m").with("config.json", "{}");
    let clip = ClipConfig::load(&empty, "config.json", false).unwrap();
    assert_eq!((clip.hidden_size, clip.num_hidden_layers, clip.num_attention_heads), (512, 12, 8));
    assert_eq!(
        (clip.vocab_size, clip.max_position_embeddings, clip.eos_token_id),
        (49408, 77, 49407)
    );
    let scheduler = SchedulerConfig::load(&empty, "config.json").unwrap();
    assert_eq!(
        (scheduler.shift, scheduler.use_dynamic_shifting, scheduler.shift_terminal),
        (1.0, false, None)
    );
    // T5's default is not what any FLUX has: refused, not guessed.
    let message = T5Config::load(&empty, "config.json").unwrap_err().to_string();
    assert_mentions(&message, &["feed_forward_proj", "relu", "gated-gelu"]);
    let nested = Memory::new("m")
        .with("config.json", r#"{"text_config": {"hidden_size": 640, "hidden_act": "gelu"}}"#);
    let clip = ClipConfig::load(&nested, "config.json", true).unwrap();
    assert_eq!((clip.hidden_size, clip.hidden_act), (640, ClipAct::Gelu));
    assert_eq!((clip.projection_dim, clip.pooled_dim()), (Some(512), 512));
    let mut files = flux_1_dev_files();
    edit(&mut files, "vae/config.json", "shift_factor", Some(serde_json::Value::Null));
    assert_eq!(ModelConfig::load(&files).unwrap().vae.shift_factor, 0.0);
}

#[test]
fn clip_pools_where_transformers_does() {
    let dev = builtin::get("flux.1-dev").unwrap();
    let mut clip = clips(&dev)[0].clone();
    assert_eq!(clip.eos_token_id, 2);
    assert_eq!(clip.pooled_position(&[49406, 320, 2, 49407, 49407]), 3);
    clip.eos_token_id = 49407;
    assert_eq!(clip.pooled_position(&[49406, 320, 49407, 49408, 49407]), 2);
    assert_eq!(clip.pooled_position(&[5, 6]), 0);
    assert_eq!(clip.pooled_position(&[]), 0);
}

/// File, field, its value, and what the error has to mention.
type Refusal = (&'static str, &'static str, Option<serde_json::Value>, &'static [&'static str]);

fn check_refusals(name: &str, whole: Memory, cases: &[Refusal]) {
    ModelConfig::load(&whole).unwrap();
    for (path, field, value, parts) in cases {
        let mut files = whole.clone();
        edit(&mut files, path, field, value.clone());
        let message = ModelConfig::load(&files).expect_err(&format!("{path} {field}")).to_string();
        assert_mentions(&message, &[&format!("{name}/{path}")]);
        assert_mentions(&message, parts);
        assert!(!message.contains('\n'), "{message}");
    }
}

#[test]
fn config_errors_name_file_field_and_what_was_expected() {
    use serde_json::json;
    let cases: &[Refusal] = &[
        (
            "model_index.json",
            "_class_name",
            Some(json!("KolorsPipeline")),
            &["KolorsPipeline", "FluxPipeline"],
        ),
        (
            "model_index.json",
            "_class_name",
            Some(json!("StableDiffusion3Pipeline")),
            &["transformer", "FluxTransformer2DModel", "SD3Transformer2DModel"],
        ),
        ("model_index.json", "_class_name", None, &["_class_name", "missing"]),
        ("model_index.json", "vae", None, &["vae", "AutoencoderKL"]),
        (
            "model_index.json",
            "text_encoder_2",
            Some(json!([null, null])),
            &["text_encoder_2", "T5EncoderModel"],
        ),
        (
            "model_index.json",
            "scheduler",
            Some(json!(["diffusers", "UniPC"])),
            &["UniPC", "FlowMatchEuler"],
        ),
        ("transformer/config.json", "num_layers", None, &["num_layers", "missing", "whole number"]),
        ("transformer/config.json", "num_layers", Some(json!(-3)), &["num_layers", "-3"]),
        ("transformer/config.json", "num_layers", Some(json!(5000)), &["num_layers", "1024"]),
        (
            "transformer/config.json",
            "num_attention_heads",
            Some(json!("24")),
            &["\"24\"", "whole number"],
        ),
        (
            "transformer/config.json",
            "num_attention_heads",
            Some(json!(1 << 22)),
            &["attention_head_dim"],
        ),
        (
            "transformer/config.json",
            "patch_size",
            Some(json!(2)),
            &["patch_size", "2", "not supported"],
        ),
        (
            "transformer/config.json",
            "axes_dims_rope",
            Some(json!([16, 56, 54])),
            &["axes_dims_rope", "128"],
        ),
        ("transformer/config.json", "axes_dims_rope", Some(json!([15, 57, 56])), &["even"]),
        ("transformer/config.json", "axes_dims_rope", Some(json!("x")), &["list"]),
        ("transformer/config.json", "in_channels", Some(json!(384)), &["in_channels", "384", "64"]),
        (
            "transformer/config.json",
            "joint_attention_dim",
            Some(json!(2048)),
            &["2048", "4096", "text_encoder_2"],
        ),
        (
            "transformer/config.json",
            "pooled_projection_dim",
            Some(json!(1)),
            &["768", "text_encoder/"],
        ),
        (
            "transformer/config.json",
            "_class_name",
            Some(json!("SD3Transformer2DModel")),
            &["FluxTransformer2DModel"],
        ),
        ("text_encoder/config.json", "hidden_act", Some(json!("relu")), &["relu", "quick_gelu"]),
        (
            "text_encoder/config.json",
            "num_attention_heads",
            Some(json!(7)),
            &["hidden_size", "multiple"],
        ),
        ("text_encoder/config.json", "layer_norm_eps", Some(json!(0)), &["layer_norm_eps"]),
        (
            "text_encoder_2/config.json",
            "feed_forward_proj",
            Some(json!("gated-silu")),
            &["gated-silu", "gated-gelu"],
        ),
        (
            "text_encoder_2/config.json",
            "relative_attention_num_buckets",
            Some(json!(30)),
            &["multiple of 4"],
        ),
        (
            "text_encoder_2/config.json",
            "relative_attention_max_distance",
            Some(json!(8)),
            &["max_distance"],
        ),
        ("vae/config.json", "act_fn", Some(json!("mish")), &["mish", "silu"]),
        ("vae/config.json", "norm_num_groups", Some(json!(48)), &["norm_num_groups", "48"]),
        ("vae/config.json", "block_out_channels", Some(json!([])), &["block_out_channels"]),
        ("vae/config.json", "block_out_channels", Some(json!([32, 32])), &["block_out_channels"]),
        ("vae/config.json", "scaling_factor", None, &["scaling_factor", "missing"]),
        ("vae/config.json", "scaling_factor", Some(json!(0)), &["scaling_factor"]),
        (
            "vae/config.json",
            "up_block_types",
            Some(json!(["AttnUpDecoderBlock2D"])),
            &["AttnUpDecoderBlock2D"],
        ),
        (
            "scheduler/scheduler_config.json",
            "use_karras_sigmas",
            Some(json!(true)),
            &["use_karras_sigmas"],
        ),
        (
            "scheduler/scheduler_config.json",
            "use_beta_sigmas",
            Some(json!(true)),
            &["use_beta_sigmas"],
        ),
        (
            "scheduler/scheduler_config.json",
            "use_exponential_sigmas",
            Some(json!(true)),
            &["use_exponential_sigmas"],
        ),
        (
            "scheduler/scheduler_config.json",
            "stochastic_sampling",
            Some(json!(true)),
            &["stochastic_sampling"],
        ),
        ("scheduler/scheduler_config.json", "invert_sigmas", Some(json!(true)), &["invert_sigmas"]),
        (
            "scheduler/scheduler_config.json",
            "time_shift_type",
            Some(json!("cubic")),
            &["cubic", "linear"],
        ),
        (
            "scheduler/scheduler_config.json",
            "max_image_seq_len",
            Some(json!(256)),
            &["max_image_seq_len"],
        ),
        ("scheduler/scheduler_config.json", "shift", Some(json!(0)), &["shift"]),
    ];
    check_refusals("FLUX.1-dev", flux_1_dev_files(), cases);

    let mut files = flux_1_dev_files();
    files.remove("vae/config.json");
    assert_mentions(
        &ModelConfig::load(&files).unwrap_err().to_string(),
        &["FLUX.1-dev/vae/config.json", "transformer"],
    );
    files.insert("vae/config.json", "[1]");
    assert_mentions(
        &ModelConfig::load(&files).unwrap_err().to_string(),
        &["vae/config.json", "object"],
    );
    files.insert("vae/config.json", "{\"act_fn\": ");
    assert_mentions(
        &ModelConfig::load(&files).unwrap_err().to_string(),
        &["vae/config.json", "not valid JSON"],
    );
    assert_mentions(
        &ModelConfig::load(&Memory::new("void")).unwrap_err().to_string(),
        &["void/model_index.json"],
    );
}

#[test]
fn sd3_config_errors_name_file_field_and_what_was_expected() {
    use serde_json::json;
    let index = "model_index.json";
    let transformer = "transformer/config.json";
    let cases: &[Refusal] = &[
        (
            index,
            "_class_name",
            Some(json!("StableDiffusionXLPipeline")),
            &["StableDiffusionXLPipeline", "SD3.5"],
        ),
        (
            index,
            "_class_name",
            Some(json!("FluxPipeline")),
            &["SD3Transformer2DModel", "FluxTransformer2DModel"],
        ),
        (index, "_name_or_path", Some(json!(3)), &["_name_or_path", "3"]),
        (
            index,
            "transformer",
            Some(json!(["diffusers", "FluxTransformer2DModel"])),
            &["SD3Transformer2DModel"],
        ),
        (
            index,
            "text_encoder",
            Some(json!(["transformers", "CLIPTextModel"])),
            &["a CLIPTextModel,", "WithProjection"],
        ),
        (
            index,
            "text_encoder_2",
            Some(json!(["transformers", "T5EncoderModel"])),
            &["T5EncoderModel", "WithProjection"],
        ),
        (
            index,
            "text_encoder_2",
            Some(json!([null, null])),
            &["text_encoder_2", "missing", "WithProjection"],
        ),
        (
            index,
            "text_encoder_3",
            Some(json!(["transformers", "UMT5EncoderModel"])),
            &["UMT5EncoderModel", "T5EncoderModel"],
        ),
        (
            index,
            "vae",
            Some(json!(["diffusers", "AutoencoderTiny"])),
            &["AutoencoderTiny", "AutoencoderKL"],
        ),
        (
            index,
            "scheduler",
            Some(json!(["diffusers", "DPMSolver"])),
            &["DPMSolver", "FlowMatchEuler"],
        ),
        (
            transformer,
            "_class_name",
            Some(json!("FluxTransformer2DModel")),
            &["SD3Transformer2DModel"],
        ),
        (
            transformer,
            "qk_norm",
            Some(json!("layer_norm")),
            &["qk_norm", "\"layer_norm\"", "rms_norm"],
        ),
        (transformer, "qk_norm", Some(json!(true)), &["qk_norm", "true"]),
        (
            transformer,
            "dual_attention_layers",
            Some(json!([0, 24])),
            &["dual_attention_layers", "24", "0 to 23"],
        ),
        (transformer, "dual_attention_layers", Some(json!([-1])), &["dual_attention_layers", "-1"]),
        (
            transformer,
            "dual_attention_layers",
            Some(json!(12)),
            &["dual_attention_layers", "12", "list"],
        ),
        (
            transformer,
            "caption_projection_dim",
            Some(json!(1152)),
            &["caption_projection_dim", "1152", "1536"],
        ),
        // The other way round: it no longer agrees with the width.
        (
            transformer,
            "num_attention_heads",
            Some(json!(38)),
            &["caption_projection_dim", "1536", "2432"],
        ),
        (transformer, "patch_size", Some(json!(1)), &["patch_size", "is 1", "not supported", "2"]),
        (transformer, "patch_size", Some(json!(4)), &["patch_size", "is 4", "not supported", "2"]),
        (
            transformer,
            "in_channels",
            Some(json!(4)),
            &["in_channels", "4", "16", "vae/config.json"],
        ),
        (
            transformer,
            "out_channels",
            Some(json!(32)),
            &["out_channels", "32", "16", "vae/config.json"],
        ),
        (
            transformer,
            "pooled_projection_dim",
            Some(json!(768)),
            &["768", "2048", "text_encoder/config.json"],
        ),
        (
            transformer,
            "joint_attention_dim",
            Some(json!(2048)),
            &["2048", "4096", "text_encoder_3"],
        ),
        (transformer, "num_layers", Some(json!(0)), &["num_layers", "0", "from 1"]),
        (transformer, "num_layers", Some(json!(5000)), &["num_layers", "5000", "1024"]),
        (transformer, "attention_head_dim", Some(json!(1 << 17)), &["attention_head_dim"]),
        (transformer, "pos_embed_max_size", Some(json!(-192)), &["pos_embed_max_size", "-192"]),
        (transformer, "sample_size", Some(json!([128, 128])), &["sample_size"]),
    ];
    check_refusals("SD3", sd3_medium_files(), cases);

    // Errors that are noticed at the transformer, made elsewhere.
    let cases: &[(&str, &str, u32, &[&str])] = &[
        (
            "text_encoder_2/config.json",
            "projection_dim",
            768,
            &["pooled_projection_dim", "2048", "1536", "projection_dim"],
        ),
        (
            "text_encoder_2/config.json",
            "hidden_size",
            3340,
            &["joint_attention_dim", "4096", "at least 4108", "hidden_size"],
        ),
        (
            "text_encoder_3/config.json",
            "d_model",
            2048,
            &["joint_attention_dim", "4096", "2048", "text_encoder_3"],
        ),
        ("vae/config.json", "latent_channels", 4, &["in_channels", "16", "4", "vae"]),
    ];
    for (path, field, value, parts) in cases {
        let mut files = sd3_medium_files();
        edit(&mut files, path, field, Some((*value).into()));
        let message = ModelConfig::load(&files).expect_err(&format!("{path} {field}")).to_string();
        assert_mentions(&message, &["SD3/transformer/config.json", "do not belong together"]);
        assert_mentions(&message, parts);
    }
    let refused = |value: serde_json::Value| {
        let mut files = sd3_medium_files();
        edit(&mut files, transformer, "attention_head_dim", Some(value));
        edit(&mut files, transformer, "num_attention_heads", Some(1.into()));
        edit(&mut files, transformer, "caption_projection_dim", None);
        ModelConfig::load(&files).err().map(|error| error.to_string())
    };
    assert_mentions(&refused(62.into()).unwrap(), &["62", "a multiple of 4"]);
    assert_eq!(refused(64.into()), None);

    // Every field of the transformer has a default, as in diffusers.
    let empty = Memory::new("m").with("config.json", "{}");
    let config = Sd3Config::load(&empty, "config.json").unwrap();
    assert_eq!((config.num_layers, config.hidden(), config.pos_embed_max_size), (18, 1152, 96));
    assert_eq!((config.sample_size, config.in_channels, config.out_channels), (128, 16, 16));
    assert_eq!((config.qk_norm, config.dual_attention_layers), (false, vec![]));
    let config = |json: &str| {
        Sd3Config::load(&Memory::new("m").with("config.json", json), "config.json").unwrap()
    };
    assert_eq!(config(r#"{"out_channels": null, "in_channels": 4}"#).out_channels, 4);
    assert_eq!(
        config(r#"{"dual_attention_layers": [3, 0, 3, 1]}"#).dual_attention_layers,
        [0, 1, 3]
    );
}

#[test]
fn damaged_configs_never_panic() {
    let mut random = Lcg(1);
    for (name, published) in [("FLUX.1-dev", PUBLISHED_FLUX), ("SD3", PUBLISHED_SD3)] {
        let whole =
            published.iter().fold(Memory::new(name), |files, (path, text)| files.with(*path, text));
        for (path, text) in published {
            for _ in 0..400 {
                let files = whole.clone().with(*path, damage(text.as_bytes(), &mut random));
                match ModelConfig::load(&files) {
                    // What passes can be computed with.
                    Ok(config) => {
                        assert!(step(&config, 64, 8).total().is_finite());
                        assert!(config.transformer.reused_flops(64, 8, true).total().is_finite());
                        assert!(Parameters::of(&config).total() > 0);
                        config.defaults();
                    }
                    Err(error) => assert!(error.to_string().len() > 20),
                }
            }
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Weights

/// A safetensors file of that header.
fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

fn open_bytes(bytes: &[u8]) -> Result<Weights, WeightError> {
    Weights::open_file(&Memory::new("m").with("f.safetensors", bytes), "f.safetensors")
}

/// One F32 tensor of two elements.
fn one(name: &str) -> Vec<u8> {
    safetensors(
        &format!(r#"{{"{name}":{{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}}}"#),
        &[0; 8],
    )
}

#[test]
fn opens_every_checkpoint_of_the_test_models() {
    let fixtures = ["flux-a", "flux-b", "sd3-a", "sd3-calm", "sd35m-b"].map(fixture);
    for folder in [bundled()].into_iter().chain(fixtures) {
        let config = ModelConfig::load(&folder).unwrap();
        let count = |dir: &str, stem: &str, keep: &str| -> u64 {
            let weights = Weights::open(&folder, dir, stem).unwrap();
            assert!(!weights.is_empty());
            assert_eq!(weights.names().count(), weights.len());
            weights
                .iter()
                // SD3's table of positions is computed, not learned.
                .filter(|info| info.name.starts_with(keep) && *info.name != *"pos_embed.pos_embed")
                .map(TensorInfo::n_elements)
                .sum()
        };
        // The configuration tells the number of parameters.
        let found = Parameters {
            transformer: count(folder::TRANSFORMER, stem::DIFFUSERS, ""),
            text_encoders: (config.text_encoders.iter())
                .map(|encoder| count(encoder.folder, stem::TRANSFORMERS, ""))
                .collect(),
            vae_decoder: count(folder::VAE, stem::DIFFUSERS, "decoder."),
        };
        assert_eq!(found, Parameters::of(&config), "{}", folder.name());
    }
    let sharded = Weights::open(&fixture("flux-a"), "transformer", stem::DIFFUSERS).unwrap();
    assert_eq!(sharded.files().count(), 3);
    assert_eq!(sharded.total_bytes(), 8_422_912);
    assert!(sharded.info("proj_out.weight").unwrap().file.ends_with("00003-of-00003.safetensors"));
}

#[test]
fn values_equal_those_of_the_safetensors_crate() {
    let path = "vae/diffusion_pytorch_model.safetensors";
    for folder in [bundled(), fixture("flux-a")] {
        let bytes = std::fs::read(format!("{}/{path}", folder.name())).unwrap();
        let theirs = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let ours = Weights::open(&folder, "vae", stem::DIFFUSERS).unwrap();
        assert_eq!(ours.len(), theirs.len());
        for (name, view) in theirs.iter() {
            let info = ours.info(name).unwrap();
            assert_eq!(info.shape, view.shape());
            assert_eq!(*ours.bytes(info, 0..info.n_bytes()).unwrap(), *view.data(), "{name}");
        }
        let info = ours.info("decoder.conv_in.weight").unwrap();
        let all = ours.tensor_f32(info).unwrap();
        assert_eq!(all.len() as u64, info.n_elements());
        let row = all.len() / info.shape[0];
        assert_eq!(ours.rows_f32(info, 3..5).unwrap(), all[3 * row..5 * row]);
        let mut part = vec![7.0];
        ours.read_f32(info, 10..12, &mut part).unwrap();
        assert_eq!(part, [7.0, all[10], all[11]]);
        assert!(matches!(
            ours.rows_f32(info, 0..info.shape[0] + 1),
            Err(WeightError::Range { unit: "rows", .. })
        ));
        assert!(matches!(
            ours.read_f32(info, 5..u64::MAX, &mut part),
            Err(WeightError::Range { .. })
        ));
        assert!(matches!(
            ours.bytes(info, 1..info.n_bytes() + 1),
            Err(WeightError::Range { unit: "bytes", .. })
        ));
    }
}

#[test]
fn converts_every_supported_type_and_finds_what_is_not_finite() {
    let header = r#"{"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},
        "b":{"dtype":"F16","shape":[4],"data_offsets":[16,24]}, "c":{"dtype":"BF16","shape":[4],"data_offsets":[24,32]},
        "d":{"dtype":"F64","shape":[1],"data_offsets":[32,40]}, "e":{"dtype":"F8_E5M2","shape":[5],"data_offsets":[40,45]},
        "s":{"dtype":"F32","shape":[],"data_offsets":[45,49]}, "z":{"dtype":"F32","shape":[0,3],"data_offsets":[49,49]}}"#;
    let mut data = Vec::new();
    [1.0f32, -2.5, f32::NEG_INFINITY, 1e-40].iter().for_each(|x| data.extend(x.to_le_bytes()));
    [1.0f32, 0.333, f32::NAN, -65504.0]
        .iter()
        .for_each(|x| data.extend(half::f16::from_f32(*x).to_le_bytes()));
    [1.0f32, 3e38, -0.5, f32::INFINITY]
        .iter()
        .for_each(|x| data.extend(half::bf16::from_f32(*x).to_le_bytes()));
    data.extend(0.1f64.to_le_bytes());
    data.extend([1, 2, 3, 4, 5]);
    data.extend(4.5f32.to_le_bytes());
    let weights = open_bytes(&safetensors(header, &data)).unwrap();
    let read = |name: &str, range| {
        let mut out = Vec::new();
        weights.read_f32(weights.info(name).unwrap(), range, &mut out).map(|()| out)
    };
    assert_eq!(read("a", 0..2).unwrap(), [1.0, -2.5]);
    assert_eq!(read("a", 3..4).unwrap(), [1e-40]);
    assert_eq!(read("b", 0..2).unwrap(), [1.0, half::f16::from_f32(0.333).to_f32()]);
    assert_eq!(read("b", 3..4).unwrap(), [-65504.0]);
    assert_eq!(read("c", 2..3).unwrap(), [-0.5]);
    assert_eq!(read("d", 0..1).unwrap(), [0.1]);
    assert_eq!(read("s", 0..1).unwrap(), [4.5]);
    assert_eq!(weights.rows_f32(weights.info("z").unwrap(), 0..0).unwrap(), [0.0; 0]);
    for (name, at) in [("a", 2), ("b", 2), ("c", 3)] {
        let info = weights.info(name).unwrap();
        let error = read(name, 1..4).unwrap_err();
        assert!(matches!(error, WeightError::NotFinite { index, .. } if index == at), "{error}");
        assert_mentions(&error.to_string(), &["m/f.safetensors", name]);
        let bytes = weights.bytes(info, 0..info.n_bytes()).unwrap();
        let dtype = info.dtype.known().unwrap();
        assert_eq!(dtype.first_not_finite(&bytes), Some(at as usize));
        let size = dtype.block.bytes;
        let error = weights.check_finite(info, size as u64, &bytes[size..]).unwrap_err();
        assert!(matches!(error, WeightError::NotFinite { index, .. } if index == at), "{error}");
        weights.check_finite(info, 0, &bytes[..size]).unwrap();
    }
    // An unknown type is no obstacle until it is asked for.
    assert_eq!(weights.info("e").unwrap().dtype.name(), "F8_E5M2");
    assert_mentions(&read("e", 0..1).unwrap_err().to_string(), &["e", "F8_E5M2", "BF16"]);
    let manifest = Manifest::new(&weights);
    manifest.root().require("e", &[5]);
    assert!(matches!(manifest.finish(&[]), Err(WeightError::DType { .. })));
}

#[test]
fn damaged_files_are_refused_with_a_reason() {
    let tensor = |rest: &str| format!(r#"{{"a":{{{rest}}}}}"#);
    let good = r#""dtype":"F32","shape":[2],"data_offsets":[0,8]"#;
    let cases: &[(Vec<u8>, &str)] = &[
        (vec![1, 2, 3], "only 3 bytes"),
        (vec![0; 8], "header"),
        ((1u64 << 60).to_le_bytes().to_vec(), "announce"),
        (u64::MAX.to_le_bytes().to_vec(), "announce"),
        (b"PK\x03\x04 this is a zip, such as pytorch_model.bin".to_vec(), "pickled"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n".to_vec(),
            "git lfs pull",
        ),
        (safetensors(&tensor(good), &[0; 8])[..40].to_vec(), "truncated"),
        (safetensors(&tensor(good), &[0; 7]), "0..8"),
        (safetensors("{\"\u{0}\"", &[]), "JSON"),
        (safetensors("[]", &[]), "JSON"),
        (safetensors("", &[]), "JSON"),
        (safetensors(&"[".repeat(100_000), &[]), "JSON"),
        (safetensors(&format!("{} x", tensor(good)), &[0; 8]), "JSON"),
        ([&2u64.to_le_bytes()[..], &[0xff, 0xfe]].concat(), "UTF-8"),
        (safetensors(&tensor(r#""shape":[2],"data_offsets":[0,8]"#), &[0; 8]), "no dtype"),
        (safetensors(&tensor(r#""dtype":"F32","data_offsets":[0,8]"#), &[0; 8]), "no shape"),
        (
            safetensors(&tensor(r#""dtype":"F32","shape":[-2],"data_offsets":[0,8]"#), &[0; 8]),
            "no shape",
        ),
        (safetensors(&tensor(r#""dtype":"F32","shape":[2]"#), &[0; 8]), "no data_offsets"),
        (
            safetensors(&tensor(r#""dtype":"F32","shape":[2],"data_offsets":[0]"#), &[0; 8]),
            "no data_offsets",
        ),
        (
            safetensors(&tensor(r#""dtype":"F32","shape":[2],"data_offsets":[8,0]"#), &[0; 8]),
            "8..0",
        ),
        (
            safetensors(
                &tensor(r#""dtype":"F32","shape":[2],"data_offsets":[0,18446744073709551615]"#),
                &[0; 8],
            ),
            "inside",
        ),
        (
            safetensors(&tensor(r#""dtype":"F32","shape":[3],"data_offsets":[0,8]"#), &[0; 8]),
            "does not make 8 bytes",
        ),
        (
            safetensors(
                &tensor(r#""dtype":"F32","shape":[4611686018427387905],"data_offsets":[0,4]"#),
                &[0; 8],
            ),
            "does not make",
        ),
        (
            safetensors(
                &tensor(r#""dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]"#),
                &[],
            ),
            "overflows",
        ),
        (
            safetensors(
                &format!(
                    r#"{{"a":{{{good}}},"b":{{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}}}"#
                ),
                &[0; 12],
            ),
            "overlap",
        ),
        (safetensors(&format!(r#"{{"a":{{{good}}},"a":{{{good}}}}}"#), &[0; 8]), "twice"),
        (safetensors(r#"{"a":3}"#, &[]), "no dtype"),
    ];
    for (bytes, part) in cases {
        let error = open_bytes(bytes).expect_err(part);
        assert_mentions(&error.to_string(), &["m/f.safetensors", part]);
    }
    assert!(matches!(open_bytes(&[]), Err(WeightError::Source(SourceError::Empty { .. }))));
    assert_eq!(open_bytes(&safetensors("{}", &[])).unwrap().len(), 0);
    assert_eq!(
        open_bytes(&safetensors(r#"{"__metadata__":{"format":"pt"}}  "#, &[])).unwrap().len(),
        0
    );
}

#[test]
fn damaged_headers_never_panic() {
    let mut random = Lcg(2);
    let folder = fixture("flux-a");
    let whole =
        std::fs::read(format!("{}/text_encoder_2/model.safetensors", folder.name())).unwrap();
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    for _ in 0..2_000 {
        let mut bytes = damage(&whole[..header], &mut random);
        bytes.extend_from_slice(&whole[header..header + 1000]);
        if let Ok(weights) = open_bytes(&bytes) {
            weights.iter().for_each(|info| drop(weights.tensor_f32(info)));
        }
        let mut bytes = damage(&whole[..header], &mut random);
        bytes.extend_from_slice(&whole[header..]);
        if let Ok(weights) = open_bytes(&bytes) {
            weights.iter().for_each(|info| drop(weights.rows_f32(info, 0..1)));
        }
    }
}

#[test]
fn finds_checkpoints_by_their_names() {
    let open = |files: &[(&str, Vec<u8>)]| {
        let source = files
            .iter()
            .fold(Memory::new("m"), |m, (name, bytes)| m.with(format!("vae/{name}"), bytes));
        Weights::open(&source, "vae", "model")
    };
    let index = |map: &str| format!(r#"{{"weight_map":{map}}}"#).into_bytes();
    assert_eq!(
        open(&[("model.safetensors", one("a"))]).unwrap().names().collect::<Vec<_>>(),
        ["a"]
    );
    assert!(open(&[("model.fp16.safetensors", one("a"))]).is_ok());
    let sharded = [("1.safetensors", one("a")), ("2.safetensors", one("b"))];
    let with = |map: &str| [&sharded[..], &[("model.safetensors.index.json", index(map))]].concat();
    let both = open(&with(r#"{"a":"1.safetensors","b":"2.safetensors"}"#)).unwrap();
    assert_eq!((both.len(), both.total_bytes()), (2, 16));

    let message = |result: Result<Weights, WeightError>| result.unwrap_err().to_string();
    assert_mentions(&message(open(&[])), &["m/vae", "model.safetensors", "found nothing"]);
    assert_mentions(&message(open(&[("model.bin", vec![1])])), &["model.bin", "pickled"]);
    assert_mentions(
        &message(open(&with(r#"{"a":"3.safetensors"}"#))),
        &["3.safetensors", "not there", "index.json"],
    );
    // The index of one variant, the file of another.
    let mut mixed = with(r#"{"a":"3.safetensors"}"#);
    mixed.push(("model.fp16.safetensors", one("c")));
    assert_eq!(open(&mixed).unwrap().names().collect::<Vec<_>>(), ["c"]);
    assert_mentions(
        &message(open(&with(r#"{"a":"2.safetensors"}"#))),
        &["a", "2.safetensors", "does not have it"],
    );
    assert_mentions(&message(open(&with(r#"{"c":"2.safetensors"}"#))), &["c", "2.safetensors"]);
    for evil in [r#""../../secret""#, r#""/etc/passwd""#, r#""..""#, r#""""#, "3", "null"] {
        assert_mentions(&message(open(&with(&format!(r#"{{"a":{evil}}}"#)))), &["plain file name"]);
    }
    for bad in ["{}", r#"{"weight_map":3}"#, "not json", "[]"] {
        let files = [("model.safetensors.index.json", bad.as_bytes().to_vec())];
        assert!(matches!(open(&files), Err(WeightError::Index { .. })), "{bad}");
    }
    assert!(matches!(open(&with("{}")), Err(WeightError::Index { .. })));
    let twice = [("1.safetensors", one("a")), ("2.safetensors", one("a"))];
    let map = index(r#"{"a":"1.safetensors","b":"2.safetensors"}"#);
    let files = [&twice[..], &[("model.safetensors.index.json", map)]].concat();
    assert_mentions(&message(open(&files)), &["a is also in", "1.safetensors"]);
}

#[test]
fn manifest_reports_everything_at_once() {
    let folder = fixture("flux-a");
    let weights = Weights::open(&folder, "transformer", stem::DIFFUSERS).unwrap();
    let manifest = Manifest::new(&weights);
    let w = manifest.root();
    let block = w.pp("transformer_blocks").pp(1);
    assert_eq!(block.prefix(), "transformer_blocks.1");
    let to_q = block.require("attn.to_q.weight", &[128, 128]);
    assert_eq!(&*to_q.name, "transformer_blocks.1.attn.to_q.weight");
    assert_eq!(to_q.dtype.name(), "F32");
    block.require("attn.to_q.weight", &[128, 128]);
    assert_eq!((manifest.total_bytes(), manifest.tensors().len()), (128 * 128 * 4, 1));
    assert!(w.optional("no.such", &[1]).is_none());
    assert!(w.has("proj_out.weight") && !w.has("proj_out"));
    let extra = manifest.finish(&[]).unwrap();
    assert_eq!(extra.len(), weights.len() - 1);
    let extra =
        manifest.finish(&["single_transformer_blocks.", "transformer_blocks.0.", "bias"]).unwrap();
    assert!(
        extra.iter().all(|name| !name.starts_with("single_") && !name.ends_with(".bias")),
        "{extra:?}"
    );

    // Two problems at once, one of them a shape.
    let absent = w.require("proj_in.weight", &[3, 4]);
    let wrong = w.require("proj_out.weight", &[64, 129]);
    assert_eq!((absent.shape.as_slice(), wrong.shape.as_slice()), (&[3, 4][..], &[64, 129][..]));
    assert!(matches!(
        weights.tensor_f32(&absent),
        Err(WeightError::Missing { .. } | WeightError::Range { .. })
    ));
    assert!(weights.bytes(&wrong, 0..1).is_err());
    let message = manifest.finish(&[]).unwrap_err().to_string();
    assert_mentions(
        &message,
        &["2 tensors", "proj_in.weight is missing", "[64, 128]", "[64, 129]", "flux-a"],
    );
    assert_eq!(message.lines().count(), 3);

    // A long list is cut off.
    for i in 0..100 {
        w.pp("blocks").pp(i).require("weight", &[1]);
    }
    let message = manifest.finish(&[]).unwrap_err().to_string();
    assert_mentions(&message, &["100 tensors", "blocks.19.weight", "and 80 more"]);
    assert_eq!(message.lines().count(), 22);
}

const SD3_WEIGHTS: &str = "transformer/diffusion_pytorch_model.safetensors";

/// All files of `sd3-calm`.
fn sd3_calm_files() -> Memory {
    let folder = fixture("sd3-calm");
    let mut memory = text_files(&folder);
    for dir in folder.list("").unwrap() {
        for name in folder.list(&dir).unwrap().iter().filter(|name| name.ends_with("safetensors")) {
            let path = format!("{dir}/{name}");
            let blob = folder.blob(&path).unwrap();
            memory.insert(path, blob.bytes(0..blob.len()).unwrap());
        }
    }
    memory
}

/// Changes the header of a safetensors file; its numbers stay.
fn edit_header(
    memory: &mut Memory,
    path: &str,
    change: impl FnOnce(&mut serde_json::Map<String, serde_json::Value>),
) {
    let blob = memory.blob(path).unwrap();
    let bytes = blob.bytes(0..blob.len()).unwrap().into_owned();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut json = serde_json::from_slice(&bytes[8..header]).unwrap();
    change(&mut json);
    let json = serde_json::to_string(&json).unwrap();
    memory.insert(path, safetensors(&json, &bytes[header..]));
}

#[test]
fn sd3_weights_are_checked_by_name_and_shape() {
    use serde_json::json;
    for name in ["sd3-a", "sd35m-b"] {
        check_model(&fixture(name)).unwrap();
    }
    check_model(&sd3_calm_files()).unwrap();

    // The last block drops the text after attention, so that it needs less of it than others.
    for (path, name) in [
        (SD3_WEIGHTS, "pos_embed.pos_embed"),
        (SD3_WEIGHTS, "pos_embed.proj.bias"),
        (SD3_WEIGHTS, "context_embedder.weight"),
        (SD3_WEIGHTS, "time_text_embed.text_embedder.linear_2.weight"),
        (SD3_WEIGHTS, "transformer_blocks.1.attn.to_add_out.weight"),
        (SD3_WEIGHTS, "transformer_blocks.1.ff_context.net.2.bias"),
        (SD3_WEIGHTS, "transformer_blocks.2.attn.add_k_proj.weight"),
        (SD3_WEIGHTS, "transformer_blocks.2.attn.add_q_proj.weight"),
        (SD3_WEIGHTS, "norm_out.linear.weight"),
        ("text_encoder_2/model.safetensors", "text_projection.weight"),
        ("text_encoder_3/model.safetensors", "shared.weight"),
    ] {
        let mut files = sd3_calm_files();
        edit_header(&mut files, path, |header| drop(header.remove(name)));
        let message = check_model(&files).expect_err(name).to_string();
        assert_mentions(&message, &[name, "missing", path.split('/').next().unwrap()]);
    }

    for (name, shape, expected) in [
        ("pos_embed.pos_embed", json!([1, 1152, 128]), "[1, 2304, 64]"),
        ("pos_embed.proj.weight", json!([64, 64]), "[64, 16, 2, 2]"),
        ("proj_out.weight", json!([128, 32]), "[64, 64]"),
        ("transformer_blocks.0.norm1.linear.weight", json!([768, 32]), "[384, 64]"),
        // Of the last block: shift and scale only.
        ("transformer_blocks.2.norm1_context.linear.weight", json!([64, 128]), "[128, 64]"),
    ] {
        let mut files = sd3_calm_files();
        edit_header(&mut files, SD3_WEIGHTS, |header| header[name]["shape"] = shape.clone());
        let message = check_model(&files).expect_err(name).to_string();
        assert_mentions(&message.replace(", ", ","), &[name, &shape.to_string()]);
        assert_mentions(&message, &[expected]);
    }

    // A configuration that promises more than the weights keep.
    for (field, value, parts) in [
        (
            "qk_norm",
            json!("rms_norm"),
            ["transformer_blocks.0.attn.norm_q.weight is missing", "norm_added_k"],
        ),
        (
            "dual_attention_layers",
            json!([1]),
            ["transformer_blocks.1.attn2.to_q.weight", "[576, 64]"],
        ),
        ("num_layers", json!(4), ["transformer_blocks.3.", "transformer_blocks.2.attn.to_add_out"]),
    ] {
        let mut files = sd3_calm_files();
        edit(&mut files, "transformer/config.json", field, Some(value));
        assert_mentions(&check_model(&files).expect_err(field).to_string(), &parts);
    }
}

/// The vector of a place in SD3's table, by the formula of RALU's specification: the table's `side` entries stand for
/// `base` units.
fn position_vector([row, col]: [f64; 2], hidden: usize, base: f64, side: usize) -> Vec<f64> {
    let quarter = hidden / 4;
    let mut vector = Vec::new();
    for x in [col, row].map(|index| index * base / side as f64) {
        let angle = |j: usize| x * 10_000f64.powf(-(j as f64) / quarter as f64);
        vector.extend((0..quarter).map(|j| angle(j).sin()));
        vector.extend((0..quarter).map(|j| angle(j).cos()));
    }
    vector
}

/// Plain runs and RALU's last stage have diffusers' `cropped_pos_embed`, number for number; what lies between two
/// entries is the formula's, or the entries' mean where they do not follow it.
#[test]
fn sd3_positions_are_diffusers_and_lie_between_its_entries() {
    let check = |source: &dyn Source, grid: Grid, expected: Interpolation| {
        let config = ModelConfig::load(source).unwrap();
        let config = sd3(&config);
        let (side, hidden) = (config.pos_embed_max_size, config.hidden());
        let weights = Weights::open(source, "transformer", stem::DIFFUSERS).unwrap();
        let manifest = Manifest::new(&weights);
        let ids = ResidentIds::default();
        let context = LoadContext::new(&ids, Precision::Auto, u64::MAX);
        let network = config.load(&Loader::new(manifest.root(), &context));
        let table = network.position_table().unwrap();
        assert_eq!(table.side(), side);
        let between = table.check(&weights).unwrap();
        assert_eq!(between, expected);

        // [1, P * P, hidden]
        let info = weights.info("pos_embed.pos_embed").unwrap();
        let all = weights.tensor_f32(info).unwrap();
        let stored = |row: usize, col: usize| &all[(row * side + col) * hidden..][..hidden];
        let full = TokenLayout::full(grid).unwrap();
        let positions = table_positions(&full, side).unwrap();
        let (rows, cols) = (2 * grid.rows, 2 * grid.cols);
        let (top, left) = ((side - rows) / 2, (side - cols) / 2);
        let cropped: Vec<f32> = (top..top + rows)
            .flat_map(|row| (left..left + cols).flat_map(move |col| stored(row, col)))
            .copied()
            .collect();
        assert!(table.rows(&weights, &positions, between).unwrap() == cropped);

        let mixed = TokenLayout::mixed(grid, &[1, 4]).unwrap();
        let positions = table_positions(&mixed, side).unwrap();
        let found = table.rows(&weights, &positions, between).unwrap();
        let base = config.sample_size as f64 / 2.0;
        let mut fractions = 0;
        for (position, found) in positions.iter().zip(found.chunks_exact(hidden)) {
            let [row, col] = position.map(f64::from);
            if row.fract() == 0.0 && col.fract() == 0.0 {
                assert_eq!(found, stored(row as usize, col as usize), "{position:?}");
                continue;
            }
            fractions += 1;
            let expected = match between {
                Interpolation::Formula => position_vector([row, col], hidden, base, side),
                Interpolation::Linear => {
                    let corners = [[row.floor(), row.ceil()], [col.floor(), col.ceil()]];
                    let [rows, cols] = corners.map(|ends| ends.map(|end| end as usize));
                    let at = |i: usize| rows.map(|r| cols.map(|c| f64::from(stored(r, c)[i])));
                    (0..hidden).map(|i| at(i).iter().flatten().sum::<f64>() / 4.0).collect()
                }
            };
            for (a, b) in found.iter().zip(expected) {
                // Numbers up to 1, rounded to f32 once (the formula) or at four additions.
                assert!((f64::from(*a) - b).abs() < 3e-7, "{position:?}: {a}, expected {b}");
            }
        }
        // Three children of each selected token.
        assert_eq!(fractions, 6);
    };
    // Grids that lie in the table's middle, and half an entry beside it.
    for (rows, cols) in [(2, 4), (3, 5), (24, 24)] {
        check(&fixture("sd3-calm"), Grid { rows, cols }, Interpolation::Formula);
        check(&fixture("sd35m-b"), Grid { rows, cols }, Interpolation::Formula);
    }
    // A table for pictures of another size.
    let mut files = sd3_calm_files();
    edit(&mut files, "transformer/config.json", "sample_size", Some(64.into()));
    check(&files, Grid { rows: 3, cols: 5 }, Interpolation::Linear);
}

#[test]
fn manifest_knows_prefixes_and_aliases() {
    for name in ["text_model.final_layer_norm.bias", "final_layer_norm.bias"] {
        let weights = open_bytes(&one(name)).unwrap();
        let manifest = Manifest::new(&weights);
        let w = manifest.root().pp_if_present("text_model");
        assert_eq!(&*w.require("final_layer_norm.bias", &[2]).name, name);
        assert!(manifest.finish(&[]).unwrap().is_empty());
    }
    let names = ["shared.weight", "encoder.embed_tokens.weight"];
    for name in names {
        let weights = open_bytes(&one(name)).unwrap();
        let manifest = Manifest::new(&weights);
        assert_eq!(&*manifest.root().require_any(&names, &[2]).name, name);
        assert!(manifest.finish(&[]).unwrap().is_empty());
    }
    let weights = open_bytes(&one("text_model.embeddings.position_ids")).unwrap();
    assert!(Manifest::new(&weights).finish(&["position_ids"]).unwrap().is_empty());
    assert_eq!(Manifest::new(&weights).finish(&["ids"]).unwrap().len(), 1);
    let manifest = Manifest::new(&weights);
    manifest.root().require_any(&names, &[2]);
    assert_mentions(
        &manifest.finish(&[]).unwrap_err().to_string(),
        &["shared.weight or encoder.embed_tokens.weight"],
    );
}

// ---------------------------------------------------------------------------------------------------------------------
// Costs

#[track_caller]
fn assert_tera(found: f64, expected: f64) {
    let found = found / 1e12;
    assert!((found / expected - 1.0).abs() < 1e-3, "{found} TFLOP, expected {expected}");
}

/// A plain run at `side` x `side` pixels: encoders, steps, one decode.
fn plain(config: &ModelConfig, side: usize, steps: usize, txt: usize) -> Flops {
    let m = (side / 16) * (side / 16);
    step(config, m, txt) * steps as f64
        + cost::vae_decode(&config.vae, side / 8, side / 8)
        + cost::text_encoders(config, txt)
}

/// A RALU run: three stages, a decode at either size.
fn ralu_run(config: &ModelConfig, side: usize, steps: [usize; 3], ratio: f64, txt: usize) -> Flops {
    let m = (side / 32) * (side / 32);
    let k = (ratio * m as f64) as usize;
    let stages = [m, m + 3 * k, 4 * m];
    stages.iter().zip(steps).map(|(m, n)| step(config, *m, txt) * n as f64).sum::<Flops>()
        + cost::vae_decode(&config.vae, side / 16, side / 16)
        + cost::vae_decode(&config.vae, side / 8, side / 8)
        + cost::text_encoders(config, txt)
}

const X4: ([usize; 3], f64) = ([5, 6, 7], 0.3);
const X5: ([usize; 3], f64) = ([4, 5, 6], 0.2);
const X7: ([usize; 3], f64) = ([2, 3, 5], 0.1);

#[test]
fn flops_of_the_papers_table() {
    let dev = builtin::get("flux.1-dev").unwrap();
    for (steps, expected) in [(50, 2990.39), (10, 609.90), (7, 431.37)] {
        assert_tera(plain(&dev, 1024, steps, 512).linear, expected);
    }
    let run =
        |(steps, _): ([usize; 3], f64), ratio, txt| ralu_run(&dev, 1024, steps, ratio, txt).linear;
    assert_tera(run(X4, 0.3, 512), 723.54);
    assert_tera(run(X5, 0.2, 256), 540.37);
    assert_tera(run(X5, 0.2, 512), 592.49);
    assert_tera(run(X7, 0.1, 512), 425.92);
    assert_tera(run(X7, 0.2, 512), 437.78);
    let edges = cost::vae_decode(&dev.vae, 64, 64).linear;
    assert_tera(run(X7, 0.1, 512) - edges, 423.44);
    assert_tera((step(&dev, 4096, 512) * 50.0).total(), 3719.2);

    let schnell = builtin::get("flux.1-schnell").unwrap();
    assert_tera(plain(&schnell, 1024, 4, 512).linear, 252.83);
    assert_tera(ralu_run(&schnell, 1024, [1, 1, 2], 0.3, 512).linear, 187.88);
}

#[test]
fn flops_of_one_step_and_of_the_parts() {
    let dev = builtin::get("flux.1-dev").unwrap();
    for (m, linear, total) in [
        (1024, 19.85, 21.50),
        (1330, 23.8, 26.18),
        (1636, 27.8, 30.98),
        (1945, 31.7, 35.97),
        (4096, 59.51, 74.38),
    ] {
        let step = step(&dev, m, 512);
        // The table has three digits here and there.
        assert!((step.linear / 1e12 - linear).abs() < 0.06, "{m}: {step:?}");
        assert!((step.total() / 1e12 - total).abs() < 0.01, "{m}: {step:?}");
    }
    let low = cost::vae_decode(&dev.vae, 64, 64);
    assert_tera(low.linear, 2.4806);
    assert!((low.linear / 4096.0 / 605.6e6 - 1.0).abs() < 1e-3);
    assert_eq!(low.attention, 2048.0 * 4096.0 * 4096.0);
    assert_tera(cost::vae_decode(&dev.vae, 128, 128).linear, 9.9224);
    let t5 = t5(&dev).unwrap();
    assert_tera(t5.flops(512).total(), 4.845);
    assert_tera(t5.flops(256).total(), 2.397);
    assert!((clips(&dev)[0].flops(77).total() / 1e9 - 13.0).abs() < 0.5);
}

/// An SD3 run as [`ralu_run`] or, with `None`, as [`plain`]: 77 tokens of CLIP and 256 of T5. Under classifier-free
/// guidance both prompts are encoded and both branches evaluated; the picture is decoded once.
fn sd3_run(
    config: &ModelConfig,
    steps: usize,
    ralu: Option<([usize; 3], f64)>,
    branches: usize,
) -> Flops {
    let decode = |side: usize| cost::vae_decode(&config.vae, side, side);
    let step = |tokens: usize| step(config, tokens, config.text_tokens(256));
    let sampling = match ralu {
        None => step(4096) * steps as f64,
        Some((steps, ratio)) => {
            let k = (ratio * 1024.0) as usize;
            let tokens = [1024, 1024 + 3 * k, 4096];
            tokens.iter().zip(steps).map(|(m, n)| step(*m) * n as f64).sum()
        }
    };
    let low = ralu.map_or(Flops::default(), |_| decode(64));
    (sampling + cost::text_encoders(config, 256)) * branches as f64 + low + decode(128)
}

const SD3_X2: ([usize; 3], f64) = ([5, 6, 9], 0.3);
const SD3_X3: ([usize; 3], f64) = ([3, 3, 6], 0.2);

#[test]
fn flops_of_the_papers_table_for_sd3() {
    let medium = builtin::get("sd3-medium").unwrap();
    assert_eq!(medium.text_tokens(256), 333);
    for (steps, expected) in [(28, 351.60), (14, 183.27), (9, 123.15)] {
        assert_tera(sd3_run(&medium, steps, None, 2).linear, expected);
    }
    assert_tera(sd3_run(&medium, 0, Some(SD3_X2), 2).linear, 181.04);
    assert_tera(sd3_run(&medium, 0, Some(SD3_X3), 2).linear, 116.58);
    let turbo = builtin::get("sd3.5-large-turbo").unwrap();
    assert_tera(sd3_run(&turbo, 4, None, 1).linear, 107.91);
    assert_tera(sd3_run(&turbo, 0, Some(([1, 1, 2], 0.3)), 1).linear, 82.21);
}

/// At 1024 x 1024 against 28 steps.
#[test]
fn speed_ups_of_sd3() {
    for (name, expected) in [
        ("sd3-medium", [1.94, 2.10, 3.02, 3.28]),
        ("sd3.5-medium", [1.97, 2.15, 3.08, 3.39]),
        ("sd3.5-large", [2.03, 2.12, 3.29, 3.44]),
    ] {
        let config = builtin::get(name).unwrap();
        // As in FLUX's table, the VAE's attention is left out, and the text encoders' is linear.
        let vae = |side: usize| cost::vae_decode(&config.vae, side, side).attention;
        let encoders = 2.0 * cost::text_encoders(&config, 256).attention;
        let full = sd3_run(&config, 28, None, 2);
        let mut found = Vec::new();
        for preset in [SD3_X2, SD3_X3] {
            let run = sd3_run(&config, 0, Some(preset), 2);
            found.push((full.linear + encoders) / (run.linear + encoders));
            found.push((full.total() - vae(128)) / (run.total() - vae(128) - vae(64)));
        }
        for (found, expected) in found.into_iter().zip(expected) {
            assert!((found - expected).abs() < 0.006, "{name}: {found}, expected {expected}");
        }
    }
}

/// GFLOP of one image token and one text token in the blocks, and the factors of attention.
#[test]
fn flops_of_sd3_tokens() {
    for (name, d, img, txt, joint, dual) in [
        ("sd3-medium", 1536.0, 1.358954, 1.316487, 147_456.0, 0.0),
        ("sd3.5-medium", 1536.0, 1.358954 + 0.245367, 1.316487, 147_456.0, 79_872.0),
        ("sd3.5-large", 2432.0, 5.394137, 5.287674, 369_664.0, 0.0),
    ] {
        let config = builtin::get(name).unwrap();
        let step = |m: usize, t: usize| step(&config, m, t);
        let Sd3Config { num_layers, dual_attention_layers, .. } = sd3(&config);
        let close = |found: f64, expected: f64| {
            // Seven digits are printed.
            assert!((found / 1e9 - expected).abs() < 1e-6, "{name}: {found}, expected {expected}");
        };
        // Without the patch embedding and the last layer, and without the context embedding.
        let base = step(1000, 100).linear;
        close(step(1001, 100).linear - base - 2.0 * 2.0 * 64.0 * d, img);
        // The paper's profiler counts the queries of the last block's text. Nothing reads what they would give, and we do
        // not compute them.
        let unread = 2.0 * d * d;
        close(step(1000, 101).linear - base - 2.0 * 4096.0 * d + unread, txt);
        let (m, t) = (1000.0, 100.0);
        let last = joint / *num_layers as f64;
        let attention = joint * (m + t) * (m + t) - last * t * (m + t) + dual * m * m;
        assert_eq!(step(1000, 100).attention, attention, "{name}");
        // A cache leaves the ends and perhaps the modulations.
        let ends = config.transformer.reused_flops(1000, 100, false);
        let modulated = config.transformer.reused_flops(1000, 100, true);
        let vectors = 12 * num_layers - 4 + 3 * dual_attention_layers.len();
        assert_eq!(modulated.linear - ends.linear, 2.0 * d * d * vectors as f64, "{name}");
        let blocks = base - modulated.linear + 100.0 * unread;
        assert!((blocks / 1e9 / (1000.0 * img + 100.0 * txt) - 1.0).abs() < 1e-6, "{name}");
        assert_eq!((ends.attention, modulated.attention), (0.0, 0.0));
    }
    let config = builtin::get("sd3-medium").unwrap();
    let [l, g] = clips(&config)[..] else { panic!("two CLIPs") };
    // To the digits that are printed.
    assert!((l.flops(77).linear / 1e12 - 0.013).abs() < 5e-4);
    assert!((g.flops(77).linear / 1e12 - 0.097).abs() < 5e-4);
    let t5 = t5(&config).unwrap().flops(256);
    assert_eq!(cost::text_encoders(&config, 256), l.flops(77) + g.flops(77) + t5);
}

#[test]
fn speed_up_at_1024() {
    let dev = builtin::get("flux.1-dev").unwrap();
    // The table leaves the VAE's attention out (0.06 % of the 4x run); so do we, to compare two decimals.
    let vae = |side: usize| cost::vae_decode(&dev.vae, side / 8, side / 8).attention;
    let half = plain(&dev, 1024, 28, 512).total() - vae(1024);
    let full = plain(&dev, 1024, 50, 512);
    for ((steps, ratio), linear, total, honest) in
        [(X4, 4.13, 4.34, 2.44), (X5, 5.05, 5.30, 2.98), (X7, 7.02, 7.31, 4.11)]
    {
        let run = ralu_run(&dev, 1024, steps, ratio, 512);
        let run_total = run.total() - vae(512) - vae(1024);
        let found =
            [full.linear / run.linear, (full.total() - vae(1024)) / run_total, half / run_total];
        for (found, expected) in found.into_iter().zip([linear, total, honest]) {
            assert!((found - expected).abs() < 0.006, "{found}, expected {expected}");
        }
    }
}

#[test]
fn parameters_of_the_published_models() {
    let dev = Parameters::of(&builtin::get("flux.1-dev").unwrap());
    assert_eq!(dev.transformer, 11_901_408_320);
    let t5 = 4_762_310_656;
    assert_eq!(dev.text_encoders, [123_060_480, t5]);
    assert_eq!(dev.vae_decoder, 49_545_475);
    let schnell = builtin::get("flux.1-schnell").unwrap();
    assert_eq!(Parameters::of(&schnell).transformer, 11_891_178_560);
    assert_eq!(builtin::weight_bytes(&schnell, 2).transformer, 2 * 11_891_178_560);
    for (name, transformer) in [
        ("sd3-medium", 2_028_328_000),
        ("sd3.5-medium", 2_243_171_520),
        ("sd3.5-large", 8_056_627_520),
        ("sd3.5-large-turbo", 8_056_627_520),
    ] {
        let config = builtin::get(name).unwrap();
        let text_encoders = vec![123_650_304, 694_659_840, t5];
        let found = Parameters::of(&config);
        assert_eq!(found, Parameters { transformer, text_encoders, ..dev }, "{name}");
        let bytes = builtin::weight_bytes(&config, 2);
        assert_eq!((bytes.transformer, bytes.text_encoders[2]), (2 * transformer, 2 * t5));
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Tokenizers

/// Prompts, and what transformers makes of them with tiny-flux: CLIP ids up to the end mark, T5 ids without padding.
#[rustfmt::skip]
const GOLDEN: &[(&str, &[u32], &[u32])] = &[
    ("a cat and a pizza, green background", &[1505, 320, 764, 524, 320, 927, 267, 565, 520, 1506], &[3, 85, 7, 3, 143, 781, 17, 4, 1]),
    ("a blue car on a yellow background", &[1505, 320, 537, 652, 521, 320, 570, 520, 1506], &[3, 8, 45, 5, 3, 20, 4, 1]),
    ("a red apple on a blue background", &[1505, 320, 563, 743, 521, 320, 537, 520, 1506], &[3, 19, 81, 5, 3, 8, 4, 1]),
    ("", &[1505, 1506], &[1]),
    ("   ", &[1505, 1506], &[1]),
    ("A RED Apple, ON a Blue  BACKGROUND", &[1505, 320, 563, 743, 267, 521, 320, 537, 520, 1506], &[12, 1080, 1045, 1032, 1031, 426, 781, 944, 1041, 3, 51, 1080, 1029, 1028, 1030, 1038, 1034, 1045, 1042, 1048, 1041, 1031, 1]),
    ("café naïve Ångström", &[1505, 588, 69, 127, 358, 77, 64, 127, 107, 614, 127, 98, 77, 70, 675, 81, 127, 114, 332, 1506], &[1080, 1056, 1054, 1059, 2, 984, 1054, 2, 922, 1080, 2, 1067, 1060, 1072, 1073, 1071, 2, 1066, 1]),
    ("a cat 🐱 and 🎨👩\u{200d}👩\u{200d}👧", &[1505, 320, 764, 172, 253, 238, 365, 524, 172, 253, 236, 101, 172, 253, 239, 102, 158, 222, 235, 172, 253, 239, 102, 158, 222, 235, 172, 253, 239, 356, 1506], &[3, 85, 1080, 2, 7, 1080, 2, 1]),
    ("一只红色的猫在蓝色背景上", &[1505, 160, 116, 222, 161, 237, 103, 163, 118, 95, 164, 231, 110, 163, 248, 226, 163, 234, 104, 161, 250, 101, 164, 241, 251, 164, 231, 110, 164, 225, 234, 162, 247, 107, 160, 116, 488, 1506], &[1080, 2, 1]),
    ("don't we'll I've it's O'Neil's", &[1505, 67, 521, 6, 339, 86, 324, 6, 984, 328, 6, 614, 72, 339, 6, 338, 334, 262, 596, 758, 6, 338, 1506], &[1080, 1057, 882, 1013, 1073, 1080, 1076, 1058, 1013, 1065, 1065, 938, 1013, 922, 1080, 856, 1013, 1072, 944, 1013, 1041, 1058, 1062, 1]),
    ("x  y\u{9}\u{9}z\u{a}\u{a}w", &[1505, 343, 344, 345, 342, 1506], &[1080, 1077, 1009, 1080, 1079, 1080, 1076, 1]),
    ("1234567890 3.14 50%", &[1505, 272, 273, 274, 275, 276, 277, 278, 279, 280, 271, 274, 269, 272, 275, 276, 271, 260, 1506], &[1080, 1019, 1020, 1021, 1022, 1023, 1024, 1025, 1026, 1027, 1018, 1080, 1021, 782, 1019, 1022, 1080, 1023, 1018, 1011, 1]),
    ("!!!???...---", &[1505, 0, 0, 0, 30, 30, 30, 13, 13, 13, 12, 12, 268, 1506], &[1080, 783, 783, 783, 784, 784, 784, 782, 782, 782, 1016, 1016, 1016, 1]),
    ("a <|endoftext|> b", &[1505, 320, 1506, 321, 1506], &[3, 1080, 2, 827, 1057, 879, 1073, 832, 1073, 2, 959, 1]),
    ("a <|startoftext|> b <|STARTOFTEXT|>", &[1505, 320, 1505, 321, 1505, 1506], &[3, 1080, 2, 1072, 1073, 804, 879, 1073, 832, 1073, 2, 959, 1080, 2, 1046, 1047, 1028, 1045, 1047, 1042, 1033, 1047, 1032, 1]),
    ("</s> <pad> <unk> <extra_id_0>", &[1505, 27, 270, 338, 285, 283, 79, 811, 285, 283, 681, 330, 285, 283, 68, 87, 679, 320, 318, 72, 323, 318, 271, 285, 1506], &[1, 0, 2, 1080, 2, 832, 1073, 1071, 1054, 2, 1062, 1057, 2, 1018, 2, 1]),
    ("cafe\u{301} A\u{30a}ngstrom", &[1505, 588, 69, 127, 358, 127, 98, 77, 70, 675, 547, 332, 1506], &[1080, 1056, 1054, 1059, 2, 1080, 2, 1067, 1060, 1072, 1073, 1071, 1068, 1066, 1]),
    ("ﬁne ﬂow ½ ① Ⅳ", &[1505, 171, 105, 223, 667, 171, 105, 224, 78, 342, 126, 377, 158, 239, 510, 158, 227, 367, 1506], &[970, 850, 1058, 970, 864, 1080, 1019, 2, 1020, 1080, 1019, 938, 1049, 1]),
    ("\u{200b}zero\u{200d}width\u{feff}", &[1505, 158, 222, 489, 89, 656, 334, 158, 222, 491, 86, 72, 67, 786, 171, 119, 379, 1506], &[1080, 1079, 830, 1068, 2, 1076, 1062, 1057, 911, 1]),
    ("\u{0}\u{1}control\u{7f}", &[1505, 188, 445, 1353, 331, 477, 1506], &[1080, 2, 1056, 882, 1073, 1071, 880, 1]),
    ("a\u{a0}b\u{3000}c", &[1505, 320, 321, 322, 1506], &[3, 959, 1080, 1056, 1]),
    ("İstanbul ẞ ǅ", &[1505, 328, 136, 485, 675, 538, 630, 331, 127, 509, 131, 484, 1506], &[1080, 2, 1072, 1073, 1054, 1067, 1055, 1074, 1065, 1080, 2, 1080, 1031, 2, 1]),
    ("#version hello", &[1505, 258, 1484, 82, 1376, 895, 75, 334, 1506], &[1080, 2, 923, 1072, 1062, 882, 976, 825, 1068, 1]),
    ("under_score-dash/slash\\back", &[1505, 1494, 318, 82, 593, 324, 268, 735, 82, 327, 270, 82, 589, 82, 327, 315, 516, 330, 1506], &[753, 2, 1072, 1056, 1068, 899, 1016, 814, 1072, 1061, 1017, 1072, 858, 1072, 1061, 2, 1055, 790, 1]),
    ("▁meta▁space", &[1505, 158, 244, 479, 767, 83, 320, 158, 244, 479, 82, 79, 590, 1506], &[981, 1058, 1073, 1054, 997, 1069, 789, 1]),
    ("  lead and trail  ", &[1505, 544, 811, 524, 1349, 758, 1506], &[1080, 863, 792, 7, 1002, 1071, 1054, 1062, 1065, 1]),
    ("it's'S 'T", &[1505, 72, 339, 6, 338, 6, 338, 6, 339, 1506], &[1080, 856, 1013, 1072, 1013, 1046, 1080, 1013, 1047, 1]),
    ("a,b;c:d", &[1505, 320, 267, 321, 282, 322, 281, 323, 1506], &[3, 781, 1055, 785, 1056, 786, 1057, 1]),
];

/// The files CLIP has in the original FLUX.1 repositories.
fn without_clip_json() -> Memory {
    let mut files = text_files(&tiny_flux());
    assert!(files.remove("tokenizer/tokenizer.json"));
    files
}

fn padded(ids: &[u32], length: usize, pad: u32) -> Vec<u32> {
    let mut ids = ids.to_vec();
    ids.resize(length, pad);
    ids
}

#[test]
fn tokens_equal_those_of_transformers() {
    let folder = tiny_flux();
    let clip = ClipTokenizer::load(&folder, "tokenizer").unwrap();
    let clip_files = ClipTokenizer::load(&without_clip_json(), "tokenizer").unwrap();
    let t5 = T5Tokenizer::load(&folder, "tokenizer_2").unwrap();
    assert_eq!((clip.max_length(), clip_files.max_length()), (77, 77));
    for (prompt, clip_ids, t5_ids) in GOLDEN {
        let expected = padded(clip_ids, 77, 1506);
        assert_eq!(
            clip.encode(prompt).unwrap(),
            Encoded { ids: expected.clone(), real: clip_ids.len(), truncated: None },
            "{prompt:?}"
        );
        assert_eq!(
            clip_files.encode(prompt).unwrap().ids,
            expected,
            "{prompt:?} from vocab.json and merges.txt"
        );
        // One of the prompts is cut off here.
        assert_eq!(t5.encode(prompt, 24).unwrap().ids, padded(t5_ids, 24, 0), "{prompt:?}");
    }
}

#[test]
fn tokens_of_the_fixtures() {
    for name in ["flux-a", "flux-b"] {
        let read =
            |file: &str| std::fs::read(repository("tests/fixtures").join(name).join(file)).unwrap();
        let case: serde_json::Value = serde_json::from_slice(&read("case.json")).unwrap();
        let (prompt, length) =
            (case["prompt"].as_str().unwrap(), case["max_sequence_length"].as_u64().unwrap());
        let bytes = read("expected.safetensors");
        let expected = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let ids = |name: &str| -> Vec<u32> {
            let view = expected.tensor(name).unwrap();
            let size = view.data().len() / view.shape().iter().product::<usize>();
            view.data()
                .chunks(size)
                .map(|b| u32::from_le_bytes(b[..4].try_into().unwrap()))
                .collect()
        };
        let model = fixture(name);
        let clip = ClipTokenizer::load(&model, "tokenizer").unwrap();
        let t5 = T5Tokenizer::load(&model, "tokenizer_2").unwrap();
        assert_eq!(clip.encode(prompt).unwrap().ids, ids("clip_ids"));
        assert_eq!(t5.encode(prompt, length as usize).unwrap().ids, ids("t5_ids"));
        // transformers 5 splits at white space even if the file's own settings would not.
        assert_eq!(t5.encode("   ", 4).unwrap().ids, [1, 0, 0, 0]);
        assert_eq!(t5.encode("  lead ", 8).unwrap().ids, [3, 12, 4, 5, 9, 1, 0, 0]);
    }
}

#[test]
fn long_and_odd_prompts() {
    let folder = tiny_flux();
    let clip = ClipTokenizer::load(&folder, "tokenizer").unwrap();
    let t5 = T5Tokenizer::load(&folder, "tokenizer_2").unwrap();
    let start = std::time::Instant::now();
    for text in [
        "a red apple, ".repeat(7_700),
        "a".repeat(100_000),
        "猫".repeat(100_000),
        " ".repeat(100_000),
        "🐱".repeat(50_000),
    ] {
        let encoded = clip.encode(&text).unwrap();
        assert_eq!((encoded.ids.len(), encoded.ids[0], encoded.ids[76]), (77, 1505, 1506));
        let encoded = t5.encode(&text, 24).unwrap();
        assert_eq!(encoded.ids.len(), 24);
    }
    // Quadratic behaviour would take minutes.
    assert!(start.elapsed().as_secs() < 30, "{:?}", start.elapsed());

    let words = "cat ".repeat(100);
    let encoded = clip.encode(&words).unwrap();
    assert_eq!(encoded.truncated, Some(25));
    assert_eq!(encoded.ids, [&[1505][..], &[764; 75], &[1506]].concat());
    let encoded = t5.encode("blue ".repeat(30).trim(), 24).unwrap();
    assert_eq!((encoded.ids[22], encoded.ids[23], encoded.truncated), (8, 1, Some(7)));
    // Exactly full is not truncated.
    assert_eq!(clip.encode(&"cat ".repeat(75)).unwrap().truncated, None);
    assert_eq!(t5.encode("blue", 2).unwrap().ids, [8, 1]);
    let cut = Encoded { ids: vec![1], real: 1, truncated: Some(1) };
    assert_eq!(t5.encode("blue", 1).unwrap(), cut);
    assert!(matches!(t5.encode("blue", 0), Err(TokenError::Length { found: 0, least: 1 })));
}

#[test]
fn tokenizer_files_in_every_state() {
    let whole = text_files(&tiny_flux());
    // The length of a truncation that a file carries is not ours; its side is (tests/added_tokens.rs).
    for (dir, n) in [("tokenizer", 7), ("tokenizer_2", 9)] {
        let mut files = whole.clone();
        let path = format!("{dir}/tokenizer.json");
        let truncation = serde_json::json!({"direction": "Right", "max_length": n, "strategy": "LongestFirst", "stride": 0});
        edit(&mut files, &path, "truncation", Some(truncation));
        edit(&mut files, &path, "post_processor", None);
        let clip = ClipTokenizer::load(&files, "tokenizer").unwrap();
        let t5 = T5Tokenizer::load(&files, "tokenizer_2").unwrap();
        for (prompt, clip_ids, t5_ids) in GOLDEN {
            assert_eq!(clip.encode(prompt).unwrap().ids, padded(clip_ids, 77, 1506));
            assert_eq!(t5.encode(prompt, 24).unwrap().ids, padded(t5_ids, 24, 0));
        }
    }
    // The configuration files are a help, not a need.
    let mut files = whole.clone();
    for dir in ["tokenizer", "tokenizer_2"] {
        assert!(files.remove(&format!("{dir}/tokenizer_config.json")));
        assert!(files.remove(&format!("{dir}/special_tokens_map.json")));
    }
    let clip = ClipTokenizer::load(&files, "tokenizer").unwrap();
    assert_eq!(clip.encode("a cat").unwrap().ids, padded(&[1505, 320, 764], 77, 1506));
    assert_eq!(
        T5Tokenizer::load(&files, "tokenizer_2").unwrap().encode("", 3).unwrap().ids,
        [1, 0, 0]
    );

    clip.check_vocab(1507).unwrap();
    assert_mentions(&clip.check_vocab(1506).unwrap_err().to_string(), &["1506", "embeddings"]);

    // What a vocabulary lacks is added to it, as in transformers.
    let mut files = without_clip_json();
    edit(&mut files, "tokenizer/vocab.json", "<|endoftext|>", None);
    let clip = ClipTokenizer::load(&files, "tokenizer").unwrap();
    let ids = [1505, 320, 563, 1506, 743];
    assert_eq!(clip.encode("a red <|endoftext|> apple").unwrap().ids, padded(&ids, 77, 1506));

    let clip = |files: &Memory| ClipTokenizer::load(files, "tokenizer").err().unwrap().to_string();
    let path = "tokenizer/tokenizer_config.json";
    edit(&mut files, path, "eos_token", Some("".into()));
    assert_mentions(&clip(&files), &["model/tokenizer/vocab.json", "no token", "eos_token"]);
    let mut files = without_clip_json();
    edit(&mut files, "tokenizer/vocab.json", "cat</w>", Some((1u64 << 40).into()));
    assert_mentions(&clip(&files), &["vocab.json", "cat</w>"]);
    for (merges, parts) in
        [("#version: 0.2\na b c", ["line 2", "a b c"]), ("zz qq", ["qq", "out of vocabulary"])]
    {
        let files = without_clip_json().with("tokenizer/merges.txt", merges);
        assert_mentions(&clip(&files), &parts);
    }
    let mut files = without_clip_json();
    files.remove("tokenizer/merges.txt");
    assert_mentions(
        &clip(&files),
        &["model/tokenizer", "tokenizer.json", "merges.txt", "vocab.json"],
    );
    let mut files = whole.clone();
    files.remove("tokenizer_2/tokenizer.json");
    let message = T5Tokenizer::load(&files, "tokenizer_2").err().unwrap().to_string();
    assert_mentions(&message, &["model/tokenizer_2", "tokenizer.json"]);
    // Each other's files.
    assert_mentions(
        &ClipTokenizer::load(&whole, "tokenizer_2").err().unwrap().to_string(),
        &["tokenizer_2", "vocab"],
    );
    assert_mentions(
        &T5Tokenizer::load(&whole, "tokenizer").err().unwrap().to_string(),
        &["tokenizer.json", "vocab"],
    );
}

#[test]
fn damaged_tokenizers_never_panic() {
    let mut random = Lcg(3);
    let text = "A cat's pizza, ﬁne ½ 猫 \u{1f431} <pad> </s> <|endoftext|>";
    let small = text_files(&fixture("flux-a"));
    let tiny = without_clip_json();
    let mut try_all = |files: &Memory, path: &str, times: usize| {
        let whole = files.text(path).unwrap().unwrap();
        for _ in 0..times {
            let files = files.clone().with(path, damage(whole.as_bytes(), &mut random));
            if path.starts_with("tokenizer/") {
                let _ =
                    ClipTokenizer::load(&files, "tokenizer").map(|clip| clip.encode(text).is_ok());
            } else {
                let _ =
                    T5Tokenizer::load(&files, "tokenizer_2").map(|t5| t5.encode(text, 16).is_ok());
            }
        }
    };
    try_all(&small, "tokenizer/tokenizer.json", 200);
    try_all(&small, "tokenizer/tokenizer_config.json", 100);
    try_all(&small, "tokenizer_2/tokenizer.json", 400);
    try_all(&tiny, "tokenizer/vocab.json", 50);
    try_all(&tiny, "tokenizer/merges.txt", 50);
    // Mostly hits the character map, which is most of the file.
    try_all(&tiny, "tokenizer_2/tokenizer.json", 60);
}

#[test]
fn damaged_character_maps_never_panic() {
    let mut files = text_files(&tiny_flux());
    let path = "tokenizer_2/tokenizer.json";
    let json: serde_json::Value =
        serde_json::from_str(&files.text(path).unwrap().unwrap()).unwrap();
    let map = json["normalizer"]["precompiled_charsmap"].as_str().unwrap().to_string();
    let mut random = Lcg(4);
    let every_plane: String = (1..0x3000)
        .step_by(7)
        .chain([0xfb01, 0x1f431, 0xac00])
        .filter_map(char::from_u32)
        .collect();
    for i in 0..40 {
        let mut bytes = map.clone().into_bytes();
        match i {
            0 => bytes.clear(),
            1 => bytes.truncate(4),
            2 => bytes.truncate(bytes.len() / 8 * 4),
            _ => {
                for _ in 0..200 {
                    let at = random.below(bytes.len());
                    bytes[at] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
                        [random.below(64)];
                }
            }
        }
        let normalizer = serde_json::json!({"type": "Sequence", "normalizers": [
            {"type": "Precompiled", "precompiled_charsmap": String::from_utf8(bytes).unwrap()},
        ]});
        edit(&mut files, path, "normalizer", Some(normalizer));
        match T5Tokenizer::load(&files, "tokenizer_2") {
            Ok(t5) => drop(t5.encode(&every_plane, 64).unwrap()),
            Err(error) => assert_mentions(&error.to_string(), &["precompiled_charsmap"]),
        }
    }
}
