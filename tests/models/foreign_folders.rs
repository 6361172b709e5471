//! What people have on disk in place of a model that can be run, and what they are told.

use std::fs;
use std::path::{Path, PathBuf};

use ralu::checkpoint::source::{Folder, Memory, Source};
use ralu::checkpoint::weights::Weights;
use ralu::pipeline::check_model;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView, serialize};
use serde_json::{Value, json};

fn fixture() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/flux-a/model")
}

/// Copies a folder, its files and theirs.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), to).unwrap()),
        }
    }
}

/// A model that can be run, to be spoiled.
struct Model {
    dir: tempfile::TempDir,
}

impl Model {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        copy(&fixture(), dir.path());
        let model = Model { dir };
        check_model(&Folder::open(model.dir.path()).unwrap()).unwrap();
        model
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn edit(&self, name: &str, field: &str, value: Value) {
        let text = fs::read_to_string(self.path(name)).unwrap();
        let mut json: Value = serde_json::from_str(&text).unwrap();
        json[field] = value;
        self.write(name, json.to_string());
    }

    #[track_caller]
    fn says(&self, parts: &[&str]) {
        says(self.dir.path(), parts);
    }
}

/// The folder is refused in one sentence that has all of `parts` in it.
#[track_caller]
fn says(folder: &Path, parts: &[&str]) {
    let message = match Folder::open(folder) {
        Err(error) => error.to_string(),
        Ok(source) => check_model(&source).unwrap_err().to_string(),
    };
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
    assert!(!message.contains('\n') && message.len() < 1000, "{message}");
}

const VAE: &str = "vae/diffusion_pytorch_model.safetensors";

#[test]
fn folders_around_a_model() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("hub/models--someone--FLUX.1-small");
    let snapshots = root.join("snapshots");
    copy(&fixture(), &snapshots.join("0123abcd"));
    copy(&fixture(), &snapshots.join("ffff"));
    fs::create_dir_all(root.join("blobs")).unwrap();
    fs::create_dir_all(root.join("refs")).unwrap();
    // Without refs/main any snapshot will do.
    says(&root, &["Hugging Face cache", "snapshots/0123abcd"]);
    fs::write(root.join("refs/main"), "ffff\n").unwrap();
    says(&root, &["Hugging Face cache", "snapshots/ffff"]);
    says(&snapshots, &["give the folder inside it", "snapshots/0123abcd"]);
    says(
        &dir.path().join("hub"),
        &["Hugging Face cache", "models--someone--FLUX.1-small/snapshots"],
    );
    says(
        &snapshots.join("ffff/transformer"),
        &["one part of a model (FluxTransformer2DModel)", "the folder above it"],
    );
    says(&snapshots.join("ffff/text_encoder"), &["one part of a model (CLIPTextModel)"]);
    says(&snapshots.join("ffff/scheduler"), &["one part of a model"]);
    fs::remove_dir_all(&snapshots).unwrap();
    fs::create_dir_all(&snapshots).unwrap();
    says(&root, &["Hugging Face cache", "no snapshot", "not complete"]);
}

#[test]
fn folders_of_other_programs() {
    let cases: &[(&[&str], &[&str])] = &[
        (&["flux1-dev-Q4_K_S.gguf"], &["flux1-dev-Q4_K_S.gguf", "give it instead", "GGUF"]),
        (&["flux1-dev.safetensors"], &["flux1-dev.safetensors", "give it instead"]),
        (&["model.ckpt"], &["model.ckpt", "pickled checkpoint"]),
        (
            &["checkpoints/a.safetensors", "unet/b.safetensors", "vae/c.safetensors"],
            &["ComfyUI", "give the model's file"],
        ),
        (&["pytorch_lora_weights.safetensors"], &["LoRA"]),
        (&["adapter_config.json", "adapter_model.safetensors"], &["LoRA"]),
        (&["model.onnx"], &["model.onnx", "another program's format"]),
        (&["modular_model_index.json"], &["modular pipeline"]),
        (&["model_index.json.incomplete"], &["model_index.json.incomplete", "unfinished download"]),
        (&["transformer/config.json", "vae/config.json"], &["not complete", "model_index.json"]),
        (&[], &["model_index.json", "found here: nothing"]),
    ];
    for (files, parts) in cases {
        let dir = tempfile::tempdir().unwrap();
        for file in *files {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "{}").unwrap();
        }
        says(dir.path(), parts);
        let Some(file) = files.iter().find(|file| !file.contains('/')) else { continue };
        let single = dir.path().join(file);
        says(&single, &["found a file"]);
    }
}

