//! `--from`: pictures that other programs have rewritten, those of older versions, and those of strangers.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::command::{fails, on_adapter, ralu, root, stderr, stdout, succeeds};
use crate::picture::{bytes, chunk, chunks, folder, pixel_with, plain, png, request};
use serde_json::{Value, json};

#[test]
fn a_request_is_plain_ascii_in_the_oldest_kind_of_chunk() {
    let folder = folder();
    let path = folder.path().join("a.png");
    succeeds(&mut plain("a café, 猫 🦊\u{7f}", &path));
    let chunks = chunks(&bytes(&path));
    let texts =
        chunks.iter().filter(|(kind, chunk)| kind == b"tEXt" && chunk[8..].starts_with(b"ralu\0"));
    let texts: Vec<&[u8]> = texts.map(|(_, chunk)| &chunk[13..chunk.len() - 4]).collect();
    let [text] = texts.as_slice() else { panic!("{} requests", texts.len()) };
    assert!(text.iter().all(|byte| (b' '..=b'~').contains(byte)));
    let text = std::str::from_utf8(text).expect("ASCII");
    assert!(text.contains(r#""prompt":"a caf\u00e9, \u732b \ud83e\udd8a\u007f""#), "{text}");
}

#[test]
fn a_picture_that_was_rewritten_is_drawn_again() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    succeeds(&mut plain("a café, 猫", &path("first.png")));
    let first = bytes(&path("first.png"));
    let (texts, rest): (Vec<_>, Vec<_>) =
        chunks(&first).into_iter().partition(|(kind, _)| kind.ends_with(b"Xt"));
    let whole = |chunks: &[([u8; 4], Vec<u8>)]| -> Vec<Vec<u8>> {
        chunks.iter().map(|(_, chunk)| chunk.clone()).collect()
    };
    let request = texts.iter().find(|(_, chunk)| chunk[8..].starts_with(b"ralu\0"));
    let request = request.expect("a request").1.clone();
    let body = &request[13..request.len() - 4];
    let (end, begin) = (whole(&rest[rest.len() - 1..]), whole(&rest[..rest.len() - 1]));
    // ImageMagick 6 packs long texts, ImageMagick 7 and older versions of ralu have UTF-8.
    let utf8 = serde_json::from_slice::<serde_json::Value>(body).expect("JSON").to_string();
    let packed = |text: &[u8]| fdeflate::compress_to_vec(text);
    let rewritten = [
        ("behind the pixels", [begin.clone(), vec![request.clone()], end.clone()].concat()),
        (
            "packed",
            [
                begin.clone(),
                vec![chunk(b"zTXt", &[b"ralu\0\0", &packed(body)[..]].concat())],
                end.clone(),
            ]
            .concat(),
        ),
        (
            "packed UTF-8",
            [
                begin.clone(),
                vec![chunk(b"zTXt", &[b"ralu\0\0", &packed(utf8.as_bytes())[..]].concat())],
                end.clone(),
            ]
            .concat(),
        ),
        (
            "iTXt",
            [
                begin.clone(),
                vec![chunk(b"iTXt", &[b"ralu\0\0\0\0\0", utf8.as_bytes()].concat())],
                end,
            ]
            .concat(),
        ),
        ("cut off behind the request", [vec![begin[0].clone(), request]].concat()),
    ];
    for (what, chunks) in rewritten {
        fs::write(path("other.png"), png(&chunks)).expect("a file");
        let mut command = on_adapter("generate");
        command.arg("--from").arg(path("other.png")).arg("-o").arg(path("again.png"));
        succeeds(&mut command);
        assert!(bytes(&path("again.png")) == first, "{what}");
    }
    // Programs that keep no texts.
    fs::write(path("other.png"), png(&whole(&rest))).expect("a file");
    fails(ralu().args(["plan", "--from"]).arg(path("other.png")), 1, &["no request"]);
}

/// Made by version 0.1.0, with its request in iTXt.
#[test]
fn a_picture_of_an_older_version_is_planned_again() {
    let old = root().join("tests/fixtures/picture-0.1.png");
    assert!(
        chunks(&bytes(&old))
            .iter()
            .any(|(kind, chunk)| kind == b"iTXt" && chunk[8..].starts_with(b"ralu\0"))
    );
    succeeds(ralu().args(["plan", "--from"]).arg(old));
}

#[cfg(unix)]
#[test]
fn a_picture_can_come_through_a_pipe() {
    let folder = folder();
    let path = folder.path().join("a.png");
    fs::write(&path, pixel_with(b"tEXt", format!("ralu\0{}", request(json!({}))).as_bytes()))
        .expect("a file");
    let mut command = ralu();
    let file = fs::File::open(&path).expect("a file");
    let mut cat = std::process::Command::new("cat");
    let mut cat = cat.stdin(file).stdout(std::process::Stdio::piped()).spawn().expect("cat runs");
    command.args(["plan", "--from", "/dev/stdin"]).stdin(cat.stdout.take().expect("a pipe"));
    assert!(command.output().expect("an end").status.success());
    assert!(cat.wait().expect("an end").success());
}

/// What a run says that its products rounded to.
fn products(command: &mut Command) -> (String, String) {
    let output = succeeds(command.args(["--events", "json"]));
    let lines = stdout(&output);
    let events = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("an event"));
    let images: Vec<Value> = events.filter(|event| event["event"] == "image").collect();
    let [image] = &images[..] else { panic!("{lines}") };
    (image["products"].as_str().expect("a name").to_owned(), stderr(&output))
}

