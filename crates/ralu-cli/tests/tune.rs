//! Choosing kernels by measuring them, from outside: what is kept from one run to the next, and `ralu tune`.
//!
//! Needs an adapter, software will do. The variables of the library's tests choose it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::command::{MODEL, fails, json, root, succeeds, tuned_on_adapter};
use ralu::pipeline::tune::TuningRecord;
use serde_json::Value;

fn temporary() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

/// A picture of one step, with events.
fn generate(cache: &Path, picture: &Path) -> Command {
    let mut command = tuned_on_adapter("generate");
    command.args(["a fox", "--model", MODEL, "--seed", "1", "--steps", "1", "--events", "json"]);
    command.args(["--width", "64", "--height", "64", "--max-sequence-length", "16"]);
    command.arg("--cache-dir").arg(cache).arg("--output").arg(picture);
    command
}

/// The events of a run that succeeds.
#[track_caller]
fn events(command: &mut Command) -> Vec<Value> {
    let output = succeeds(command);
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn named<'e>(events: &'e [Value], name: &str) -> Vec<&'e Value> {
    events.iter().filter(|event| event["event"] == name).collect()
}

/// The records that are kept, next to compiled pipelines and what plans know of speeds.
fn kept(cache: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(cache) else { return vec![] };
    let paths = entries.map(|entry| entry.unwrap().path());
    let is_other = |path: &PathBuf| {
        path.extension().is_some_and(|e| e == "pipelines" || e == "place")
            || path.ends_with("speeds.json")
    };
    paths.filter(|path| !is_other(path)).collect()
}

#[test]
fn a_model_without_its_tokenizer_is_refused_before_anything_is_measured() {
    let folder = temporary();
    let cache = folder.path().join("cache");
    let formats = |path: &str| root().join("tests/fixtures/formats").join(path);
    let mut command = tuned_on_adapter("generate");
    command.args(["a fox", "--width=64", "--height=64", "--steps=1", "--events=json"]);
    command.arg("--model").arg(formats("flux-bfl-bf16/flux1-dev.safetensors"));
    for (option, file) in [("--clip-l", "clip_l"), ("--t5xxl", "t5xxl_fp16"), ("--vae", "ae")] {
        command.arg(option).arg(formats(&format!("common/{file}.safetensors")));
    }
    command.arg("--clip-tokenizer").arg(formats("tokenizers/clip"));
    command.arg("--cache-dir").arg(&cache).arg("--output").arg(folder.path().join("a.png"));
    // Its T5 has fewer words than the vocabulary that is built in.
    fails(&mut command, 1, &["T5 tokenizer", "--t5-tokenizer"]);
    assert_eq!(kept(&cache), Vec::<PathBuf>::new());
}

#[test]
fn the_first_run_measures_and_later_ones_do_not() {
    let folder = temporary();
    let (cache, picture) = (folder.path().join("cache"), folder.path().join("a.png"));

    let first = events(&mut generate(&cache, &picture));
    assert!(!named(&first, "tuning").is_empty(), "{first:?}");
    let tuned = named(&first, "tuned");
    let [tuned] = tuned[..] else { panic!("{tuned:?}") };
    let files = kept(&cache);
    let [file] = &files[..] else { panic!("one file: {files:?}") };
    assert_eq!(tuned["file"], file.to_str().unwrap());
    for choice in tuned["choices"].as_array().unwrap() {
        assert!(choice["kernel"].is_string() && choice["shaders"].is_string(), "{choice}");
    }
    let written = fs::read(file).unwrap();

    let second = events(&mut generate(&cache, &picture));
    assert!(named(&second, "tuning").is_empty() && named(&second, "tuned").is_empty());
    assert_eq!(fs::read(file).unwrap(), written);

    // Damaged, or of another adapter under this one's name: measured again.
    let foreign = String::from_utf8(written.clone())
        .unwrap()
        .replace("\"adapter\": \"", "\"adapter\": \"not ");
    for bytes in [&written[..written.len() / 2], foreign.as_bytes(), b""] {
        fs::write(file, bytes).unwrap();
        let again = events(&mut generate(&cache, &picture));
        assert_eq!(named(&again, "tuned").len(), 1);
        let record: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
        assert!(!record["adapter"].as_str().unwrap().starts_with("not "), "{record}");
    }
    assert_eq!(kept(&cache).len(), 1);
}

#[test]
fn no_tune_neither_measures_nor_reads() {
    let folder = temporary();
    let (cache, picture) = (folder.path().join("cache"), folder.path().join("a.png"));
    let run = || events(generate(&cache, &picture).arg("--no-tune"));
    let without = run();
    assert!(named(&without, "tuning").is_empty() && named(&without, "tuned").is_empty());
    assert!(kept(&cache).is_empty());
    let usual = fs::read(&picture).unwrap();

    // A log line tells of every record that is read; now there is one.
    events(&mut generate(&cache, &picture));
    let log = |no_tune: bool| {
        let mut command = generate(&cache, &picture);
        command.arg("-vv").args(no_tune.then_some("--no-tune"));
        crate::command::stderr(&succeeds(&mut command))
    };
    let name = kept(&cache)[0].file_name().unwrap().to_string_lossy().into_owned();
    assert!(log(false).contains(&name), "the log tells of what is read");
    assert!(!log(true).contains(&name));
    run();
    assert!(fs::read(&picture).unwrap() == usual, "the same kernels draw the same bits");
}

