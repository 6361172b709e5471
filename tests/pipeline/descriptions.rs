//! Requests and settings as JSON: what other programs, pages and pictures hold of them.

use ralu::models::builtin;
use ralu::pipeline::{Mask, RaluChoice, Request, Rng, Settings};
use ralu::sampling::{
    CacheSpec, CustomStages, JumpNoise, MaskMode, Preset, RegionScore, RuleOverrides, Variant,
    ZPolicy,
};
use serde_json::{Value, from_value, json, to_value};

/// One with everything set that can be.
fn full() -> Request {
    let mut request = Request::new("a \"fox\"").size(512, 256).seed(u64::MAX);
    request.negative_prompt = Some("blurry".into());
    request.steps = Some(20);
    request.guidance = Some(3.5);
    request.true_cfg = Some(2.0);
    request.max_sequence_length = Some(64);
    request.count = Some(2);
    request.rng = Rng::Torch;
    request.ralu = RaluChoice::Custom(CustomStages {
        stage_steps: vec![5, 6, 7],
        stage_ends: vec![0.3, 0.45, 1.0],
        up_ratio: 0.3,
        stage_shifts: None,
        stage_z: Some(6.317),
    });
    request.variant = Variant::Official;
    request.rules = RuleOverrides {
        region_score: Some(RegionScore::LatentGradient),
        jump_noise: Some(JumpNoise::Bound),
        ..Default::default()
    };
    request.z_policy = Some(ZPolicy::MinNoise);
    request.cache = Some(CacheSpec::Fora { interval: 3 });
    request.mask = Some(Mask { luma: vec![0, 255], width: 2, height: 1, mode: MaskMode::Add });
    (request.stage_pictures, request.collect_tensors) = (true, true);
    request
}

#[test]
fn a_request_reads_what_it_writes() {
    let expected = json!({
        "prompt": "a \"fox\"", "negative_prompt": "blurry", "width": 512, "height": 256,
        "steps": 20, "guidance": 3.5, "true_cfg": 2.0, "max_sequence_length": 64,
        "seed": u64::MAX, "count": 2, "rng": "torch",
        "ralu": {"stage_steps": [5, 6, 7], "stage_ends": [0.3, 0.45, 1.0], "up_ratio": 0.3,
                 "stage_z": 6.317},
        "variant": "official",
        "rules": {"upsample": null, "rope_mode": null, "region_score": "latent-gradient",
                  "jump_noise": "bound"},
        "z_policy": "min-noise", "cache": "fora:interval=3",
        "mask": {"luma": [0, 255], "width": 2, "height": 1, "mode": "add"},
        "stage_pictures": true, "tensors": true,
    });
    let written = to_value(full()).unwrap();
    assert_eq!(written, expected);
    let read: Request = from_value(written.clone()).unwrap();
    assert_eq!(to_value(&read).unwrap(), written);
    assert_eq!(read.ralu, full().ralu);
    // Only the prompt must be there; numbers of stages are read under older names, too.
    let short: Request = from_value(json!({"prompt": "a", "cache": "off"})).unwrap();
    assert_eq!(to_value(&short).unwrap(), to_value(Request::new("a")).unwrap());
    let older = json!({"stage_steps": [1], "stage_ends": [1.0], "up_ratio": 0.1, "shifts": [2.0], "z": 4.0});
    match from_value(older).unwrap() {
        RaluChoice::Custom(stages) => {
            assert_eq!((stages.stage_shifts, stages.stage_z), (Some(vec![2.0]), Some(4.0)));
        }
        other => panic!("{other:?}"),
    }
    for (name, choice) in [
        ("auto", RaluChoice::Auto),
        ("off", RaluChoice::Off),
        ("7x", RaluChoice::Preset(Preset::X7)),
        ("distilled", RaluChoice::Preset(Preset::Distilled)),
    ] {
        assert_eq!(to_value(&choice).unwrap(), name);
        assert_eq!(from_value::<RaluChoice>(name.into()).unwrap(), choice);
    }
}

#[test]
fn a_wrong_request_is_refused_in_words() {
    let refused = |fields: Value, parts: &[&str]| {
        let mut request = json!({"prompt": "a"});
        request.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let message = from_value::<Request>(request).unwrap_err().to_string();
        parts.iter().for_each(|part| assert!(message.contains(part), "{message}"));
    };
    refused(json!({"colour": 1}), &["unknown field `colour`", "negative_prompt", "z_policy"]);
    refused(json!({"given": {}}), &["unknown field `given`"]);
    refused(json!({"width": -1}), &["-1"]);
    refused(json!({"ralu": "9x"}), &["'9x'", "2x, 3x", "auto, off", "numbers of each stage"]);
    refused(json!({"ralu": 7}), &["7", "auto, off"]);
    refused(json!({"ralu": {"stage_steps": [1]}}), &["missing field `stage_ends`"]);
    refused(json!({"ralu": {"steps": [1]}}), &["unknown field `steps`", "stage_steps"]);
    refused(json!({"rules": {"upsample": "nearest"}}), &["`nearest`", "`token` or `latent`"]);
    refused(json!({"rules": {"sharpen": "yes"}}), &["`sharpen`", "rope_mode"]);
    refused(json!({"z_policy": "loud"}), &["'loud'", "published, min-noise"]);
    refused(json!({"cache": "attic"}), &["attic", "teacache"]);
    let message = from_value::<Request>(json!({})).unwrap_err().to_string();
    assert!(message.contains("missing field `prompt`"), "{message}");
}

#[test]
fn settings_read_what_they_write() {
    let config = builtin::get("flux.1-dev").unwrap();
    for request in [full(), Request::new("a"), Request::new("a").ralu(RaluChoice::Off)] {
        let settings = Settings::resolve(&request, &config).unwrap();
        let written = serde_json::to_string(&settings).unwrap();
        assert_eq!(serde_json::from_str::<Settings>(&written).unwrap(), settings, "{written}");
    }
}
