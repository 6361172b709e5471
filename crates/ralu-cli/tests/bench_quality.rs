//! `ralu bench quality`: its measures against known answers, and the command from outside.
//!
//! All but the measures and some refusals need an adapter, software will do. The variables of `tests/common` choose
//! it.

#![cfg(feature = "bench")]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::command::{MODEL, fails, on_adapter, stderr, succeeds};
use serde_json::Value;

#[path = "../src/bench/quality/metrics.rs"]
mod metrics;

// ---- measures ----------------------------------------------------------------------------------

/// Bytes that look random: a linear congruential generator's upper ones.
fn noise(n: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(n).collect()
}

#[test]
fn identical_pictures_have_no_distance() {
    let (width, height) = (13, 12);
    let picture = noise(width * height * 3, 1);
    assert_eq!(metrics::psnr(&picture, &picture), f64::INFINITY);
    assert_eq!(metrics::ssim(&picture, &picture, width, height), Some(1.0));
    assert_eq!(metrics::relative_distance(&[0.5, -2.0], &[0.5, -2.0]), Some(0.0));
    assert_eq!(metrics::relative_distance(&[0.0], &[0.0]), Some(0.0));
}

#[test]
fn psnr_of_a_constant_shift_is_known() {
    let picture: Vec<u8> = noise(300, 2).iter().map(|value| value / 2).collect();
    let shifted: Vec<u8> = picture.iter().map(|value| value + 10).collect();
    // 20 lg(255 / 10)
    assert!((metrics::psnr(&picture, &shifted) - 28.130_803_608_679_103).abs() < 1e-12);
    // One value of 300 differs by 255: an MSE of 255² / 300.
    let mut spot = vec![0; 300];
    spot[7] = 255;
    assert!((metrics::psnr(&spot, &[0; 300]) - 10.0 * 300_f64.log10()).abs() < 1e-12);
}

#[test]
fn ssim_of_flat_pictures_is_its_luminance_term() {
    let (a, b) = (100.0, 140.0);
    let c1 = (metrics::K[0] * 255.0_f64).powi(2);
    let expected = (2.0 * a * b + c1) / (a * a + b * b + c1);
    let size = 11 * 15 * 3;
    let found = metrics::ssim(&vec![100; size], &vec![140; size], 11, 15).expect("large enough");
    // Sums of 121 products below 2e4 leave variances of at most 121 * 2e4 * 2^-52 = 5e-10 instead of 0, beside
    // c2 = 58.5: 1e-11 of the second term.
    assert!((found - expected).abs() < 2e-11, "{found} for {expected}");
}

/// SSIM as the paper writes it: for each window, weighted means, then weighted deviations from them.
fn direct_ssim(a: &[u8], b: &[u8], width: usize, height: usize) -> f64 {
    let side = metrics::WINDOW;
    let centre = (side / 2) as f64;
    let square = |x: f64| x * x;
    let weight = |y: usize, x: usize| {
        let distance = square(y as f64 - centre) + square(x as f64 - centre);
        (-distance / (2.0 * square(metrics::WINDOW_SIGMA))).exp()
    };
    let window = || (0..side).flat_map(|y| (0..side).map(move |x| (y, x)));
    let whole: f64 = window().map(|(y, x)| weight(y, x)).sum();
    let [c1, c2] = metrics::K.map(|k| square(k * 255.0));
    let (mut sum, mut n_windows) = (0.0, 0);
    for channel in 0..3 {
        for top in 0..=height - side {
            for left in 0..=width - side {
                let value = |picture: &[u8], y: usize, x: usize| {
                    f64::from(picture[((top + y) * width + left + x) * 3 + channel])
                };
                let mean = |of: &dyn Fn(usize, usize) -> f64| {
                    window().map(|(y, x)| weight(y, x) / whole * of(y, x)).sum::<f64>()
                };
                let (mu_a, mu_b) = (mean(&|y, x| value(a, y, x)), mean(&|y, x| value(b, y, x)));
                let variance_a = mean(&|y, x| square(value(a, y, x) - mu_a));
                let variance_b = mean(&|y, x| square(value(b, y, x) - mu_b));
                let covariance = mean(&|y, x| (value(a, y, x) - mu_a) * (value(b, y, x) - mu_b));
                sum += (2.0 * mu_a * mu_b + c1) * (2.0 * covariance + c2)
                    / ((square(mu_a) + square(mu_b) + c1) * (variance_a + variance_b + c2));
                n_windows += 1;
            }
        }
    }
    sum / f64::from(n_windows)
}

