//! How a command ends when it does not end well.

use std::fmt;

use ralu::checkpoint::{source::SourceError, weights::WeightError};
use ralu::escape::escape;
use ralu::models::config::ConfigError;
use ralu::{gpu, pipeline, sampling};

use super::output;

/// Why a command stopped.
#[derive(Debug)]
pub enum Error {
    /// The arguments make no sense together.
    Usage(String),
    /// Something outside is not as it should be.
    Failed(String),
    /// Ctrl-C.
    Cancelled,
    /// Whoever read our output went away: nobody is left to tell.
    OutputClosed,
}

/// What every command returns.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A failure that is described by `message`.
    pub fn failed(message: impl fmt::Display) -> Self {
        Error::Failed(message.to_string())
    }

    /// A wrong combination of arguments.
    pub fn usage(message: impl fmt::Display) -> Self {
        Error::Usage(message.to_string())
    }

    /// The program's exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Failed(_) => 1,
            Error::Usage(_) => 2,
            Error::Cancelled => 130,
            Error::OutputClosed => 0,
        }
    }

    /// What happened, alone.
    pub fn message(&self) -> &str {
        match self {
            Error::Usage(message) | Error::Failed(message) => message,
            Error::Cancelled => "cancelled",
            Error::OutputClosed => "the output was closed",
        }
    }

    /// Says it on stderr.
    pub fn show(&self) {
        match self {
            Error::Usage(message) => output::diagnostic(&format!(
                "error: {message}\n\nFor more information, try 'ralu help'."
            )),
            Error::Failed(message) => output::diagnostic(&format!("error: {message}")),
            Error::Cancelled => output::diagnostic(self.message()),
            Error::OutputClosed => {}
        }
    }
}

/// Messages that may have several lines, each made with care.
fn as_it_is(message: &str) -> &str {
    message
}

macro_rules! failures {
    ($shown:ident: $($kind:ty),*) => {
        $(impl From<$kind> for Error {
            fn from(error: $kind) -> Self {
                Error::failed($shown(&error.to_string()))
            }
        })*
    };
}

failures!(
    as_it_is: pipeline::Error,
    pipeline::png_file::PngError,
    gpu::Error,
    sampling::Error,
    WeightError
);
// Of one line, whatever names and texts of files are in them.
failures!(escape: SourceError, ConfigError, serde_json::Error);
