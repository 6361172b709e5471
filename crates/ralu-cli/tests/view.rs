//! `ralu view`: how it finds the viewer, or builds it, and what it hands on.
#![cfg(unix)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::command::{command_for, fails, ralu, run, stderr, stdout};
use crate::picture::folder;

/// A viewer that says what it is told.
const VIEWER: &str = "#!/bin/sh\nprintf '%s\\n' \"$@\"\nexit 7\n";

fn write_script(path: &Path, text: &str) {
    fs::write(path, text).expect("a script");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("rights");
}

/// The program in a folder of its own, without a viewer next to it.
fn alone(folder: &Path) -> Command {
    let copy = folder.join("ralu");
    fs::copy(env!("CARGO_BIN_EXE_ralu"), &copy).expect("a copy");
    let mut command = command_for(&copy);
    command.arg("view").env("PATH", "");
    command
}

#[test]
fn without_the_viewer_view_says_how_to_get_it() {
    let folder = folder();
    let parts = ["not installed", "cargo build --release -p ralu-viewer"];
    fails(&mut alone(folder.path()), 1, &parts);
}

#[test]
fn view_hands_on_what_it_is_told_and_how_it_ends() {
    let folder = folder();
    write_script(&folder.path().join("ralu-viewer"), VIEWER);
    let mut command = alone(folder.path());
    // Where a loader runs the program, the viewer is looked for next to that.
    command.env("PATH", folder.path());
    command.args(["--model", "a model", "--from", "one.png", "a fox, two\nlines"]);
    command.args(["--clip_l", "a.gguf", "--no-t5", "--memory-budget=1KiB"]);
    let output = run(&mut command);
    assert_eq!(output.status.code(), Some(7), "{}", stderr(&output));
    assert_eq!(
        stdout(&output),
        "--model\na model\n--clip-l\na.gguf\n--memory-budget\n1024B\n--from\none.png\n--no-t5\n--\na fox, two\nlines\n"
    );
    fails(ralu().args(["view", "--no-such-option"]), 2, &["--no-such-option"]);
}

/// A checkout of the sources whose viewer is not built: the program where cargo puts it, and what stands for cargo.
fn checkout(folder: &Path, cargo: &str) -> Command {
    let built = folder.join("target/release");
    let (viewer, programs) = (folder.join("examples/viewer"), folder.join("programs"));
    for folder in [&built, &viewer, &programs] {
        fs::create_dir_all(folder).expect("a folder");
    }
    fs::write(viewer.join("Cargo.toml"), "").expect("a file");
    write_script(&programs.join("cargo"), cargo);
    fs::copy(env!("CARGO_BIN_EXE_ralu"), built.join("ralu")).expect("a copy");
    // Not by a loader, which would be the program that lies elsewhere. No GPU is asked for.
    let mut command = Command::new(built.join("ralu"));
    command.args(["view", "a fox"]).env("PATH", &programs);
    command
}

#[test]
fn in_the_sources_view_builds_the_viewer() {
    let folder = folder();
    let cargo = format!(
        "#!/bin/sh\necho \"cargo $@\" >&2\nprintf '%s' '{}' >target/release/ralu-viewer\n/bin/chmod +x target/release/ralu-viewer\n",
        VIEWER.replace('\'', "'\\''")
    );
    let output = run(&mut checkout(folder.path(), &cargo));
    assert_eq!(output.status.code(), Some(7), "{}", stderr(&output));
    assert_eq!(stdout(&output), "--\na fox\n");
    let said = stderr(&output);
    let command = "cargo build --profile release --package ralu-viewer";
    assert_eq!(said.matches(command).count(), 2, "it says what it does, and does it: {said}");
    // Once it is there, nothing is built.
    let again = run(&mut checkout(folder.path(), "#!/bin/sh\nexit 1\n"));
    assert_eq!((again.status.code(), stderr(&again)), (Some(7), String::new()));
}

#[test]
fn a_viewer_that_cannot_be_built_is_an_error() {
    let folder = folder();
    let parts =
        ["cannot be built", "cargo build --profile release --package ralu-viewer", "Rust 1.95"];
    fails(&mut checkout(folder.path(), "#!/bin/sh\nexit 101\n"), 1, &parts);
    let mut command = checkout(folder.path(), "");
    command.env("PATH", "");
    fails(&mut command, 1, &["cargo cannot be started"]);
}
