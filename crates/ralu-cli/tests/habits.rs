//! What people type who know other programs, or no program of this kind: it ends in a picture, or in one right sentence.

use std::fs;
use std::path::Path;

use crate::command::{MODEL, adapter_options, fails, ralu, stdout, succeeds};
use crate::picture::folder;

/// A small picture of `words`, which are all that is typed but for what makes it quick.
fn draw(words: &[&str], to: &Path) -> Vec<u8> {
    let mut command = ralu();
    command.args(words).args(adapter_options()).args([
        "--model",
        MODEL,
        "--seed=1",
        "--ralu=off",
        "--no-tune",
    ]);
    command.args(["--max-sequence-length=16"]).arg("-o").arg(to);
    succeeds(&mut command);
    fs::read(to).expect("a picture")
}

/// One picture, however it is asked for. It carries its request, so all of that is compared, too.
#[test]
fn spellings_of_other_programs() {
    let folder = folder();
    let to = folder.path().join("a.png");
    let usual = ["generate", "a red fox", "--width=64", "--height=64", "--steps=1"];
    let usual = draw(&usual, &to);
    let spellings: [&[&str]; 5] = [
        &["a red fox", "-W", "64", "-H", "64", "-s", "1"],
        &["-q", "a red fox", "--size", "64x64", "--num-inference-steps", "1"],
        &["generate", "a", "red", "fox", "--size=64X64", "--steps", "1"],
        &["generate", "a", "-W64", "red", "-H64", "fox", "-s1"],
        &["generate", "-p", "a red fox", "--size", "64x64", "-s", "1"],
    ];
    for words in spellings {
        assert!(draw(words, &to) == usual, "{words:?} draws another picture");
    }
}

#[test]
fn wrong_words_are_answered_with_what_there_is() {
    let cases: [(&[&str], &[&str]); 9] = [
        (&["genrate", "a fox"], &["'generate'"]),
        (&["fox"], &["fox", "ralu generate fox"]),
        (&["generate", "a fox", "-p", "a cat"], &["--prompt"]),
        (&["generate", "a fox", "--size", "64"], &["1024x768"]),
        (&["generate", "a fox", "--size=64x64", "--width=64"], &["--size", "--width"]),
        (&["generate", "a fox", "--image", "a.png"], &["text alone", "--regions", "--from"]),
        (&["generate", "a fox", "--init-img"], &["text alone"]),
        (&["generate", "a fox", "--sampler", "dpm++2m"], &["Euler", "--steps"]),
        (&["generate", "a fox", "--cfg-scale=7"], &["--guidance", "--true-cfg"]),
    ];
    for (words, parts) in cases {
        fails(ralu().args(words), 2, parts);
    }
}

/// An option that nothing has, or that another command has: never the advice to pass it as a text.
#[test]
fn unknown_options_are_answered_with_where_they_are() {
    let cases: [(&[&str], &[&str]); 6] = [
        (&["generate", "a fox", "--json"], &["--json", "is an option of `ralu", "`ralu plan`"]),
        (&["generate", "a fox", "--stage-stepz", "3"], &["--stage-steps"]),
        (&["generate", "a fox", "--progress"], &["--progress", "--help"]),
        (&["devices", "--seed=3"], &["--seed", "`ralu generate`"]),
        (&["list", "-o", "a.png"], &["-o", "`ralu generate`"]),
        (&["a red fox", "--format", "png"], &["--format", "--help"]),
    ];
    for (words, parts) in cases {
        let message = fails(ralu().args(words), 2, parts);
        assert!(!message.contains("-- -"), "{words:?}: {message}");
    }
}

/// `-h` has what everybody needs, `--help` all there is.
#[test]
fn help_begins_with_what_everybody_needs() {
    let help = |option| stdout(&succeeds(ralu().args(["generate", option])));
    let (short, long) = (help("-h"), help("--help"));
    let everybody = [
        "--model",
        "--width",
        "--size",
        "--steps",
        "--seed",
        "--count",
        "--output",
        "--ralu",
        "--memory-budget",
    ];
    for option in everybody {
        assert!(short.contains(option), "no {option} in {short}");
    }
    for option in ["--stage-ends", "--z-policy", "--given-names", "--clip-tokenizer", "--limits"] {
        assert!(!short.contains(option) && long.contains(option), "{option}: {short}");
    }
    assert!(long.contains("Research:"), "{long}");
    assert!(!long.contains("--image"), "{long}");
}

/// What completes the command line knows commands and options, and there is a page of the manual for each command.
#[test]
fn shells_and_man_know_the_command_line() {
    for (shell, part) in [
        ("bash", "--stage-ends"),
        ("zsh", "--stage-ends"),
        ("fish", "stage-ends"),
        ("powershell", "--stage-ends"),
    ] {
        let script = stdout(&succeeds(ralu().args(["completions", shell])));
        assert!(script.contains(part) && script.contains("inspect"), "{shell}: {script}");
    }
    fails(ralu().args(["completions", "cmd"]), 2, &["bash", "fish"]);
    let folder = folder();
    succeeds(ralu().arg("man").arg(folder.path()));
    let page = |name: &str| fs::read_to_string(folder.path().join(name)).expect("a page");
    assert!(page("ralu.1").contains(".TH ralu 1") && page("ralu.1").contains("generate"));
    assert!(page("ralu-generate.1").contains("stage\\-ends"));
}
