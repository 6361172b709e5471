//! Files that have no end, or a far one, are not read into memory.
//!
//! The largest program that this one has started is measured, so no other test belongs here.

#![cfg(target_os = "linux")]

#[path = "common/command.rs"]
mod command;
#[path = "common/picture.rs"]
mod picture;

#[cfg(feature = "bench")]
use std::fs;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use command::{fails, ralu, succeeds};
use picture::{MODEL, SMALL, folder};

/// Most that a program may take, in MiB.
const MOST: libc::c_long = 300;
const HUGE: u64 = 3_200_000_000;

/// A file that has much of nothing before what is wanted of it.
fn sparse(path: &Path) {
    let header = format!(
        r#"{{"other":{{"dtype":"U8","shape":[{HUGE}],"data_offsets":[0,{HUGE}]}},"initial_noise":{{"dtype":"F32","shape":[1,16,64],"data_offsets":[{HUGE},{}]}}}}"#,
        HUGE + 4096
    );
    let mut file = File::create(path).expect("a file");
    file.write_all(&(header.len() as u64).to_le_bytes()).expect("written");
    file.write_all(header.as_bytes()).expect("written");
    let end = 8 + header.len() as u64 + HUGE + 4096;
    file.set_len(end).expect("a length");
    file.write_all_at(&1.5f32.to_le_bytes(), end - 4).expect("written");
}

#[test]
fn what_is_read_has_an_end() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let plan = || {
        let mut command = ralu();
        command.args(["plan", "a fox", "--model", MODEL]).args(SMALL).arg("--given");
        command
    };
    sparse(&path("sparse.safetensors"));
    succeeds(plan().arg(path("sparse.safetensors")));
    assert!(Command::new("mkfifo").arg(path("pipe")).status().expect("mkfifo").success());
    fails(plan().arg("/dev/zero"), 1, &["/dev/zero", "expected a file"]);
    fails(plan().arg(path("pipe")), 1, &["pipe", "expected a file"]);
    fails(plan().arg(folder.path()), 1, &["expected a file"]);
    let huge = format!(
        r#"{{"initial_noise":{{"dtype":"F32","shape":[{}],"data_offsets":[0,{HUGE}]}}}}"#,
        HUGE / 4
    );
    let mut file = File::create(path("huge.safetensors")).expect("a file");
    file.write_all(&(huge.len() as u64).to_le_bytes()).expect("written");
    file.write_all(huge.as_bytes()).expect("written");
    file.set_len(8 + huge.len() as u64 + HUGE).expect("a length");
    fails(plan().arg(path("huge.safetensors")), 1, &["initial_noise", "3200000000 bytes"]);

    #[cfg(feature = "bench")]
    benches_read_no_endless_file(folder.path());
    let peak = largest_child() >> 10;
    assert!(peak < MOST, "{peak} MiB");
}

#[cfg(feature = "bench")]
fn benches_read_no_endless_file(folder: &Path) {
    fs::write(folder.join("prompts"), "a fox").expect("a file");
    let bench = |what: &str, options: &[&str]| {
        let mut command = ralu();
        command.args(["bench", what, "--model", MODEL]).args(options).current_dir(folder);
        command
    };
    let endless = ["/dev/zero", "longer than 16 MiB"];
    fails(&mut bench("quality", &["--prompts", "/dev/zero"]), 1, &endless);
    let settings = ["--prompts", "prompts", "--settings", "/dev/zero"];
    fails(&mut bench("quality", &settings), 1, &endless);
    for what in ["ops", "step", "run"] {
        fails(&mut bench(what, &["--compare", "/dev/zero"]), 1, &endless);
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
