//! Text from outside that a terminal would obey: names of files, what models and pictures say about themselves, arguments.
//! It is shown escaped, wherever the command line shows it.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::command::{on_adapter, ralu, run, stderr, stdout, succeeds};
use crate::picture::{
    MODEL, RALU, SMALL, chunk, chunks, folder, pixel_with, plain, png, request, small,
};
use serde_json::{Value, json};

/// Sets the window's title, clears the line, forges another, and turns the direction of text, in all ways that there are.
const BAD: &str = "\u{1b}]0;title\u{7}\u{9b}2K\r\u{7f}\u{202e}\nwarning: forged";
const ESCAPED: &str = r"\u{1b}]0;title\u{7}\u{9b}2K\r\u{7f}\u{202e}\nwarning: forged";

/// Checks that nothing in an output is obeyed, and no line forged.
#[track_caller]
fn is_safe(output: &Output) -> String {
    let text = stdout(output) + &stderr(output);
    let obeyed = |c: &char| {
        (c.is_control() && !matches!(c, '\n' | '\t')) || matches!(c, '\u{202a}'..='\u{202e}')
    };
    assert_eq!(text.chars().find(obeyed), None, "{text:?}");
    assert!(!text.lines().any(|line| line.starts_with("warning: forged")), "{text}");
    text
}

/// Checks the same, and that it is shown.
#[track_caller]
fn shows(command: &mut Command) {
    let text = is_safe(&run(command));
    assert!(text.contains(ESCAPED), "{command:?}: {text}");
}

#[test]
fn arguments_are_shown_escaped() {
    let folder = folder();
    let generate = || {
        let mut command = on_adapter("generate");
        command.current_dir(folder.path()).args(["a fox", "--model", MODEL, "--steps", "1"]);
        command
    };
    for option in ["--from", "--regions", "--given", "--width", "--cache", "--rng", "--adapter"] {
        // The last one given counts.
        shows(generate().args([option, BAD]));
    }
    shows(generate().arg(format!("--{BAD}")));
    shows(generate().args(["--given", "x", "--given-names", BAD]));
    shows(generate().args(["-o", &format!("{BAD}.jpg")]));
    shows(generate().args(["-o", &format!("{BAD}/a.png")]));
    shows(ralu().arg(BAD));
    #[cfg(feature = "bench")]
    for words in [["ops", "--compare"], ["quality", "--prompts"]] {
        shows(ralu().arg("bench").args(words).arg(BAD));
    }
    shows(ralu().args(["devices", BAD]));
}

#[cfg(unix)]
#[test]
fn a_picture_s_name_is_shown_escaped() {
    let folder = folder();
    let name = format!("{BAD}.png");
    let picture = folder.path().join(&name);
    let output = succeeds(&mut plain("a fox", &picture));
    assert!(is_safe(&output).contains(ESCAPED));
    assert!(picture.is_file());
    // Events tell the name itself.
    let output = succeeds(plain("a fox", &picture).args(["--events", "json", "-q"]));
    let events = is_safe(&output);
    let mut told = events.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let told = told.rfind(|event| event["event"] == "image").expect("a picture");
    assert_eq!(told["file"], picture.to_str().expect("a text"));
}

#[test]
fn what_a_picture_says_is_shown_escaped() {
    let folder = folder();
    let path = folder.path().join("stranger.png");
    let with = |text: String| {
        fs::write(&path, pixel_with(b"tEXt", format!("ralu\0{text}").as_bytes())).expect("a file");
        let mut command = ralu();
        command.args(["plan", "--from"]).arg(&path);
        command
    };
    let plain = json!({ "name": "off", "variant": BAD, "parameters": null, "regions": null });
    for changes in [
        json!({ "model": BAD, "model_path": null }),
        json!({ "format": 9, "version": BAD }),
        json!({ "cache": BAD }),
        json!({ "rng": BAD }),
        json!({ "precision": BAD }),
        json!({ "ralu": plain }),
        json!({ "given": [BAD] }),
    ] {
        shows(&mut with(request(changes)));
    }
    // Messages of the library for the model's folder.
    is_safe(&run(&mut with(request(json!({ "model_path": format!("/nowhere/{BAD}") })))));
    is_safe(&run(&mut with(format!("{{\"format\": {}}}", json!(BAD)))));
}

