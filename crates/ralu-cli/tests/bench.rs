//! `ralu bench ops`, `step` and `run` from outside, and `--profile`.
//!
//! All but some refusals need an adapter, software will do. The variables of `tests/common` choose it.

#![cfg(feature = "bench")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{MODEL, fails, json, on_adapter, ralu, stderr, stdout, succeeds};
use serde_json::{Value, json};

/// The smallest picture that RALU and plain sampling both take, and few tokens.
const SMALL: [&str; 6] = ["--width", "64", "--height", "64", "--max-sequence-length", "16"];
/// RALU with three stages of one step each, regions in them, and nothing to solve.
const RALU: [&str; 12] = [
    "--ralu",
    "custom",
    "--stage-steps",
    "1,1,1",
    "--stage-ends",
    "0.3,0.45,1",
    "--up-ratio",
    "0.3",
    "--stage-shifts",
    "5.019,2.589,2.226",
    "--stage-z",
    "6.317",
];

fn bench(what: &str) -> Command {
    let mut command = on_adapter("bench");
    command.args([what, "--quiet", "--runs", "1", "--model", MODEL]).args(SMALL);
    if what != "ops" {
        command.args(["--steps", "2"]).args(RALU);
    }
    command
}

fn report(what: &str) -> Value {
    json(bench(what).arg("--json"))
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

fn written(folder: &Path, name: &str, value: &Value) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, value.to_string()).expect("a file");
    path
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).expect("a file")).expect("JSON")
}

#[track_caller]
fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("no number: {value}"))
}

#[track_caller]
fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("no list: {value}"))
}

/// Whether the adapter computes on this machine's processors, so that their time is told too.
fn on_cpu(report: &Value) -> bool {
    report["adapter_type"] == "CPU" && cfg!(unix)
}

