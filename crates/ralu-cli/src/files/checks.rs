//! Whether files can be written, found out before any work is done.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use ralu_host::files::{Destination, folder_of, temporary};

use super::model_files::ModelFiles;
use crate::error::{Error, Result};
use crate::output::shown;

/// Makes a folder for files if it is not there. `what` says which. Gives whether it was made.
pub fn make_folder(folder: &Path, what: &str) -> Result<bool> {
    let refused = |reason: String| {
        Error::failed(format!("the folder of {what}, {}, {reason}", shown(folder)))
    };
    if folder.exists() {
        return Ok(false);
    }
    if let Some(reason) = lost_link(folder) {
        return Err(refused(reason));
    }
    fs::create_dir(folder).map(|()| true).map_err(|error| {
        refused(format!("cannot be made: {error}; make it first or choose another one"))
    })
}

/// What is wrong with a folder that is not there, if it is a link.
fn lost_link(folder: &Path) -> Option<String> {
    let target = fs::read_link(folder).ok()?;
    Some(format!(
        "is a link to {}, which is not there; make that folder, or remove the link",
        shown(&target)
    ))
}

/// Checks that files can be made in `folder`.
pub fn check_folder(folder: &Path, what: &str) -> Result<()> {
    let name = shown(folder);
    match fs::metadata(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let reason = lost_link(folder).unwrap_or_else(|| {
                "does not exist; make it first or choose another one".to_owned()
            });
            Err(Error::failed(format!("the folder of {what}, {name}, {reason}")))
        }
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
    models: Vec<ModelFiles>,
    /// What is written, and what it is.
    outputs: HashMap<OsString, String>,
    folders: HashSet<PathBuf>,
}

impl Checks {
    /// Notes a file that is read. `what` says which.
    pub fn input(&mut self, path: &Path, what: &str) {
        // The code that reads a missing file reports it.
        if let Ok(path) = path.canonicalize() {
            self.inputs.insert(path, what.to_owned());
        }
    }

    /// Notes a folder or a file of the model.
    pub fn model(&mut self, path: &Path) {
        match path.is_file() {
            true => self.input(path, "a file of the model"),
            false => self.models.push(ModelFiles::find(path)),
        }
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
        if self.models.iter().any(|model| model.changes_with(path, &file)) {
            let does = if file.exists() {
                "would replace a file of the model"
            } else {
                "would be taken for a file of the model"
            };
            return Err(Error::usage(format!(
                "{what} {} {does}; choose a name outside of the model folder",
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
}

/// A path as file systems compare it.
fn key(path: &Path) -> OsString {
    // Others may, too, but hardly ever do.
    if cfg!(any(windows, target_os = "macos")) {
        return path.to_string_lossy().to_lowercase().into();
    }
    path.as_os_str().to_owned()
}