#[cfg(unix)]
#[test]
fn links_that_lead_nowhere() {
    use std::os::unix::fs::symlink;
    let gone = |name: &str| {
        let model = Model::new();
        fs::remove_file(model.path(name)).unwrap();
        symlink("../../blobs/gone", model.path(name)).unwrap();
        model.says(&[name, "is a link that points to ../../blobs/gone", "not there"]);
    };
    gone(VAE);
    gone("transformer/diffusion_pytorch_model-00002-of-00003.safetensors");
    gone("transformer/config.json");
    gone("tokenizer/tokenizer.json");
    gone("model_index.json");
    let model = Model::new();
    fs::remove_dir_all(model.path("vae")).unwrap();
    symlink("/nowhere/vae", model.path("vae")).unwrap();
    model.says(&["/vae: is a link that points to /nowhere/vae"]);
    // A link that leads somewhere is a file.
    let model = Model::new();
    fs::remove_file(model.path(VAE)).unwrap();
    symlink(fixture().join(VAE), model.path(VAE)).unwrap();
    check_model(&Folder::open(model.dir.path()).unwrap()).unwrap();
}

#[test]
fn downloads_that_were_broken_off() {
    for ending in [".incomplete", ".part", ".crdownload"] {
        let model = Model::new();
        fs::rename(model.path(VAE), model.path(&format!("{VAE}{ending}"))).unwrap();
        model.says(&["/vae: no weights", ending, "unfinished download"]);
    }
    let model = Model::new();
    let shard = "transformer/diffusion_pytorch_model-00002-of-00003.safetensors";
    fs::remove_file(model.path(shard)).unwrap();
    model.says(&["diffusion_pytorch_model-00002-of-00003.safetensors", "not complete"]);
    model.write(".cache/huggingface/download/transformer/x=.5c.incomplete", "");
    model.says(&["x=.5c.incomplete is an unfinished download"]);
    // aria2 makes the file at its full length first.
    let model = Model::new();
    model.write(&format!("{VAE}.aria2"), "x");
    model.says(&[VAE, ".aria2", "not complete"]);
    for (name, config) in [("vae", "vae/config.json"), ("tokenizer", "tokenizer/tokenizer.json")] {
        let model = Model::new();
        fs::rename(model.path(config), model.path(&format!("{config}.incomplete"))).unwrap();
        model.says(&[name, ".incomplete", "unfinished download"]);
    }
}

