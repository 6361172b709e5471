//! Readers of stdout and stderr that leave, disks that are full, and signals: none of them costs a picture that is
//! wanted.

#![cfg(unix)]

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::command::{ralu, root, start_with, stderr};
use crate::picture::{MODEL, folder, names, plain, small};

fn started(command: &mut Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("the program starts")
}

fn series(folder: &Path) -> Command {
    let mut command = plain("a fox", &folder.join("a.png"));
    command.args(["--count", "3"]);
    command
}

const SERIES: [&str; 3] = ["a-0.png", "a-1.png", "a-2.png"];

#[test]
fn a_reader_that_leaves_does_not_stop_a_series() {
    for options in [&["--quiet"][..], &["--quiet", "--events", "json"]] {
        let folder = folder();
        let mut child = started(series(folder.path()).args(options));
        let mut line = String::new();
        let mut names_told = BufReader::new(child.stdout.take().expect("a pipe"));
        names_told.read_line(&mut line).expect("a line");
        drop(names_told);
        let mut message = String::new();
        child.stderr.take().expect("a pipe").read_to_string(&mut message).expect("a text");
        assert!(child.wait().expect("an end").success(), "{message}");
        assert_eq!(message, "");
        assert_eq!(names(folder.path()), SERIES);
    }
}

#[test]
fn a_reader_of_progress_that_leaves_does_not_stop_a_series() {
    for options in [&[][..], &["-vvv"]] {
        let folder = folder();
        let mut child = started(series(folder.path()).args(options));
        let mut stdout = child.stdout.take().expect("a pipe");
        let mut stderr = BufReader::new(child.stderr.take().expect("a pipe"));
        stderr.read_line(&mut String::new()).expect("a line");
        drop(stderr);
        let mut told = String::new();
        stdout.read_to_string(&mut told).expect("a text");
        assert!(child.wait().expect("an end").success());
        assert_eq!(told.lines().count(), 3, "{told}");
        assert_eq!(names(folder.path()), SERIES);
    }
}

#[test]
fn closed_streams_do_not_stop_a_series() {
    let folder = folder();
    let series = series(folder.path());
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec \"$@\" <&- >&- 2>&-", "sh"]).arg(series.get_program());
    shell.args(series.get_args()).current_dir(root());
    assert!(shell.status().expect("a shell").success());
    assert_eq!(names(folder.path()), SERIES);
}

#[test]
fn results_that_nobody_reads_are_no_error() {
    for words in [&["plan", "--model", "flux.1-dev"][..], &["inspect", MODEL], &["help"]] {
        let mut child = started(ralu().args(words));
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("an end");
        assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""), "{words:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_under_stdout_is_an_error_and_no_picture_is_lost() {
    let full = || File::options().write(true).open("/dev/full").expect("a device");
    for options in [&[][..], &["--events", "json"]] {
        let folder = folder();
        let child =
            series(folder.path()).args(options).stdout(full()).stderr(Stdio::piped()).spawn();
        let output = child.and_then(Child::wait_with_output).expect("an end");
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains("stdout cannot be written"), "{}", stderr(&output));
        assert_eq!(names(folder.path()), SERIES);
    }
    for words in [&["plan", "--model", "flux.1-dev"][..], &["inspect", "--json", MODEL], &["help"]]
    {
        let child = ralu().args(words).stdout(full()).stderr(Stdio::piped()).spawn();
        let output = child.and_then(Child::wait_with_output).expect("an end");
        assert_eq!(output.status.code(), Some(1), "{words:?}");
    }
}

fn send(signal: &str, child: &Child) {
    let sent = Command::new("kill").args([signal, &child.id().to_string()]).status();
    assert!(sent.expect("kill runs").success());
}

/// A run of `steps` steps with events, in which one has been made.
fn in_its_middle(steps: &str, folder: &Path, action: libc::sighandler_t) -> Child {
    let mut command = small("a fox", &folder.join("a.png"));
    command.args(["--events", "json", "--steps", steps]);
    start_with(&mut command, action);
    let mut child = started(&mut command);
    let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut line = String::new();
    while !line.contains("\"step\"") {
        line.clear();
        assert_ne!(stdout.read_line(&mut line).expect("a line"), 0, "no step");
    }
    // Whoever reads is gone from here on.
    child
}

#[test]
fn signals_that_were_ignored_at_the_start_do_not_end_a_run() {
    let folder = folder();
    let child = in_its_middle("6", folder.path(), libc::SIG_IGN);
    for signal in ["-HUP", "-INT", "-TERM", "-HUP", "-INT", "-TERM"] {
        send(signal, &child);
    }
    let output = child.wait_with_output().expect("an end");
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(names(folder.path()), ["a.png"]);
}

#[test]
fn signals_that_were_not_ignored_do() {
    for signal in ["-HUP", "-INT", "-TERM"] {
        let folder = folder();
        let child = in_its_middle("900", folder.path(), libc::SIG_DFL);
        send(signal, &child);
        let output = child.wait_with_output().expect("an end");
        assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
        assert_eq!(names(folder.path()), [""; 0]);
    }
}

#[test]
fn a_run_that_waits_for_a_reader_can_be_ended() {
    let folder = folder();
    let pipe = folder.path().join("pipe.png");
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs").success());
    let mut child = started(&mut plain("a fox", &pipe));
    let mut stderr = BufReader::new(child.stderr.take().expect("a pipe"));
    let mut line = String::new();
    while !line.contains("waiting for a reader") {
        line.clear();
        assert_ne!(stderr.read_line(&mut line).expect("a line"), 0, "no waiting");
    }
    send("-INT", &child);
    assert_eq!(child.wait().expect("an end").code(), Some(130));
}
