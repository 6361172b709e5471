//! `--quantize`: weights that are quantised while a model is loaded.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::command::{fails, json, on_adapter, ralu, stderr, succeeds};
use crate::picture::{SMALL, bytes, chunks};

/// Of FLUX.1's sizes, so that a file of its denoiser is taken for the same model.
const MODEL: &str = "models/tiny-flux";

fn generate(output: &Path, options: &[&str]) -> Command {
    let mut command = on_adapter("generate");
    command.args(["a fox", "--model", MODEL, "--ralu", "off", "--steps", "1", "--seed", "3"]);
    command.args(SMALL).arg("-o").arg(output).args(options);
    command
}

/// What the picture says that its weights were quantised to.
fn quantised(path: &Path) -> Option<String> {
    let chunks = chunks(&bytes(path));
    let request = chunks.iter().find(|(_, chunk)| chunk[8..].starts_with(b"ralu\0"));
    let chunk = &request.expect("a request").1;
    let saved: Value = serde_json::from_slice(&chunk[13..chunk.len() - 4]).expect("JSON");
    Some(saved.get("quantize")?.as_str().expect("a name").to_owned())
}

/// The compressed pixels: equal where the pixels are.
fn pixels(path: &Path) -> Vec<Vec<u8>> {
    let chunks = chunks(&bytes(path)).into_iter();
    chunks.filter(|(_, chunk)| chunk[4..8] == *b"IDAT").map(|(_, chunk)| chunk).collect()
}

#[test]
fn a_model_is_quantised_while_it_is_loaded() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = |name: &str| dir.path().join(name);
    succeeds(&mut generate(&path("plain.png"), &[]));
    succeeds(&mut generate(&path("loaded.png"), &["--quantize", "q4_k:denoiser"]));
    let plain = pixels(&path("plain.png"));
    let loaded = pixels(&path("loaded.png"));
    assert!(plain != loaded);
    assert_eq!(quantised(&path("plain.png")), None);
    assert_eq!(quantised(&path("loaded.png")).as_deref(), Some("q4_k"));
    // The same from a file that was quantised before.
    let file = path("m.gguf");
    succeeds(ralu().args(["convert", MODEL]).arg(&file).args(["--quantize", "q4_k"]));
    let file = file.to_str().expect("a path");
    succeeds(&mut generate(&path("file.png"), &["--diffusion-model", file]));
    assert!(pixels(&path("file.png")) == loaded);
    // Of that nothing is left to quantise.
    let packed = ["--diffusion-model", file, "--quantize", "q8_0"];
    let nothing = ["the denoiser is stored in Q4_", "already", "load the model as it is stored"];
    fails(&mut generate(&path("no.png"), &packed), 1, &nothing);
    // A picture is repeated with it, unless that is turned off.
    let again = |name: &str, options: &[&str]| {
        let mut command = on_adapter("generate");
        command.arg("--from").arg(path("loaded.png")).arg("-o").arg(path(name)).args(options);
        succeeds(&mut command);
        pixels(&path(name))
    };
    assert!(again("again.png", &[]) == loaded);
    assert!(again("off.png", &["--quantize", "off"]) == plain);
    // This machine holds it as it is.
    let said = succeeds(&mut generate(&path("auto.png"), &["--quantize", "auto"]));
    assert!(stderr(&said).contains("weights stay as they are stored"), "{}", stderr(&said));
    assert!(pixels(&path("auto.png")) == plain);
}

#[test]
fn what_cannot_be_quantised_is_told() {
    let plan = |options: &[&str]| {
        let mut command = ralu();
        command.arg("plan").args(options);
        command
    };
    let flux = |quantize: &str| plan(&["--model", "flux.1-dev", "--json", "--quantize", quantize]);
    fails(&mut flux("q9"), 2, &["q9", "number format", "q8_0", "q2_k", "nf4", "auto", "off"]);
    fails(&mut flux("q8_0:vae"), 2, &["vae", "part", "denoiser", "t5", "text-encoders"]);
    fails(&mut flux("auto"), 2, &["--quantize auto", "memory", "q8_0"]);
    let weights = |command: &mut Command| {
        let memory = &json(command)["memory"];
        memory["denoiser_weights_bytes"].as_u64().expect("a number")
    };
    assert!(weights(&mut flux("q4_k")) < weights(&mut flux("q8_0")));
    // T5's rows have 96 and 80 numbers, CLIP's matrices are too small.
    let sd3 = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/sd3-a/model");
    let of_sd3 = |quantize: &str| plan(&["--model", sd3, "--quantize", quantize]);
    let narrow = ["nf4:t5", "large matrices of the T5 text encoder", "96 numbers", "blocks of nf4"];
    fails(&mut of_sd3("nf4:t5"), 1, &narrow);
    fails(&mut of_sd3("q8_0:clip"), 1, &["q8_0:clip", "no large matrix of a block"]);
    fails(&mut of_sd3("q8_0:qwen3"), 1, &["q8_0:qwen3", "no part qwen3"]);
    let said = stderr(&succeeds(&mut of_sd3("nf4:denoiser,t5,qwen3")));
    for part in [&narrow[1..], &["stay as they are", "no qwen3 text encoder to quantise"]].concat()
    {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
}