#[test]
fn ssim_is_what_the_paper_writes() {
    let (width, height) = (17, 14);
    let a = noise(width * height * 3, 3);
    // Half alike: neither all structure nor none.
    let mixed = noise(width * height * 3, 4);
    let b: Vec<u8> = a.iter().zip(mixed).map(|(a, b)| a / 2 + b / 2).collect();
    let found = metrics::ssim(&a, &b, width, height).expect("large enough");
    let expected = direct_ssim(&a, &b, width, height);
    assert!((0.1..0.9).contains(&expected), "{expected} tests nothing");
    // Squares up to 65,025 in sums of 121: variances differ by 65,025 * 121 * 2^-52 = 2e-9 at most, and stand over
    // c2 = 58.5 or more.
    assert!((found - expected).abs() < 1e-10, "{found} for {expected}");
    assert_eq!(metrics::ssim(&a, &b, 10, height), None);
}

#[test]
fn the_distance_of_latents_is_relative_to_the_second() {
    assert_eq!(metrics::relative_distance(&[3.0, 4.0], &[0.0, 8.0]), Some(5.0 / 8.0));
    assert_eq!(metrics::relative_distance(&[0.0, 8.0], &[3.0, 4.0]), Some(1.0));
    assert_eq!(metrics::relative_distance(&[1.0], &[1.0, 2.0]), None);
}

// ---- the program -------------------------------------------------------------------------------

/// `ralu bench` on the adapter under test.
fn bench(what: &str) -> Command {
    let mut command = on_adapter("bench");
    command.args([what, "--model", MODEL]);
    command
}

/// A folder with a file of prompts.
fn folder(prompts: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("prompts.txt"), prompts).expect("a file");
    folder
}

const TWO_PROMPTS: &str = "# Two prompts.\na red teapot\n\n  2 cats!  \n";

/// A bench on the smallest pictures that RALU and plain sampling both take.
fn quality(folder: &Path, settings: &[&str]) -> Command {
    let mut command = bench("quality");
    command.arg("--prompts").arg(folder.join("prompts.txt"));
    command.args(["--width", "64", "--height", "64", "--max-sequence-length", "16"]);
    command.args(["--reference-steps", "3"]);
    settings.iter().for_each(|setting| {
        command.args(["--setting", setting]);
    });
    command
}

#[track_caller]
fn json(bench: &mut Command) -> Value {
    crate::command::json(bench.arg("--json"))
}

/// The entries of a list with that setting.
fn of<'a>(report: &'a Value, setting: &str) -> Vec<&'a Value> {
    let pictures = report["pictures"].as_array().expect("pictures");
    pictures.iter().filter(|one| one["setting"] == setting).collect()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("no number: {value}"))
}

fn pixels(path: &Path) -> image::RgbImage {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    image::load_from_memory(&bytes).expect("a PNG").into_rgb8()
}

