//! Choosing kernels by measuring them: the tuner, what is kept of it, and the command line around both.
//!
//! Needs an adapter, software will do. The variables of `tests/common` choose it. How fast a kernel is depends on the
//! machine and on what else it does, so no test expects one to win.

#[path = "common/command.rs"]
mod command;
mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use command::{json, succeeds, tuned_on_adapter};
use ralu::checkpoint::source::{Folder, Source};
use ralu::gpu::{AdapterChoice, Gpu, LimitsPolicy, block_on};
use ralu::models::config::ModelConfig;
use ralu::models::layers::Precision;
use ralu::pipeline::tune::{Tuner, TuningEvent, TuningRecord};
use ralu::pipeline::{Event, NamedTensor, Options, Pipeline, RaluChoice, Request, Settings};
use ralu::tensor::{MatmulKernel, RowClass, Tuning};
use serde_json::Value;

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/flux-a/model");

/// Seconds that are enough however busy the machine is.
const UNHURRIED: f64 = 3600.0;

// ---- the tuner -----------------------------------------------------------------------------------

fn folder() -> Folder {
    Folder::open(MODEL).unwrap()
}

fn request() -> Request {
    let request = Request::new("a fox").size(128, 128).ralu(RaluChoice::Off);
    Request { steps: Some(1), max_sequence_length: Some(16), ..request }
}

