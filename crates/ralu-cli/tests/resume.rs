//! `--resume`: runs that Ctrl-C ended go on to the same pictures.

#![cfg(unix)]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::command::{fails, ralu, root, start_with, stderr, succeeds};
use crate::picture::{SMALL, bytes, copied_model, folder, names, small};

/// RALU with as many steps in its last stage.
fn ralu_of(steps: &str) -> [String; 12] {
    let mut options = crate::picture::RALU.map(str::to_owned);
    options[3] = format!("2,2,{steps}");
    options
}

/// Starts a command whose stdin is `input`, and ends it by Ctrl-C when an event has `part` in its line. Gives what was said.
#[track_caller]
fn interrupted(command: &mut Command, input: &str, part: &str) -> String {
    command.args(["--events", "json"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("a reader");
    let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut line = String::new();
    while !line.contains(part) {
        line.clear();
        assert_ne!(stdout.read_line(&mut line).expect("a line"), 0, "no {part}");
    }
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(sent.expect("kill runs").success());
    let output = child.wait_with_output().expect("an end");
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    stderr(&output)
}

/// The command that goes on.
fn resume(cache: &Path) -> Command {
    let mut command = ralu();
    command.args(["generate", "--resume", "--cache-dir"]).arg(cache);
    command
}

#[test]
fn a_run_goes_on_to_the_same_picture() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let draw = |name: &str| {
        let mut command = small("a fox", &path(name));
        command.args(ralu_of("80")).arg("--cache-dir").arg(path("cache"));
        command
    };
    succeeds(&mut draw("whole.png"));
    fails(&mut resume(&path("cache")), 1, &["no run to resume"]);
    let said = interrupted(&mut draw("a.png"), "", "\"event\":\"stage_end\"");
    assert!(said.contains("`ralu generate --resume` goes on after step"), "{said}");
    assert!(!path("a.png").exists());
    // What changes the picture, another model, a text: each is answered.
    let mut command = resume(&path("cache"));
    fails(command.args(["--width", "96"]), 1, &["cannot go on", "other settings"]);
    let mut command = resume(&path("cache"));
    fails(command.args(["--no-such-option"]), 2, &["--no-such-option"]);
    fails(resume(&path("cache")).arg("a cat"), 2, &["--resume"]);
    let output = succeeds(&mut resume(&path("cache")));
    assert!(stderr(&output).contains("goes on after step"), "{}", stderr(&output));
    assert!(bytes(&path("a.png")) == bytes(&path("whole.png")));
    fails(&mut resume(&path("cache")), 1, &["no run to resume"]);
}

/// What is drawn is not drawn again, and stdin is not needed twice.
#[test]
fn a_series_goes_on_where_it_was() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    fs::create_dir(path("out")).expect("a folder");
    let command = small("", &path("out/a.png"));
    // Its first word is the prompt.
    let mut series = Command::new(command.get_program());
    series.current_dir(root());
    start_with(&mut series, libc::SIG_DFL);
    series.args(command.get_args().filter(|word| !word.is_empty()));
    series.args(["--prompts", "-", "--steps", "60", "--count", "2", "--cache-dir"]);
    series.arg(path("cache"));
    let said = interrupted(&mut series, "a fox\na cat\n", "\"image\":3,\"of\":60");
    assert!(said.contains("of picture 4"), "{said}");
    assert_eq!(names(&path("out")), ["a-0.png", "a-1.png", "a-2.png"]);
    (0..3).for_each(|i| fs::write(path(&format!("out/a-{i}.png")), "kept").expect("a file"));
    succeeds(&mut resume(&path("cache")));
    (0..3).for_each(|i| assert_eq!(bytes(&path(&format!("out/a-{i}.png"))), b"kept"));
    let mut alone = small("a cat", &path("alone.png"));
    succeeds(alone.args(["--steps", "60", "--seed", "4"]));
    assert!(bytes(&path("out/a-3.png")) == bytes(&path("alone.png")));
}

#[test]
fn what_cannot_go_on_is_said() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let model = copied_model(folder.path());
    let draw = |options: &[&str]| {
        let mut command = small("a fox", &path("a.png"));
        command.args(SMALL).args(["--steps", "300"]).args(options);
        command.arg("--model").arg(&model).arg("--cache-dir").arg(path("cache"));
        command
    };
    let said = interrupted(&mut draw(&["--cache", "fora"]), "", "\"event\":\"step\"");
    assert!(!said.contains("goes on"), "{said}");
    interrupted(&mut draw(&[]), "", "\"step\":3");
    let index = model.join("model_index.json");
    fs::write(&index, [&bytes(&index)[..], b"\n"].concat()).expect("a file");
    fails(&mut resume(&path("cache")), 1, &["cannot go on", "the model model", "--model"]);
    fs::write(path("cache/interrupted-run"), "{").expect("a file");
    fails(&mut resume(&path("cache")), 1, &["damaged"]);
}
