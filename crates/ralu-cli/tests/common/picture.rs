//! Small pictures of a fixture model, made by the program, and PNGs made by hand.

#![allow(dead_code, reason = "every test binary uses another part of it")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

pub use crate::command::MODEL;
use crate::command::on_adapter;

/// The smallest picture that RALU and plain sampling both take, and few tokens.
pub const SMALL: [&str; 6] = ["--width", "64", "--height", "64", "--max-sequence-length", "16"];
/// RALU with three stages of one step each, and nothing to solve.
pub const RALU: [&str; 12] = [
    "--ralu",
    "custom",
    "--stage-steps",
    "1,1,1",
    "--stage-ends",
    "0.3,0.45,1",
    "--up-ratio",
    "0.3",
    "--stage-shifts",
    "5.019,2.589,2.226",
    "--stage-z",
    "6.317123456789012",
];

/// A picture of the fixture model that takes a fraction of a second.
pub fn small(prompt: &str, output: &Path) -> Command {
    let mut command = on_adapter("generate");
    command.arg(prompt).args(["--model", MODEL, "--seed", "1"]).args(SMALL);
    command.arg("--output").arg(output);
    command
}

/// The same with one plain step.
pub fn plain(prompt: &str, output: &Path) -> Command {
    let mut command = small(prompt, output);
    command.args(["--steps", "1"]);
    command
}

pub fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

/// Copies a folder with everything in it.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for name in names(from) {
        let (from, to) = (from.join(&name), to.join(&name));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            fs::copy(&from, &to).expect("a copy");
        }
    }
}

/// The fixture model's files in a folder `model` of `folder`.
pub fn copied_model(folder: &Path) -> PathBuf {
    let model = folder.join("model");
    copy(Path::new(MODEL), &model);
    model
}

/// Names of everything in a folder, sorted.
pub fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("the folder");
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into())
        .collect();
    names.sort();
    names
}

pub fn bytes(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub fn chunk(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let named = [kind, body].concat();
    let checksum = crc32fast::hash(&named).to_be_bytes();
    [&(body.len() as u32).to_be_bytes()[..], &named, &checksum].concat()
}

/// A PNG of those chunks, from IHDR to IEND.
pub fn png(chunks: &[Vec<u8>]) -> Vec<u8> {
    [b"\x89PNG\r\n\x1a\n".to_vec(), chunks.concat()].concat()
}

/// The chunks of a PNG, each whole, with its kind.
pub fn chunks(png: &[u8]) -> Vec<([u8; 4], Vec<u8>)> {
    let mut rest = &png[8..];
    let mut chunks = vec![];
    while rest.len() >= 12 {
        let length = u32::from_be_bytes(rest[..4].try_into().expect("4 bytes")) as usize + 12;
        chunks.push((rest[4..8].try_into().expect("4 bytes"), rest[..length].to_vec()));
        rest = &rest[length..];
    }
    chunks
}

/// A PNG of one black pixel with one more chunk.
pub fn pixel_with(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let header = [0, 0, 0, 1, 0, 0, 0, 1, 8, 0, 0, 0, 0];
    let pixels = fdeflate::compress_to_vec(&[0, 0]);
    png(&[chunk(b"IHDR", &header), chunk(kind, body), chunk(b"IDAT", &pixels), chunk(b"IEND", b"")])
}

/// A request as pictures carry it, with some fields changed.
pub fn request(changes: serde_json::Value) -> String {
    let mut request = serde_json::json!({
        "format": 1, "version": "0", "model": "flux-a", "model_path": MODEL, "adapter": "", "prompt": "a fox",
        "negative_prompt": null, "width": 64, "height": 64, "steps": 1, "guidance": null, "true_cfg": 1.0,
        "max_sequence_length": 16, "seed": 1, "rng": "philox", "precision": "auto",
        "ralu": { "name": "off", "variant": "exact", "parameters": null, "regions": null },
    });
    for (field, value) in changes.as_object().expect("an object") {
        request[field] = value.clone();
    }
    request.to_string()
}
