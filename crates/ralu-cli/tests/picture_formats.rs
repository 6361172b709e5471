//! Pictures as PNG, JPEG and WebP, on stdout, and with what they say about themselves.

use std::fs;
use std::path::Path;

use crate::command::{fails, json, ralu, stderr, stdout, succeeds};
use crate::picture::{folder, plain};

const PROMPT: &str = "a \"red\" fox, привет 🦊";

fn draw(to: &Path, options: &[&str]) -> Vec<u8> {
    succeeds(plain(PROMPT, to).args(options));
    fs::read(to).expect("a picture")
}

fn pixels(picture: &[u8]) -> Vec<u8> {
    image::load_from_memory(picture).expect("a picture").to_rgb8().into_raw()
}

fn mean_difference(a: &[u8], b: &[u8]) -> f64 {
    let sum: u64 = a.iter().zip(b).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
    sum as f64 / a.len() as f64
}

/// The name's ending says the format; each carries the request, and draws the same picture again.
#[test]
fn a_picture_has_the_format_of_its_name() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let png = pixels(&draw(&path("a.png"), &[]));
    assert!(pixels(&draw(&path("a.webp"), &[])) == png, "WebP loses nothing");
    let (good, bad) =
        (draw(&path("a.JPG"), &["--quality=98"]), draw(&path("b.jpeg"), &["--quality=20"]));
    assert!(bad.len() < good.len(), "{} and {} bytes", bad.len(), good.len());
    let differences = [&good, &bad].map(|jpeg| mean_difference(&pixels(jpeg), &png));
    // A picture of noise, so the good one is not close either.
    assert!(differences[0] < 4.0 && differences[0] < differences[1], "{differences:?}");

    let request = |name: &str| json(ralu().args(["inspect", "--json"]).arg(path(name)));
    let expected = request("a.png");
    assert_eq!(expected["prompt"], PROMPT);
    for name in ["a.webp", "a.JPG", "b.jpeg"] {
        assert_eq!(request(name), expected, "{name}");
        let again = path("again.png");
        let mut command = crate::command::on_adapter("generate");
        succeeds(command.arg("--from").arg(path(name)).arg("-o").arg(&again));
        assert!(
            pixels(&fs::read(&again).expect("a picture")) == png,
            "{name} draws another picture"
        );
    }
    let said = stdout(&succeeds(ralu().arg("inspect").arg(path("a.JPG"))));
    for part in ["prompt: a \"red\" fox, привет 🦊", "seed: 1", "64 x 64", "ralu generate --from"]
    {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    fails(ralu().arg("inspect").arg(path("a.png")).arg("--no-t5"), 2, &["is a picture"]);
}

/// What galleries read: A1111's text, in PNG's chunk `parameters` and in EXIF's user comment.
#[test]
fn other_programs_find_the_parameters() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let parameters = format!(
        "{PROMPT}\nSteps: 1, Sampler: Euler, CFG scale: 1, Distilled CFG Scale: 3.5, Seed: 1, Size: 64x64, Model: "
    );
    let contains = |bytes: &[u8], part: &[u8]| bytes.windows(part.len()).any(|w| w == part);
    let options = ["--guidance=3.5"];
    let png = draw(&path("a.png"), &options);
    assert!(contains(&png, parameters.as_bytes()), "not in the PNG");
    let mut comment = b"UNICODE\0".to_vec();
    comment.extend(parameters.encode_utf16().flat_map(u16::to_be_bytes));
    for name in ["a.jpg", "a.webp"] {
        assert!(contains(&draw(&path(name), &options), &comment), "not in {name}");
    }
}

#[test]
fn a_picture_goes_to_stdout() {
    let folder = folder();
    let file = draw(&folder.path().join("a.png"), &[]);
    let output = succeeds(&mut plain(PROMPT, Path::new("-")));
    assert!(output.stdout == file, "{} bytes, {} in the file", output.stdout.len(), file.len());
    fails(plain(PROMPT, Path::new("-")).args(["--events", "json"]), 2, &["--output -", "--events"]);
    fails(plain(PROMPT, Path::new("-")).args(["--count", "2"]), 2, &["one picture"]);
}

#[test]
fn metadata_are_left_out_if_asked_and_missed_if_they_have_no_room() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    for name in ["a.png", "a.jpg", "a.webp"] {
        let picture = draw(&path(name), &["--no-metadata"]);
        for word in [&b"ralu"[..], b"red", b"Exif"] {
            assert!(!picture.windows(word.len()).any(|part| part == word), "{word:?} in {name}");
        }
        fails(ralu().arg("inspect").arg(path(name)), 1, &["carries no request"]);
    }
    let long = "fox ".repeat(20_000);
    for (name, is_lost) in [("b.jpg", true), ("b.webp", false)] {
        let said = stderr(&succeeds(&mut plain(&long, &path(name))));
        assert_eq!(said.contains("a JPEG has no room"), is_lost, "{said}");
    }
    fails(ralu().arg("inspect").arg(path("b.jpg")), 1, &["carries no request"]);
    assert_eq!(json(ralu().args(["inspect", "--json"]).arg(path("b.webp")))["prompt"], long);
}

#[test]
fn wrong_formats_are_refused() {
    let draw = |name: &str| plain("a fox", Path::new(name));
    fails(&mut draw("fox.gif"), 2, &["fox.gif", ".png, .jpg, .jpeg, .webp", "stdout"]);
    fails(&mut draw("fox"), 2, &[".png"]);
    fails(draw("fox.png").arg("--quality=90"), 2, &["--quality", "--output FILE.jpg"]);
    fails(draw("fox.jpg").arg("--quality=0"), 2, &["1..=100"]);
}