#[test]
fn files_that_stand_in_for_others() {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n";
    let page = "\n<!DOCTYPE html><html><title>Log in</title></html>";
    for name in ["model_index.json", "vae/config.json", "tokenizer/tokenizer.json", VAE] {
        let spoiled = |bytes: &[u8], parts: &[&str]| {
            let model = Model::new();
            model.write(name, bytes);
            model.says(&[&[name], parts].concat());
        };
        spoiled(pointer.as_bytes(), &["a Git LFS pointer", "git lfs pull"]);
        spoiled(page.as_bytes(), &["a web page"]);
        spoiled(b"", &["0 bytes"]);
        spoiled(&[0; 4096], &["begins with zeros"]);
    }
    for (bytes, what) in [
        (&b"PK\x03\x04 zip"[..], "pickled"),
        (b"\x80\x02}q\x00(X\x06\x00\x00\x00weightq", "pickled"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (&[0; 4096], "begins with zeros"),
        (b"\x1f\x8b\x08\0\0\0\0\0", "gzip"),
        (b"Entry not found", "a text"),
        (b"{\"error\":\"Repository not found\"}", "a text"),
    ] {
        let model = Model::new();
        model.write(VAE, bytes);
        model.says(&[VAE, "not a valid safetensors file but", what]);
    }
}

#[test]
fn texts_of_windows_editors() {
    for name in ["model_index.json", "transformer/config.json", "tokenizer/tokenizer_config.json"] {
        let text = fs::read_to_string(fixture().join(name)).unwrap();
        let utf16 = |bom: &str| -> Vec<u8> {
            format!("{bom}{text}").encode_utf16().flat_map(u16::to_le_bytes).collect()
        };
        let big: Vec<u8> =
            format!("\u{feff}{text}").encode_utf16().flat_map(u16::to_be_bytes).collect();
        for (bytes, what) in [
            (format!("\u{feff}{text}").into_bytes(), "byte order mark (BOM)"),
            (utf16("\u{feff}"), "UTF-16"),
            (utf16(""), "UTF-16"),
            (big, "UTF-16"),
        ] {
            let model = Model::new();
            model.write(name, bytes);
            model.says(&[name, what, "save it as UTF-8 without BOM"]);
        }
    }
}

#[test]
fn quantised_weights() {
    for (name, config) in [
        ("transformer/config.json", json!({"quant_method": "bitsandbytes", "load_in_4bit": true})),
        ("text_encoder_2/config.json", json!({"quant_method": "gptq", "bits": 4})),
        ("vae/config.json", json!({"quant_method": "torchao"})),
        ("text_encoder/config.json", json!("int8")),
    ] {
        let model = Model::new();
        model.edit(name, "quantization_config", config.clone());
        let how = config["quant_method"].as_str().unwrap_or("int8");
        model.says(&[name, "quantised", how, "16 or 32 bits"]);
        model.edit(name, "quantization_config", Value::Null);
        check_model(&Folder::open(model.dir.path()).unwrap()).unwrap();
    }
    // NF4 of bitsandbytes is read, as bytes; which layers are, their tensors say.
    let nf4 = json!({
        "_load_in_4bit": true,
        "load_in_4bit": true,
        "quant_method": "bitsandbytes",
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_quant_storage": "uint8",
        "bnb_4bit_use_double_quant": true,
        "bnb_4bit_compute_dtype": "bfloat16",
        "llm_int8_skip_modules": null,
    });
    for name in ["transformer/config.json", "text_encoder_2/config.json"] {
        let model = Model::new();
        model.edit(name, "quantization_config", nf4.clone());
        check_model(&Folder::open(model.dir.path()).unwrap()).unwrap();
        for (field, value) in [
            ("bnb_4bit_quant_type", json!("fp4")),
            ("bnb_4bit_quant_storage", json!("bfloat16")),
            ("load_in_4bit", json!(false)),
        ] {
            let mut other = nf4.clone();
            other[field] = value;
            model.edit(name, "quantization_config", other);
            model.says(&[name, "quantised", "bitsandbytes", "supported: NF4"]);
        }
    }
    // Without a word in the configuration, by their tensors.
    let header = |tensors: &str| {
        let header = format!("{{{tensors}}}");
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 64]].concat()
    };
    let tensor = |name: &str, dtype: &str, bytes: usize| {
        format!(r#""{name}":{{"dtype":"{dtype}","shape":[{bytes}],"data_offsets":[0,{bytes}]}}"#)
    };
    for (tensors, what) in [
        (tensor("decoder.conv_in.weight", "F8_E4M3FNUZ", 8), "F8_E4M3FNUZ"),
        (tensor("decoder.conv_in.weight", "U8", 8), "U8"),
        (tensor("decoder.conv_in.weight.absmax", "U8", 8), "absmax"),
        (tensor("decoder.conv_in.SCB", "U8", 8), "SCB"),
    ] {
        let model = Model::new();
        model.write(VAE, header(&tensors));
        model.says(&[VAE, "quantised", what, "16 or 32 bits"]);
    }
    // Scales belong to weights; this one is 0. A sign that weights have scales says nothing of wide ones.
    let bytes = fs::read(fixture().join(VAE)).unwrap();
    let complete = SafeTensors::deserialize(&bytes).unwrap();
    for extra in ["decoder.conv_in.weight_scale", "decoder.conv_in.scale_weight", "scaled_fp8"] {
        let model = Model::new();
        let scale = TensorView::new(Dtype::F32, vec![], &[0; 4]).unwrap();
        let tensors = complete.tensors().into_iter().chain([(extra.to_owned(), scale)]);
        model.write(VAE, serialize(tensors, None).unwrap());
        match extra {
            "scaled_fp8" => check_model(&Folder::open(model.dir.path()).unwrap()).unwrap(),
            _ => model.says(&[VAE, extra, "holds 0", "positive numbers"]),
        }
    }
    let model = Model::new();
    fs::remove_file(model.path(VAE)).unwrap();
    model.write("vae/vae-Q4.gguf", "GGUF");
    model.says(&["vae-Q4.gguf", "GGUF", "give it as this part"]);
}

