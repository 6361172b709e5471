//! What can go wrong with files.

use std::io;
use std::path::{Path, PathBuf};

use ralu::escape::Escaped;

/// Why something was not written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A folder could not be made.
    #[error("the folder {} cannot be made: {reason}", Escaped(&.path.to_string_lossy()))]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why, as the system says it.
        reason: io::Error,
    },
    /// A file could not be written.
    #[error("{} cannot be written: {reason}", Escaped(&.path.to_string_lossy()))]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A value has no JSON.
    #[error("{}", Escaped(&.0.to_string()))]
    Json(#[from] serde_json::Error),
}

impl Error {
    /// `path` could not be written.
    pub(crate) fn file(path: &Path, reason: impl ToString) -> Error {
        Error::File { path: path.to_path_buf(), reason: reason.to_string() }
    }
}
