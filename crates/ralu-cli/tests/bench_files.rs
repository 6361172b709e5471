//! What the benches read and write: nothing replaces what is read, and nothing is asked for in vain without a word.

#![cfg(feature = "bench")]

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::command::{fails, on_adapter, stderr, succeeds};
use crate::picture::{MODEL, SMALL, bytes, copied_model, folder, names, pixel_with};

fn bench(folder: &Path, what: &str) -> Command {
    let mut command = on_adapter("bench");
    command.args([what, "--quiet", "--model", MODEL]).args(SMALL).current_dir(folder);
    command
}

fn quality(folder: &Path, output: &str) -> Command {
    let mut command = bench(folder, "quality");
    command.args(["--reference-steps", "1", "--output", output, "--prompts"]);
    command
}

#[test]
fn a_trace_does_not_replace_what_is_read() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let mask = pixel_with(b"tEXt", b"a\0b");
    fs::write(path("mask.png"), &mask).expect("a file");
    fs::write(path("c.json"), "{\"bench\": \"step\"}").expect("a file");
    fs::create_dir_all(path("own/vae")).expect("a folder");
    let config = Path::new(MODEL).join("vae/config.json");
    fs::copy(&config, path("own/vae/config.json")).expect("a copy");
    let mut over = bench(folder.path(), "step");
    over.args(["--ralu", "4x", "--regions", "mask.png", "--profile=./mask.png"]);
    fails(&mut over, 2, &["mask.png", "the mask of --regions"]);
    for what in ["step", "run"] {
        let mut over = bench(folder.path(), what);
        over.args(["--model", "own", "--profile=own/vae/config.json"]);
        fails(&mut over, 2, &["config.json", "a file of the model"]);
        let mut new = bench(folder.path(), what);
        fails(new.args(["--model", "own", "--profile=own/generation_config.json"]), 2, &["model"]);
    }
    assert_eq!(bytes(&path("mask.png")), mask);
    assert_eq!(bytes(&path("own/vae/config.json")), bytes(&config));
    assert_eq!(names(&path("own")), ["vae"]);
}

#[test]
fn a_trace_does_not_replace_the_report_it_is_compared_with() {
    let folder = folder();
    let report = folder.path().join("c.json");
    let output = succeeds(bench(folder.path(), "step").args(["--runs", "1", "--json"]));
    fs::write(&report, &output.stdout).expect("a file");
    let mut over = bench(folder.path(), "step");
    over.args(["--compare", "c.json", "--profile=c.json"]);
    fails(&mut over, 2, &["c.json", "the report of --compare"]);
    assert_eq!(bytes(&report), output.stdout);
}

#[test]
fn a_report_does_not_replace_what_is_read() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let mask = pixel_with(b"tEXt", b"a\0b");
    fs::write(path("mask.png"), &mask).expect("a file");
    fs::create_dir_all(path("own/vae")).expect("a folder");
    let config = Path::new(MODEL).join("vae/config.json");
    fs::copy(&config, path("own/vae/config.json")).expect("a copy");
    let mut over = bench(folder.path(), "step");
    over.args(["--ralu", "4x", "--regions", "mask.png", "--json=./mask.png"]);
    fails(&mut over, 2, &["the report", "mask.png", "the mask of --regions"]);
    for what in ["step", "run", "ops", "load"] {
        let mut over = bench(folder.path(), what);
        // A model without weights cannot be loaded; what is written is checked first.
        let model = if what == "load" { MODEL } else { "own" };
        let file = format!("--json={model}/vae/config.json");
        fails(over.args(["--model", model, &file]), 2, &["config.json", "a file of the model"]);
    }
    let mut both = bench(folder.path(), "step");
    fails(both.args(["--json=a.json", "--profile=a.json"]), 2, &["a.json", "the trace"]);
    let nowhere = bench(folder.path(), "ops").arg("--json=none/a.json").output().expect("an end");
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&nowhere.stderr).contains("does not exist"));
    assert_eq!(bytes(&path("mask.png")), mask);
    assert_eq!(bytes(&path("own/vae/config.json")), bytes(&config));
}

