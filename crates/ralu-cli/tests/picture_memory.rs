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
use picture::{folder, pixel_with, request};
use serde_json::json;

/// Most that a program may take, in MiB.
const MOST: libc::c_long = 300;

/// A text with many repetitions of a few letters in its middle, packed without ever being whole: a stream of deflate's
/// fixed codes, in which 13 bits stand for 258 letters.
fn packed(begin: &str, letters: &str, times: usize, end: &str) -> Vec<u8> {
    let mut stream = Stream { bytes: vec![0x78, 0x01], bits: 0, n_bits: 0 };
    // The last block, with fixed codes.
    stream.push(0b011, 3);
    begin.bytes().chain(letters.bytes()).for_each(|letter| stream.letter(letter));
    let rest = letters.len() * (times - 1);
    for _ in 0..rest / 258 {
        // Copy 258 letters from as far back as a repetition is long.
        stream.push(0xc5u8.reverse_bits().into(), 8);
        stream.push(u32::from((letters.len() as u8 - 1).reverse_bits() >> 3), 5);
    }
    letters
        .bytes()
        .cycle()
        .skip(rest / 258 * 258 % letters.len())
        .take(rest % 258)
        .for_each(|letter| stream.letter(letter));
    end.bytes().for_each(|letter| stream.letter(letter));
    stream.push(0, 7 + 7);
    let middle = letters.bytes().cycle().take(letters.len() * times);
    let (a, b) =
        begin.bytes().chain(middle).chain(end.bytes()).fold((1u32, 0u32), |(a, b), letter| {
            let a = (a + u32::from(letter)) % 65_521;
            (a, (b + a) % 65_521)
        });
    [stream.bytes, (b << 16 | a).to_be_bytes().to_vec()].concat()
}

/// Bits, the lowest of each byte first.
struct Stream {
    bytes: Vec<u8>,
    bits: u32,
    n_bits: u32,
}

impl Stream {
    fn push(&mut self, bits: u32, n_bits: u32) {
        self.bits |= bits << self.n_bits;
        self.n_bits += n_bits;
        while self.n_bits >= 8 {
            self.bytes.push(self.bits as u8);
            self.bits >>= 8;
            self.n_bits -= 8;
        }
    }

    /// One of ASCII's.
    fn letter(&mut self, letter: u8) {
        self.push((0x30 + letter).reverse_bits().into(), 8);
    }
}

/// A picture with that request, packed, whose list `[7]` has that many values instead.
fn with_list(request: &str, value: &str, times: usize) -> Vec<u8> {
    let (begin, end) = request.split_once("[7]").expect("a list");
    let text = packed(&format!("{begin}["), &format!("{value},"), times, &format!("{value}]{end}"));
    pixel_with(b"zTXt", &[b"ralu\0\0", &text[..]].concat())
}

#[test]
fn a_small_picture_takes_little_memory() {
    let unpacked = fdeflate::decompress_to_vec(&packed("a[", "xyz", 500, "]")).expect("a stream");
    assert_eq!(unpacked, format!("a[{}]", "xyz".repeat(500)).into_bytes());

    let folder = folder();
    let path = folder.path().join("bomb.png");
    let spaces = packed("", " ", 1 << 29, "");
    let with = |kind: &[u8; 4], head: &[u8]| pixel_with(kind, &[head, &spaces].concat());
    let regions = request(json!({ "ralu": {
        "name": "off", "variant": "exact", "parameters": null,
        "regions": { "add": false, "rows": 1, "columns": 1, "tokens": [7] },
    } }));
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
fn largest_child() -> libc::c_long {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: it is written, or stays all zeros.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_CHILDREN, usage.as_mut_ptr());
        usage.assume_init()
    };
    usage.ru_maxrss
}
