//! No result replaces a file of the model that is run, or becomes one, whichever links are in between.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::command::{fails, json, on_adapter, ralu, succeeds};
use crate::picture::{SMALL, bytes, copied_model, folder};

const WEIGHTS: &str = "vae/diffusion_pytorch_model.safetensors";

fn generate(model: &Path, output: &Path) -> Command {
    let mut command = on_adapter("generate");
    command.args(["a fox", "--steps", "1", "--seed", "1", "--model"]).arg(model).args(SMALL);
    command.arg("-o").arg(output);
    command
}

fn saving(model: &Path, folder: &Path, tensors: &Path) -> Command {
    let mut command = generate(model, &folder.join("q.png"));
    command.arg("--save-tensors").arg(tensors).current_dir(folder);
    command
}

/// A run that ends before anything is loaded, because of a file of the model.
#[track_caller]
fn refused(command: &mut Command, name: &str) {
    let message = fails(command, 2, &[name, "a file of the model", "outside of the model folder"]);
    assert!(!message.contains("loading"), "{message}");
}

#[test]
fn new_files_do_not_become_the_models() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let model = copied_model(folder.path());
    for name in [
        "generation_config.json",
        "vae/new.safetensors",
        "tokenizer/Added_Tokens.JSON",
        "tokenizer_2/spiece.model",
        "tokenizer/merges.txt",
        "../model/vae/../new.json",
    ] {
        refused(&mut saving(&model, folder.path(), &model.join(name)), "the tensors");
    }
    // However the folder and the file are spelled.
    let relative = &mut saving(Path::new("model"), folder.path(), Path::new("./model/a.json"));
    refused(relative, "the tensors");
    let mut trace = generate(&model, &path("q.png"));
    refused(trace.arg(format!("--profile={}", model.join("a.json").display())), "the trace");
    // Nobody takes pictures for a model's files, nor what only begins like its name.
    fs::create_dir(path("model-results")).expect("a folder");
    let tensors = path("model-results/a.safetensors");
    let mut fine = generate(&model, &model.join("vae/q.png"));
    succeeds(fine.arg("--save-tensors").arg(&tensors));
    succeeds(&mut generate(&model, &model.join("vae/q.png")));
    assert!(tensors.is_file());
    assert_eq!(json(ralu().args(["inspect", "--json"]).arg(&model))["supported"], true);
}

#[cfg(unix)]
mod unix {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::picture::{MODEL, copy};

    #[test]
    fn a_linked_part_is_the_models() {
        let folder = folder();
        let path = |name: &str| folder.path().join(name);
        let model = copied_model(folder.path());
        fs::create_dir(path("shared")).expect("a folder");
        fs::rename(model.join("vae"), path("shared/vae")).expect("moved");
        symlink("../shared/vae", model.join("vae")).expect("a link");
        let before = bytes(&model.join(WEIGHTS));
        let real = path("shared/vae/diffusion_pytorch_model.safetensors");
        symlink(&real, path("link.safetensors")).expect("a link");
        symlink("model", path("other")).expect("a link");
        for tensors in [
            model.join(WEIGHTS),
            real.clone(),
            path("link.safetensors"),
            path("other").join(WEIGHTS),
            // Not there yet.
            path("shared/vae/new.safetensors"),
            model.join("vae/new.safetensors"),
        ] {
            refused(&mut saving(&model, folder.path(), &tensors), "the tensors");
            refused(&mut saving(Path::new("model"), folder.path(), &tensors), "the tensors");
            refused(&mut saving(&path("other"), folder.path(), &tensors), "the tensors");
        }
        // A picture's name leads to it as well.
        symlink(&real, path("weights.png")).expect("a link");
        refused(&mut generate(&model, &path("weights.png")), "the picture");
        assert_eq!(bytes(&real), before);
        // The folder that the parts lie in is no part itself.
        succeeds(&mut saving(&model, folder.path(), &path("shared/a.safetensors")));
    }

    #[test]
    fn blobs_that_links_of_a_cache_lead_to_are_the_models() {
        let folder = folder();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("blobs")).expect("a folder");
        fs::create_dir(path("snapshots")).expect("a folder");
        let snapshot = path("snapshots/abc");
        copy(Path::new(MODEL), &snapshot);
        fs::rename(snapshot.join(WEIGHTS), path("blobs/v")).expect("moved");
        symlink("../../../blobs/v", snapshot.join(WEIGHTS)).expect("a link");
        // What a download that was broken off leaves.
        symlink("../../../blobs/w", snapshot.join("vae/notes.json")).expect("a link");
        symlink("blobs/v", path("link")).expect("a link");
        fs::hard_link(path("blobs/v"), path("same")).expect("a link");
        let before = bytes(&path("blobs/v"));
        for name in ["blobs/v", "blobs/w", "link", "same"] {
            refused(&mut saving(&snapshot, folder.path(), &path(name)), "the tensors");
        }
        assert_eq!(bytes(&path("blobs/v")), before);
    }

    #[test]
    fn links_in_circles_end() {
        let folder = folder();
        let model = copied_model(folder.path());
        symlink(".", model.join("self")).expect("a link");
        symlink("..", model.join("up")).expect("a link");
        symlink("nothing", model.join("vae/lost")).expect("a link");
        // What lies around the model is not the model.
        succeeds(&mut saving(&model, folder.path(), &folder.path().join("a.safetensors")));
        refused(&mut saving(&model, folder.path(), &model.join("self/vae/a.json")), "a.json");
    }
}
