//! Models of which a list of files is given and no more, and vocabularies that hosts bring along, as pages do.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use ralu::checkpoint::source::{Folder, Memory};
use ralu::models::files::{ModelPaths, Role};
use ralu::pipeline::check_model;
use ralu::text::Vocabularies;
use serde_json::{Map, Value, json};

use super::files::{CLIP_L, FLUX, SD3, T5, VAE, formats, open, separate, text};
use crate::folders::{assert_mentions, repository};

const CLIP_TOKENIZER: &str = "tokenizers/clip/tokenizer.json";
const T5_TOKENIZER: &str = "tokenizers/t5/tokenizer.json";

/// A list of files in any order is a model, and what is wrong with it is said at once.
#[test]
fn lists_of_files_are_sorted_by_what_they_hold() {
    let sort = |paths: &[&str]| {
        let files: Vec<String> = paths.iter().map(|path| text(formats(path))).collect();
        ModelPaths::sort(&Folder::anywhere(), &files)
    };
    let case = "flux-bfl-bf16/case.json";
    let found = sort(&[T5, CLIP_TOKENIZER, VAE, case, FLUX, T5_TOKENIZER, CLIP_L]).unwrap();
    let tokenizer = Some(text(formats(CLIP_TOKENIZER)));
    assert_eq!(found, separate().with(|paths| paths.clip_tokenizer = tokenizer));
    check_model(&open(&found).unwrap()).unwrap();

    let all = "flux-aio-fp8/flux1-dev-fp8-aio.safetensors";
    assert_eq!(sort(&[all]).unwrap().parts, BTreeMap::new());
    assert_eq!(sort(&[SD3]).unwrap().model, text(formats(SD3)));
    for lora in ["flux-kohya", "flux-xlabs", "flux-lokr", "flux-onetrainer-dora"] {
        let lora = text(repository("tests/fixtures/lora").join(lora).join("lora.safetensors"));
        let files = [lora.clone(), text(formats(all))];
        let found = ModelPaths::sort(&Folder::anywhere(), &files).unwrap();
        let loras: Vec<_> = found.loras.iter().map(|found| &found.file).collect();
        assert_eq!(loras, [&lora]);
        let error = ModelPaths::sort(&Folder::anywhere(), &[lora]).unwrap_err().to_string();
        assert_mentions(&error, &["no denoiser", "lora.safetensors: a LoRA"]);
    }
    let other = sort(&[T5, all]).unwrap();
    assert_eq!(other.parts, BTreeMap::from([(Role::T5, text(formats(T5)))]));

    let says = |paths: &[&str], words: &[&str]| {
        assert_mentions(&sort(paths).unwrap_err().to_string(), words);
    };
    says(
        &[CLIP_L, FLUX],
        &[
            "flux1-dev.safetensors",
            "a T5 text encoder (usually t5xxl",
            "a VAE (usually ae.",
            "these files",
        ],
    );
    says(&[CLIP_L, T5, FLUX], &["without a VAE", "that file"]);
    says(
        &[VAE, T5],
        &["no denoiser", "ae.safetensors: a VAE", "t5xxl_fp16.safetensors: a T5", "flux1-dev"],
    );
    says(&[], &["no denoiser", "none is a model's"]);
    says(&[T5, FLUX, "common/t5xxl_fp8_e4m3fn.safetensors"], &["both hold a T5", "fp8", "fp16"]);
    says(&[FLUX, SD3], &["both hold a denoiser", "flux1-dev", "sd3.5"]);
    says(&[CLIP_TOKENIZER, CLIP_TOKENIZER, all], &["both hold a CLIP tokenizer"]);
    let source =
        Memory::new("m").with("a.ckpt", b"PK\x03\x04\x00\x00\x00\x00\x00\x00archive/data.pkl");
    let error = ModelPaths::sort(&source, &["notes.txt".into(), "a.ckpt".into()]).unwrap_err();
    assert_mentions(&error.to_string(), &["m/a.ckpt", "pickled"]);
}

/// A safetensors file whose tensor `table` has more rows, of zeros.
fn with_rows(path: &str, table: &str, rows: usize) -> Vec<u8> {
    let bytes = fs::read(formats(path)).unwrap();
    let (length, rest) = bytes.split_first_chunk::<8>().unwrap();
    let (header, old) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let mut header: Map<String, Value> = serde_json::from_slice(header).unwrap();
    header.remove("__metadata__");
    let mut data = Vec::new();
    for (name, info) in &mut header {
        let [start, end] = [0, 1].map(|i| info["data_offsets"][i].as_u64().unwrap() as usize);
        let at = data.len();
        data.extend_from_slice(&old[start..end]);
        if name == table {
            let row = (end - start) / info["shape"][0].as_u64().unwrap() as usize;
            info["shape"][0] = rows.into();
            data.resize(at + rows * row, 0);
        }
        info["data_offsets"] = json!([at, data.len()]);
    }
    let header = Value::Object(header).to_string();
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()
}

/// A host may bring vocabularies along: they take the place of the built-in ones, and are read only if they are needed.
#[test]
fn text_encoders_without_tokenizers_take_the_vocabularies_that_the_host_brings() {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, bytes: Vec<u8>| {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        text(path)
    };
    let clip = with_rows(CLIP_L, "text_model.embeddings.token_embedding.weight", 49_408);
    let t5 = with_rows(T5, "shared.weight", 32_128);
    let paths = separate().with(|paths| {
        paths.parts.insert(Role::ClipL, put("clip_l.safetensors", clip));
        paths.parts.insert(Role::T5, put("t5xxl.safetensors", t5));
        (paths.clip_tokenizer, paths.t5_tokenizer) = (None, None);
    });
    let check = |paths: &ModelPaths, words: Memory| {
        let words = Vocabularies::from_source(Arc::new(words));
        check_model(&open(paths).unwrap().with_vocabularies(words))
    };
    let packed = |name: &str| fs::read(repository("src/text/vocabularies").join(name)).unwrap();
    let none = Memory::new("words");
    let half = none.clone().with(Vocabularies::CLIP, packed(Vocabularies::CLIP));
    let whole = half.clone().with(Vocabularies::T5, packed(Vocabularies::T5));
    check(&paths, whole).unwrap();
    for (words, missing) in [(none.clone(), Vocabularies::CLIP), (half, Vocabularies::T5)] {
        let error = check(&paths, words).unwrap_err();
        assert_mentions(&error.to_string(), &[&format!("words/{missing}"), "no such file"]);
    }
    // Those that have tokenizers want none.
    check(&separate(), none).unwrap();
}
