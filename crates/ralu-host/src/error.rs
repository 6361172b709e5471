//! What can go wrong.

use std::io;
use std::path::{Path, PathBuf};

use ralu::advice::Advice;
use ralu::escape::Escaped;
use ralu::pipeline::png_file::PngError;

use crate::memory::Shortage;

/// Why the host kit could not do what was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A folder could not be made.
    #[error("the folder {} cannot be made: {reason}", Escaped(&.path.to_string_lossy()))]
    Folder {
        /// The folder that was to be made.
        path: PathBuf,
        /// Why, as the system says it.
        reason: io::Error,
    },
    /// A file could not be written.
    #[error("{} cannot be written: {reason}", Escaped(&.path.to_string_lossy()))]
    File {
        /// The file that it is about.
        path: PathBuf,
        /// Why it could not be done.
        reason: String,
    },
    /// A value has no JSON.
    #[error("{}", Escaped(&.0.to_string()))]
    Json(#[from] serde_json::Error),
    /// A picture could not be made a PNG.
    #[error(transparent)]
    Png(#[from] PngError),
    /// A picture could not be made a JPEG or a WebP.
    #[error("the picture's file cannot be made: {0}")]
    Encode(String),
    /// A picture's file could not be opened.
    #[error("{} cannot be opened: {reason}", Escaped(&.path.to_string_lossy()))]
    Open {
        /// The file that it is about.
        path: PathBuf,
        /// Why, as the system says it.
        reason: io::Error,
    },
    /// A picture's request cannot be read.
    #[error("{}: {reason}", Escaped(&.path.to_string_lossy()))]
    Picture {
        /// The file that it is about.
        path: PathBuf,
        /// Why it could not be done.
        reason: String,
    },
    /// The model or the run.
    #[error(transparent)]
    Run(#[from] ralu::Error),
    /// The machine has too little memory.
    #[error("{0}")]
    Memory(Shortage),
    /// There is no model to draw with.
    #[error("no model is open")]
    NoModel,
}

impl Error {
    /// `path` could not be written.
    pub(crate) fn file(path: &Path, reason: impl ToString) -> Error {
        Error::File { path: path.to_path_buf(), reason: reason.to_string() }
    }

    /// What may help, where the message does not say it.
    pub fn advice(&self) -> Option<Advice> {
        match self {
            Error::Run(error) => error.advice(),
            Error::Memory(_) => Some(Advice::LessMemory),
            _ => None,
        }
    }

    /// Whether the device was lost.
    pub fn is_lost(&self) -> bool {
        matches!(self, Error::Run(error) if error.is_lost())
    }
}

impl From<ralu::gpu::Error> for Error {
    fn from(error: ralu::gpu::Error) -> Error {
        Error::Run(error.into())
    }
}

impl From<ralu::models::files::FilesError> for Error {
    fn from(error: ralu::models::files::FilesError) -> Error {
        Error::Run(error.into())
    }
}

impl From<ralu::checkpoint::source::SourceError> for Error {
    fn from(error: ralu::checkpoint::source::SourceError) -> Error {
        Error::Run(error.into())
    }
}