#[test]
fn parts_that_were_left_out() {
    for (part, null) in [
        ("text_encoder", json!([null, null])),
        ("text_encoder_2", json!(null)),
        ("vae", json!([null, null])),
        ("transformer", json!(["diffusers", null])),
        ("tokenizer_2", json!([null, null])),
    ] {
        let model = Model::new();
        model.edit("model_index.json", part, null);
        model.says(&["model_index.json", &format!("\"{part}\" is null"), "saved without"]);
    }
    let model = Model::new();
    model.edit("model_index.json", "transformer", json!(["my_code", "FluxTransformer2DModel"]));
    model.says(&["model_index.json", "transformer", "my_code", "not supported"]);
}

/// Names from a stranger's files do not reach a terminal as they are.
#[test]
fn names_are_escaped() {
    let evil = "a\u{1b}]0;title\u{7}\u{202e}\n";
    let json_evil = serde_json::to_string(evil).unwrap();
    let shown = |message: String| {
        let bad = message.chars().find(|c| c.is_control() || *c == '\u{202e}');
        assert_eq!(bad, None, "{message:?}");
        assert!(message.contains(r"a\u{1b}]0;title\u{7}\u{202e}\n"), "{message}");
    };
    let header = |json: String| [&(json.len() as u64).to_le_bytes()[..], json.as_bytes()].concat();
    for tensors in [
        format!(r#"{{{json_evil}:{{}}}}"#),
        format!(r#"{{{json_evil}:{{}},{json_evil}:{{}}}}"#),
        format!(r#"{{{json_evil}:{{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}}}"#),
    ] {
        let source = Memory::new("m").with("f.safetensors", header(tensors));
        shown(Weights::open_file(&source, "f.safetensors").unwrap_err().to_string());
    }
    for index in [
        format!(r#"{{"weight_map":{{"x":{json_evil}}}}}"#),
        format!(r#"{{"weight_map":{{{json_evil}:3}}}}"#),
    ] {
        let source = Memory::new("m").with("model.safetensors.index.json", index);
        let message = Weights::open(&source, "", "model").unwrap_err().to_string();
        assert!(!message.chars().any(char::is_control), "{message:?}");
    }
    let read = |name: &str| fs::read_to_string(fixture().join(name)).unwrap();
    let spoil = |name: &str, field: &str| {
        let mut json: Value = serde_json::from_str(&read(name)).unwrap();
        json[field] = evil.into();
        let model = Model::new();
        model.write(name, json.to_string());
        shown(check_model(&Folder::open(model.dir.path()).unwrap()).unwrap_err().to_string());
    };
    spoil("model_index.json", "_class_name");
    spoil("vae/config.json", "_class_name");
    let source = Memory::new(evil);
    shown(check_model(&source).unwrap_err().to_string());
    let source = Memory::new("m").with(format!("{evil}/x"), "");
    shown(check_model(&source).unwrap_err().to_string());
    assert!(source.list("").unwrap()[0].contains('\u{1b}'));
}

/// Opening a pipe would wait for its writer.
#[cfg(unix)]
#[test]
fn weights_that_are_no_file() {
    let model = Model::new();
    fs::remove_file(model.path(VAE)).unwrap();
    let status = std::process::Command::new("mkfifo").arg(model.path(VAE)).status().unwrap();
    assert!(status.success());
    model.says(&[VAE, "expected a file"]);
}
