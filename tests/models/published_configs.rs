//! Configurations: the fixtures', the built-in ones against the published files, and fields that are absent.

use ralu::checkpoint::source::{Memory, Source};
use ralu::models::builtin;
use ralu::models::config::*;
use ralu::models::cost::{self, Flops, Parameters};
use ralu::models::encoders::TextEncoderConfig;
use ralu::models::sd3::Sd3Config;

use crate::folders::{
    PUBLISHED_FLUX, assert_mentions, clips, edit, fixture, flux, flux_1_dev_files, sd3,
    sd3_medium_files, t5, text_files, tiny_flux,
};

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
