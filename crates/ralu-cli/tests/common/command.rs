//! The built program from outside. Where cargo runs programs through a runner (a loader, an emulator), so do we.

#![allow(dead_code, reason = "every test binary uses another part of it")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// A fixture model, small and with random weights.
pub const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/flux-a/model");

/// The repository's folder.
pub fn root() -> PathBuf {
    // Not by `..`: what runs there shows paths.
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.ancestors().nth(2).expect("two folders above").to_path_buf()
}

/// A command that runs `program` as cargo would.
pub fn command_for(program: &Path) -> Command {
    let host = match (std::env::consts::ARCH, std::env::consts::OS) {
        (arch, "linux") => format!("{arch}-unknown-linux-gnu"),
        (arch, "macos") => format!("{arch}-apple-darwin"),
        (arch, _) => format!("{arch}-pc-windows-msvc"),
    };
    let variable = format!("CARGO_TARGET_{}_RUNNER", host.to_uppercase().replace('-', "_"));
    let runner = std::env::var(variable).unwrap_or_default();
    let mut words = runner.split_whitespace();
    match words.next() {
        None => Command::new(program),
        Some(first) => {
            let mut command = Command::new(first);
            command.args(words).arg(program);
            command
        }
    }
}

/// The program, in the repository's folder, with no signal ignored: background jobs of scripts ignore some, and the
/// program would go on ignoring them.
pub fn ralu() -> Command {
    let mut command = command_for(Path::new(env!("CARGO_BIN_EXE_ralu")));
    command.current_dir(root());
    // Neither what the user has in the hub's cache or has configured nor the network changes a test.
    command.env("XDG_CONFIG_HOME", root().join("target/no-configuration"));
    command.env("HF_HUB_CACHE", root().join("target/no-hub-cache")).env("HF_HUB_OFFLINE", "1");
    #[cfg(unix)]
    start_with(&mut command, libc::SIG_DFL);
    command
}

/// Makes a command start with that done about SIGHUP, SIGINT and SIGTERM.
#[cfg(unix)]
pub fn start_with(command: &mut Command, action: libc::sighandler_t) {
    use std::os::unix::process::CommandExt;
    // SAFETY: `signal` may be called between fork and exec, and nothing else is.
    unsafe {
        command.pre_exec(move || {
            for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGTERM] {
                libc::signal(signal, action);
            }
            Ok(())
        });
    }
}

/// One of its commands on the adapter under test, with the usual kernels.
pub fn on_adapter(name: &str) -> Command {
    let mut command = tuned_on_adapter(name);
    command.arg("--no-tune");
    command
}

/// One of its commands on the adapter under test. Reads and writes what is kept of measurements: give it a
/// `--cache-dir`.
pub fn tuned_on_adapter(name: &str) -> Command {
    let mut command = ralu();
    command.arg(name).args(adapter_options());
    command
}

/// The options for the adapter under test.
pub fn adapter_options() -> Vec<String> {
    let options = [
        ("RALU_TEST_ADAPTER", "--adapter"),
        ("RALU_TEST_BACKEND", "--backend"),
        ("RALU_TEST_LIMITS", "--limits"),
    ];
    let given = options.into_iter().filter_map(|(variable, option)| {
        let value = std::env::var(variable).ok().filter(|value| !value.is_empty())?;
        Some([option.to_owned(), value])
    });
    given.flatten().collect()
}

pub fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().expect("the program starts")
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[track_caller]
pub fn succeeds(command: &mut Command) -> Output {
    let output = run(command);
    assert!(output.status.success(), "{command:?}: {:?}\n{}", output.status, stderr(&output));
    output
}

/// Checks that a command fails with that exit code and one message that has all of `parts` in it.
#[track_caller]
pub fn fails(command: &mut Command, code: i32, parts: &[&str]) -> String {
    let output = run(command);
    let message = stderr(&output);
    // Prompts may be long.
    let shown: String = format!("{command:?}").chars().take(400).collect();
    assert_eq!(output.status.code(), Some(code), "{shown}\n{message}");
    assert!(!message.contains("panicked"), "{shown}\n{message}");
    assert_eq!(message.matches("error:").count(), 1, "one message: {shown}\n{message}");
    for part in parts {
        assert!(message.contains(part), "no {part:?} in: {message}\n{shown}");
    }
    message
}

#[track_caller]
pub fn json(command: &mut Command) -> Value {
    let output = succeeds(command);
    serde_json::from_slice(&output.stdout).expect("JSON")
}
