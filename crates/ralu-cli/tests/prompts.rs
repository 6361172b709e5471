//! `--prompts`: many requests in one run.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::command::{fails, on_adapter, ralu, stdout, succeeds};
use crate::picture::{MODEL, SMALL, bytes, folder, names, plain};

/// A run of the requests in a file.
fn series(prompts: &Path, output: &Path) -> Command {
    let mut command = on_adapter("generate");
    command.args(["--model", MODEL, "--seed", "1", "--steps", "1"]).args(SMALL);
    command.arg("--prompts").arg(prompts).arg("--output").arg(output);
    command
}

/// Each is the picture that a run of its own makes, and the model is loaded once.
#[test]
fn each_line_is_a_run_of_its_own() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let lines = "a fox\r\n\n  {\"prompt\": \"a cat, {really}\", \"seed\": 9, \"width\": 96, \"count\": 2}\na dog  \n";
    fs::write(path("prompts.txt"), lines).expect("a file");
    fs::create_dir(path("out")).expect("a folder");
    let output = path("out").join("a.png");
    let output = succeeds(series(&path("prompts.txt"), &output).args(["--events", "json"]));
    assert_eq!(names(&path("out")), ["a-0.png", "a-1.png", "a-2.png", "a-3.png"]);
    let told = stdout(&output);
    let told: Vec<Value> =
        told.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let of = |name: &str| told.iter().filter(|event| event["event"] == name).collect::<Vec<_>>();
    assert_eq!(of("start").len(), 1);
    let requests: Vec<(u64, &str, u64)> = of("request")
        .into_iter()
        .map(|event| {
            let number = |field: &str| event[field].as_u64().expect("a number");
            (number("image"), event["prompt"].as_str().expect("a text"), number("seed"))
        })
        .collect();
    assert_eq!(requests, [(0, "a fox", 1), (1, "a cat, {really}", 9), (3, "a dog", 4)]);
    let images: Vec<u64> =
        of("image").iter().map(|event| event["image"].as_u64().expect("a number")).collect();
    assert_eq!(images, [0, 1, 2, 3]);
    let is_denoiser = |event: &&&Value| event["part"] == "denoiser" && event["bytes"] == 0;
    assert!(of("loading").iter().filter(is_denoiser).count() <= 1, "{told:?}");

    let alone = |prompt: &str, options: &[&str]| {
        succeeds(plain(prompt, &path("alone.png")).args(options));
        bytes(&path("alone.png"))
    };
    let out = |number: usize| bytes(&path("out").join(format!("a-{number}.png")));
    assert!(out(0) == alone("a fox", &[]));
    assert!(out(2) == alone("a cat, {really}", &["--seed", "10", "--width", "96"]));
    assert!(out(3) == alone("a dog", &["--seed", "4"]));
}

#[test]
fn prompts_come_through_stdin() {
    let folder = folder();
    let mut command = series(Path::new("-"), &folder.path().join("a.png"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all("a fox\na cat\n".as_bytes()).expect("a reader");
    drop(stdin);
    let output = child.wait_with_output().expect("an end");
    assert!(output.status.success(), "{}", crate::command::stderr(&output));
    assert_eq!(stdout(&output).lines().count(), 2);
    assert!(crate::command::stderr(&output).contains("picture 2/2: stdin, line 2"));
    assert_eq!(names(folder.path()), ["a-0.png", "a-1.png"]);
}

/// It is found before anything is drawn, and its line is named.
#[test]
fn a_bad_line_is_named() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    fs::create_dir(path("out")).expect("a folder");
    let cases: [(&[u8], &[&str]); 8] = [
        (b"a fox\n\n{\"prompt\": \"a\", \"widht\": 64}", &["line 3", "`widht`", "`width`"]),
        (b"{\"prompt\": \"a\", \"width\": \"64\"}", &["line 1", "\"64\"", "expected usize"]),
        (b"a fox\n{\"prompt\": \"a\"", &["line 2", "column", "expected an object"]),
        (b"{\"seed\": 1}", &["line 1", "`prompt` is missing"]),
        (b"a fox\n{\"prompt\": \"a\", \"width\": 4}", &["line 2", "width", "16"]),
        (b"a fox\n{\"prompt\": \"a\", \"ralu\": \"9x\"}", &["line 2", "9x", "auto"]),
        (b"a fox\na \xff cat\n", &["line 2", "UTF-8"]),
        (b"\n \n", &["prompts.txt", "no prompt"]),
    ];
    for (lines, parts) in cases {
        fs::write(path("prompts.txt"), lines).expect("a file");
        let mut command = series(&path("prompts.txt"), &path("out").join("a.png"));
        fails(&mut command, 1, &[parts, &["prompts.txt"]].concat());
        assert_eq!(names(&path("out")), [""; 0]);
    }
    fails(&mut series(&path("nowhere.txt"), &path("out").join("a.png")), 1, &["nowhere.txt"]);
}

#[test]
fn prompts_stand_alone() {
    let folder = folder();
    let file = folder.path().join("prompts.txt");
    fs::write(&file, "a fox\na cat\n").expect("a file");
    for words in [&["a fox"][..], &["--prompt", "a fox"]] {
        fails(ralu().args(["generate", "--prompts"]).arg(&file).args(words), 2, &["--prompts"]);
    }
    fails(ralu().args(["plan", "--prompts"]).arg(&file), 2, &["--prompts", "ralu generate"]);
    fails(&mut series(&file, Path::new("-")), 2, &["one picture"]);
    // What is read is not written over.
    let numbered = folder.path().join("a-1.png");
    fs::write(&numbered, "a fox\na cat\n").expect("a file");
    let mut command = series(&numbered, &folder.path().join("a.png"));
    fails(&mut command, 2, &["a-1.png", "--prompts"]);
    assert_eq!(bytes(&numbered), b"a fox\na cat\n");
}
