//! `--memory-budget`: the same picture in less memory, and what is said where it does not fit.

use crate::command::{fails, json, on_adapter, ralu, root, stderr, succeeds, tuned_on_adapter};
use crate::picture::{bytes, folder};

const SIZE: [&str; 5] = ["--width=64", "--height=64", "--steps=2", "--ralu=off", "--seed=1"];

#[test]
fn less_memory_draws_the_same_picture() {
    let folder = folder();
    let draw = |name: &str, options: &[&str]| {
        let path = folder.path().join(name);
        let mut command = on_adapter("generate");
        command.current_dir(root()).arg("a fox").args(SIZE).args(options).arg("-o").arg(&path);
        let said = stderr(&succeeds(&mut command));
        let pixels = image::load_from_memory(&bytes(&path)).expect("a picture").to_rgb8();
        (pixels.into_raw(), said)
    };
    let (plain, _) = draw("plain.png", &[]);
    let (within, said) = draw("within.png", &["--max-vram", "18MiB", "--host-memory", "64M"]);
    assert!(plain == within);
    let is_near = |mib: u32| said.contains(&format!(", {mib}."));
    assert!((15..18).any(is_near), "{said}");
}

#[test]
fn a_plan_says_what_comes_and_goes() {
    let folder = folder();
    let plan = |options: &[&str]| {
        let mut command = ralu();
        command.current_dir(root()).arg("plan").args(SIZE).args(options);
        // Nothing was measured.
        command.arg("--cache-dir").arg(folder.path());
        command
    };
    let report = json(&mut plan(&["--json", "--memory-budget=20MiB"]));
    let streaming = &report["memory"]["streaming"];
    assert_eq!(streaming["budget_bytes"], 20 << 20);
    assert!(streaming["denoiser"]["streamed_blocks"].as_u64() > Some(0), "{streaming}");
    let peak = report["memory"]["peak_bytes"].as_u64().expect("bytes");
    assert!(peak + streaming["staging_bytes"].as_u64().expect("bytes") <= 20 << 20);
    for off in ["off", "auto"] {
        assert!(
            json(&mut plan(&["--json", "--memory-budget", off]))["memory"]["streaming"].is_null()
        );
    }
    let output = succeeds(&mut plan(&["--memory-budget=20MiB"]));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("Fits within 20.0 MiB") && text.contains("come and go"), "{text}");
    assert!(text.contains("of weights come and go for a picture"), "{text}");
    assert!(text.contains("Weights arrive at 12.00 GB/s (assumed"), "{text}");
    assert!(text.contains("at least 0.0") && text.contains("`ralu bench step`"), "{text}");
    fails(&mut plan(&["--memory-budget=1MiB"]), 1, &["at least", "1.0 MiB", "--memory-budget"]);
    for wrong in ["six", "0", "-1G"] {
        let option = format!("--memory-budget={wrong}");
        fails(&mut plan(&[&option]), 2, &["expected auto, off, or a size"]);
    }
}

/// What benches find of an adapter is in the next plan.
#[test]
fn a_plan_predicts_steps_by_what_was_measured() {
    let folder = folder();
    let plan = |options: &[&str]| {
        let mut command = ralu();
        command.current_dir(root()).arg("plan").args(SIZE).args(options);
        command.arg("--cache-dir").arg(folder.path());
        command
    };
    let within = ["--memory-budget=20MiB", "--host-memory=0", "--json"];
    let assumed = &json(&mut plan(&within))["prediction"];
    assert_eq!(assumed["bytes_per_second_from"], "assumed");
    assert!(assumed["steps"][0]["seconds"].is_null(), "{assumed}");
    assert!(json(&mut plan(&["--json"]))["prediction"].is_null());

    for what in ["load", "step"] {
        let mut bench = tuned_on_adapter("bench");
        bench.args([what, "--runs=1", "--quiet"]);
        bench.args(["--model=models/tiny-flux", "--cache-dir"]).arg(folder.path());
        if what == "step" {
            bench.args(["--width=64", "--height=64", "--steps=2"]);
        }
        succeeds(&mut bench);
    }
    let measured = &json(&mut plan(&within))["prediction"];
    assert_eq!(measured["bytes_per_second_from"], "files");
    assert_eq!(measured["flops_per_second_from"], "steps");
    let number = |value: &serde_json::Value| value.as_f64().expect("a number");
    let step = &measured["steps"][0];
    let [bus, compute] = [number(&step["bus_seconds"]), number(&step["compute_seconds"])];
    let bytes = number(&step["streamed_bytes"]);
    assert!((bus * number(&measured["bytes_per_second"]) / bytes - 1.0).abs() < 1e-9, "{step}");
    let seconds = number(&step["seconds"]);
    assert!(compute > 0.0 && (bus.max(compute)..bus + compute).contains(&seconds), "{step}");
    assert_eq!(step["is_bus_bound"], compute < bus);
}