#[test]
fn a_folder_that_cannot_be_written_is_a_warning() {
    let folder = temporary();
    let cache = folder.path().join("cache");
    fs::write(&cache, "a file in its place").unwrap();
    let picture = folder.path().join("a.png");
    let events = events(&mut generate(&cache, &picture));
    let warnings = named(&events, "warning");
    let text = warnings.iter().map(|warning| warning["message"].to_string()).collect::<String>();
    assert!(
        text.contains("could not save the measurements") && text.contains("--no-tune"),
        "{text}"
    );
    assert_eq!(named(&events, "tuned")[0]["file"], Value::Null);
    assert!(picture.is_file());
}

#[test]
fn two_programs_that_measure_at_once_leave_a_whole_file() {
    let folder = temporary();
    let cache = folder.path().join("cache");
    let mut children: Vec<_> = (0..2)
        .map(|i| {
            let mut command = generate(&cache, &folder.path().join(format!("{i}.png")));
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            command.spawn().expect("the program starts")
        })
        .collect();
    for child in &mut children {
        assert!(child.wait().expect("an end").success());
    }
    let files = kept(&cache);
    let [file] = &files[..] else { panic!("one file: {files:?}") };
    serde_json::from_slice::<TuningRecord>(&fs::read(file).unwrap()).expect("a whole record");
}

/// Presses Ctrl-C while kernels are measured; gives the events that still came.
#[cfg(unix)]
fn interrupted(cache: &Path, picture: &Path) -> Vec<String> {
    use std::io::{BufRead, BufReader};
    let mut child = generate(cache, picture)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let first = lines.find(|line| line.as_ref().is_ok_and(|line| line.contains("\"tuning\"")));
    assert!(first.is_some(), "nothing was measured");
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().expect("kill runs").success());
    let rest: Vec<String> = lines.map_while(Result::ok).collect();
    child.wait().expect("an end");
    rest
}

#[cfg(unix)]
#[test]
fn ctrl_c_while_measuring_leaves_no_file() {
    // On a machine that is busy the signal may come when the last kernel is already measured.
    for _ in 0..10 {
        let folder = temporary();
        let cache = folder.path().join("cache");
        let rest = interrupted(&cache, &folder.path().join("a.png"));
        if rest.iter().any(|line| line.contains("\"tuned\"")) {
            continue;
        }
        let last: Value = serde_json::from_str(rest.last().expect("a last line")).expect("JSON");
        assert_eq!((&last["event"], &last["exit_code"]), (&"error".into(), &130.into()));
        assert!(kept(&cache).is_empty(), "{:?}", kept(&cache));
        return;
    }
    panic!("the signal always came too late");
}

#[test]
fn published_models_are_tuned_for_by_name() {
    let folder = temporary();
    let tune = |model: &str| {
        let mut command = tuned_on_adapter("tune");
        command.args(["--model", model, "--seconds", "0", "--json", "--quiet", "--cache-dir"]);
        command.arg(folder.path());
        command
    };
    let report = json(&mut tune("flux.1-dev"));
    let shapes = report["record"]["measured"][0]["shapes"].to_string();
    // Its blocks are 3072 wide, and its weights published in bf16.
    assert!(shapes.contains("3072") && shapes.contains("bf16"), "{shapes}");
    assert!(report["choices"][0]["gflops_per_second"].is_null(), "there was no time: {report}");
    crate::command::fails(&mut tune("flux.9"), 1, &["flux.9", "known by name", "flux.1-dev"]);
}

#[test]
fn ralu_tune_measures_anew_and_shows_a_table() {
    let folder = temporary();
    let tune = || {
        let mut command = tuned_on_adapter("tune");
        command.args(["--model", MODEL, "--width", "64", "--height", "64", "--quiet"]);
        command.args(["--max-sequence-length", "16", "--cache-dir"]).arg(folder.path());
        command
    };
    let report = json(tune().arg("--json"));
    let file = PathBuf::from(report["file"].as_str().expect("a path"));
    let record: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_eq!(record, report["record"]);
    // Of every op the choice, its rate, and its share of the peak where that is known.
    let choices = report["choices"].as_array().expect("a list");
    assert_eq!(choices.len(), record["measured"].as_array().expect("a list").len());
    for (choice, measured) in choices.iter().zip(record["measured"].as_array().unwrap()) {
        assert_eq!(choice["op"], measured["op"]);
        let chosen = measured["kernels"].as_array().unwrap().iter().find(|k| k["chosen"] == true);
        let seconds = chosen.unwrap()["seconds"].as_f64();
        let rate = seconds.map(|seconds| measured["flops"].as_f64().unwrap() / seconds / 1e9);
        assert_eq!(choice["gflops_per_second"].as_f64(), rate, "{choice}");
        let knows = report["peak"].is_object() && rate.is_some();
        assert!(choice["share_of_peak"].is_null() || knows, "{choice}");
    }

    fs::write(&file, "damaged").unwrap();
    let table = crate::command::stdout(&succeeds(tune().args(["--seconds", "5"])));
    for part in ["matmul", "chosen", "GFLOP/s", "of peak"] {
        assert!(table.contains(part), "no {part} in {table}");
    }
    assert!(table.contains(file.to_str().unwrap()), "{table}");
    let record: TuningRecord = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let lines = record.measured.iter().map(|measured| measured.kernels.len()).sum::<usize>();
    assert_eq!(table.lines().count(), lines + 4, "{table}");

    // A run on the same shapes takes it.
    let events = events(&mut generate(folder.path(), &folder.path().join("a.png")));
    assert!(named(&events, "tuned").is_empty(), "{events:?}");

    for seconds in ["-1", "3601", "soon", "nan"] {
        crate::command::fails(tune().args(["--seconds", seconds]), 2, &["--seconds"]);
    }
}
