//! Files of changes that are refused (`tests/fixtures/lora/bad`), and what is said of those that are not.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ralu::checkpoint::source::Folder;
use ralu::models::adapters::{AdapterReport, Lora, LoraWeight};
use ralu::models::files::{FilesError, ModelFiles, ModelPaths};
use ralu::pipeline::{RaluChoice, Request, RunSchedule, Settings};
use ralu::sampling::CustomStages;
use serde_json::Value;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/lora").join(name)
}

fn open(model: &str, file: &Path) -> Result<ModelFiles, FilesError> {
    let paths = ModelPaths::default().with(|paths| {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        paths.model = root.join(model).to_str().unwrap().to_owned();
        let file = file.to_str().unwrap().to_owned();
        paths.loras = vec![Lora { file, weight: LoraWeight::Whole(0.5), sha256: None }];
    });
    ModelFiles::open(Arc::new(Folder::anywhere()), &paths)
}

fn report(model: &str, case: &str) -> AdapterReport {
    let files = open(model, &fixture(case).join("lora.safetensors")).unwrap();
    files.adapters()[0].clone()
}

/// Whether a text has one of the words that a pattern of the fixture lists with bars.
fn says(text: &str, pattern: &str) -> bool {
    let text = text.to_lowercase();
    let plain = pattern.replace("\\.?", ".").replace("\\.", ".");
    // The groups of these patterns, written out.
    let words: Vec<String> = match plain.as_str() {
        "sdxl|sd ?1|stable diffusion (xl|1)" | "sd ?1|sdxl|stable diffusion (xl|1)" => {
            ["sdxl", "stable diffusion xl", "stable diffusion 1"].map(String::from).into()
        }
        "no .*(layer|key)|none" => ["no layer", "no key", "none"].map(String::from).into(),
        words => words.split('|').map(str::to_lowercase).collect(),
    };
    words.iter().any(|word| text.contains(word.as_str()))
}

#[test]
fn bad_files_are_refused_in_words() {
    let text = std::fs::read_to_string(fixture("bad/bad.json")).unwrap();
    let cases: Vec<Value> = serde_json::from_str(&text).unwrap();
    let mut checked = 0;
    for case in &cases {
        let name = case["name"].as_str().unwrap();
        // Weights are read before files are.
        if case["exit"] != 1 {
            continue;
        }
        let file = fixture("bad").join(case["args"][1].as_str().unwrap());
        let Err(error) = open(case["model"].as_str().unwrap(), &file) else {
            panic!("{name}: not refused")
        };
        let error = error.to_string();
        println!("{name}: {error}");
        for pattern in case["says"].as_array().unwrap() {
            let pattern = pattern.as_str().unwrap();
            assert!(says(&error, pattern), "{name}: no {pattern} in: {error}");
        }
        checked += 1;
    }
    assert!(checked > 20, "{checked}");
}

#[test]
fn reports_say_what_a_file_changes() {
    let kohya = report("tests/fixtures/flux-a/model", "flux-kohya");
    assert_eq!((kohya.form, kohya.weight), ("kohya", LoraWeight::Whole(0.5)));
    assert!(kohya.layers > 20 && kohya.text_layers > 10, "{kohya:?}");
    assert!(kohya.ranks.len() > 1 && kohya.kinds.contains_key("lora"), "{kohya:?}");
    assert_eq!(kohya.warnings(), [""; 0]);
    let said = kohya.to_string();
    for part in ["lora.safetensors", "FLUX.1", "kohya", "weight 0.5", "ranks"] {
        assert!(said.contains(part), "{said}");
    }
    let unknown = report("tests/fixtures/flux-a/model", "flux-unknown-keys");
    assert_eq!(unknown.unused.len(), 8, "{unknown:?}");
    assert!(unknown.warnings()[0].contains("8 unused keys"), "{:?}", unknown.warnings());
    let lycoris = report("tests/fixtures/sd35m-b/model", "sd35m-lycoris");
    assert_eq!(lycoris.form, "LyCORIS");
    assert!(lycoris.kinds.contains_key("lokr") && lycoris.kinds.contains_key("dora"));
}

#[test]
fn a_lora_is_no_model() {
    let file = fixture("flux-kohya/lora.safetensors");
    let paths = ModelPaths::default().with(|paths| paths.model = file.to_str().unwrap().to_owned());
    let error = ModelFiles::open(Arc::new(Folder::anywhere()), &paths).err().expect("an error");
    let error = error.to_string();
    assert!(error.contains("lora.safetensors") && error.contains("as a LoRA of it"), "{error}");
}

/// What is said of schedules for few steps can be drawn with: their noise levels fall, and NT-DM solves the rest.
#[test]
fn schedules_of_few_steps_are_solved() {
    for name in ["flux.1-dev", "sd3-medium"] {
        let config = ralu::models::builtin::get(name).unwrap();
        for stage_steps in [[1, 1, 2], [2, 2, 4]] {
            let request = Request::new("").with(|request| {
                request.ralu = RaluChoice::Custom(CustomStages {
                    stage_steps: stage_steps.to_vec(),
                    stage_ends: vec![0.3, 0.45, 1.0],
                    up_ratio: 0.3,
                    stage_shifts: None,
                    stage_z: None,
                });
            });
            let settings = Settings::resolve(&request, &config).unwrap();
            let schedule = RunSchedule::new(&settings, &config).unwrap();
            let steps: Vec<usize> = schedule.stages.iter().map(|stage| stage.steps()).collect();
            assert_eq!(steps, stage_steps, "{name}");
            for stage in &schedule.stages {
                assert!(stage.sigmas.is_sorted_by(|a, b| a > b), "{name}: {:?}", stage.sigmas);
            }
        }
    }
}

/// Files whose names say that they are for few steps, and how their makers use them.
#[test]
fn files_for_few_steps_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let said = |name: &str| {
        let path = dir.path().join(name);
        std::fs::copy(fixture("flux-diffusers/lora.safetensors"), &path).unwrap();
        let report = open("tests/fixtures/flux-a/model", &path).unwrap().adapters()[0].clone();
        (report.to_string(), report.few_steps)
    };
    let (text, hyper) = said("Hyper-FLUX.1-dev-8steps-lora.safetensors");
    assert_eq!(hyper.unwrap().weight, Some(0.125));
    assert!(text.contains("try 8, a weight of 0.125") && text.contains("[2, 2, 4]"), "{text}");
    assert_eq!(said("turbo-alpha.safetensors").1.unwrap().steps, 8);
    assert_eq!(said("cats.safetensors").1, None);
}
