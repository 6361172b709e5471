//! Whether files can be written, found out before any work is done.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::destination::Destination;
use super::{folder_of, temporary};
use crate::cli::error::{Error, Result};
use crate::cli::output::shown;

/// Checks that a file called `path` can be written. `what` says whose it is.
pub fn check_writable(path: &Path, what: &str) -> Result<()> {
    Checks::default().output(path, what)
}

/// Checks that files can be made in `folder`.
pub fn check_folder(folder: &Path, what: &str) -> Result<()> {
    let name = shown(folder);
    match fs::metadata(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => Err(Error::failed(format!(
            "the folder of {what}, {name}, does not exist; make it first or choose another one"
        ))),
        Err(error) => {
            Err(Error::failed(format!("the folder of {what}, {name}, cannot be used: {error}")))
        }
        Ok(meta) if !meta.is_dir() => Err(Error::failed(format!(
            "the folder of {what}, {name}, is a file; choose another one"
        ))),
        // Trying is the only honest check: there are permissions, read-only mounts, quotas and ACLs.
        Ok(_) => temporary(folder).map(drop).map_err(|error| {
            Error::failed(format!(
                "the folder of {what}, {name}, cannot be written to ({error}); choose another one"
            ))
        }),
    }
}

/// The files that a run reads and writes: each can be written, and none is another one.
#[derive(Default)]
pub struct Checks {
    /// What is read, and what it is.
    inputs: HashMap<PathBuf, String>,
    model: Option<PathBuf>,
    /// What is written, and what it is.
    outputs: HashMap<OsString, String>,
    folders: HashSet<PathBuf>,
}

impl Checks {
    /// Notes a file that is read. `what` says which.
    pub fn input(&mut self, path: &Path, what: &str) {
        // A file that is not there is told of by whoever reads it.
        if let Ok(path) = path.canonicalize() {
            self.inputs.insert(path, what.to_owned());
        }
    }

    /// Notes the folder of the model.
    pub fn model(&mut self, folder: &Path) {
        self.model = folder.canonicalize().ok();
    }

    /// Checks that a file can be written that no earlier one is. `what` says whose it is.
    pub fn output(&mut self, path: &Path, what: &str) -> Result<()> {
        let refused = |reason: &str| Error::failed(format!("{what} {}: {reason}", shown(path)));
        let file = match Destination::find(path).map_err(|reason| refused(&reason))? {
            Destination::Stream { is_pipe: false } => return Ok(()),
            // One after the other.
            Destination::Stream { is_pipe: true } => path.canonicalize().ok(),
            Destination::File { path: file, .. } => {
                let folder = folder_of(&file);
                if self.folders.insert(folder.to_path_buf()) {
                    check_folder(folder, what)?;
                }
                let name = file.file_name().unwrap_or_default();
                folder.canonicalize().ok().map(|folder| folder.join(name))
            }
        };
        let Some(file) = file else { return Ok(()) };
        if let Some(input) = self.inputs.get(&file) {
            return Err(Error::usage(format!(
                "{what} {} would replace {input}; choose another name (of a picture: --output)",
                shown(path)
            )));
        }
        if self.is_of_model(path) || self.is_of_model(&file) {
            return Err(Error::usage(format!(
                "{what} {} would replace a file of the model; choose another name",
                shown(path)
            )));
        }
        match self.outputs.insert(key(&file), what.to_owned()) {
            Some(other) if other == what => Err(Error::usage(format!(
                "{} is the name of several files of {what}; choose another name",
                shown(path)
            ))),
            Some(other) => Err(Error::usage(format!(
                "{} is the name of {other} and of {what}; give each its own name",
                shown(path)
            ))),
            None => Ok(()),
        }
    }

    /// Whether a file is there that a model consists of.
    fn is_of_model(&self, path: &Path) -> bool {
        let (Some(model), Some(name)) = (&self.model, path.file_name()) else { return false };
        let Ok(folder) = folder_of(path).canonicalize() else { return false };
        let Ok(inside) = folder.strip_prefix(model) else { return false };
        let is_part = !inside.as_os_str().is_empty() || name == "model_index.json";
        let is_picture = path.extension().is_some_and(|end| end.eq_ignore_ascii_case("png"));
        is_part && !is_picture && path.exists()
    }
}

/// A path as file systems compare it.
fn key(path: &Path) -> OsString {
    // Others may, too, but hardly ever do.
    if cfg!(any(windows, target_os = "macos")) {
        return path.to_string_lossy().to_lowercase().into();
    }
    path.as_os_str().to_owned()
}
