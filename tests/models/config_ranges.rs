//! What `ralu inspect` calls a model that can be run, no run refuses later: values are checked when they are read.

use std::path::PathBuf;

use ralu::checkpoint::source::{Folder, Memory, Source};
use ralu::models::config::ModelConfig;
use ralu::pipeline::{Request, RunSchedule, Settings};
use serde_json::{Value, json};

/// The text files of a fixture's model.
fn files(name: &str) -> Memory {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    let folder = Folder::open(root.join("model")).unwrap();
    let mut memory = Memory::new("model");
    for dir in [String::new()].into_iter().chain(folder.list("").unwrap()) {
        for file in folder.list(&dir).unwrap() {
            let path = if dir.is_empty() { file } else { format!("{dir}/{file}") };
            if let (true, Ok(Some(text))) = (path.ends_with(".json"), folder.text(&path)) {
                memory.insert(&path, text);
            }
        }
    }
    memory
}

fn edit(memory: &mut Memory, path: &str, fields: &Value) {
    let text = memory.text(path).unwrap().unwrap_or_else(|| "{}".into());
    let mut json: Value = serde_json::from_str(&text).unwrap();
    for (field, value) in fields.as_object().unwrap() {
        json[field] = value.clone();
    }
    memory.insert(path, json.to_string());
}

/// The configuration after an edit, or what is wrong with it.
fn load(model: &str, path: &str, fields: &Value) -> Result<ModelConfig, String> {
    let mut files = files(model);
    edit(&mut files, path, fields);
    ModelConfig::load(&files).map_err(|error| error.to_string())
}

const GENERATION: &str = "generation_config.json";
const SCHEDULER: &str = "scheduler/scheduler_config.json";
const TOKENIZER: &str = "tokenizer/tokenizer_config.json";
const TRANSFORMER: &str = "transformer/config.json";

