//! What the bundled model has not learnt is said before it draws, and it is found by its name.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::command::{MODEL, command_for, fails, ralu, root, stderr, stdout, succeeds};
use crate::picture::{bytes, copied_model, folder, plain};

#[test]
fn sizes_and_words_that_a_model_does_not_know_are_named() {
    let folder = folder();
    let model = copied_model(folder.path());
    let known =
        json!({ "sizes": ["64x64", "96x64"], "known_words": ["a", "fox", "on", "green", "grass"] });
    fs::write(model.join("generation_config.json"), known.to_string()).expect("a file");
    let said = |prompt: &str, options: &[&str]| {
        let mut command = plain(prompt, &folder.path().join("a.png"));
        stderr(&succeeds(command.arg("--model").arg(&model).args(options)))
    };
    let silent = said("A fox, on green-ish grass and 2 foxes", &[]);
    assert!(
        silent.contains("never seen ish, and") && !silent.contains("knows pictures"),
        "{silent}"
    );
    let silent = said("Foxes on grass", &["--width", "96"]);
    assert!(!silent.contains("warning"), "{silent}");
    let told = said("a Dragon on a dragon", &["--width", "128"]);
    assert!(told.contains("knows pictures of 64 x 64 and 96 x 64, and of 128 x 64"), "{told}");
    assert!(told.contains("never seen dragon, and") && told.contains("knows 5 words"), "{told}");
    // Each line of many, and a plan.
    let prompts = folder.path().join("prompts.txt");
    fs::write(&prompts, "a fox\na wyvern\n").expect("a file");
    let command = plain("", &folder.path().join("b.png"));
    let mut series = Command::new(command.get_program());
    series.args(command.get_args().filter(|word| !word.is_empty())).current_dir(root());
    series.arg("--model").arg(&model).arg("--prompts").arg(&prompts);
    let told = stderr(&succeeds(&mut series));
    assert!(told.contains("never seen wyvern"), "{told}");
    let mut command = ralu();
    command.args(["plan", "a wyvern", "--width=128", "--height=64", "--model"]).arg(&model);
    assert!(stderr(&succeeds(&mut command)).contains("never seen wyvern"));
    for (field, value, part) in [
        ("sizes", json!(["64"]), "sizes such as 256x256"),
        ("sizes", json!(["64x9"]), "sides of 16"),
        ("known_words", json!("fox"), "a list of at most"),
    ] {
        fs::write(model.join("generation_config.json"), json!({ field: value }).to_string())
            .expect("a file");
        fails(&mut command, 1, &["generation_config.json", field, part]);
    }
}

/// A side that is given alone has the shape of the model's own size with it; sizes beyond all that a family knows are told.
#[test]
fn sizes_of_models_that_list_none() {
    let plan = |options: &[&str]| {
        let output = succeeds(ralu().args(["plan", "--json", "--adapter", "none"]).args(options));
        let plan: Value = serde_json::from_str(&stdout(&output)).expect("JSON");
        (plan["width"].as_u64(), plan["height"].as_u64(), stderr(&output))
    };
    let (width, height, said) = plan(&["--model", "flux.1-dev", "--width", "1000"]);
    assert_eq!((width, height), (Some(1000), Some(1000)));
    assert!(!said.contains("megapixels"), "{said}");
    let (.., said) = plan(&["--model", "flux.1-dev", "--size", "4096x2048"]);
    assert!(said.contains("at most 2.0 megapixels, such as 2048 x 1024"), "{said}");
    let (width, height, said) = plan(&["--model", MODEL, "--height", "1000"]);
    assert_eq!((width, height), (Some(1000), Some(1000)), "{said}");
    let folder = folder();
    let model = copied_model(folder.path());
    let own = json!({ "width": 96, "height": 64 });
    fs::write(model.join("generation_config.json"), own.to_string()).expect("a file");
    let model = model.to_str().expect("a path");
    assert_eq!(plan(&["--model", model, "--width", "200"]).1, Some(128));
    assert_eq!(plan(&["--model", model, "--height", "64"]).0, Some(96));
}

/// A model's own preset is what `auto` takes.
#[test]
fn a_model_says_its_preset() {
    let plan = |options: &[&str]| {
        let options = [&["plan", "--json", "--adapter", "none"], options].concat();
        let plan: Value =
            serde_json::from_str(&stdout(&succeeds(ralu().args(options)))).expect("JSON");
        plan["ralu"].clone()
    };
    assert_eq!(plan(&["--model", "tiny-flux"]), "7x");
    assert_eq!(plan(&["--model", "tiny-flux", "--ralu", "4x"]), "4x");
    assert_eq!(plan(&["--model", "flux.1-dev"]), "4x");
}

/// Whoever trains it again says so there.
#[test]
fn the_bundled_model_says_what_it_knows() {
    let text = bytes(&root().join("models/tiny-flux/generation_config.json"));
    let config: Value = serde_json::from_slice(&text).expect("JSON");
    let words = config["known_words"].as_array().expect("words");
    assert!(words.iter().any(|word| word == "fox") && !words.iter().any(|word| word == "wyvern"));
    let own = format!("{}x{}", config["width"], config["height"]);
    assert!(config["sizes"].as_array().expect("sizes").iter().any(|size| *size == own), "{config}");
}

#[cfg(target_os = "linux")]
/// A program that lies where a user's programs do, with the folder of data that `home` has.
fn installed(home: &Path) -> Command {
    // Under another name, so that a runner which knows the program starts nothing else in its place.
    let program = home.join("bin/alone");
    if !program.exists() {
        fs::create_dir_all(home.join("bin")).expect("a folder");
        fs::copy(env!("CARGO_BIN_EXE_ralu"), &program).expect("a copy");
    }
    let mut command = command_for(&program);
    command.current_dir(home).env("XDG_DATA_HOME", home.join("data"));
    command.env("XDG_CONFIG_HOME", home.join("none"));
    command.env("HF_HUB_CACHE", home.join("none")).env("HF_HUB_OFFLINE", "1");
    command
}

#[cfg(target_os = "linux")]
#[test]
fn the_bundled_model_is_found_by_its_name() {
    let plan = ["plan", "--json", "--model", "tiny-flux", "--adapter", "none"];
    let here = stdout(&succeeds(ralu().args(plan)));
    let folder = folder();
    let parts = ["git clone --depth 1 https://", "data/ralu", "--model"];
    for words in [&plan[..], &["inspect", "Tiny-Flux"], &["generate", "a fox"]] {
        fails(installed(folder.path()).args(words), 1, &parts);
    }
    // As that command would have it.
    let place = folder.path().join("data/ralu/models");
    fs::create_dir_all(&place).expect("a folder");
    std::os::unix::fs::symlink(root().join("models/tiny-flux"), place.join("tiny-flux"))
        .expect("a link");
    assert_eq!(stdout(&succeeds(installed(folder.path()).args(plan))), here);
    succeeds(installed(folder.path()).args(["inspect", "Tiny-Flux"]));
}
