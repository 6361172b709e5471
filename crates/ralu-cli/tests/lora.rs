//! `--lora`: its spelling, what is told, and pictures that are made with it.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::command::{fails, json, on_adapter, ralu, root, stderr, stdout, succeeds};
use crate::picture::{SMALL, bytes, chunks};

const MODEL: &str = "tests/fixtures/flux-a/model";

fn file(case: &str) -> String {
    root().join("tests/fixtures/lora").join(case).join("lora.safetensors").display().to_string()
}

fn generate(output: &Path, options: &[&str]) -> Command {
    let mut command = on_adapter("generate");
    let model = root().join(MODEL);
    command.arg("a fox").arg("--model").arg(model);
    command.args(["--ralu", "off", "--steps", "1", "--seed", "3"]);
    command.args(SMALL).arg("-o").arg(output).args(options);
    command
}

/// What the picture says of its model's parts.
fn parts(path: &Path) -> Option<Value> {
    let chunks = chunks(&bytes(path));
    let request = chunks.iter().find(|(_, chunk)| chunk[8..].starts_with(b"ralu\0"));
    let chunk = &request.expect("a request").1;
    let saved: Value = serde_json::from_slice(&chunk[13..chunk.len() - 4]).expect("JSON");
    saved.get("model_parts").cloned()
}

fn pixels(path: &Path) -> Vec<Vec<u8>> {
    let chunks = chunks(&bytes(path)).into_iter();
    chunks.filter(|(_, chunk)| chunk[4..8] == *b"IDAT").map(|(_, chunk)| chunk).collect()
}

#[test]
fn a_picture_says_its_loras_and_is_repeated_with_them() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = |name: &str| dir.path().join(name);
    let lora = path("cats.safetensors");
    fs::copy(file("flux-two").replace("lora.safetensors", "b.safetensors"), &lora).expect("a copy");
    let given = format!("{}:0.5", lora.display());
    succeeds(&mut generate(&path("plain.png"), &[]));
    let said = succeeds(&mut generate(&path("with.png"), &["--lora", &given]));
    let said = stderr(&said);
    for part in ["cats.safetensors", "FLUX.1", "weight 0.5", "rank"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(pixels(&path("plain.png")) != pixels(&path("with.png")));
    assert_eq!(parts(&path("plain.png")), None);
    let saved = parts(&path("with.png")).expect("parts")["loras"][0].clone();
    assert_eq!(saved["weight"], 0.5);
    assert_eq!(saved["sha256"].as_str().map(str::len), Some(64), "{saved}");
    let again = |name: &str| {
        let mut command = on_adapter("generate");
        command.arg("--from").arg(path("with.png")).arg("-o").arg(path(name));
        command
    };
    succeeds(&mut again("again.png"));
    assert!(pixels(&path("again.png")) == pixels(&path("with.png")));
    // Another file of that name is another picture.
    fs::copy(file("flux-xlabs"), &lora).expect("a copy");
    fails(&mut again("other.png"), 1, &["cats.safetensors", "another file", "SHA-256"]);
}

#[test]
fn weights_are_numbers() {
    let dir = tempfile::tempdir().expect("a folder");
    for weight in ["abc", "nan", "inf", ""] {
        let given = format!("{}:{weight}", file("flux-xlabs"));
        let mut command = generate(&dir.path().join("x.png"), &["--lora", &given]);
        fails(&mut command, 2, &["--lora", "weight", "expected a finite number"]);
    }
    let mut command = generate(&dir.path().join("x.png"), &["--lora", "nowhere.safetensors"]);
    fails(&mut command, 1, &["nowhere.safetensors", "no such file"]);
}

#[test]
fn keys_without_use_are_named() {
    let dir = tempfile::tempdir().expect("a folder");
    let given = file("flux-unknown-keys");
    let options = ["--lora", &given, "--events", "json"];
    let said = succeeds(&mut generate(&dir.path().join("x.png"), &options));
    assert!(stderr(&said).contains("8 unused keys"), "{}", stderr(&said));
    let lines = stdout(&said);
    let mut events = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let lora = events.find(|event| event["event"] == "lora").expect("an event");
    assert_eq!(lora["unused"].as_array().map(Vec::len), Some(8), "{lora}");
    assert_eq!(lora["layers"], 2, "{lora}");
}