#[track_caller]
fn check_place(report: &Value, what: &str) {
    assert_eq!(report["bench"], what);
    assert_eq!(report["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(report["model"], "model");
    assert_eq!((&report["width"], &report["height"]), (&json!(64), &json!(64)));
    for field in ["adapter", "backend", "driver", "adapter_type"] {
        assert!(report[field].as_str().is_some_and(|text| !text.is_empty()), "{field}: {report}");
    }
}

/// A share of the chip's peak is told where that is known, and nowhere else.
#[track_caller]
fn check_share(report: &Value, row: &Value, rate: &str) {
    match &report["chip"]["peak"] {
        Value::Null => assert!(row.get("share_of_peak").is_none(), "{row}"),
        peak => {
            let most = 1e3
                * f64::max(number(&peak["f32_tflops"]), peak["f16_tflops"].as_f64().unwrap_or(0.0));
            assert!(number(&row["share_of_peak"]) >= number(&row[rate]) / most - 1e-9, "{row}");
        }
    }
    if on_cpu(report) {
        assert_eq!(report["chip"]["peak"], Value::Null, "a processor's peak is not in the table");
    }
}

#[test]
fn ops_are_measured_and_ranked() {
    let report = report("ops");
    check_place(&report, "ops");
    let ops = list(&report["ops"]);
    for op in [
        "linear",
        "attention",
        "norm",
        "qk_norm_rope",
        "activation",
        "combine",
        "euler",
        "conv2d",
        "group_norm",
    ] {
        assert!(ops.iter().any(|one| one["op"] == op), "no {op}");
    }
    let mut best = 0.0;
    for op in ops {
        assert!(number(&op["median_seconds"]) > 0.0, "{op}");
        let share = number(&op["share_of_best"]);
        assert!(share > 0.0 && share <= 1.0, "{op}");
        best = f64::max(best, share);
        let arithmetic = ["linear", "attention", "conv2d"].contains(&op["op"].as_str().unwrap());
        assert_eq!(op["gflops_per_second"].is_f64(), arithmetic, "{op}");
        assert!(number(&op["gb_per_second"]) > 0.0, "{op}");
        assert!(!list(&op["kernels"]).is_empty(), "{op}");
        assert!(
            op["op"] != "linear" || op["kernels"][0].as_str().unwrap().starts_with("mat"),
            "{op}"
        );
        if arithmetic {
            check_share(&report, op, "gflops_per_second");
        }
        if on_cpu(&report) {
            let rate = number(&op["gb_per_cpu_second"]) * number(&op["median_cpu_seconds"]);
            let same = number(&op["gb_per_second"]) * number(&op["median_seconds"]);
            assert!((rate / same - 1.0).abs() < 1e-9, "{op}");
        }
    }
    assert_eq!(best, 1.0);
}

#[test]
fn steps_are_measured_in_every_stage() {
    let report = report("step");
    check_place(&report, "step");
    let stages: Vec<(&Value, &Value)> =
        list(&report["stages"]).iter().map(|stage| (&stage["ralu"], &stage["kind"])).collect();
    let expected = [("off", "full"), ("custom", "low"), ("custom", "mixed"), ("custom", "full")];
    assert_eq!(
        stages,
        expected
            .map(|(ralu, kind)| (json!(ralu), json!(kind)))
            .iter()
            .map(|(a, b)| (a, b))
            .collect::<Vec<_>>()
    );
    for stage in list(&report["stages"]) {
        assert!(number(&stage["gflops_per_second"]) > 0.0, "{stage}");
        assert_eq!(stage["gflops_per_cpu_second"].is_f64(), on_cpu(&report), "{stage}");
        assert_eq!(stage["measured_steps"], 1, "{stage}");
        check_share(&report, stage, "gflops_per_second");
    }
    assert!(["f32", "f16"].contains(&report["chip"]["products"].as_str().unwrap()), "{report}");
    assert!(report.get("profiles").is_none(), "nobody asked");
}

#[test]
fn runs_are_measured_beside_their_prediction() {
    let run = report("run");
    check_place(&run, "run");
    assert_eq!((&run["plain"]["steps"], &run["ralu"]["steps"]), (&json!(2), &json!(3)));
    let measured = number(&run["plain"]["median_seconds"]) / number(&run["ralu"]["median_seconds"]);
    assert!((measured - number(&run["measured_speedup"])).abs() < 1e-9);
    let ratio = measured / number(&run["predicted_speedup"]);
    assert!((ratio - number(&run["ratio"])).abs() < 1e-9);
    assert_eq!(run["measured_cpu_speedup"].is_f64(), on_cpu(&run), "{run}");
    for one in ["plain", "ralu"] {
        assert!(number(&run[one]["gflops_per_second"]) > 0.0, "{run}");
        check_share(&run, &run[one], "gflops_per_second");
    }
    let regions = number(&run["region_seconds"]);
    assert!(regions > 0.0 && regions < number(&run["ralu"]["median_seconds"]), "{regions}");
}

#[test]
fn a_report_goes_to_a_file_with_the_times_of_kernels() {
    let folder = folder();
    let path = folder.path().join("report.json");
    for what in ["step", "run", "ops"] {
        let output = succeeds(bench(what).arg(format!("--json={}", path.display())));
        let report = read(&path);
        check_place(&report, what);
        // The table is for people, and says what the shares are of.
        let text = stdout(&output);
        assert!(text.contains("GFLOP/s") || what == "run", "{text}");
        assert!(!text.contains('{'), "{text}");
        match report["chip"]["peak"].as_object() {
            None => assert!(text.contains("unknown"), "{text}"),
            Some(_) => assert!(text.contains("at most"), "{text}"),
        }
        if what == "ops" {
            continue;
        }
        let profiles = list(&report["profiles"]);
        assert_eq!(profiles.len(), 2, "plain and RALU");
        profiles.iter().for_each(check_profile);
        for row in profiles.iter().flat_map(|profile| list(&profile["programs"][0]["kernels"])) {
            check_share(&report, row, "gflops_per_second");
        }
        // What was written can be compared with.
        succeeds(bench(what).arg("--compare").arg(&path));
    }
    fails(
        bench("quality").arg(format!("--json={}", path.display())),
        2,
        &["results.json", "--json without a file name"],
    );
}

/// What the machine has free, where it says so.
fn free_kib() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[test]
fn a_model_that_does_not_fit_is_refused_before_any_work() {
    // It takes 44 GiB.
    let (kib, on_cpu) = (free_kib(), on_cpu(&report("ops")));
    if !on_cpu || kib.is_none_or(|kib| kib >= 40 << 20) {
        println!("NOT RUN: the adapter does not say what it holds, or holds it: {kib:?} KiB");
        return;
    }
    let mut command = on_adapter("bench");
    command.args(["step", "--model", "flux.1-dev", "--width", "4096", "--height", "4096"]);
    let parts = ["flux.1-dev at 4096 x 4096", "denoiser weights", "GiB", "are free", "--width"];
    fails(&mut command, 1, &parts);
}

// ---- comparisons -------------------------------------------------------------------------------

#[test]
fn a_report_is_compared_row_by_row() {
    let folder = folder();
    let mut earlier = report("step");
    let rows = list(&earlier["stages"]).len();
    // Half as fast as it was, on another adapter and in an older version; one stage has gone.
    for stage in earlier["stages"].as_array_mut().unwrap() {
        stage["median_seconds"] = json!(1.0);
        if let Some(seconds) = stage.get_mut("median_cpu_seconds") {
            *seconds = json!(2.0);
        }
    }
    earlier["stages"][0]["ralu"] = json!("9x");
    earlier["adapter"] = json!("A Card");
    earlier["version"] = json!("0.0.1");
    let path = written(folder.path(), "earlier.json", &earlier);

    let now = json(bench("step").arg("--json").arg("--compare").arg(&path));
    let compared = &now["compared"];
    assert_eq!(compared["version"], "0.0.1");
    let different = list(&compared["different"]);
    assert_eq!(different.len(), 1, "{compared}");
    assert!(different[0].as_str().is_some_and(|text| text.contains("A Card")), "{compared}");
    assert_eq!(list(&compared["rows"]).len(), rows - 1);
    for (row, stage) in list(&compared["rows"]).iter().zip(&list(&now["stages"])[1..]) {
        assert_eq!(number(&row["now_seconds"]), number(&stage["median_seconds"]));
        assert_eq!(number(&row["speedup"]), 1.0 / number(&stage["median_seconds"]));
        if on_cpu(&now) {
            assert_eq!(number(&row["cpu_speedup"]), 2.0 / number(&stage["median_cpu_seconds"]));
        }
    }
    let missing = list(&compared["missing"]);
    assert_eq!(missing.len(), 2, "{compared}");
    assert!(missing.iter().any(|text| text.as_str().is_some_and(|text| text.contains("9x"))));

    let text = stdout(&succeeds(bench("step").arg("--compare").arg(&path)));
    for part in ["earlier.json", "ralu 0.0.1", "A Card there", "custom stage 2 mixed", "9x stage 1"]
    {
        assert!(text.contains(part), "no {part:?} in: {text}");
    }
}

#[test]
fn reports_of_an_earlier_version_can_be_compared() {
    let folder = folder();
    let path = folder.path().join("old.json");
    // As 0.1.0's first bench wrote them, without driver and version.
    let old = json!({
        "bench": "ops", "adapter": "A Card", "backend": "vulkan", "model": "model", "width": 64,
        "height": 64, "weights": "f32", "runs": 1,
        "ops": [{
            "op": "norm", "shape": "[16, 128]", "median_seconds": 1.0, "gflops_per_second": null,
            "gb_per_second": 1.0
        }],
    });
    fs::write(&path, old.to_string()).unwrap();
    let now = json(bench("ops").arg("--json").arg("--compare").arg(&path));
    let [row] = list(&now["compared"]["rows"]) else { panic!("{}", now["compared"]) };
    assert_eq!(row["row"], "norm [16, 128]");
    assert!(row.get("cpu_speedup").is_none(), "{row}");
}

#[test]
fn files_that_are_no_such_report_are_refused() {
    let folder = folder();
    let path = folder.path().join("file.json");
    let refused = |text: &str, parts: &[&str]| {
        fs::write(&path, text).unwrap();
        let expected: &[&str] = &["--compare", "file.json", "`ralu bench step --json`"];
        fails(bench("step").arg("--compare").arg(&path), 1, &[expected, parts].concat());
    };
    refused("", &["is not JSON"]);
    refused("RALU    stage    tokens", &["is not JSON"]);
    refused("[1, 2]", &["no report of `ralu bench`"]);
    refused("{\"bench\": \"ops\", \"ops\": []}", &["a report of `ralu bench ops`"]);
    refused("{\"bench\": \"step\"}", &["damaged", "stages"]);
    refused("{\"bench\": \"step\", \"stages\": [{\"ralu\": \"off\"}]}", &["damaged", "stage"]);
    fs::remove_file(&path).unwrap();
    fails(
        bench("step").arg("--compare").arg(&path),
        1,
        &["--compare", "file.json", "cannot be read"],
    );
    fails(bench("step").arg("--compare").arg(folder.path()), 1, &["--compare", "cannot be read"]);
}

#[test]
fn options_of_other_benches_are_refused() {
    fails(bench("ops").arg("--profile"), 2, &["--profile", "step"]);
    let quality = |option: &str| {
        let mut command = ralu();
        command.args(["bench", "quality", option]);
        command
    };
    fails(&mut quality("--profile"), 2, &["--profile"]);
    fails(&mut quality("--compare=x.json"), 2, &["--compare"]);
}

// ---- kernel times ------------------------------------------------------------------------------

/// Events of a category in a trace.
fn events<'a>(trace: &'a Value, category: &str) -> Vec<&'a Value> {
    list(&trace["traceEvents"]).iter().filter(|event| event["cat"] == category).collect()
}

