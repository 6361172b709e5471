//! What a picture says about itself, and the run that is made of it.

use arbitrary::Unstructured;
use ralu::models::config::ModelConfig;
use ralu::pipeline::plan::{Caps, plan};
use ralu::pipeline::{Options, Saved, Settings};

use super::check::{clean, message, scheduled};
use super::edits::edited;
use super::limits::{Memory, bounded};
use super::model::{Model, fixtures};

/// With the plan of a run.
const MEMORY: Memory = Memory { bytes: 16 << 20, per_byte: 64 };

/// A request with all that one can have.
pub const REQUEST: &str = r#"{
    "format": 1, "version": "0.1.0", "model": "tiny-flux", "model_path": "models/tiny-flux",
    "adapter": "llvmpipe", "prompt": "a fox", "negative_prompt": "blurry", "width": 256,
    "height": 192, "steps": 28, "guidance": 3.5, "true_cfg": 1.5, "max_sequence_length": 64,
    "seed": 7, "rng": "philox",
    "ralu": {
        "name": "custom", "variant": "exact",
        "rules": {"upsample": "token", "rope_mode": "official", "region_score": "edges",
                  "jump_noise": "fresh"},
        "parameters": {"stage_steps": [5, 6, 7], "stage_ends": [0.3, 0.45, 1.0], "up_ratio": 0.3,
                       "stage_shifts": [3.0, 4.0, 5.0], "stage_z": 8.0},
        "regions": {"add": true, "rows": 6, "columns": 8, "tokens": [0, 1, 9, 47]}
    },
    "cache": "teacache", "precision": "auto", "given": ["initial_noise"]
}"#;

/// The first byte says whether the rest is a request or changes one.
pub fn check(input: &[u8]) {
    let Some((what, rest)) = input.split_first() else { return };
    if what % 2 == 0 {
        if let Ok(text) = edited(REQUEST, &mut Unstructured::new(rest)) {
            follow(&text);
        }
    } else if let Ok(text) = std::str::from_utf8(rest) {
        follow(text);
    }
}

/// Does what `--from` does, as far as no GPU is needed.
pub fn follow(text: &str) {
    let models = fixtures();
    bounded(MEMORY, text.len(), || read(text, models));
}

fn read(text: &str, models: &[Model]) {
    let Some(saved) = clean(Saved::parse(text)) else { return };
    let again = serde_json::to_string(&saved).expect("a request can be written");
    assert_eq!(Saved::parse(&again).expect("it was just written"), saved);
    saved.texts().expect("a request can be written");
    let Some(request) = clean(saved.request()) else { return };
    for model in models.iter().step_by(2) {
        let config = ModelConfig::load(model).expect("the fixtures are right");
        let Some(settings) = clean(Settings::resolve(&request, &config)) else { continue };
        settings.warnings.iter().for_each(|warning| message(warning));
        let Some(schedule) = scheduled(&settings, &config, false) else { continue };
        // Larger ones plan just as well, and take the time of thousands of inputs.
        if schedule.rows * schedule.cols <= 1024 && schedule.steps() <= 100 {
            clean(plan(&config, Some(model), &settings, Caps::default(), Options::default()));
        }
    }
}
