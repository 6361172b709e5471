//! What can be wrong with weights.

use std::collections::BTreeMap;
use std::fmt;

use crate::advice::Advice;
use crate::checkpoint::dtype::DTYPES;
use crate::checkpoint::gguf::GgufError;
use crate::checkpoint::source::SourceError;
use crate::escape::Escaped;
use crate::tensor::Storage;

/// Why weights cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the messages name the fields")]
pub enum WeightError {
    /// The bytes could not be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// No checkpoint in the folder.
    #[error(
        "{}: no weights; looked for {}; found {}{}",
        Escaped(.dir), Escaped(.looked_for), Escaped(.found), Escaped(.hint)
    )]
    NoFile { dir: String, looked_for: String, found: String, hint: String },
    /// The file is not a readable safetensors file.
    #[error("{}: not a valid safetensors file: {}; fetch the file again", Escaped(.file), Escaped(.reason))]
    Header { file: String, reason: String },
    /// The file is of another kind.
    #[error("{}: not a valid safetensors file but {what}", Escaped(.file))]
    OtherFormat {
        file: String,
        /// What it is, and what to do.
        what: &'static str,
    },
    /// The file is not a readable GGUF file.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// A file is still being downloaded, or its download was broken off.
    #[error("{}: the download is not complete ({} lies here as well); fetch the file again", Escaped(.file), Escaped(.sign))]
    Unfinished {
        file: String,
        /// The file that says so.
        sign: String,
    },
    /// The weights are packed into fewer bits.
    #[error(
        "{}: the weights are quantised ({}), which is not supported; get this part of the model in 16 or 32 bits, in 8-bit \
         floats (F8_E4M3, F8_E5M2, with or without scales) or in NF4",
        Escaped(.file), Escaped(.sign)
    )]
    Quantised {
        file: String,
        /// What shows it.
        sign: String,
    },
    /// The index of a sharded checkpoint is damaged.
    #[error("{}: not a valid index of a sharded checkpoint: {}; fetch the file again", Escaped(.file), Escaped(.reason))]
    Index { file: String, reason: String },
    /// The index names a file that is not there.
    #[error(
        "{}: names the file {}, which is not there{}; the download is not complete, fetch it again",
        Escaped(.index), Escaped(.shard), Escaped(.hint)
    )]
    MissingShard {
        index: String,
        shard: String,
        /// What is there of it, in brackets; may be empty.
        hint: String,
    },
    /// The index says a tensor is in a file that does not have it.
    #[error(
        "{}: says that {} is in {}, but that file does not have it; the files belong to different downloads, fetch them again",
        Escaped(.index), Escaped(.name), Escaped(.shard)
    )]
    NotInShard { index: String, name: String, shard: String },
    /// A tensor is not there.
    #[error(
        "{}: the tensor {} is missing; this checkpoint is incomplete or of another model",
        Escaped(.file), Escaped(.name)
    )]
    Missing { name: String, file: String },
    /// A tensor has another shape than the model's configuration says.
    #[error(
        "{}: the tensor {} has shape {found:?}, expected {expected:?}; config.json and weights do not belong together",
        Escaped(.file), Escaped(.name)
    )]
    Shape { name: String, expected: Vec<usize>, found: Vec<usize>, file: String },
    /// Blocks of a network are missing.
    #[error(
        "{}: there is no {}.*, though blocks up to number {last} are there: an incomplete download; fetch the file again",
        Escaped(.file), Escaped(.missing)
    )]
    Gap { file: String, missing: String, last: usize },
    /// A network's width and that of its heads do not fit together.
    #[error(
        "{}: the network is {hidden} wide, with heads of {head_dim}; expected a multiple of that, and heads of a multiple of \
         {of}: the file is damaged, or of another model",
        Escaped(.file)
    )]
    Heads { file: String, hidden: usize, head_dim: usize, of: usize },
    /// A tensor that holds several layers cannot be cut into them.
    #[error(
        "{}: the tensor {} has shape {shape:?}; expected {}: the file is damaged, or of another model",
        Escaped(.file), Escaped(.name), Escaped(.expected)
    )]
    NotSplit { name: String, shape: Vec<usize>, expected: String, file: String },
    /// A tensor has a type that cannot be read.
    #[error(
        "{}: the tensor {} has type {}{}, which is not supported; supported: {}; use a checkpoint in one of these",
        Escaped(.file), Escaped(.name), Escaped(.dtype), others(*.count), DTYPES.each_ref().map(|row| row.name).join(", ")
    )]
    DType {
        /// The first one.
        name: String,
        dtype: String,
        /// How many have that type.
        count: usize,
        file: String,
    },
    /// Several of the above.
    #[error("{}", Many(.problems))]
    Many { problems: Vec<WeightError> },
    /// A weight is NaN or infinite.
    #[error(
        "{}: the tensor {} holds {value} at element {index}; the checkpoint is damaged, fetch it again",
        Escaped(.file), Escaped(.name)
    )]
    NotFinite { name: String, index: u64, value: f32, file: String },
    /// A scale is zero or negative.
    #[error(
        "{}: the scale {} holds {value} at element {index}; expected positive numbers; the checkpoint is damaged, fetch \
         it again",
        Escaped(.file), Escaped(.name)
    )]
    Scale { name: String, index: u64, value: f32, file: String },
    /// What a quantised tensor needs is missing or does not fit.
    #[error(
        "{}: the quantised tensor {}: {}; the checkpoint is incomplete or damaged, fetch it again",
        Escaped(.file), Escaped(.name), Escaped(.reason)
    )]
    Scaling {
        name: String,
        /// What was found and what was expected.
        reason: String,
        file: String,
    },
    /// A variance is negative.
    #[error(
        "{}: the variance {} holds {value} at element {index}; expected numbers of at least 0; the checkpoint is damaged, \
         fetch it again",
        Escaped(.file), Escaped(.name)
    )]
    NegativeVariance { name: String, index: usize, value: f32, file: String },
    /// A weight that is to be kept in f16 does not fit it.
    #[error(
        "{}: the tensor {} holds {value}, and f16 ends at 65504",
        Escaped(.file), Escaped(.name)
    )]
    BeyondF16 { name: String, value: f32, file: String },
    /// A weight is to be kept in a type that nothing is rounded to.
    #[error(
        "{}: the tensor {} has type {dtype} and cannot be kept as {storage:?}; keep the weights as they are stored",
        Escaped(.file), Escaped(.name)
    )]
    NotNarrowed { name: String, dtype: &'static str, storage: Storage, file: String },
    /// A weight holds numbers that the format it is quantised to cannot hold.
    #[error(
        "{}: the tensor {} holds numbers that {format} cannot hold; choose another format",
        Escaped(.file), Escaped(.name)
    )]
    BeyondFormat { name: String, format: &'static str, file: String },
    /// Elements outside a tensor were asked for.
    #[error(
        "{}: the tensor {} has {len} {unit}; {start}..{end} were asked for",
        Escaped(.file), Escaped(.name)
    )]
    Range { name: String, start: u64, end: u64, len: u64, unit: &'static str, file: String },
}