#[test]
fn pictures_are_compared_with_the_plain_one_of_the_same_seed() {
    let folder = folder(TWO_PROMPTS);
    let out = folder.path().join("out");
    let settings = ["same: --ralu off --steps 3", "7x: --ralu 7x", "--ralu off --steps 1"];
    let mut command = quality(folder.path(), &settings);
    command.args(["--seeds", "5,6", "--output"]).arg(&out);
    let report = json(&mut command);

    assert_eq!(report["bench"], "quality");
    assert!(report["adapter"].as_str().is_some_and(|name| !name.is_empty()), "{report}");
    assert_eq!((&report["width"], &report["height"]), (&64.into(), &64.into()));
    assert_eq!(report["prompts"], serde_json::json!(["a red teapot", "2 cats!"]));
    assert_eq!(report["references"].as_array().map(Vec::len), Some(4));

    let same = of(&report, "same");
    assert_eq!(same.len(), 4);
    for one in same {
        assert!(one["psnr_db"].is_null(), "{one}");
        assert_eq!((number(&one["ssim"]), number(&one["latent_distance"])), (1.0, 0.0));
    }
    // What is reported is what the written pictures show.
    for (setting, folder) in [("7x", "7x"), ("--ralu off --steps 1", "ralu-off-steps-1")] {
        for one in of(&report, setting) {
            let name = if one["prompt"] == 0 { "01-a-red-teapot" } else { "02-2-cats" };
            let name = format!("{name}-{}.png", one["seed"]);
            let picture = pixels(&out.join(folder).join(&name));
            let reference = pixels(&out.join("reference").join(&name));
            assert_eq!(number(&one["psnr_db"]), metrics::psnr(&picture, &reference));
            assert_eq!(one["ssim"].as_f64(), metrics::ssim(&picture, &reference, 64, 64));
            assert!(number(&one["latent_distance"]) > 1e-3, "{one}");
            assert!(number(&one["seconds"]) > 0.0, "{one}");
        }
    }

    let summary = report["summary"].as_array().expect("a summary");
    let names: Vec<&str> = summary.iter().filter_map(|one| one["name"].as_str()).collect();
    assert_eq!(names, ["reference", "same", "7x", "--ralu off --steps 1"]);
    assert_eq!(number(&summary[1]["predicted_speedup"]), 1.0);
    // RALU 7x takes 2 + 3 + 5.
    let steps: Vec<f64> = summary.iter().map(|one| number(&one["computed_steps"])).collect();
    assert_eq!(steps, [3.0, 3.0, 10.0, 1.0]);
    let predicted = number(&summary[3]["predicted_speedup"]);
    assert!((1.0..3.0).contains(&predicted), "text and decoding cost the same: {predicted}");
    for one in &summary[1..] {
        let speedup = number(&summary[0]["median_seconds"]) / number(&one["median_seconds"]);
        assert!((number(&one["speedup"]) - speedup).abs() < 1e-9 * speedup, "{one}");
    }
    let distances: Vec<f64> =
        of(&report, "7x").iter().map(|one| number(&one["latent_distance"])).collect();
    let mean = distances.iter().sum::<f64>() / 4.0;
    let variance = distances.iter().map(|one| (one - mean).powi(2)).sum::<f64>() / 3.0;
    let found = &summary[2]["latent_distance"];
    assert!((number(&found["mean"]) - mean).abs() < 1e-12);
    assert!((number(&found["standard_error"]) - (variance / 4.0).sqrt()).abs() < 1e-12);

    let kept: Value =
        serde_json::from_slice(&fs::read(out.join("results.json")).expect("a file")).expect("JSON");
    assert_eq!(kept, report);
    let table = fs::read_to_string(out.join("table.md")).expect("a table");
    let row = table.lines().find(|line| line.starts_with("| same")).expect("a row");
    assert!(row.contains(" inf "), "{row}");
    // Four columns of pictures beside each other, two rows above each other.
    let sheet = pixels(&out.join("contact.png"));
    assert!(sheet.width() > 4 * 64 && sheet.height() > 2 * 64, "{:?}", sheet.dimensions());
    let reference = pixels(&out.join("reference").join("01-a-red-teapot-5.png"));
    let found = (0..=sheet.height() - 64).any(|y| {
        (0..=sheet.width() - 64).any(|x| {
            reference.enumerate_pixels().all(|(i, j, pixel)| sheet.get_pixel(x + i, y + j) == pixel)
        })
    });
    assert!(found, "the first reference is not on the sheet");
}

#[test]
fn options_of_the_bench_are_the_base_of_all_settings() {
    let folder = folder("a red teapot");
    let settings = folder.path().join("settings.txt");
    fs::write(&settings, "# One a line.\nown:\n\nother: --steps 2\n").expect("a file");
    let mut command =
        quality(folder.path(), &["text: --negative-prompt 'no cats: none' --true-cfg 2"]);
    command.args(["--ralu", "off", "--steps", "3", "--settings"]).arg(&settings);
    let report = json(&mut command);
    assert!(of(&report, "own")[0]["psnr_db"].is_null(), "three steps are the reference's");
    for other in ["other", "text"] {
        assert!(number(&of(&report, other)[0]["latent_distance"]) > 1e-4, "{other} has no effect");
    }
}

