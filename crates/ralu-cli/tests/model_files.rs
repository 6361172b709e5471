//! Models in files of their own: options, parts that are found, and what `inspect` says of a file.

use std::fs;
use std::path::{Path, PathBuf};

use crate::command::{MODEL, fails, json, on_adapter, ralu, root, stderr, succeeds};
use crate::picture::folder;

fn formats(path: &str) -> PathBuf {
    root().join("tests/fixtures/formats").join(path)
}

const FLUX: &str = "flux-bfl-bf16/flux1-dev.safetensors";
const ALL_IN_ONE: &str = "flux-aio-fp8/flux1-dev-fp8-aio.safetensors";

/// Options for the test's tokenizers.
fn tokenizers() -> [PathBuf; 4] {
    [
        "--clip-tokenizer".into(),
        formats("tokenizers/clip"),
        "--t5_tokenizer".into(),
        formats("tokenizers/t5"),
    ]
}

/// A picture of a model whose parts lie next to it, and of one whose parts are given in other programs' spelling: the same.
#[test]
fn parts_are_found_or_given() {
    let folder = folder();
    let put = |from: &str, to: &str| {
        let to = folder.path().join(to);
        fs::create_dir_all(to.parent().expect("a folder")).expect("a folder");
        fs::copy(formats(from), &to).expect("a copy");
        to
    };
    let model = put(FLUX, "unet/flux1-dev.safetensors");
    put("common/clip_l.safetensors", "clip/clip_l.safetensors");
    put("common/ae.safetensors", "vae/ae.safetensors");
    let draw = |model: &Path, to: &str| {
        let mut command = on_adapter("generate");
        command.args(["a fox", "--width=64", "--height=64", "--steps=1", "--ralu=off", "--seed=1"]);
        command.arg("--max-sequence-length=16").args(tokenizers()).arg("-m").arg(model);
        command.arg("-o").arg(folder.path().join(to));
        command
    };
    let message = fails(
        &mut draw(&model, "a.png"),
        1,
        &["T5", "unet", "text_encoders", "t5xxl_fp16.safetensors", "--t5xxl"],
    );
    assert!(!message.contains("--clip-l"), "{message}");
    put("common/t5xxl_fp16.safetensors", "text_encoders/t5xxl_fp16.safetensors");
    let said = stderr(&succeeds(&mut draw(&model, "a.png")));
    for part in ["clip_l.safetensors", "t5xxl_fp16.safetensors", "ae.safetensors"] {
        assert!(said.lines().any(|line| line.contains(part) && line.contains("found")), "{said}");
    }
    let mut given = draw(&formats(FLUX), "b.png");
    given.arg("--clip_l").arg(formats("common/clip_l.safetensors"));
    given.arg("--t5xxl").arg(formats("common/t5xxl_fp16.safetensors"));
    given.arg("--vae").arg(formats("common/ae.safetensors"));
    succeeds(&mut given);
    let pixels =
        |name: &str| image::open(folder.path().join(name)).expect("a picture").to_rgb8().into_raw();
    assert_eq!(pixels("a.png"), pixels("b.png"));
    // A picture names the files of its model.
    let mut again = on_adapter("generate");
    again.arg("--from").arg(folder.path().join("b.png"));
    succeeds(again.arg("-o").arg(folder.path().join("again.png")));
    assert_eq!(pixels("a.png"), pixels("again.png"));
    // No result replaces a part of the model.
    let vae = folder.path().join("vae/ae.safetensors");
    let mut onto = draw(&model, "c.png");
    onto.arg("--save-tensors").arg(&vae);
    fails(&mut onto, 2, &["would replace a file of the model"]);
}

#[test]
fn inspect_says_what_a_file_holds() {
    let inspect = |path: &str| {
        let mut command = ralu();
        command.args(["inspect", "--json"]).arg(formats(path));
        command
    };
    let report = json(inspect(ALL_IN_ONE).args(tokenizers()));
    assert_eq!(report["supported"], true, "{report}");
    assert_eq!((&report["family"], &report["container"]), (&"flux".into(), &"safetensors".into()));
    assert_eq!(report["ignored"], 1);
    let parts = report["parts"].as_array().expect("parts");
    let denoiser = parts.iter().find(|part| part["name"] == "denoiser").expect("a denoiser");
    assert_eq!(denoiser["prefix"], "model.diffusion_model.");
    let count = denoiser["dtypes"]["F8_E4M3"].as_u64().expect("a count");
    assert!(count > 50 && denoiser["bytes_by_dtype"]["F8_E4M3"].as_u64() > Some(count));
    assert_eq!(parts.len(), 4);

    // A part alone is no model, and that is no failure.
    let report = json(&mut inspect("flux-gguf/t5-v1_1-xxl-encoder-mixed.gguf"));
    assert_eq!(
        (&report["supported"], &report["family"]),
        (&false.into(), &serde_json::Value::Null)
    );
    assert_eq!(report["parts"][0]["name"], "T5 text encoder");
    assert!(
        report["container"].as_str().is_some_and(|text| text.contains("GGUF, architecture t5"))
    );
    // A part in a file of its own is looked at instead of the folder's.
    let mut mixed = ralu();
    mixed.args(["inspect", MODEL, "--diffusion-model"]).arg(formats(FLUX));
    fails(&mut mixed, 1, &["flux1-dev.safetensors"]);
    // What a denoiser lacks, and which option gives it.
    let said = fails(&mut inspect(FLUX), 1, &["CLIP-L", "clip_l.safetensors", "--clip-l"]);
    assert!(!said.contains("panicked"));
    let mut text = ralu();
    text.arg("inspect").arg(formats(ALL_IN_ONE)).args(tokenizers());
    let output = succeeds(&mut text);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for part in ["can be run", "under vae.", "F8_E4M3", "ignored     1 tensors"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn files_can_be_planned() {
    let mut plan = ralu();
    plan.args(["plan", "--json", "--width=64", "--height=64", "--steps=1", "--model"]);
    plan.arg(formats(ALL_IN_ONE)).args(tokenizers());
    assert!(json(&mut plan)["memory"]["denoiser_weights_bytes"].as_u64() > Some(0));
}
