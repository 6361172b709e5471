//! `ralu plan` answers what people ask first: does it fit, and how long does it take?

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::command::{MODEL, adapter_options, json, ralu, stdout, succeeds, tuned_on_adapter};
use crate::picture::{SMALL, folder};

fn plan(cache: &Path, options: &[&str]) -> Command {
    let mut command = ralu();
    command.arg("plan").args(SMALL).args(["--ralu", "off", "--steps", "6"]);
    command.arg("--cache-dir").arg(cache).args(options);
    command
}

#[test]
fn it_says_first_whether_a_run_fits_and_how_long_it_takes() {
    let folder = folder();
    let cache = folder.path().join("cache");
    let adapter = adapter_options();
    let mut here: Vec<&str> = adapter.iter().map(String::as_str).collect();
    here.extend(["--model", MODEL]);
    let text = stdout(&succeeds(&mut plan(&cache, &here)));
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("Does it fit?  Yes: it needs"), "{text}");
    assert!(
        lines[1].starts_with("How long?     Not known") && lines[1].contains("ralu tune"),
        "{text}"
    );
    assert!(lines[3].contains("64 x 64 pixels"), "{text}");

    // Whatever there is, the sizes and the answer agree.
    for options in [&["--model", MODEL][..], &["--model", "flux.1-dev"]] {
        let fit = &json(plan(&cache, options).args(&adapter).arg("--json"))["fit"];
        let bytes = |field: &str| fit[field].as_u64();
        let (need, free) = (bytes("need_bytes").expect("bytes"), bytes("free_bytes"));
        let within = |free| need <= free || bytes("least_bytes").is_some_and(|least| least <= free);
        assert_eq!(fit["fits"].as_bool(), free.map(within), "{fit}");
        assert_eq!(fit["streams"].as_bool(), free.map(|free| need > free), "{fit}");
    }
}

#[test]
fn it_needs_no_adapter() {
    let folder = folder();
    let nowhere = ["--model", "flux.1-dev", "--adapter", "no such adapter"];
    let text = stdout(&succeeds(&mut plan(folder.path(), &nowhere)));
    assert!(text.starts_with("Does it fit?  There is no adapter here"), "{text}");
    assert!(text.lines().next().is_some_and(|line| line.contains("keep within")), "{text}");
    let plan = json(plan(folder.path(), &nowhere).arg("--json"));
    assert_eq!((&plan["fit"]["fits"], &plan["time"]["seconds"]), (&Value::Null, &Value::Null));
    assert!(plan["fit"]["need_bytes"].as_u64() > plan["fit"]["least_bytes"].as_u64(), "{plan}");
}

/// A run is measured, and the next plan knows.
#[test]
fn it_learns_from_runs() {
    let folder = folder();
    let cache = folder.path().join("cache");
    let mut command = tuned_on_adapter("generate");
    command.args(["a fox", "--model", MODEL, "--ralu", "off", "--steps", "6"]).args(SMALL);
    command.arg("--cache-dir").arg(&cache).arg("-o").arg(folder.path().join("a.png"));
    succeeds(&mut command);
    let mut options = adapter_options();
    options.extend(["--model", MODEL].map(str::to_owned));
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let time = &json(plan(&cache, &options).arg("--json"))["time"];
    assert_eq!(time["from"], "steps", "{time}");
    assert!(time["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{time}");
    let twice = &json(plan(&cache, &options).args(["--steps", "60", "--json"]))["time"];
    let ratio =
        twice["seconds"].as_f64().expect("seconds") / time["seconds"].as_f64().expect("seconds");
    assert!((2.0..10.5).contains(&ratio), "{ratio}");
    let text = stdout(&succeeds(&mut plan(&cache, &options)));
    assert!(
        text.lines().nth(1).is_some_and(|line| line.starts_with("How long?     About")),
        "{text}"
    );
}