#[test]
fn without_settings_the_usual_ones_are_compared() {
    let folder = folder("a red teapot");
    let mut command = quality(folder.path(), &[]);
    let output = succeeds(command.arg("--quiet"));
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    let starts = ["plain 50", "plain 28", "plain 10", "plain 7"].map(str::to_owned);
    let ralu = ["4x", "5x", "7x"]
        .iter()
        .flat_map(|preset| ["official", "exact"].map(|variant| format!("RALU {preset} {variant}")));
    for start in starts.into_iter().chain(ralu) {
        let rows = table.lines().filter(|line| line.starts_with(&format!("{start} ")));
        assert_eq!(rows.count(), 1, "{start}: {table}");
    }
}

/// The numbers that only measuring gives.
fn seconds(report: &Value) -> Vec<f64> {
    let lists = ["references", "pictures"].map(|list| report[list].as_array().expect("a list"));
    lists.iter().flat_map(|list| list.iter().map(|one| number(&one["seconds"]))).collect()
}

#[test]
fn a_second_run_goes_on_where_the_first_stopped() {
    let folder = folder(TWO_PROMPTS);
    let out = folder.path().join("out");
    let run = |settings: &[&str]| {
        let mut command = quality(folder.path(), settings);
        command.arg("--output").arg(&out);
        command
    };
    let (a, b) = ("a: --ralu off --steps 2", "b: --ralu off --steps 1");
    let first = json(&mut run(&[a]));

    // Nothing is made twice.
    let output = succeeds(run(&[a]).arg("--json"));
    assert!(!stderr(&output).contains("picture"), "{}", stderr(&output));
    let again: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(seconds(&again), seconds(&first));

    // A setting more, compared with the kept references.
    let both = json(&mut run(&[a, b]));
    assert_eq!(of(&both, "a"), of(&first, "a"));
    assert_eq!(both["references"], first["references"]);
    assert_eq!(of(&both, "b").len(), 2);

    // As if it had been stopped, and a reference removed.
    let path = out.join("results.json");
    let mut kept = both.clone();
    let pictures = kept["pictures"].as_array_mut().expect("pictures");
    pictures.retain(|one| one["setting"] == "a" || one["prompt"] == 0);
    assert_eq!(pictures.len(), 3);
    fs::write(&path, kept.to_string()).expect("a file");
    fs::remove_file(out.join("reference").join("02-2-cats-7.png")).expect("a picture");
    let whole = json(&mut run(&[a, b]));
    for field in ["psnr_db", "ssim", "latent_distance"] {
        assert_eq!(of(&whole, "b")[1][field], of(&both, "b")[1][field], "{field}");
    }
    assert_eq!(of(&whole, "b")[0], of(&both, "b")[0]);
    assert!(out.join("reference").join("02-2-cats-7.png").exists());

    // What is not the same comparison is not mixed with it.
    let before = fs::read(&path).expect("results");
    let another = &["results.json", "another comparison", "another folder"];
    fails(run(&[a, b]).args(["--seeds", "7,8"]), 1, &[another.as_slice(), &["seeds"]].concat());
    fails(run(&[a, b]).args(["--width", "96"]), 1, &[another.as_slice(), &["64 x 64"]].concat());
    fails(run(&[a, b]).args(["--true-cfg", "3"]), 1, &[another.as_slice(), &["guidance"]].concat());
    fails(run(&[a]).args(["--reference-steps", "4"]), 1, &["reference steps was 3, not 4"]);
    fails(&mut run(&[a, "b: --ralu off --steps 3"]), 1, &["\"b\" was \"--ralu off --steps 1\""]);
    fails(&mut run(&[b]), 1, &["\"a\", which is not given"]);
    fs::write(folder.path().join("prompts.txt"), "a red teapot").expect("a file");
    fails(&mut run(&[a, b]), 1, &[another.as_slice(), &["prompts"]].concat());
    assert_eq!(fs::read(&path).expect("results"), before);
    fs::write(&path, "{}").expect("a file");
    fails(&mut run(&[a]), 1, &["results.json", "does not hold results"]);
}

