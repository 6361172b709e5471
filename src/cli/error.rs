//! How a command ends when it does not end well.

use std::fmt;

use ralu::models::{config::ConfigError, source::SourceError, weights::WeightError};
use ralu::{gpu, pipeline, sampling};

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

    /// Says it on stderr.
    pub fn show(&self) {
        if !matches!(self, Error::OutputClosed) {
            super::output::diagnostic(&self.to_string());
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Usage(message) => {
                write!(f, "error: {message}\n\nFor more information, try 'ralu help'.")
            }
            Error::Failed(message) => write!(f, "error: {message}"),
            Error::Cancelled => f.write_str("cancelled"),
            Error::OutputClosed => f.write_str("the output was closed"),
        }
    }
}

macro_rules! failures {
    ($($kind:ty),*) => {
        $(impl From<$kind> for Error {
            fn from(error: $kind) -> Self {
                Error::failed(error)
            }
        })*
    };
}

failures!(
    pipeline::Error,
    gpu::Error,
    sampling::Error,
    SourceError,
    ConfigError,
    WeightError,
    serde_json::Error
);