#[test]
fn results_of_a_comparison_do_not_replace_what_is_read() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let mask = pixel_with(b"tEXt", b"a\0b");
    fs::create_dir_all(path("bo/a")).expect("a folder");
    for name in ["bo/table.md", "bo/results.json", "prompts"] {
        fs::write(path(name), "a fox").expect("a file");
    }
    for name in ["bo/contact.png", "bo/a/01-a-fox-7.png"] {
        fs::write(path(name), &mask).expect("a file");
    }
    let one = ["--setting", "a: --ralu off --steps 1"];
    for name in ["bo/table.md", "bo/results.json"] {
        fails(quality(folder.path(), "bo").arg(name).args(one), 2, &[name, "the prompts"]);
        let mut settings = quality(folder.path(), "./bo");
        settings.args(["prompts", "--settings", name]);
        fs::write(path(name), "a: --ralu off --steps 1").expect("a file");
        fails(&mut settings, 2, &[name, "the settings"]);
        assert_eq!(bytes(&path(name)), b"a: --ralu off --steps 1");
    }
    for name in ["bo/contact.png", "bo/a/01-a-fox-7.png"] {
        let setting = format!("a: --ralu 4x --regions {name}");
        let mut by_setting = quality(folder.path(), "bo");
        fails(by_setting.args(["prompts", "--setting", &setting]), 2, &[name, "the mask"]);
        let mut shared = quality(folder.path(), "bo");
        shared.args(["prompts", "--regions", name, "--setting", "a: --ralu 4x"]);
        fails(&mut shared, 2, &[name, "the mask"]);
        assert_eq!(bytes(&path(name)), mask);
    }
    // A folder that was made for nothing goes again.
    fs::rename(copied_model(folder.path()), path("own")).expect("moved");
    let before = names(&path("own"));
    let mut inside = quality(folder.path(), "own/results");
    inside.arg("prompts").args(["--model", "own"]).args(one);
    fails(&mut inside, 2, &["results.json", "a file of the model"]);
    assert_eq!(names(&path("own")), before);
}

#[test]
fn options_without_effect_are_named() {
    let folder = folder();
    let warnings = |command: &mut Command| -> Vec<String> {
        let text = stderr(&succeeds(command));
        text.lines().filter(|line| line.starts_with("warning:")).map(str::to_owned).collect()
    };
    let mut ops = bench(folder.path(), "ops");
    let ops = warnings(ops.args(["--runs", "1", "--guidance", "4"]));
    assert_eq!(ops, ["warning: --guidance has no effect on `ralu bench ops`"]);
    let mut load = on_adapter("bench");
    load.args(["load", "--quiet", "--model", MODEL, "--runs", "1"]);
    assert_eq!(warnings(&mut load), [""; 0]);
    let load = warnings(load.args(["--steps", "3", "--ralu", "4x", "--guidance", "5"]));
    let expected = "warning: --steps, --ralu, --guidance have no effect on `ralu bench load`";
    assert_eq!(load, [expected]);
    let mut step = bench(folder.path(), "step");
    step.args(["--runs", "1", "--ralu", "off", "--cache", "fora", "--negative-prompt", "y"]);
    let step = warnings(&mut step);
    assert_eq!(step.len(), 1, "{step:?}");
    assert!(step[0].contains("the negative prompt has no effect"), "{step:?}");
}

#[test]
fn the_noise_between_stages_is_said_once() {
    let custom = ["--stage-steps", "1,1,1", "--stage-ends", "0.3,0.45,1", "--up-ratio", "0.3"];
    let plan = || {
        let mut command = crate::command::ralu();
        command.args(["plan", "a fox", "--model", MODEL, "--ralu", "custom"]).args(custom);
        command
    };
    for option in [["--stage-z", "6"], ["--stage-shifts", "5,3,2"]] {
        for policy in ["fixed=3", "min-noise"] {
            let mut both = plan();
            fails(both.args(option).args(["--z-policy", policy]), 2, &[option[0], "--z-policy"]);
        }
        // This one changes nothing that is said.
        succeeds(plan().args(option).args(["--z-policy", "published"]));
    }
    succeeds(plan().args(["--z-policy", "fixed=3"]));
}

#[cfg(unix)]
#[test]
fn a_folder_that_is_a_lost_link_is_called_one() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    std::os::unix::fs::symlink("gone/away", path("dl")).expect("a link");
    fs::write(path("prompts"), "a fox").expect("a file");
    let expected = ["dl", "is a link to gone/away, which is not there"];
    fails(quality(folder.path(), "dl").arg("prompts"), 1, &expected);
    let mut stages = crate::picture::plain("a fox", &path("a.png"));
    fails(stages.arg("--stages").arg(path("dl")), 1, &expected);
    assert!(fs::symlink_metadata(path("dl")).expect("it").is_symlink());
    fs::create_dir(path("bo")).expect("a folder");
    std::os::unix::fs::symlink("../gone", path("bo/reference")).expect("a link");
    let lost = ["bo/reference", "which is not there"];
    fails(quality(folder.path(), "bo").arg("prompts"), 1, &lost);
}