/// Its bytes and operations are counted.
#[test]
fn a_plan_counts_it() {
    let plan = |options: &[&str]| {
        let model = root().join(MODEL);
        let mut command = ralu();
        command.args(["plan", "--json", "--ralu", "off", "--steps", "1"]);
        command.args(SMALL).arg("--model").arg(model).args(options);
        json(&mut command)
    };
    let given = file("flux-kohya");
    let (plain, with) = (plan(&[]), plan(&["--lora", &given]));
    let bytes = |plan: &Value, what: &str| plan["memory"][what].as_u64().expect("bytes");
    for part in ["text_encoder_weights_bytes", "modulation_weights_bytes", "denoiser_weights_bytes"]
    {
        assert!(bytes(&with, part) > bytes(&plain, part), "{part}");
    }
    let flops = |plan: &Value| plan["tflops"]["linear"].as_f64().expect("a number");
    assert!(flops(&with) > flops(&plain) && flops(&with) < 1.5 * flops(&plain), "{with}");
}

/// A name is a file in the folder of LoRAs, which `list` shows. A file of that name where we are goes before it.
#[test]
fn a_lora_is_given_by_name() {
    let dir = tempfile::tempdir().expect("a folder");
    let folder = dir.path().join("loras");
    fs::create_dir(&folder).expect("a folder");
    let kept = folder.join("cats.safetensors");
    fs::copy(file("flux-xlabs"), &kept).expect("a copy");
    fs::write(folder.join("notes.txt"), "no LoRA").expect("a file");
    let with = |mut command: Command| {
        command.env("RALU_LORA_DIR", &folder);
        command
    };
    let by_path = dir.path().join("path.png");
    succeeds(&mut generate(&by_path, &["--lora", &format!("{}:0.5", kept.display())]));
    for name in ["cats", "cats.safetensors"] {
        let by_name = dir.path().join("name.png");
        succeeds(&mut with(generate(&by_name, &["--lora", &format!("{name}:0.5")])));
        assert!(pixels(&by_name) == pixels(&by_path), "{name}");
        assert_eq!(parts(&by_name), parts(&by_path));
    }
    let mut command = with(generate(&by_path, &["--lora", "dogs"]));
    fails(&mut command, 1, &["dogs", "no such file", "loras", "owner/repo:file"]);
    let list = |words: &[&str]| {
        let mut command = ralu();
        command.arg("list").args(words);
        with(command)
    };
    let listed = stdout(&succeeds(&mut list(&[])));
    assert!(listed.contains("LoRAs in") && listed.contains("cats"), "{listed}");
    assert!(!listed.contains("notes"), "{listed}");
    let listed = json(&mut list(&["--json"]));
    assert_eq!(listed["loras"][0]["name"], "cats", "{listed}");
}

/// What was pulled as one file of a repository is given as it was pulled.
#[test]
fn a_lora_is_given_as_it_was_pulled() {
    let dir = tempfile::tempdir().expect("a folder");
    let repository = dir.path().join("models--someone--cats");
    let snapshot = repository.join("snapshots").join("abc123");
    fs::create_dir_all(&snapshot).expect("a folder");
    fs::create_dir(repository.join("refs")).expect("a folder");
    fs::write(repository.join("refs").join("main"), "abc123").expect("a file");
    fs::copy(file("flux-xlabs"), snapshot.join("cats.safetensors")).expect("a copy");
    let with = |mut command: Command| {
        command.env("HF_HUB_CACHE", dir.path());
        command
    };
    let [by_path, by_name] = ["path.png", "name.png"].map(|name| dir.path().join(name));
    let path = snapshot.join("cats.safetensors").display().to_string();
    succeeds(&mut generate(&by_path, &["--lora", &path]));
    let name = "someone/cats:cats.safetensors";
    succeeds(&mut with(generate(&by_name, &["--lora", name])));
    assert!(pixels(&by_name) == pixels(&by_path));
    let mut list = with(ralu());
    let listed = stdout(&succeeds(list.arg("list")));
    assert!(listed.contains("cats.safetensors  (a LoRA)"), "{listed}");
    let other = "someone/dogs:dogs.safetensors";
    let mut command = with(generate(&by_path, &["--lora", other]));
    fails(&mut command, 1, &["dogs.safetensors", "ralu pull someone/dogs:dogs.safetensors"]);
}
