//! `--regions`: what of a mask is painted, and what is said of one that has no effect.

use std::fs;
use std::path::Path;

use crate::command::{fails, ralu, succeeds};
use crate::picture::{MODEL, RALU, chunk, folder, png};
use serde_json::Value;

/// A PNG of 8 bits of that colour type: 32 x 32 pixels for 4 x 4 tokens.
fn mask(path: &Path, color: u8, more: &[Vec<u8>], pixel: impl Fn(usize, usize) -> Vec<u8>) {
    let header = [0, 0, 0, 32, 0, 0, 0, 32, 8, color, 0, 0, 0];
    let mut rows = vec![];
    for y in 0..32 {
        rows.push(0);
        (0..32).for_each(|x| rows.extend(pixel(x, y)));
    }
    let pixels = chunk(b"IDAT", &fdeflate::compress_to_vec(&rows));
    let chunks = [&[chunk(b"IHDR", &header)], more, &[pixels, chunk(b"IEND", b"")]].concat();
    fs::write(path, png(&chunks)).expect("a file");
}

/// The tokens that become regions with a mask, if any do, and the warnings.
fn regions(mask: &Path, options: &[&str]) -> (Vec<u64>, Vec<String>) {
    let mut command = crate::command::on_adapter("generate");
    command.args(["a fox", "--model", MODEL, "--seed", "1", "--max-sequence-length", "16"]);
    command.args(["--width", "128", "--height", "128", "--events", "json"]).args(RALU);
    command.arg("-o").arg(mask.with_file_name("out.png")).arg("--regions").arg(mask);
    let output = succeeds(command.args(options));
    let lines = crate::command::stdout(&output);
    let events: Vec<Value> =
        lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let of = |name: &'static str| events.iter().filter(move |event| event["event"] == name);
    let numbers =
        |list: &Value| list.as_array().expect("a list").iter().filter_map(Value::as_u64).collect();
    let selected = of("regions").next().map(|event| numbers(&event["selected"]));
    let warnings = of("warning").filter_map(|event| event["message"].as_str().map(str::to_owned));
    // Which the size always is.
    let warnings = warnings.filter(|message| !message.contains("small for RALU"));
    (selected.unwrap_or_default(), warnings.collect())
}

const LEFT: [u64; 8] = [0, 1, 4, 5, 8, 9, 12, 13];

#[test]
fn what_is_erased_is_not_painted() {
    let folder = folder();
    let path = folder.path().join("mask.png");
    let left = |x: usize| if x < 16 { 255 } else { 0 };
    let none: [Vec<u8>; 0] = [];
    mask(&path, 0, &none, |x, _| vec![left(x)]);
    assert_eq!(regions(&path, &[]), (LEFT.to_vec(), vec![]), "grey");
    mask(&path, 6, &none, |x, _| vec![255, 255, 255, left(x)]);
    assert_eq!(regions(&path, &[]).0, LEFT, "colour with opacity");
    mask(&path, 4, &none, |x, _| vec![255, left(x)]);
    assert_eq!(regions(&path, &[]).0, LEFT, "grey with opacity");
    // White, and white that is transparent.
    let palette = [chunk(b"PLTE", &[255; 6]), chunk(b"tRNS", &[255, 0])];
    mask(&path, 3, &palette, |x, _| vec![u8::from(x >= 16)]);
    assert_eq!(regions(&path, &[]).0, LEFT, "palette");
    // One colour is transparent: a white that is nearly the other one.
    let key = [chunk(b"tRNS", &[0, 254])];
    mask(&path, 0, &key, |x, _| vec![if x < 16 { 255 } else { 254 }]);
    assert_eq!(regions(&path, &[]).0, LEFT, "a transparent grey");
    let key = [chunk(b"tRNS", &[0, 255, 0, 255, 0, 254])];
    mask(&path, 2, &key, |x, _| vec![255, 255, if x < 16 { 255 } else { 254 }]);
    assert_eq!(regions(&path, &[]).0, LEFT, "a transparent colour");
}

#[test]
fn a_mask_without_effect_is_warned_of() {
    let folder = folder();
    let path = folder.path().join("mask.png");
    let gray = |value: &dyn Fn(usize, usize) -> u8| {
        let none: [Vec<u8>; 0] = [];
        mask(&path, 0, &none, |x, y| vec![value(x, y)]);
    };
    let warned = |options: &[&str], part: &str| {
        let (selected, warnings) = regions(&path, options);
        assert!(warnings.iter().any(|warning| warning.contains(part)), "{warnings:?}");
        selected
    };
    // A thin line, a dim grey, nothing.
    for value in [&|_, y| if y == 15 { 255 } else { 0 }, &|_, _| 100, &|_, _| 0]
        as [&dyn Fn(usize, usize) -> u8; 3]
    {
        gray(value);
        assert_eq!(warned(&[], "cover no token"), [0u64; 0]);
        // The found ones alone.
        assert_eq!(warned(&["--regions-add"], "nothing is added").len(), 4);
    }
    gray(&|_, _| 255);
    warned(&[], "cover the whole picture");
    gray(&|x, _| if x < 24 { 255 } else { 0 });
    assert_eq!(regions(&path, &[]).1, [""; 0]);
    warned(&["--regions-add"], "together");
    warned(&["--height", "96"], "32 x 32 pixels and the picture 128 x 96: it is stretched");
}

#[test]
fn a_mask_that_is_none_or_too_large_is_refused() {
    let folder = folder();
    let path = folder.path().join("mask.png");
    let plan = || {
        let mut command = ralu();
        command.args(["plan", "--model", "flux.1-dev", "--regions"]).arg(&path);
        command
    };
    fs::write(&path, "no picture").expect("a file");
    fails(&mut plan(), 1, &["mask.png", "not a readable PNG", "white where detail matters"]);
    let header = [0, 0, 0x80, 0, 0, 0, 0x80, 0, 16, 6, 0, 0, 0];
    fs::write(&path, png(&[chunk(b"IHDR", &header), chunk(b"IEND", b"")])).expect("a file");
    fails(&mut plan(), 1, &["mask.png", "32768 x 32768"]);
    fs::remove_file(&path).expect("removed");
    fs::create_dir(&path).expect("a folder");
    fails(&mut plan(), 1, &["mask.png"]);
}
