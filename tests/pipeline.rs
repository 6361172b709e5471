//! Whole runs against what diffusers and RALU's official code make of the same weights, prompt and noise.
//!
//! `tests/fixtures/flux-a` and `flux-b`: random weights, plain and under RALU (see `case.json` beside them).
//! `tests/fixtures/tiny-flux`: the bundled model. All were computed in float32.

mod common;

use std::path::{Path, PathBuf};

use ralu::gpu::block_on;
use ralu::models::source::Folder;
use ralu::pipeline::{
    Event, NamedTensor, NamedTensors, Options, Pipeline, RaluChoice, Request, StageEnd, StageStart,
};
use ralu::sampling::{self, Variant};
use ralu::tensor::Caps;
use serde_json::Value;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn fixture(name: &str) -> PathBuf {
    root().join("tests/fixtures").join(name)
}

fn open(model: &Path) -> Pipeline {
    let folder = Folder::open(model).unwrap();
    Pipeline::open(common::gpu(), Box::new(folder), Options::default()).unwrap()
}

/// All tensors of a file.
fn read(path: &Path) -> NamedTensors {
    let bytes = std::fs::read(path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    NamedTensors::read(&bytes, &file.names().iter().map(|n| &**n).collect::<Vec<_>>()).unwrap()
}

#[track_caller]
fn numbers<'t>(tensors: &'t NamedTensors, name: &str) -> &'t [f32] {
    match tensors.0.get(name) {
        Some(NamedTensor::F32 { data, .. }) => data,
        other => panic!("{name}: {:?}", other.map(NamedTensor::shape)),
    }
}

#[track_caller]
fn indices<'t>(tensors: &'t NamedTensors, name: &str) -> &'t [i64] {
    match tensors.0.get(name) {
        Some(NamedTensor::I64 { data, .. }) => data,
        other => panic!("{name}: {:?}", other.map(NamedTensor::shape)),
    }
}

/// Relative L2 distance, within `limit`. NaN fails.
#[track_caller]
fn near(label: &str, actual: &[f32], expected: &[f32], limit: f64) {
    assert_eq!(actual.len(), expected.len(), "{label}: length");
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let distance =
        norm(&mut actual.iter().zip(expected).map(|(a, b)| f64::from(*a) - f64::from(*b)))
            / norm(&mut expected.iter().map(|v| f64::from(*v)));
    println!("{label}: relative L2 {distance:.2e} (limit {limit:.0e})");
    assert!(distance <= limit, "{label}: relative L2 {distance:.3e}, limit {limit:.0e}");
}

/// Peak signal to noise ratio of pictures in 0..1.
#[track_caller]
fn psnr(label: &str, actual: &[f32], expected: &[f32], least: f64) {
    assert_eq!(actual.len(), expected.len(), "{label}: length");
    let error = actual.iter().zip(expected).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
    let psnr = -10.0 * (error / actual.len() as f64).log10();
    println!("{label}: PSNR {psnr:.1} dB (at least {least})");
    assert!(psnr >= least, "{label}: PSNR {psnr:.1} dB, at least {least}");
}

/// What a run told and made.
struct Outcome {
    tensors: NamedTensors,
    starts: Vec<StageStart>,
    ends: Vec<StageEnd>,
}

fn run(pipeline: &Pipeline, mut request: Request) -> Outcome {
    request.collect_tensors = true;
    let mut run = pipeline.start(request).unwrap();
    let mut outcome = Outcome { tensors: NamedTensors::default(), starts: vec![], ends: vec![] };
    while let Some(event) = block_on(pipeline.gpu(), run.next()).unwrap() {
        match event {
            Event::Stage(start) => outcome.starts.push(start),
            Event::StageEnd(end) => outcome.ends.push(end),
            Event::Image { tensors, .. } => outcome.tensors = tensors.unwrap(),
            _ => {}
        }
    }
    assert!(!outcome.tensors.0.is_empty(), "the run made no picture");
    outcome
}

/// A fixture of the flux-a kind.
struct Case {
    json: Value,
    expected: NamedTensors,
    pipeline: Pipeline,
}

impl Case {
    fn open(folder: &Path) -> Case {
        let json = std::fs::read_to_string(folder.join("case.json")).unwrap();
        Case {
            json: serde_json::from_str(&json).unwrap(),
            expected: read(&folder.join("expected.safetensors")),
            pipeline: open(&folder.join("model")),
        }
    }

    fn count(&self, key: &str) -> usize {
        self.json[key].as_u64().unwrap() as usize
    }

