//! Fields of `scheduler_config.json` that change a picture, against diffusers.

use std::path::{Path, PathBuf};

use ralu::checkpoint::source::{Folder, Memory, Source};
use ralu::gpu::block_on;
use ralu::models::builtin;
use ralu::pipeline::{
    Event, NamedTensor, NamedTensors, Options, Pipeline, RaluChoice, Request, Rng,
};

fn fixture(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(path)
}

/// A model folder in memory.
fn in_memory(root: &Path) -> Memory {
    let folder = Folder::open(root).unwrap();
    let mut memory = Memory::new("model");
    for dir in [String::new()].into_iter().chain(folder.list("").unwrap()) {
        for name in folder.list(&dir).unwrap() {
            let path = if dir.is_empty() { name } else { format!("{dir}/{name}") };
            if folder.exists(&path) {
                memory.insert(&path, std::fs::read(root.join(&path)).unwrap());
            }
        }
    }
    memory
}

fn numbers(tensors: &NamedTensors, name: &str) -> Vec<f32> {
    match &tensors.0[name] {
        NamedTensor::F32 { data, .. } => data.clone(),
        other => panic!("{name}: {:?}", other.shape()),
    }
}

/// The latents that a model makes with its scheduler's `num_train_timesteps` changed.
fn latents(train_timesteps: usize) -> Vec<f32> {
    let mut model = in_memory(&fixture("flux-a/model"));
    let path = "scheduler/scheduler_config.json";
    let text = model.text(path).unwrap().unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
    config["num_train_timesteps"] = train_timesteps.into();
    model.insert(path, config.to_string());
    let pipeline =
        Pipeline::open(crate::common::gpu(), Box::new(model), Options::default()).unwrap();
    let request =
        Request::new("a red cat").size(64, 64).seed(7).ralu(RaluChoice::Off).with(|request| {
            request.steps = Some(4);
            request.max_sequence_length = Some(16);
            request.rng = Rng::Torch;
            request.collect_tensors = true;
        });
    let mut run = pipeline.start(request).unwrap();
    loop {
        match block_on(pipeline.gpu(), run.next()).unwrap() {
            Some(Event::Image { tensors, .. }) => return numbers(&tensors.unwrap(), "latents"),
            Some(_) => {}
            None => panic!("the run made no picture"),
        }
    }
}

#[test]
fn training_steps_set_the_timestep() {
    let path = fixture("scheduler/flux-a-train-timesteps.safetensors");
    let expected =
        NamedTensors::read(&std::fs::read(path).unwrap(), &["latents_1000", "latents_500"])
            .unwrap();
    for steps in [1000, 500] {
        let expected = numbers(&expected, &format!("latents_{steps}"));
        let found = latents(steps);
        assert_eq!(found.len(), expected.len());
        let norm =
            |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
        let distance =
            norm(&mut found.iter().zip(&expected).map(|(a, b)| f64::from(*a) - f64::from(*b)))
                / norm(&mut expected.iter().map(|v| f64::from(*v)));
        println!("{steps} training steps: relative L2 {distance:.2e}");
        assert!(distance < 1e-3, "{steps} training steps: relative L2 {distance:.3e}");
    }
}

/// `FluxPipeline` leaves the even grid to a scheduler that says `use_flow_sigmas`: from 1 down to 1 training step.
#[test]
fn flow_sigmas_are_the_schedulers_own() {
    let mut config = builtin::get("flux.1-dev").unwrap();
    let near = |found: &[f64], expected: [f64; 5]| {
        assert_eq!(found.len(), 5);
        let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(worst < 1e-6, "{found:?}");
    };
    let plain = config.plain_sigmas(4, 1024).unwrap();
    config.scheduler.use_flow_sigmas = true;
    let flow = config.plain_sigmas(4, 1024).unwrap();
    near(&flow, FLOW);
    assert!((plain[3] - flow[3]).abs() > 0.3, "{plain:?}");
}

/// diffusers' `set_timesteps` with mu for 1024 tokens and 4 steps, computed by numpy.
const FLOW: [f64; 5] = [1.000000000, 0.789953900, 0.484967363, 0.001875964, 0.0];
