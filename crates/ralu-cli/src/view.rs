//! `ralu view`: starts the viewer, which it builds first in ralu's sources. It is a program of its own, so that nobody compiles a
//! window who wants none.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use ralu::models::adapters::Lora;

use super::args::ViewArgs;
use super::error::{Error, Result};
use super::model;
use super::output::{self, diagnostic};

const VIEWER: &str = "ralu-viewer";

/// Runs the viewer to its end, which is this program's end too.
pub fn run(args: &ViewArgs) -> Result<ExitCode> {
    let sibling = sibling();
    let program = sibling.clone().filter(|path| path.is_file());
    let program = match (program, Sources::of_this_program()) {
        (None, Some(sources)) => Some(sources.build()?),
        (program, _) => program,
    };
    let mut command = Command::new(program.unwrap_or_else(|| VIEWER.into()));
    command.args(words(args));
    let status = command.status().map_err(|error| match error.kind() {
        ErrorKind::NotFound => Error::failed(format!(
            "the viewer is not installed: {} is not there, nor is {VIEWER} in the folders of PATH. `cargo build \
             --release -p {VIEWER}` in ralu's sources makes it; put it next to this program",
            sibling.map_or_else(|| VIEWER.to_owned(), |path| output::shown(&path))
        )),
        _ => Error::failed(format!("{VIEWER} cannot be started: {error}")),
    })?;
    // None if it was killed.
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

/// Where the viewer is if both were built or installed together.
fn sibling() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    Some(program.with_file_name(format!("{VIEWER}{}", std::env::consts::EXE_SUFFIX)))
}

/// ralu's sources, from which this program was built where it lies.
struct Sources {
    folder: PathBuf,
    /// What cargo calls the way in which it was built.
    profile: String,
}

impl Sources {
    /// Cargo puts programs into `target/PROFILE`, next to the viewer's sources.
    fn of_this_program() -> Option<Sources> {
        let program = std::env::current_exe().ok()?;
        let built = program.parent()?;
        let folder = built.parent()?.parent()?;
        if !folder.join("examples/viewer/Cargo.toml").is_file() {
            return None;
        }
        let profile = match built.file_name()?.to_str()? {
            "debug" => "dev",
            other => other,
        };
        Some(Sources { folder: folder.to_path_buf(), profile: profile.to_owned() })
    }

    /// Builds the viewer in the same way, and gives its program.
    fn build(&self) -> Result<PathBuf> {
        let words = ["build", "--profile", &self.profile, "--package", VIEWER];
        let shown = format!("cargo {}", words.join(" "));
        diagnostic(&format!("the viewer is built first, which takes some minutes: {shown}"));
        let status = Command::new("cargo").args(words).current_dir(&self.folder).status();
        let reason = match (status, sibling()) {
            (Ok(status), Some(program)) if status.success() && program.is_file() => {
                return Ok(program);
            }
            (Ok(status), _) => format!("cargo ended with {status}"),
            (Err(error), _) => format!("cargo cannot be started: {error}"),
        };
        Err(Error::failed(format!(
            "the viewer cannot be built: {reason}. `{shown}` in {} has to work (Rust 1.95 or newer)",
            output::shown(&self.folder)
        )))
    }
}

fn words(args: &ViewArgs) -> Vec<OsString> {
    let mut words = Vec::new();
    // The viewer knows paths; names are known here.
    let place = args.model.as_ref().map(|path| match path.to_str() {
        Some(given) => model::place(given),
        None => path.clone().into(),
    });
    let (model, denoiser) = place.map(|place| (place.model, place.denoiser)).unzip();
    let parts = &args.parts;
    let given = |path: &Option<String>| path.as_ref().map(OsString::from);
    let options = [
        ("--model", model.map(OsString::from)),
        (
            "--diffusion-model",
            given(&parts.diffusion_model).or(denoiser.flatten().map(OsString::from)),
        ),
        ("--clip-l", given(&parts.clip_l)),
        ("--clip-g", given(&parts.clip_g)),
        ("--t5xxl", given(&parts.t5xxl)),
        ("--vae", given(&parts.vae)),
        ("--clip-tokenizer", given(&parts.clip_tokenizer)),
        ("--t5-tokenizer", given(&parts.t5_tokenizer)),
        ("--memory-budget", args.memory_budget.map(|budget| budget.to_string().into())),
        ("--from", args.from.as_ref().map(OsString::from)),
    ];
    for (name, value) in options {
        if let Some(value) = value {
            words.extend([name.into(), value]);
        }
    }
    if parts.no_t5 {
        words.push("--no-t5".into());
    }
    for Lora { file, weight, .. } in &model::placed(&parts.loras) {
        words.extend(["--lora".into(), format!("{file}:{weight}").into()]);
    }
    if let Some(quantise) = &args.quantize {
        words.extend(["--quantize".into(), quantise.to_string().into()]);
    }
    if let Some(prompt) = &args.prompt {
        words.extend(["--".into(), prompt.into()]);
    }
    words
}