    /// The case's request with the fixture's noises.
    fn request(&self) -> Request {
        let given = |name: &&str| Some(((*name).to_owned(), self.expected.0.get(*name)?.clone()));
        Request {
            prompt: self.json["prompt"].as_str().unwrap().to_owned(),
            width: Some(self.count("width")),
            height: Some(self.count("height")),
            steps: Some(self.count("steps")),
            guidance: self.json["guidance"].as_f64(),
            true_cfg: self.json.get("true_cfg").and_then(Value::as_f64),
            negative_prompt: self
                .json
                .get("negative_prompt")
                .and_then(Value::as_str)
                .map(Into::into),
            max_sequence_length: Some(self.count("max_sequence_length")),
            given: NamedTensors(NamedTensors::NOISES.iter().filter_map(given).collect()),
            ..Default::default()
        }
    }

    fn ralu(&self) -> RaluChoice {
        let ralu = &self.json["ralu"];
        let list = |key: &str| [0, 1, 2].map(|i| ralu[key][i].as_f64().unwrap());
        RaluChoice::Custom {
            stage_steps: list("N").map(|n| n as usize),
            stage_ends: list("e"),
            up_ratio: ralu["up_ratio"].as_f64().unwrap(),
            shifts: Some(list("h")),
            z: ralu["Z"].as_f64(),
        }
    }

    /// Plain sampling: what diffusers' FluxPipeline makes.
    fn check_plain(&self) {
        let outcome = run(&self.pipeline, Request { ralu: RaluChoice::Off, ..self.request() });
        let (made, expected) = (&outcome.tensors, &self.expected);
        assert_eq!(indices(made, "clip_ids"), indices(expected, "clip_ids"));
        assert_eq!(indices(made, "t5_ids"), indices(expected, "t5_ids"));
        // The fixtures' own rounding is about 1e-5 of the norm: float64 reruns differ by that much.
        for name in ["prompt_embeds", "pooled_prompt_embeds"] {
            near(name, numbers(made, name), numbers(expected, name), 1e-4);
        }
        if let Some(negative) = expected.0.get("negative_prompt_embeds") {
            let NamedTensor::F32 { data, .. } = negative else { panic!("integers") };
            near("negative_prompt_embeds", numbers(made, "negative_prompt_embeds"), data, 1e-4);
        }
        near("sigmas", numbers(made, "sigmas"), numbers(expected, "base_sigmas"), 1e-6);
        near("latents", numbers(made, "latents"), numbers(expected, "base_latents"), 1e-3);
        psnr("image", numbers(made, "image"), numbers(expected, "base_image"), 50.0);
        check_stages(&outcome);
    }

    /// RALU with every quirk of the official code.
    fn check_ralu(&self) {
        let request = Request { ralu: self.ralu(), variant: Variant::Official, ..self.request() };
        let outcome = run(&self.pipeline, request.clone());
        let (made, expected) = (&outcome.tensors, &self.expected);
        let latents = |name: &str| (numbers(made, name), format!("ralu_{name}"));
        let (stage1, name) = latents("stage1_latents");
        near(&name, stage1, numbers(expected, &name), 1e-3);
        // Rounding flips a few 8-bit pixels, and with them edges: most patches must agree all the same.
        let (edges, expected_edges) = (numbers(made, "edges"), numbers(expected, "ralu_edges"));
        let equal = edges.iter().zip(expected_edges).filter(|(a, b)| a == b).count();
        println!("edges: {equal} of {} equal", edges.len());
        assert!(equal * 100 >= edges.len() * 85, "{equal} of {} edge counts equal", edges.len());
        let (found, wanted) = (indices(made, "selected"), indices(expected, "ralu_selected"));
        let overlap = found.iter().filter(|i| wanted.contains(i)).count();
        println!("selected: {overlap} of {}", wanted.len());
        assert!(overlap * 10 >= wanted.len() * 9, "{found:?} selected, expected {wanted:?}");
        check_stages(&outcome);

        let mut request = request;
        let selected = expected.0["ralu_selected"].clone();
        request.given.0.insert("ralu_selected".into(), selected);
        let outcome = run(&self.pipeline, request);
        let made = &outcome.tensors;
        assert_eq!(indices(made, "selected"), wanted);
        for (name, limit) in [("stage2_latents", 2e-3), ("latents", 2e-3)] {
            let expected = numbers(expected, &format!("ralu_{name}"));
            near(&format!("ralu_{name}"), numbers(made, name), expected, limit);
        }
        psnr("ralu_image", numbers(made, "image"), numbers(expected, "ralu_image"), 45.0);
        for stage in [2, 3] {
            let name = format!("noise_stage{stage}");
            assert_eq!(numbers(made, &name), numbers(expected, &format!("ralu_{name}")));
        }
    }
}

