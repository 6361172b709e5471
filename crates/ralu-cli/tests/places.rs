//! Pictures name no folder of the machine that they were made on, and their model is found again.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::command::{MODEL, fails, on_adapter, root, stderr, succeeds};
use crate::picture::{SMALL, bytes, copied_model, copy, folder};

const SECRET: &str = "secret-place";

/// A run with a model, a part of it and a change to it, all of them in a folder that nobody is to know of.
fn made(place: &Path, picture: &Path, cache: &Path) -> Command {
    let mut command = on_adapter("generate");
    command.args(["a fox", "--steps=1", "--seed=1"]).args(SMALL);
    parts(&mut command, place).arg("--cache-dir").arg(cache).arg("-o").arg(picture);
    command
}

fn parts<'c>(command: &'c mut Command, place: &Path) -> &'c mut Command {
    command.arg("--model").arg(place.join("model")).arg("--vae").arg(place.join("own-vae"));
    command.arg("--lora").arg(place.join("cats.safetensors"))
}

fn again(from: &Path, picture: &Path, cache: &Path) -> Command {
    let mut command = on_adapter("generate");
    command.arg("--from").arg(from).arg("--cache-dir").arg(cache).arg("-o").arg(picture);
    command
}

#[test]
fn a_picture_names_no_folder_and_is_drawn_again() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let (place, cache) = (path(SECRET), path("cache"));
    fs::create_dir(&place).expect("a folder");
    copied_model(&place);
    copy(&Path::new(MODEL).join("vae"), &place.join("own-vae"));
    let lora = root().join("tests/fixtures/lora/flux-two/b.safetensors");
    fs::copy(lora, place.join("cats.safetensors")).expect("a copy");
    let wide: Vec<u8> = SECRET.encode_utf16().flat_map(u16::to_be_bytes).collect();
    let holds = |bytes: &[u8], text: &[u8]| bytes.windows(text.len()).any(|part| part == text);
    for name in ["a.png", "a.jpg", "a.webp"] {
        succeeds(&mut made(&place, &path(name), &cache));
        let bytes = bytes(&path(name));
        assert!(holds(&bytes, b"own-vae") && holds(&bytes, b"cats.safetensors"), "{name}");
        assert!(!holds(&bytes, SECRET.as_bytes()) && !holds(&bytes, &wide), "{name}");
    }

    let first = bytes(&path("a.png"));
    // Where it was.
    succeeds(&mut again(&path("a.png"), &path("b.png"), &cache));
    assert!(bytes(&path("b.png")) == first);
    // Nobody knows, and everything has to be given.
    let other = path("other-cache");
    let mut command = again(&path("a.png"), &path("c.png"), &other);
    fails(&mut command, 2, &["the model model", "--model"]);
    succeeds(parts(&mut command, &place));
    assert!(bytes(&path("c.png")) == first);
    // Next to it.
    fs::copy(path("a.png"), place.join("a.png")).expect("a copy");
    succeeds(&mut again(&place.join("a.png"), &path("d.png"), &path("third-cache")));
    assert!(bytes(&path("d.png")) == first);
    // Under other names.
    fs::rename(place.join("model"), place.join("renamed")).expect("a folder");
    let mut command = again(&path("a.png"), &path("e.png"), &cache);
    command.arg("--model").arg(place.join("renamed"));
    command.arg("--vae").arg(place.join("own-vae"));
    command.arg("--lora").arg(place.join("cats.safetensors"));
    let output = succeeds(&mut command);
    assert!(!stderr(&output).contains("other files"), "{}", stderr(&output));
    assert!(bytes(&path("e.png")) == first);
    // Other files.
    let index = place.join("renamed/model_index.json");
    fs::write(&index, [&bytes(&index)[..], b"\n"].concat()).expect("a file");
    let output = succeeds(&mut command);
    assert!(stderr(&output).contains("other files of a model than those of renamed"));
}