/// The trace has an event for each dispatch that the report counts, one after the other on its track, and names
/// each of its tracks.
#[track_caller]
fn check_trace(trace: &Value, profiles: &[Value]) {
    let kernels = events(trace, "kernel");
    let programs = || profiles.iter().flat_map(|profile| list(&profile["programs"]));
    let dispatches: f64 = programs()
        .map(|program| {
            let calls = list(&program["kernels"]).iter().map(|row| number(&row["calls"]));
            number(&program["runs"]) * calls.sum::<f64>()
        })
        .sum();
    assert_eq!(kernels.len() as f64, dispatches);
    let runs: f64 = programs().map(|program| number(&program["runs"])).sum();
    assert_eq!(events(trace, "program").len() as f64, runs);

    let named = |what: &str| -> Vec<(Value, Value)> {
        let events = list(&trace["traceEvents"]).iter().filter(|event| event["name"] == what);
        events.map(|event| (event["pid"].clone(), event["tid"].clone())).collect()
    };
    let tracks = named("thread_name");
    let mut end = vec![0.0; tracks.len()];
    for kernel in kernels {
        assert_eq!(kernel["ph"], "X");
        let track = (kernel["pid"].clone(), kernel["tid"].clone());
        let track = tracks.iter().position(|one| *one == track).expect("a track with a name");
        let (start, duration) = (number(&kernel["ts"]), number(&kernel["dur"]));
        // Microseconds; a nanosecond for rounding.
        assert!(
            duration >= 0.0 && start >= end[track] - 1e-3,
            "{kernel} begins before {}",
            end[track]
        );
        end[track] = start + duration;
        assert!(!kernel["name"].as_str().unwrap_or("").is_empty(), "{kernel}");
        assert!(
            kernel["args"]["kernel"].as_str().is_some_and(|name| name.contains('.')),
            "{kernel}"
        );
    }
    assert_eq!(named("process_name").len(), profiles.len());
}

