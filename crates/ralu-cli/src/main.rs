//! The command line: arguments → request → events → files.
//!
//! Results go to stdout, progress and diagnostics to stderr, with text from outside escaped in both. Exit codes: 0 done,
//! 1 failed, 2 wrong usage, 130 cancelled. Each command is a file; [`args`] says what can be asked for, and [`error`] what
//! a failure looks like. The library underneath never blocks: this is where futures are driven to their ends.

mod args;
#[cfg(feature = "bench")]
mod bench;
mod chips;
mod completions;
mod config;
mod convert;
mod devices;
mod environment;
mod error;
mod files;
mod generate;
mod hub;
mod inspect;
mod median;
mod model;
mod output;
mod plan;
mod preview;
mod profile;
mod progress;
mod reporter;
mod request;
mod signals;
mod speeds;
mod targets;
mod tune;
mod unknown;
mod view;
mod weights;

use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::process::ExitCode;

use clap::Parser;
use ralu::escape::escape;

use args::{Cli, Command};

fn main() -> ExitCode {
    quiet_wayland();
    show_panics_safely();
    let words = match config::with_defaults(&words()) {
        Ok(words) => words,
        Err(error) => {
            error.show();
            return ExitCode::from(error.exit_code());
        }
    };
    let cli = match Cli::try_parse_from(&words) {
        Ok(cli) => cli,
        Err(answer) => return show_usage(answer, &words),
    };
    if let Err(message) = start_log(cli.verbose) {
        output::diagnostic(&format!("warning: {message}"));
    }
    let result = match &cli.command {
        Command::Generate(args) => generate::run(args, cli.quiet, &words),
        Command::Devices(args) => devices::run(args),
        Command::Plan(args) => plan::run(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Convert(args) => convert::run(args, cli.quiet),
        #[cfg(feature = "bench")]
        Command::Bench(args) => bench::run(args, cli.quiet),
        Command::Tune(args) => tune::run(args, cli.quiet),
        Command::Pull(args) => hub::pull(args, cli.quiet),
        Command::List(args) => hub::list(args),
        Command::Rm(args) => hub::remove(args, cli.quiet),
        Command::Config(args) => config::run(args, cli.no_config),
        Command::Completions(args) => completions::run(args),
        Command::Man(args) => completions::write_manual(args),
        Command::View(args) => match view::run(args) {
            Ok(code) => return code,
            Err(error) => Err(error),
        },
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error.show();
            ExitCode::from(error.exit_code())
        }
    }
}

/// Whether a word in the place of a command is a text: no command has a space in its name.
fn is_sentence(word: &OsStr) -> bool {
    let word = word.to_string_lossy();
    word.trim().contains(' ') && !word.contains(char::is_control)
}

/// The arguments. A sentence in the place of a command is drawn.
fn words() -> Vec<OsString> {
    let mut words: Vec<OsString> = std::env::args_os().collect();
    let first = words.iter().skip(1).position(|word| !word.as_encoded_bytes().starts_with(b"-"));
    if let Some(at) = first.map(|at| at + 1)
        && is_sentence(&words[at])
    {
        words.insert(at, "generate".into());
    }
    words
}

/// Shows help, or what is wrong with the arguments, as clap does. It may repeat arguments, which shells make of names of
/// files: if a terminal would obey any, it is asked about escaped ones.
fn show_usage(mut answer: clap::Error, words: &[OsString]) -> ExitCode {
    let words: Vec<String> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    answer = if words.iter().all(|word| escape(word) == *word) {
        answer
    } else {
        let escaped = words.iter().map(|word| escape(word).into_owned());
        Cli::try_parse_from(escaped).err().unwrap_or(answer)
    };
    unknown::advise(&mut answer);
    match answer.print() {
        // Who asks for help and does not read it has no error.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => ExitCode::FAILURE,
        _ => ExitCode::from(u8::try_from(answer.exit_code()).unwrap_or(2)),
    }
}

/// A panic's message may hold text from outside.
fn show_panics_safely() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let text = panic.to_string();
        if output::visible(&text) == text { usual(panic) } else { output::diagnostic(&text) }
    }));
}

/// Keeps Mesa's Vulkan driver from writing `error: XDG_RUNTIME_DIR is invalid or not set` to our stderr where
/// there is no desktop: it looks for a Wayland display that nobody asked for. A folder that is not there
/// answers the question in silence.
fn quiet_wayland() {
    const VARIABLE: &str = "XDG_RUNTIME_DIR";
    if cfg!(target_os = "linux") && std::env::var_os(VARIABLE).is_none() {
        // SAFETY: the program has just begun; no other thread reads the environment.
        unsafe { std::env::set_var(VARIABLE, "/nonexistent") };
    }
}

/// With `-v`, shows what the library and wgpu log. Without it nothing: every failure arrives as an error.
fn start_log(verbose: u8) -> Result<(), String> {
    let level = match verbose {
        0 => return Ok(()),
        1 => "ralu=debug,wgpu_core=warn,wgpu_hal=warn,naga=warn",
        2 => "ralu=trace,wgpu_core=info,wgpu_hal=info,naga=info",
        _ => "trace",
    };
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(level))
        .with_writer(std::io::stderr)
        .with_ansi(output::colours())
        // Saying that nobody reads stderr, on stderr, would be a panic.
        .log_internal_errors(false)
        .try_init()
        .map_err(|error| format!("the log cannot be shown: {error}"))
}