fn with_tuner<T>(gpu: &Gpu, seconds: f64, action: impl FnOnce(Tuner<'_>) -> T) -> T {
    let folder = folder();
    let config = ModelConfig::load(&folder as &dyn Source).unwrap();
    let settings = Settings::resolve(&request(), &config).unwrap();
    let source = Some(&folder as &dyn Source);
    action(Tuner::new(gpu, &config, source, &settings, Precision::Auto, seconds).unwrap())
}

/// Measures to the end; gives the record and all events.
fn tune(gpu: &Gpu, seconds: f64) -> (TuningRecord, Vec<TuningEvent>) {
    with_tuner(gpu, seconds, |mut tuner| {
        let mut events = vec![];
        while let Some(event) = block_on(gpu, tuner.next()).unwrap() {
            events.push(event);
        }
        (tuner.record(), events)
    })
}

#[test]
fn a_measurement_chooses_among_the_kernels_that_can_run() {
    let gpu = common::gpu();
    let (record, events) = tune(&gpu, UNHURRIED);

    let ops: Vec<(&str, Option<&str>)> =
        record.measured.iter().map(|m| (&*m.op, m.class.as_deref())).collect();
    // 64 image tokens and 16 of text are some rows, text alone is some; the decoder has pictures.
    assert!(ops.contains(&("matmul", Some("some"))), "{ops:?}");
    assert!(ops.contains(&("matmul", Some("few"))), "{ops:?}");
    for measured in &record.measured {
        let kernels = &measured.kernels;
        assert!(kernels.len() > 1, "{measured:?}");
        assert_eq!(kernels[0].kernel, "default");
        assert!(!measured.shapes.is_empty());
        let chosen: Vec<_> = kernels.iter().filter(|kernel| kernel.chosen).collect();
        let [chosen] = chosen[..] else { panic!("one is chosen: {measured:?}") };
        for kernel in kernels {
            assert_eq!(kernel.failure, None, "{measured:?}");
            let seconds = kernel.seconds.expect("there was time");
            assert!(seconds > 0.0 && seconds < UNHURRIED, "{measured:?}");
            // The chosen one is the default one, or faster than all others.
            assert!(chosen.kernel == "default" || chosen.seconds <= kernel.seconds, "{measured:?}");
        }
        // What runs differs, else there would be nothing to choose.
        let names: Vec<&String> = kernels.iter().map(|kernel| &kernel.kernel).collect();
        let mut different = names.clone();
        different.sort();
        different.dedup();
        assert_eq!(names.len(), different.len(), "{names:?}");
    }
    // The choice is what the table says.
    let few = record.measured.iter().find(|m| m.class.as_deref() == Some("few")).unwrap();
    let chosen = few.kernels.iter().find(|kernel| kernel.chosen).unwrap();
    let asked = record.tuning.matmul[RowClass::Few as usize].map(|kernel| kernel.to_string());
    assert_eq!(asked.as_deref().unwrap_or("default"), chosen.kernel);

    let mut last = 0;
    for event in &events {
        let TuningEvent::Measured { done, of, what } = event else { panic!("{event:?}") };
        assert_eq!(*done, last + 1, "{what}");
        assert!(done <= of, "{what}: {done} of {of}");
        last = *done;
    }
    assert!(last > record.measured.len(), "{events:?}");
}

#[test]
fn without_time_the_usual_kernels_stay() {
    let gpu = common::gpu();
    let (record, events) = tune(&gpu, 0.0);
    assert_eq!(record.tuning, Tuning::default());
    assert!(events.is_empty(), "{events:?}");
    for kernel in record.measured.iter().flat_map(|measured| &measured.kernels) {
        assert_eq!((kernel.seconds, kernel.chosen), (None, kernel.kernel == "default"));
    }
    assert!(!record.measured.is_empty());
}

#[test]
fn a_kernel_that_fails_is_left_out() {
    // A device of WebGPU's features that says it has subgroups too: such kernels do not compile. Of four, so that they
    // are nowhere the usual ones.
    let variable = |name| std::env::var(name).ok().filter(|value: &String| !value.is_empty());
    let choice = AdapterChoice {
        adapter: variable("RALU_TEST_ADAPTER"),
        backend: variable("RALU_TEST_BACKEND"),
        limits: LimitsPolicy::WebGpuDefaults,
        ..Default::default()
    };
    let gpu = pollster::block_on(Gpu::open(&choice)).unwrap();
    let gpu = gpu.with_caps(|caps| caps.subgroup_sizes = Some((4, 4)));
    let (record, events) = tune(&gpu, UNHURRIED);
    let mut failures = 0;
    for event in &events {
        if let TuningEvent::Failed { what, reason } = event {
            assert!(what.contains("subgroup") && reason.contains("_subgroup"), "{event:?}");
            failures += 1;
        }
    }
    assert!(failures > 0, "{events:?}");
    for measured in &record.measured {
        let failed = measured.kernels.iter().filter(|kernel| kernel.failure.is_some());
        for kernel in failed {
            assert_eq!((kernel.kernel.as_str(), kernel.chosen), ("subgroup", false));
            failures -= 1;
        }
        // The others go on.
        assert!(measured.kernels[0].seconds.is_some(), "{measured:?}");
    }
    assert_eq!(failures, 0, "{record:?}");
    gpu.check().expect("the device goes on");
}

#[test]
fn a_tuned_device_draws_the_same_picture() {
    let draw = |tuning: Tuning| -> Vec<f32> {
        let gpu = common::gpu().with_caps(|caps| caps.tuning = tuning);
        let pipeline = Pipeline::open(gpu, Box::new(folder()), Options::default()).unwrap();
        let mut run = pipeline.start(Request { collect_tensors: true, ..request() }).unwrap();
        while let Some(event) = block_on(pipeline.gpu(), run.next()).unwrap() {
            if let Event::Image { tensors: Some(tensors), .. } = event {
                match &tensors.0["latents"] {
                    NamedTensor::F32 { data, .. } => return data.clone(),
                    other => panic!("{other:?}"),
                }
            }
        }
        panic!("no picture")
    };
    let (usual, other) = (
        draw(Tuning::default()),
        draw(Tuning { matmul: [Some(MatmulKernel::Direct); 3], ..Tuning::default() }),
    );
    let square = |values: &mut dyn Iterator<Item = f32>| -> f64 {
        values.map(|value| f64::from(value).powi(2)).sum()
    };
    let far = square(&mut usual.iter().zip(&other).map(|(a, b)| a - b));
    let distance = (far / square(&mut usual.iter().copied())).sqrt();
    // A step's few hundred sums in a row, each rounded otherwise.
    assert!(distance < 1e-5, "{distance}");
}

// ---- the record ----------------------------------------------------------------------------------

#[test]
fn a_record_is_read_as_it_was_written() {
    let gpu = common::gpu();
    let (mut record, _) = tune(&gpu, 0.0);
    record.tuning.matmul[RowClass::Many as usize] = Some(MatmulKernel::Direct);
    record.measured[0].kernels[0].seconds = Some(0.1 + 0.2);
    let json = record.to_json().unwrap();
    with_tuner(&gpu, 1.0, |tuner| {
        assert_eq!(TuningRecord::read(json.as_bytes(), tuner.key()), Ok(record.clone()));
        assert_eq!(tuner.key().file_name(), record.key.file_name());
    });
}

#[test]
fn damaged_and_foreign_records_are_refused() {
    let gpu = common::gpu();
    let (record, _) = tune(&gpu, 0.0);
    let json = record.to_json().unwrap();
    let read = |text: &str| TuningRecord::read(text.as_bytes(), &record.key);
    assert!(read(&json).is_ok());
    for length in (0..json.len()).step_by(97) {
        assert!(read(&json[..length]).is_err(), "{length} bytes");
    }
    let changed = |field: &str, value: Value| {
        let mut document: Value = serde_json::from_str(&json).unwrap();
        assert!(document.get(field).is_some(), "{field}");
        document[field] = value;
        document.to_string()
    };
    for (field, value) in [
        ("format", 0.into()),
        ("ralu", "0.0.1".into()),
        ("driver", "another".into()),
        ("adapter", "another".into()),
        ("backend", "another".into()),
        ("kind", "another".into()),
        ("shapes", Value::Array(vec![])),
    ] {
        let reason = read(&changed(field, value)).expect_err(field);
        assert!(reason.contains("another adapter"), "{reason}");
    }
    // A kernel that this version does not have.
    let mut tuning: Value = serde_json::to_value(record.tuning).unwrap();
    tuning["matmul"][0] = "quantum".into();
    assert!(read(&changed("tuning", tuning)).is_err());
    // Other limits are another device.
    let small = gpu.with_caps(|caps| caps.max_workgroup_bytes /= 2);
    with_tuner(&small, 1.0, |tuner| {
        assert_ne!(tuner.key().file_name(), record.key.file_name());
        assert!(TuningRecord::read(json.as_bytes(), tuner.key()).is_err());
    });
}

// ---- the command line ----------------------------------------------------------------------------

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

/// The records that are kept, beside compiled pipelines.
fn kept(cache: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(cache) else { return vec![] };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_none_or(|e| e != "pipelines")).collect()
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

    // Damaged, or of another adapter under this one's name: measured anew.
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
        command::stderr(&succeeds(&mut command))
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
    assert!(text.contains("cannot be kept") && text.contains("--no-tune"), "{text}");
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

    fs::write(&file, "damaged").unwrap();
    let table = command::stdout(&succeeds(tune().args(["--seconds", "5"])));
    assert!(table.contains("matmul") && table.contains("chosen"), "{table}");
    assert!(table.contains(file.to_str().unwrap()), "{table}");
    let record: TuningRecord = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let lines = record.measured.iter().map(|measured| measured.kernels.len()).sum::<usize>();
    assert_eq!(table.lines().count(), lines + 3, "{table}");

    // A run on the same shapes takes it.
    let events = events(&mut generate(folder.path(), &folder.path().join("a.png")));
    assert!(named(&events, "tuned").is_empty(), "{events:?}");

    for seconds in ["-1", "3601", "soon", "nan"] {
        command::fails(tune().args(["--seconds", seconds]), 2, &["--seconds"]);
    }
}
