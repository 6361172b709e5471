//! Small things that are kept or typed: records of tuning, colours of latents, caches, names of rules.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use arbitrary::Unstructured;
use ralu::models::config::ModelConfig;
use ralu::pipeline::plan::{Caps, plan};
use ralu::pipeline::tune::TuningRecord;
use ralu::pipeline::{LatentColors, Options, Request, Settings};
use ralu::sampling::{CacheSpec, JumpNoise, Preset, RegionScore, RopeMode, Upsample, ZPolicy};

use super::check::{clean, message};
use super::edits::edited;
use super::limits::{Memory, bounded};
use super::model::fixtures;

/// With the plan of a run.
const MEMORY: Memory = Memory { bytes: 16 << 20, per_byte: 64 };

const RECORD: &str = r#"{
    "format": 1, "ralu": "0.1.0", "driver": "Mesa 26.0", "adapter": "llvmpipe",
    "backend": "vulkan", "kind": "cpu",
    "limits": {"max_binding_bytes": 134217728, "max_workgroup_bytes": 32768,
               "max_workgroup_invocations": 1024, "subgroup_sizes": [8, 8],
               "cooperative_matrix": 16, "f16": false},
    "shapes": ["matmul 128 x 64 x 64"],
    "tuning": {"matmul": ["row", "panel", null], "attention": "tiled", "conv2d": "subgroup"},
    "measured": [{"op": "matmul", "class": "few", "shapes": ["1 x 64"],
                  "kernels": [{"kernel": "default", "shaders": "matvec", "seconds": 1e-4,
                               "failure": null, "chosen": true}]}],
    "seconds": 1.5
}"#;

const COLORS: &str = r#"{"sums": [0.0], "seen": 3.0, "map": [0.5, 0.25]}"#;

/// The first byte says what the rest is.
pub fn check(input: &[u8]) {
    let Some((what, rest)) = input.split_first() else { return };
    let original = match what % 6 {
        1 => Some(RECORD),
        3 => Some(COLORS),
        _ => None,
    };
    let text = match original {
        None => String::from_utf8_lossy(rest).into_owned(),
        Some(original) => match edited(original, &mut Unstructured::new(rest)) {
            Ok(text) => text,
            Err(_) => return,
        },
    };
    fixtures();
    bounded(MEMORY, text.len(), || match what % 6 {
        0 | 1 => record(&text),
        2 | 3 => colors(&text),
        4 => cache(&text),
        _ => {
            name::<Preset>(&text);
            name::<ZPolicy>(&text);
            name::<Upsample>(&text);
            name::<RopeMode>(&text);
            name::<RegionScore>(&text);
            name::<JumpNoise>(&text);
        }
    });
}

/// Kernels that a record names are only taken where they can do the job: a plan is made with any.
fn record(text: &str) {
    let Ok(record) = serde_json::from_str::<TuningRecord>(text) else { return };
    let read = TuningRecord::read(text.as_bytes(), &record.key).expect("it is about its own key");
    let caps = Caps { tuning: read.tuning, ..Caps::default() };
    let Some(model) = fixtures().last() else { return };
    let config = ModelConfig::load(model).expect("the fixtures are right");
    let settings = Settings::resolve(&Request::new("").size(64, 64), &config).expect("settings");
    plan(&config, Some(model), &settings, caps, Options::default()).expect("a plan");
}

fn colors(text: &str) {
    let Ok(mut colors) = serde_json::from_str::<LatentColors>(text) else { return };
    let latents = [0.5; 16 * 4];
    if let Some(picture) = colors.picture(&latents, 2, 2) {
        assert_eq!(picture.rgb.len(), 3 * picture.width * picture.height);
    }
    colors.learn(&latents, &[0.5; 3 * 16 * 16], 2, 2);
    colors.picture(&latents, 2, 2);
}

fn cache(text: &str) {
    let Ok(Some(cache)) = CacheSpec::parse_option(text) else { return };
    let again: CacheSpec = cache.to_string().parse().expect("it is shown as it is written");
    assert_eq!(again, cache);
    if clean(cache.check()).is_none() {
        return;
    }
    let Some(model) = fixtures().last() else { return };
    let config = ModelConfig::load(model).expect("the fixtures are right");
    let request = Request::new("").size(64, 64).with(|request| request.cache = Some(cache));
    let Some(settings) = clean(Settings::resolve(&request, &config)) else { return };
    settings.warnings.iter().for_each(|warning| message(warning));
    clean(plan(&config, Some(model), &settings, Caps::default(), Options::default()));
}

fn name<T: FromStr + Display + PartialEq + Debug>(text: &str) {
    // Refusals show what was typed as it was typed; who reads files makes it safe to show.
    if let Ok(value) = text.parse::<T>() {
        let again = value.to_string().parse::<T>().ok();
        assert_eq!(again, Some(value), "it is shown as it is written");
    }
}