impl WeightError {
    /// What may help, where the message does not say it.
    pub fn advice(&self) -> Option<Advice> {
        matches!(self, Self::BeyondF16 { .. }).then_some(Advice::WeightsAsStored)
    }
}

fn others(count: usize) -> String {
    if count > 1 { format!(" ({count} tensors have it)") } else { String::new() }
}

/// Problems, with one for each type that is not read instead of one for each tensor that has it.
pub(super) fn merged(mut problems: Vec<WeightError>) -> Vec<WeightError> {
    let mut counts = BTreeMap::new();
    // In place: damaged files have very many of them.
    problems.retain(|problem| match problem {
        WeightError::DType { dtype, file, .. } => {
            let count = counts.entry((dtype.clone(), file.clone())).or_insert(0);
            *count += 1;
            *count == 1
        }
        _ => true,
    });
    for problem in &mut problems {
        if let WeightError::DType { dtype, file, count, .. } = problem
            && let Some(all) = counts.remove(&(dtype.clone(), file.clone()))
        {
            *count = all;
        }
    }
    problems
}

/// Shows at most this many problems, then a count.
const MAX_SHOWN: usize = 20;

struct Many<'a>(&'a [WeightError]);

impl fmt::Display for Many<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} tensors do not fit the model's configuration:", self.0.len())?;
        for problem in self.0.iter().take(MAX_SHOWN) {
            write!(f, "\n  {problem}")?;
        }
        if self.0.len() > MAX_SHOWN {
            write!(f, "\n  … and {} more", self.0.len() - MAX_SHOWN)?;
        }
        Ok(())
    }
}