#[cfg(unix)]
#[test]
fn ctrl_c_keeps_what_is_done() {
    use std::io::{BufRead, BufReader};
    let folder = folder(TWO_PROMPTS);
    let out = folder.path().join("out");
    let mut command = quality(folder.path(), &["long: --ralu off --steps 1000"]);
    command.arg("--output").arg(&out).stdin(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.stdout(Stdio::null()).spawn().expect("the program starts");
    let mut lines = BufReader::new(child.stderr.take().expect("stderr")).lines();
    let second = lines.find(|line| line.as_ref().is_ok_and(|line| line.contains("picture 2 of 4")));
    assert!(second.is_some(), "no second picture");
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(sent.expect("kill runs").success());
    let rest: Vec<String> = lines.map_while(Result::ok).collect();
    assert_eq!(child.wait().expect("an end").code(), Some(130), "{rest:?}");
    assert!(rest.iter().any(|line| line.contains("1 of 4 pictures are kept")), "{rest:?}");
    let kept: Value =
        serde_json::from_slice(&fs::read(out.join("results.json")).expect("a file")).expect("JSON");
    assert_eq!(kept["references"].as_array().map(Vec::len), Some(1));
    assert_eq!(kept["pictures"].as_array().map(Vec::len), Some(0));
}

#[test]
fn prompts_that_are_not_there_are_refused() {
    fails(&mut bench("quality"), 2, &["--prompts FILE"]);
    let folder = folder("# nothing\n\n");
    fails(&mut quality(folder.path(), &[]), 1, &["prompts.txt", "are empty", "one a line"]);
    fs::remove_file(folder.path().join("prompts.txt")).expect("the file");
    fails(&mut quality(folder.path(), &[]), 1, &["prompts.txt", "cannot be read"]);
}

#[test]
fn bad_settings_are_named_before_anything_runs() {
    let folder = folder("a red teapot");
    let out = folder.path().join("out");
    let good = "good: --ralu off --steps 1";
    let refused = |setting: &str, code: i32, parts: &[&str]| {
        let mut command = quality(folder.path(), &[good, setting]);
        fails(command.arg("--output").arg(&out), code, parts);
        assert!(!out.exists(), "{setting} began");
    };
    refused("bad: --stepz 4", 2, &["\"bad\"", "--stepz", "--ralu 7x"]);
    refused("bad: --steps many", 2, &["\"bad\"", "'many'", "a whole number"]);
    refused("bad: --ralu 9x", 2, &["\"bad\"", "'9x'", "7x"]);
    refused("bad: --ralu custom", 2, &["\"bad\"", "--stage-steps"]);
    refused("bad: --steps 0", 1, &["\"bad\"", "0"]);
    refused("bad: --negative-prompt 'a cat", 2, &["\"bad\"", "not closed"]);
    refused("bad: --model elsewhere", 2, &["\"bad\"", "--model is the same for all"]);
    refused("bad: --seed 4", 2, &["\"bad\"", "--seed is the same for all"]);
    refused("bad: --output elsewhere", 2, &["\"bad\"", "--output"]);
    refused("bad: --width 128", 2, &["\"bad\"", "128 x 64", "64 x 64"]);
    refused("a fox", 2, &["\"a fox\"", "'a'"]);
    refused(": --steps 4", 2, &["no name", "NAME: OPTIONS"]);
    refused("good: --steps 2", 2, &["\"good\"", "a name of its own"]);
    refused("--steps 4 --regions no.png --ralu 7x", 1, &["--regions no.png", "cannot be used"]);
}

#[test]
fn sizes_that_ralu_pads_are_refused() {
    let folder = folder("a red teapot");
    let mut command = quality(folder.path(), &["padded: --ralu 7x"]);
    fails(command.args(["--width", "80"]), 2, &["\"padded\"", "96 x 64", "80 x 64", "32"]);
}

#[test]
fn options_of_other_benches_are_refused() {
    let folder = folder("a red teapot");
    let one = |option: &str, value: &str| {
        let mut command = quality(folder.path(), &["a: --steps 1"]);
        command.args([option, value]);
        command
    };
    for option in ["--seed", "--count", "--runs"] {
        fails(&mut one(option, "2"), 2, &["--seeds", option]);
    }
    fails(&mut one("--seeds", "1,2,1"), 2, &["1 twice"]);
    fails(bench("run").args(["--seeds", "1"]), 2, &["bench quality", "--seeds"]);
}
