//! Everything that can go wrong in a run.

use crate::advice::Advice;
use crate::checkpoint::source::SourceError;
use crate::checkpoint::weights::WeightError;
use crate::escape::Escaped;
use crate::gpu;
use crate::models::config::ConfigError;
use crate::models::files::FilesError;
use crate::models::quantise::Quantise;
use crate::sampling;
use crate::tensor::Blocks;
use crate::text::TokenError;

/// An error of a run. Each says what was found and what was expected, and what to do where that is in the file or the
/// request; else [`Error::advice`] has what may help.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The device.
    #[error(transparent)]
    Gpu(#[from] gpu::Error),
    /// The model folder.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The model's configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The model's files.
    #[error(transparent)]
    Files(Box<FilesError>),
    /// The model's weights.
    #[error(transparent)]
    Weights(#[from] WeightError),
    /// The tokenizers or the prompt.
    #[error(transparent)]
    Tokens(#[from] TokenError),
    /// Schedules, regions, noise.
    #[error(transparent)]
    Sampling(#[from] sampling::Error),
    /// The temporal cache.
    #[error(transparent)]
    Cache(#[from] sampling::cache::CacheError),
    /// A setting outside its range.
    #[error("{what} is {found}; expected {expected}")]
    Setting {
        /// Which setting.
        what: &'static str,
        /// What was given.
        found: String,
        /// What is possible, and what to do.
        expected: String,
    },
    /// Nothing that was to be quantised can be.
    #[error("nothing can be quantised to {quantise}: {reason}; load the model as it is stored")]
    NothingToQuantise {
        /// What was asked for.
        quantise: Quantise,
        /// What stands in the way, of which part.
        reason: String,
    },
    /// A given tensor of the wrong shape or type.
    #[error("the given tensor {name} has shape {found}; expected {expected}")]
    Given {
        /// Its name.
        name: String,
        /// Its shape.
        found: String,
        /// What this run needs.
        expected: String,
    },
    /// A given tensor with a number that is none.
    #[error(
        "the given tensor {} holds {number} at number {place} (from 0); expected finite numbers: make that file again",
        Escaped(.name)
    )]
    NotFiniteGiven {
        /// Its name.
        name: String,
        /// What was found.
        number: f32,
        /// Where, in row-major order.
        place: usize,
    },
    /// A file of given tensors that cannot be read.
    #[error("the given tensors cannot be read: {}", Escaped(.0))]
    GivenFile(String),
    /// A product that rounds to f16 met numbers beyond it. A run does such blocks again, with smaller numbers and then in
    /// f32.
    #[error(
        "numbers beyond f16's largest, 65504, in {}; use precision f32",
        .blocks.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
    )]
    BeyondF16 {
        /// The blocks that it happened in.
        blocks: Blocks,
    },
    /// A budget of memory that no run like this can keep within.
    #[error(
        "a run like this needs {} MiB of GPU memory at least, and the budget is {}",
        least.div_ceil(1 << 20), gpu::human_bytes(*.budget)
    )]
    MemoryBudget {
        /// The budget in bytes.
        budget: u64,
        /// The smallest one that the run can keep within.
        least: u64,
    },
    /// Less memory than any run like this can keep within.
    #[error(
        "a run like this needs {} MiB of GPU memory at least, and {} are free",
        least.div_ceil(1 << 20), gpu::human_bytes(*.free)
    )]
    TooLittleMemory {
        /// Bytes that the adapter has free.
        free: u64,
        /// The least that the run can keep within.
        least: u64,
    },
    /// NaN or infinity came out of the network.
    #[error(
        "{what} holds numbers that are not finite ({bad} of {of}), so there is no picture. The weights may be \
         damaged or made for another precision"
    )]
    NotFinite {
        /// What was read.
        what: String,
        /// How many.
        bad: usize,
        /// Of how many.
        of: usize,
    },
}

impl From<FilesError> for Error {
    fn from(error: FilesError) -> Self {
        Error::Files(Box::new(error))
    }
}

impl Error {
    /// Whether the device went away: a run can go on on another one, see [`super::Recovery`].
    pub fn is_lost(&self) -> bool {
        matches!(self, Error::Gpu(gpu::Error::Lost { .. }))
    }

    /// What may help, where the message does not say it.
    pub fn advice(&self) -> Option<Advice> {
        match self {
            Error::Gpu(error) => error.advice(),
            Error::Weights(error) => error.advice(),
            Error::Files(error) => error.advice(),
            Error::Tokens(error) => error.advice(),
            Error::NotFinite { .. } => Some(Advice::WiderWeights),
            Error::MemoryBudget { .. } => Some(Advice::LargerBudget),
            Error::TooLittleMemory { .. } => Some(Advice::LessMemory),
            _ => None,
        }
    }

    pub(crate) fn setting(
        what: &'static str,
        found: impl ToString,
        expected: impl Into<String>,
    ) -> Self {
        Error::Setting { what, found: found.to_string(), expected: expected.into() }
    }
}
