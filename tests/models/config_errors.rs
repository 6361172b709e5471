//! Configurations that no model has: the error names file, field and what was expected.

use ralu::checkpoint::source::Memory;
use ralu::models::config::*;
use ralu::models::cost::Parameters;
use ralu::models::sd3::Sd3Config;

use crate::folders::{
    Lcg, PUBLISHED_FLUX, PUBLISHED_SD3, assert_mentions, damage, edit, flux_1_dev_files,
    sd3_medium_files, step,
};

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
                        assert!(Parameters::of(&config).total() > 0);
                        config.defaults();
                    }
                    Err(error) => assert!(error.to_string().len() > 20),
                }
            }
        }
    }
}
