//! LoRAs in files and by name.

use std::fs;
use std::path::{Path, PathBuf};

use ralu_host::loras::LoraDir;
use ralu_host::models::{is_lora_file, is_model_file};

fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(path)
}

#[test]
fn loras_are_told_from_models() {
    for case in ["flux-kohya", "flux-xlabs", "flux-lokr", "flux-loha", "flux-diffusers"] {
        let file = fixture("lora").join(case).join("lora.safetensors");
        assert!(is_lora_file(&file) && is_model_file(&file), "{case}");
    }
    for other in ["formats/common/ae.safetensors", "picture-0.1.png", "lora", "nowhere"] {
        assert!(!is_lora_file(&fixture(other)), "{other}");
    }
}

#[test]
fn a_folder_has_names() {
    let dir = tempfile::tempdir().expect("a folder");
    let loras = LoraDir::find(Some(dir.path())).expect("a folder");
    assert_eq!(loras.list(), []);
    for name in ["cats.safetensors", "a.b.sft", "notes.txt"] {
        fs::write(dir.path().join(name), "12345").expect("a file");
    }
    let names: Vec<String> = loras.list().into_iter().map(|lora| lora.name).collect();
    assert_eq!(names, ["a.b", "cats"]);
    let cats = Some(dir.path().join("cats.safetensors"));
    assert_eq!(loras.get("cats"), cats);
    assert_eq!(loras.get("cats.safetensors"), cats);
    assert_eq!(loras.get("a.b"), Some(dir.path().join("a.b.sft")));
    for other in ["notes", "notes.txt", "dogs", "", "../cats", "x/cats"] {
        assert_eq!(loras.get(other), None, "{other}");
    }
}