#[test]
fn what_no_run_takes_is_refused_when_it_is_read() {
    let dynamic = |fields: Value| {
        let mut all = json!({"use_dynamic_shifting": true, "base_image_seq_len": 256, "max_image_seq_len": 4096});
        all.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        all
    };
    let cases = [
        (GENERATION, json!({"width": 9000}), "\"width\" is 9000; expected 16 to 8192"),
        (GENERATION, json!({"height": 8}), "\"height\" is 8; expected 16 to 8192"),
        (GENERATION, json!({"num_inference_steps": 10001}), "expected 1 to 10000"),
        (GENERATION, json!({"num_inference_steps": 0}), "num_inference_steps"),
        (GENERATION, json!({"guidance_scale": 1001}), "expected a number from 0 to 1000"),
        (GENERATION, json!({"guidance_scale": -1}), "expected a number from 0 to 1000"),
        (GENERATION, json!({"true_cfg_scale": 4294967296u64}), "expected a number from 0 to 1000"),
        (GENERATION, json!({"max_sequence_length": 4097}), "expected 1 to 4096"),
        (GENERATION, json!({"negative_prompt": 3}), "negative_prompt"),
        (GENERATION, json!({"ralu": "9x"}), "\"ralu\" is 9x; expected a preset of RALU (2x, 3x"),
        (GENERATION, json!({"ralu": "distilled"}), "one of this model's presets (2x, 3x"),
        (TOKENIZER, json!({"model_max_length": 512}), "expected at most 77"),
        (TOKENIZER, json!({"model_max_length": null, "max_len": 78}), "\"max_len\" is 78"),
        (TOKENIZER, json!({"model_max_length": 1}), "at least 2"),
        (TOKENIZER, json!({"model_max_length": 76.5}), "a whole number"),
        (TOKENIZER, json!({"model_max_length": "77"}), "model_max_length"),
        (
            SCHEDULER,
            dynamic(json!({"time_shift_type": "linear", "base_shift": -1, "max_shift": -1})),
            "at least 1e-6",
        ),
        (
            SCHEDULER,
            dynamic(json!({"time_shift_type": "linear", "base_shift": 1e-40, "max_shift": 1e-40})),
            "at least 1e-6",
        ),
        (
            SCHEDULER,
            dynamic(json!({"time_shift_type": "linear", "base_shift": 1, "max_shift": -1})),
            "max_shift",
        ),
        (SCHEDULER, dynamic(json!({"base_shift": 900, "max_shift": 900})), "from -13 to 80"),
        (SCHEDULER, dynamic(json!({"base_shift": -40, "max_shift": -40})), "from -13 to 80"),
        (SCHEDULER, dynamic(json!({"max_shift": 1000})), "max_shift"),
        (SCHEDULER, json!({"shift": 1e39}), "fits 32 bits"),
        (SCHEDULER, json!({"shift": -3}), "at least 1e-6"),
        // 1 + (shift - 1) is 0, and no noise level is finite.
        (SCHEDULER, json!({"shift": 1e-17}), "at least 1e-6"),
        (SCHEDULER, json!({"num_train_timesteps": 0}), "num_train_timesteps"),
        (SCHEDULER, json!({"use_flow_sigmas": 1}), "true or false"),
        ("vae/config.json", json!({"scaling_factor": 1e-30}), "scaling_factor"),
        ("vae/config.json", json!({"scaling_factor": 1e30}), "scaling_factor"),
        ("vae/config.json", json!({"shift_factor": 1e30}), "shift_factor"),
        ("vae/config.json", json!({"up_block_types": "UpDecoderBlock2D"}), "up_block_types"),
        ("text_encoder/config.json", json!({"layer_norm_eps": 1e-60}), "layer_norm_eps"),
        ("text_encoder/config.json", json!({"max_position_embeddings": 40}), "at most 40"),
    ];
    for (path, fields, part) in cases {
        let message = load("flux-a", path, &fields).expect_err(&format!("{path}: {fields}"));
        assert!(
            message.starts_with(&format!(
                "model/{}",
                if part == "at most 40" { TOKENIZER } else { path }
            )),
            "{message}"
        );
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
}

#[test]
fn sizes_of_sd3_lie_on_its_table() {
    // 48 x 48 places, so 768 x 768 pixels; its own size is 32 x 8.
    for (path, fields, part) in [
        (TRANSFORMER, json!({"sample_size": 97}), "\"sample_size\" is 97; expected 2 to 96"),
        (TRANSFORMER, json!({"sample_size": 1}), "\"sample_size\" is 1; expected 2 to 96"),
        (GENERATION, json!({"width": 776}), "\"width\" is 776; expected 16 to 768"),
        (
            GENERATION,
            json!({"width": 512, "height": 1024}),
            "\"height\" is 1024; expected 16 to 768",
        ),
        // All encoders read the first one's number of tokens.
        (
            TOKENIZER,
            json!({"model_max_length": 40}),
            "expected 40, as tokenizer/tokenizer_config.json has it",
        ),
    ] {
        let message = load("sd3-a", path, &fields).expect_err(&format!("{path}: {fields}"));
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
    load("sd3-a", TRANSFORMER, &json!({"sample_size": 96})).unwrap();
    let mut files = files("sd3-a");
    for path in [TOKENIZER, "tokenizer_2/tokenizer_config.json"] {
        edit(&mut files, path, &json!({"model_max_length": 40}));
    }
    let config = ModelConfig::load(&files).unwrap();
    assert_eq!((config.fixed_text_length(), config.text_tokens(64)), (40, 104));
}

#[test]
fn a_length_without_limit_is_the_tables() {
    for length in [json!(1e30), json!(null), json!(77)] {
        let config = load("flux-a", TOKENIZER, &json!({"model_max_length": length})).unwrap();
        assert_eq!(config.fixed_text_length(), 77);
    }
    let config = load("flux-a", TOKENIZER, &json!({"model_max_length": 40})).unwrap();
    assert_eq!(config.fixed_text_length(), 40);
    // T5 has no table.
    load("flux-a", "tokenizer_2/tokenizer_config.json", &json!({"model_max_length": 4096}))
        .unwrap();
}

/// What passes can be planned in every size that the model's own settings mean.
#[test]
fn own_settings_can_be_run() {
    let linear = json!({
        "use_dynamic_shifting": true, "time_shift_type": "linear", "base_shift": 0.5, "max_shift": 1.15
    });
    for (model, path, fields) in [
        ("flux-a", GENERATION, json!({"width": 8192, "height": 16, "num_inference_steps": 10_000})),
        (
            "flux-a",
            GENERATION,
            json!({"guidance_scale": 0, "true_cfg_scale": 1000, "max_sequence_length": 1}),
        ),
        ("flux-a", SCHEDULER, linear),
        ("flux-a", SCHEDULER, json!({"shift": 1e-6})),
        ("flux-a", SCHEDULER, json!({"shift": 1e30})),
        ("flux-a", SCHEDULER, json!({"num_train_timesteps": 1})),
        ("sd3-a", SCHEDULER, json!({"num_train_timesteps": 1})),
        // An odd number of places: RALU's pairs of tokens would not fit.
        ("sd3-a", TRANSFORMER, json!({"pos_embed_max_size": 31, "sample_size": 62})),
    ] {
        let config = load(model, path, &fields).unwrap();
        let settings = Settings::resolve(&Request::new(""), &config).unwrap();
        RunSchedule::new(&settings, &config).unwrap();
    }
}

/// Down to the least shift: `1 + (h - 1) u` at `u = 1` is off by an ulp of 1, 2.2e-16, and so the first level by 2.2e-10.
#[test]
fn the_least_shift_gives_noise_levels() {
    for fields in [
        json!({"use_dynamic_shifting": false, "shift": 1e-6}),
        json!({"use_dynamic_shifting": true, "base_shift": -13, "max_shift": -13}),
    ] {
        let config = load("flux-a", SCHEDULER, &fields).unwrap();
        let request = Request::new("").size(64, 64).ralu(ralu::pipeline::RaluChoice::Off);
        let settings = Settings::resolve(&request, &config).unwrap();
        let schedule = RunSchedule::new(&settings, &config).unwrap();
        let sigmas = &schedule.stages[0].sigmas;
        assert!(
            sigmas.iter().all(|sigma| (0.0..=1.0 + 1e-9).contains(sigma)),
            "{fields}: {sigmas:?}"
        );
    }
}

/// A part that may be left out is left out by null, not by a slip: without T5 the picture is another one.
#[test]
fn an_optional_part_is_there_or_null() {
    const INDEX: &str = "model_index.json";
    for value in [
        json!("x"),
        json!(0),
        json!(true),
        json!({}),
        json!(["transformers"]),
        json!(["transformers", "T5EncoderModel", "x"]),
    ] {
        let message = load("sd3-calm", INDEX, &json!({ "text_encoder_3": value })).unwrap_err();
        for part in [INDEX, "text_encoder_3", "T5EncoderModel", "its library and its class"] {
            assert!(message.contains(part), "{value}: {message}");
        }
    }
}