#[track_caller]
fn check_profile(profile: &Value) {
    for one in list(&profile["steps"]) {
        let (kernels, all) = (number(&one["kernel_seconds"]), number(&one["seconds"]));
        assert!(kernels > 0.0 && kernels <= 1.01 * all, "{one}");
        assert!((number(&one["share"]) - kernels / all).abs() < 1e-9, "{one}");
    }
    for program in list(&profile["programs"]) {
        for rows in ["totals", "kernels"] {
            let rows = list(&program[rows]);
            let sum = |field: &str| rows.iter().map(|row| number(&row[field])).sum::<f64>();
            assert!((sum("share") - 1.0).abs() < 1e-9, "{program}");
            let (rows, all) = (sum("seconds"), number(&program["kernel_seconds"]));
            assert!((rows / all - 1.0).abs() < 1e-9, "{program}");
        }
    }
}

fn names(profile: &Value) -> Vec<&str> {
    list(&profile["programs"]).iter().filter_map(|program| program["program"].as_str()).collect()
}

#[test]
fn a_profile_of_steps_has_a_table_and_a_trace() {
    let folder = folder();
    let path = folder.path().join("trace.json");
    let option = format!("--profile={}", path.display());
    let report = json(bench("step").args(["--json", &option]));
    let profiles = list(&report["profiles"]);
    assert_eq!(
        profiles.iter().map(|profile| &profile["ralu"]).collect::<Vec<_>>(),
        ["off", "custom"]
    );
    assert_eq!(names(&profiles[0]), ["stage1"]);
    assert_eq!(names(&profiles[1]), ["stage1", "stage2", "stage3"]);
    profiles.iter().for_each(check_profile);
    let trace = read(&path);
    check_trace(&trace, profiles);
    assert_eq!(trace["otherData"]["adapter"], report["adapter"]);
    assert_eq!(trace["otherData"]["driver"], report["driver"]);

    // The table has what the report has; without a file name none is written.
    let output = succeeds(bench("step").arg("--profile"));
    for part in ["plain stage 1", "RALU custom stage 3", "matmul", "double.*.attn", "GFLOP/s"] {
        assert!(stdout(&output).contains(part), "no {part:?} in: {}", stdout(&output));
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    // A report with a profile can be compared with.
    let earlier = written(folder.path(), "earlier.json", &report);
    succeeds(bench("step").arg("--compare").arg(&earlier));
}

#[test]
fn a_profile_of_runs_has_all_programs() {
    let report = json(bench("run").args(["--json", "--profile"]));
    let profiles = list(&report["profiles"]);
    profiles.iter().for_each(check_profile);
    // The prompt was encoded when everything was run once to warm up.
    assert_eq!(names(&profiles[0]), ["modulations", "stage1", "decode"]);
    let ralu = names(&profiles[1]);
    for name in ["stage1", "decode.low", "jump1", "stage2", "jump2", "stage3", "decode"] {
        assert!(ralu.contains(&name), "no {name} in {ralu:?}");
    }
    for profile in profiles {
        assert_eq!(profile["pictures"], 1);
        let share = number(&profile["share"]);
        assert!(share > 0.0 && share <= 1.01, "{share}");
    }
}

#[test]
fn a_trace_that_cannot_be_written_is_said_before_anything_runs() {
    let folder = folder();
    let nowhere = format!("--profile={}", folder.path().join("none/trace.json").display());
    fails(bench("step").arg(nowhere), 1, &["the trace", "does not exist"]);
    let itself = format!("--profile={}", folder.path().display());
    fails(bench("run").arg(itself), 1, &["the trace", "this is a folder"]);
}

#[test]
fn a_profiled_picture_is_the_same_picture() {
    let folder = folder();
    let generate = |name: &str| {
        let mut command = on_adapter("generate");
        command.args(["a fox", "--seed", "7", "--model", MODEL]).args(SMALL).args(RALU);
        command.arg("--output").arg(folder.path().join(name));
        command
    };
    succeeds(&mut generate("plain.png"));
    let trace = folder.path().join("trace.json");
    let output = succeeds(generate("profiled.png").arg(format!("--profile={}", trace.display())));
    let read_file = |name: &str| fs::read(folder.path().join(name)).unwrap();
    assert!(read_file("plain.png") == read_file("profiled.png"), "the pictures differ");
    assert_eq!(stdout(&output).lines().count(), 1, "results only");
    for part in ["stage2", "matmul", "trace.json"] {
        assert!(stderr(&output).contains(part), "no {part:?} in: {}", stderr(&output));
    }
    assert!(!events(&read(&trace), "kernel").is_empty());
}