/// A real picture, with another text, drawn again: it is made, and what is said of it is safe.
#[test]
fn a_prompt_does_not_reach_the_terminal() {
    let folder = folder();
    let (first, second) = (folder.path().join("first.png"), folder.path().join("second.png"));
    let output = succeeds(small(BAD, &first).args(RALU).args(["--negative-prompt", BAD]));
    is_safe(&output);
    let mut again = on_adapter("generate");
    again.arg("--from").arg(&first).arg("-o").arg(&second);
    is_safe(&succeeds(&mut again));
    assert_eq!(fs::read(&first).expect("a picture"), fs::read(&second).expect("a picture"));
}

/// A file of tensors with one of that name and that type.
fn tensors(name: &str, dtype: &str) -> Vec<u8> {
    let header =
        json!({ name: { "dtype": dtype, "shape": [1], "data_offsets": [0, 4] } }).to_string();
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 4]].concat()
}

#[test]
fn what_models_hold_is_shown_escaped() {
    let folder = folder();
    let file = folder.path().join("x.safetensors");
    fs::write(&file, tensors(BAD, "F32")).expect("a file");
    shows(ralu().arg("inspect").arg(&file));
    // As JSON, it keeps its meaning.
    let output = succeeds(ralu().args(["inspect", "--json"]).arg(&file));
    let report: Value = serde_json::from_str(&is_safe(&output)).expect("JSON");
    assert_eq!(report["tensors"][0]["name"], BAD);
    fs::write(&file, tensors("x", BAD)).expect("a file");
    is_safe(&run(ralu().arg("inspect").arg(&file)));
    is_safe(&run(plain("a fox", &folder.path().join("a.png")).arg("--given").arg(&file)));

    let model = folder.path().join("model");
    fs::create_dir(&model).expect("a folder");
    let index = json!({ "_class_name": BAD, "scheduler": [BAD, BAD] });
    fs::write(model.join("model_index.json"), index.to_string()).expect("a file");
    is_safe(&run(ralu().arg("inspect").arg(&model)));
    is_safe(&run(ralu().args(["generate", "a fox", "--model"]).arg(&model)));
}

/// Names of files that a model's folder holds.
#[cfg(unix)]
#[test]
fn names_in_a_model_s_folder_are_shown_escaped() {
    fn link(from: &Path, to: &Path) {
        fs::create_dir_all(to).expect("a folder");
        for entry in fs::read_dir(from).expect("the model") {
            let from = entry.expect("an entry").path();
            let to = to.join(from.file_name().expect("a name"));
            if from.is_dir() {
                link(&from, &to);
            } else {
                std::os::unix::fs::symlink(&from, &to).expect("a link");
            }
        }
    }
    let folder = folder();
    let model = folder.path().join(BAD);
    link(Path::new(MODEL), &model);
    fs::write(model.join("tokenizer").join(BAD), "").expect("a file");
    shows(ralu().arg("inspect").arg(&model));
    let mut command = on_adapter("generate");
    command.args(["a fox", "--steps", "1", "--model"]).arg(&model).args(SMALL);
    command.arg("-o").arg(folder.path().join("a.png"));
    shows(&mut command);
    shows(ralu().args(["plan", "--model"]).arg(&model));
}

/// Reports of earlier benches are files, too.
#[cfg(feature = "bench")]
#[test]
fn a_report_to_compare_with_is_shown_escaped() {
    let folder = folder();
    let file = folder.path().join("report.json");
    fs::write(&file, json!({ "bench": BAD }).to_string()).expect("a file");
    shows(ralu().args(["bench", "ops", "--compare"]).arg(&file));
}

/// A text that other programs have put into a mask is nobody's business.
#[test]
fn a_damaged_picture_s_chunks_are_not_shown() {
    let folder = folder();
    let path = folder.path().join("odd.png");
    let whole = pixel_with(b"tEXt", BAD.as_bytes());
    let rest: Vec<Vec<u8>> = chunks(&whole).into_iter().map(|(_, chunk)| chunk).collect();
    let odd = [rest[0].clone(), chunk(b"\x1b]0;", b"")];
    fs::write(&path, png(&odd)).expect("a file");
    is_safe(&run(ralu().args(["plan", "--from"]).arg(&path)));
    let mut regions = plain("a fox", &folder.path().join("a.png"));
    is_safe(&run(regions.arg("--regions").arg(&path)));
}
