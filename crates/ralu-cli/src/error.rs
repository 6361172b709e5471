//! How a command ends when it does not end well.

use std::fmt;

use ralu::advice::Advice;
use ralu::checkpoint::{source::SourceError, weights::WeightError};
use ralu::escape::escape;
use ralu::models::config::ConfigError;
use ralu::models::files::FilesError;
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
    /// The reader of our output went away: nobody is left to tell.
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

/// What to do, on a command line.
fn worded(advice: Advice) -> &'static str {
    match advice {
        Advice::InstallDriver => {
            "Install a Vulkan driver for your GPU; without a GPU, Mesa's software driver does: `apt-get install \
             mesa-vulkan-drivers libvulkan1` on Debian and Ubuntu, `dnf install mesa-vulkan-drivers` on Fedora. `ralu \
             devices` lists what is found"
        }
        Advice::FoundAdapter => "`ralu devices` lists them with their numbers",
        Advice::OtherAdapter => "Another adapter may work: `ralu devices` lists them",
        Advice::SmallerPicture => {
            "Make the picture smaller (--width, --height) or use another adapter"
        }
        Advice::LessMemory => {
            "Make the picture smaller (--width, --height), store the weights in 16 bits (--precision f16), or use an \
             adapter with more memory"
        }
        Advice::LargerBudget => {
            "Give a larger --memory-budget, make the picture smaller (--width, --height), or use smaller weights (--quantize \
             q4_k)"
        }
        Advice::TryAgain => {
            "A driver update, a sleep, or a driver's time-out causes this; if it comes back, choose a smaller picture or \
             another adapter (`ralu devices`)"
        }
        Advice::Report => "This is a bug; please report it with the output of `ralu devices`",
        Advice::NewerDriver => {
            "A newer driver may; please report it with the output of `ralu devices`"
        }
        Advice::NoProfiling => {
            "Leave profiling out, or use an adapter that has `timestamp-query` among its features (`ralu devices --json`)"
        }
        Advice::GiveDenoiser => "Give it with --model or --diffusion-model",
        Advice::GiveClipL => "Give it with --clip-l",
        Advice::GiveClipG => "Give it with --clip-g",
        Advice::GiveT5 => "Give it with --t5xxl",
        Advice::GiveVae => "Give it with --vae",
        Advice::WeightsAsStored => "Keep the weights as they are stored (--precision auto)",
        Advice::WiderWeights => {
            "Try --precision f32, another adapter (`ralu devices`), or fetch the model again"
        }
        Advice::GiveClipTokenizer => {
            "Give the one that belongs to the model with --clip-tokenizer (a folder, or a tokenizer.json)"
        }
        Advice::GiveT5Tokenizer => {
            "Give the one that belongs to the model with --t5-tokenizer (a folder, or a tokenizer.json)"
        }
        // Advice of a newer library, which this face has no words for yet.
        _ => "",
    }
}

/// What happened, and what to do if anything is known to help.
fn with_advice(error: impl fmt::Display, advice: Option<Advice>) -> String {
    match advice.map(worded) {
        None | Some("") => error.to_string(),
        Some(advice) => format!("{error}. {advice}"),
    }
}

macro_rules! failures {
    ($shown:expr => $($kind:ty),*) => {
        $(impl From<$kind> for Error {
            fn from(error: $kind) -> Self {
                let shown: fn(&$kind) -> String = $shown;
                Error::Failed(shown(&error))
            }
        })*
    };
}

// These may have several lines, each made with care.
failures!(|error| with_advice(error, error.advice()) => pipeline::Error, gpu::Error, ralu_host::Error, FilesError, WeightError);
failures!(|error| error.to_string() => pipeline::png_file::PngError, sampling::Error);
// Of one line, whatever names and texts of files are in them.
failures!(|error| escape(&error.to_string()).into_owned() => SourceError, ConfigError, serde_json::Error);