/// The picture's own words.
fn saved(path: &Path) -> Value {
    let chunks = chunks(&bytes(path));
    let request = chunks.iter().find(|(_, chunk)| chunk[8..].starts_with(b"ralu\0"));
    let chunk = &request.expect("a request").1;
    serde_json::from_slice(&chunk[13..chunk.len() - 4]).expect("JSON")
}

#[test]
fn a_picture_says_what_its_products_rounded_to() {
    let folder = folder();
    let path = folder.path().join("a.png");
    let (made, _) = products(&mut plain("a fox", &path));
    assert_eq!(saved(&path)["products"], json!(made));
    let (made, _) = products(plain("a fox", &path).args(["--precision", "f32"]));
    assert_eq!(made, "f32");
    assert_eq!(
        (&saved(&path)["products"], &saved(&path)["precision"]),
        (&json!("f32"), &json!("f32"))
    );
}

#[test]
fn a_picture_is_repeated_with_its_products_or_it_is_said_that_it_is_not() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let (usual, _) = products(&mut plain("a fox", &path("usual.png")));
    for (changes, wanted) in [
        (json!({}), "f32"),
        (json!({ "products": "f32" }), "f32"),
        (json!({ "products": "f16" }), "f16"),
    ] {
        let text = format!("ralu\0{}", request(changes.clone()));
        fs::write(path("asked.png"), pixel_with(b"tEXt", text.as_bytes())).expect("a file");
        let again = |more: &[&str]| {
            let mut command = on_adapter("generate");
            let _ = fs::remove_file(path("again.png"));
            command
                .arg("--from")
                .arg(path("asked.png"))
                .arg("-o")
                .arg(path("again.png"))
                .args(more);
            products(&mut command)
        };
        let (made, told) = again(&[]);
        assert!(made == wanted || usual == "f32", "{changes}: {made}");
        let is_said = told.contains(&format!("made with products in {wanted}, this one in {made}"));
        assert_eq!(is_said, made != wanted, "{changes}: {told}");
        // Asked for by the user, it is no surprise.
        let (made, told) = again(&["--precision", "f32"]);
        assert_eq!(made, "f32");
        assert!(!told.contains("made with products"), "{told}");
    }
}
