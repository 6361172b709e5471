//! What is small in a stranger's picture is not made large in memory.
//!
//! The largest program that this one has started is measured, so no other test belongs here.

#![cfg(target_os = "linux")]

#[path = "common/command.rs"]
mod command;
#[path = "common/picture.rs"]
mod picture;

use std::fs;

use command::{fails, ralu};
use fdeflate::Compressor;
use picture::{folder, pixel_with, request};
use serde_json::json;

/// Most that a program may take, in MiB.
const MOST: i64 = 300;

/// Parts, each that many times, packed without ever being whole.
fn packed(parts: &[(&str, usize)]) -> Vec<u8> {
    let mut compressor = Compressor::new(vec![]).expect("a beginning");
    for (text, times) in parts {
        let many = (1 << 20) / text.len();
        let block = text.repeat(many.min(*times));
        for _ in 0..times / many {
            compressor.write_data(block.as_bytes()).expect("written");
        }
        compressor.write_data(text.repeat(times % many).as_bytes()).expect("written");
    }
    compressor.finish().expect("an end")
}

/// A picture with that request, packed, whose list `[7]` has that many values instead.
fn with_list(request: &str, value: &str, times: usize) -> Vec<u8> {
    let (begin, end) = request.split_once("[7]").expect("a list");
    let text = packed(&[
        (&format!("{begin}[{value}"), 1),
        (&format!(",{value}"), times),
        (&format!("]{end}"), 1),
    ]);
    pixel_with(b"zTXt", &[b"ralu\0\0", &text[..]].concat())
}

#[test]
fn a_small_picture_takes_little_memory() {
    let folder = folder();
    let path = folder.path().join("bomb.png");
    let spaces = packed(&[(" ", 1 << 30)]);
    let with = |kind: &[u8; 4], head: &[u8]| pixel_with(kind, &[head, &spaces].concat());
    let ralu_rules = |tokens: &str| {
        json!({ "name": "off", "variant": "exact", "parameters": null,
            "regions": { "add": false, "rows": 1, "columns": 1, "tokens": [tokens] } })
    };
    let regions = request(json!({ "ralu": ralu_rules("x") })).replace("[\"x\"]", "[7]");
    let given = request(json!({ "given": [7] }));
    let declared = [&pixel_with(b"tEXt", b"")[..33], b"\x7f\xff\xff\xfftEXtralu\0"].concat();
    for (what, png, part) in [
        ("iTXt", with(b"iTXt", b"ralu\0\x01\0\0\0"), "64 MiB"),
        ("zTXt", with(b"zTXt", b"ralu\0\0"), "64 MiB"),
        ("another's", with(b"zTXt", b"Comment\0\0"), "no request"),
        ("a profile", with(b"iCCP", b"x\0\0"), "no request"),
        ("given", with_list(&given, "\"\"", 20 << 20), "at most 64 values"),
        ("tokens", with_list(&regions, "7", 30 << 20), "at most 1048576 values"),
        ("a length", declared, "ends too early"),
    ] {
        fs::write(&path, png).expect("a file");
        fails(ralu().args(["plan", "--from"]).arg(&path), 1, &["bomb.png", part]);
        let peak = largest_child() >> 10;
        assert!(peak < MOST, "{what}: {peak} MiB");
    }
}

/// Most memory that a program had which this one has started and seen end, in KiB.
fn largest_child() -> i64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: it is written, or stays all zeros.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_CHILDREN, usage.as_mut_ptr());
        usage.assume_init()
    };
    i64::from(usage.ru_maxrss)
}
