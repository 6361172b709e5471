//! Finished pictures in terminals that can show some.

#![cfg(unix)]

use std::fs::File;
use std::io::Read;
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::command::{fails, run, stderr};
use crate::picture::{bytes, folder, plain};

/// Width, height and pixels of a PNG.
fn pixels(png: &[u8]) -> (u32, u32, Vec<u8>) {
    let picture = image::load_from_memory(png).expect("a picture").into_rgb8();
    (picture.width(), picture.height(), picture.into_raw())
}

#[test]
fn protocols_carry_the_picture() {
    let folder = folder();
    let path = folder.path().join("a.png");
    let said = |protocol: &str| {
        let output = run(plain("a fox", &path).args(["--preview", protocol]));
        assert!(output.status.success(), "{}", stderr(&output));
        stderr(&output)
    };
    let kitty = said("kitty");
    let pieces = kitty.split("\x1b_G").skip(1).map(|piece| {
        let piece = piece.split("\x1b\\").next().expect("an end");
        piece.split_once(';').expect("a piece")
    });
    let (heads, texts): (Vec<&str>, Vec<&str>) = pieces.unzip();
    assert!(heads[0].starts_with("a=T,f=100,q=2,") && heads[heads.len() - 1].ends_with("m=0"));
    assert_eq!(heads.iter().filter(|head| head.ends_with("m=0")).count(), 1);
    let png = STANDARD.decode(texts.concat()).expect("base64");
    assert_eq!(pixels(&png), pixels(&bytes(&path)));
    // It says nothing of how it was made.
    assert!(!png.windows(4).any(|kind| kind == b"tEXt"));

    let iterm = said("iterm");
    let (head, text) = iterm
        .split_once("\x1b]1337;File=")
        .and_then(|(_, rest)| rest.split_once(':'))
        .expect("a picture");
    let png = STANDARD.decode(text.split('\x07').next().expect("an end")).expect("base64");
    assert!(head.starts_with(&format!("inline=1;size={};", png.len())), "{head}");
    assert_eq!(pixels(&png), pixels(&bytes(&path)));

    assert!(said("sixel").contains("\x1bPq\"1;1;64;64#"));
    fails(plain("a fox", &path).args(["--preview", "ascii"]), 2, &["kitty", "sixel", "off"]);
}

/// Both ends of a pseudo-terminal, of 120 columns.
fn terminal() -> (File, OwnedFd) {
    let (mut own, mut other) = (0, 0);
    let none = std::ptr::null_mut();
    let mut size = libc::winsize { ws_row: 40, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: both numbers are written if the answer is 0, and nobody else has these files.
    unsafe {
        assert_eq!(libc::openpty(&mut own, &mut other, none, none.cast(), &raw mut size), 0);
        (File::from_raw_fd(own), OwnedFd::from_raw_fd(other))
    }
}

/// What a run writes to a terminal that is described so.
fn shown(variables: &[(&str, &str)], options: &[&str], to: &Path) -> String {
    let (mut own, other) = terminal();
    let mut command = plain("a fox", to);
    for name in
        ["TERM", "TMUX", "TERM_PROGRAM", "LC_TERMINAL", "KITTY_WINDOW_ID", "KONSOLE_VERSION"]
    {
        command.env_remove(name);
    }
    command.args(options).envs(variables.iter().copied());
    let (out, err) = (other.try_clone().expect("a terminal"), other);
    let reader = std::thread::spawn(move || {
        let (mut text, mut part) = (vec![], [0; 1 << 16]);
        // Its end is an error once the program has gone.
        while let Ok(read @ 1..) = own.read(&mut part) {
            text.extend(&part[..read]);
        }
        text
    });
    let status = spawn(command, out, err);
    assert!(status.success());
    String::from_utf8_lossy(&reader.join().expect("a text")).into_owned()
}

/// Runs a command, and closes its terminal here.
fn spawn(mut command: Command, out: OwnedFd, err: OwnedFd) -> std::process::ExitStatus {
    command.stdin(Stdio::null()).stdout(out).stderr(err);
    let mut child = command.spawn().expect("the program starts");
    drop(command);
    child.wait().expect("an end")
}

/// Each phase of a run has its name, and no bar is full while something goes on.
#[test]
fn phases_have_names_and_no_bar_is_full() {
    let folder = folder();
    let variables = [("TERM", "xterm-256color"), ("NO_COLOR", "1")];
    let options = ["--ralu", "4x", "--preview", "off"];
    let text = shown(&variables, &options, &folder.path().join("a.png"));
    let shown: Vec<&str> =
        text.split(['\r', '\n']).filter(|line| line.contains(['━', '─'])).collect();
    for line in &shown {
        assert!(line.contains('─'), "a full bar: {line:?}");
        let what = line.rsplit(['━', '─']).next().unwrap_or_default();
        assert!(what.chars().any(char::is_alphabetic), "a bar of nothing: {line:?}");
    }
    for phase in ["encoding", "compiling kernels", "stage 1/3", "stage 3/3", "decoding"] {
        assert!(text.contains(phase), "no {phase:?} in {shown:#?}");
    }
}

#[test]
fn terminals_that_can_show_pictures_do() {
    let folder = folder();
    let path = folder.path().join("a.png");
    let kitty = [("TERM", "xterm-kitty")];
    assert!(shown(&kitty, &[], &path).contains("\x1b_Ga=T,f=100"));
    assert!(shown(&[("TERM", "foot")], &[], &path).contains("\x1bPq"));
    for (variables, options) in [
        (&kitty[..], &["--preview", "off"][..]),
        (&kitty, &["--quiet"]),
        (&kitty, &["--events", "json"]),
        (&[("TERM", "xterm-256color")], &[]),
    ] {
        let text = shown(variables, options, &path);
        assert!(!text.contains("\x1b_G") && !text.contains("\x1bPq"), "{text:?}");
    }
    // Piped.
    let output = run(plain("a fox", &path).env("TERM", "xterm-kitty"));
    assert!(!stderr(&output).contains('\x1b'), "{}", stderr(&output));
}