/// No stage creates anything after its first step, and each later stage works in memory that is already there.
#[track_caller]
fn check_stages(outcome: &Outcome) {
    assert_eq!(outcome.starts.len(), outcome.ends.len());
    for (start, end) in outcome.starts.iter().zip(&outcome.ends) {
        assert_eq!(start.stage, end.stage);
        assert_eq!((end.buffers_created, end.bind_groups_created), (0, 0), "stage {}", end.stage);
        assert!(start.bytes > 0);
        if start.stage > 1 {
            assert_eq!(start.allocated_bytes, 0, "stage {}", start.stage);
            assert_eq!(start.reused_bytes, start.bytes, "stage {}", start.stage);
        }
    }
}

#[test]
fn flux_a_equals_diffusers() {
    Case::open(&fixture("flux-a")).check_plain();
}

#[test]
fn flux_a_equals_official_ralu() {
    Case::open(&fixture("flux-a")).check_ralu();
}

#[test]
fn flux_b_equals_diffusers() {
    Case::open(&fixture("flux-b")).check_plain();
}

#[test]
fn flux_b_equals_official_ralu() {
    Case::open(&fixture("flux-b")).check_ralu();
}

/// The bundled model against diffusers: 28 steps without true guidance.
#[test]
fn tiny_flux_equals_diffusers() {
    let folder = fixture("tiny-flux");
    let cases: Value =
        serde_json::from_str(&std::fs::read_to_string(folder.join("fixtures.json")).unwrap())
            .unwrap();
    let pipeline = open(&root().join("models/tiny-flux"));
    for case in cases.as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        println!("-- {name}");
        let expected = read(&folder.join(format!("{name}.safetensors")));
        let size = |key: &str| case[key].as_u64().unwrap() as usize;
        let (width, height) = (size("width"), size("height"));
        let noise = numbers(&expected, "noise_packed");
        let noise = sampling::unpack(noise, height / 8, width / 8).unwrap();
        let mut given = NamedTensors::default();
        given.insert("initial_noise", &[1, 16, height / 8, width / 8], noise);
        let outcome = run(
            &pipeline,
            Request {
                prompt: case["prompt"].as_str().unwrap().to_owned(),
                width: Some(width),
                height: Some(height),
                steps: Some(size("steps")),
                guidance: case["guidance_scale"].as_f64(),
                true_cfg: Some(1.0),
                max_sequence_length: Some(size("max_sequence_length")),
                ralu: RaluChoice::Off,
                given,
                ..Default::default()
            },
        );
        let made = &outcome.tensors;
        assert_eq!(indices(made, "clip_ids"), indices(&expected, "clip_ids"));
        assert_eq!(indices(made, "t5_ids"), indices(&expected, "t5_ids"));
        for (name, theirs, limit) in [
            ("prompt_embeds", "prompt_embeds", 1e-4),
            ("pooled_prompt_embeds", "pooled_prompt_embeds", 1e-4),
            ("sigmas", "sigmas", 1e-6),
            ("transformer_out_step0", "transformer_out_step0", 1e-4),
            ("latents", "final_latents_packed", 5e-3),
        ] {
            near(name, numbers(made, name), numbers(&expected, theirs), limit);
        }
        let raw = numbers(&expected, "image_raw");
        let image: Vec<f32> = raw.iter().map(|y| (y / 2.0 + 0.5).clamp(0.0, 1.0)).collect();
        psnr("image", numbers(made, "image"), &image, 40.0);
    }
}

/// A device whose bindings hold 128 KiB: weights in shards, tokens, keys and pictures in bands. And one that must
/// not be kept busy for long: dispatches are cut.
#[test]
fn small_devices_make_the_same_picture() {
    for change in [
        (|caps| caps.max_binding_bytes = 128 << 10) as fn(&mut Caps),
        |caps| caps.max_dispatch_flops = 1e6,
        |caps| caps.is_cpu = !caps.is_cpu,
    ] {
        let folder = Folder::open(fixture("flux-b/model")).unwrap();
        let gpu = common::gpu().with_caps(change);
        println!("-- {:?}", gpu.caps());
        let case = Case {
            pipeline: Pipeline::open(gpu, Box::new(folder), Options::default()).unwrap(),
            ..Case::open(&fixture("flux-b"))
        };
        case.check_plain();
        case.check_ralu();
    }
}

/// Further cases of the same kind, from the folder that `RALU_EXTRA_CASES` names.
#[test]
fn extra_cases() {
    let Some(folder) = std::env::var_os("RALU_EXTRA_CASES") else { return };
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if !path.join("case.json").exists() {
            continue;
        }
        println!("-- {}", path.display());
        let case = Case::open(&path);
        case.check_plain();
        if case.json.get("ralu").is_some() {
            case.check_ralu();
        }
    }
}
