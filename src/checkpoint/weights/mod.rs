//! Weights as plain data: which tensors a safetensors checkpoint holds, and what a model needs of them.
//!
//! - [`Weights`] parses headers only (`header.rs`), so opening a 24 GB checkpoint takes milliseconds.
//! - [`Manifest`] and its cursor [`WeightPath`] collect what a model asks for. Misses and wrong shapes are noted, not
//!   thrown, so that model code has no `?` and the user sees everything that is wrong at once.
//! - [`Weights::read_f32`] and [`Weights::check_finite`] look at values.
//!
//! The header parser is our own rather than the `safetensors` crate's: offsets stay 64 bits wide in the browser, a
//! tensor of a type we cannot read does not spoil the file, and duplicated names are found.
//!
//! ```no_run
//! # use ralu::checkpoint::{source::Folder, weights::{Manifest, Weights}};
//! let folder = Folder::open("models/tiny-flux")?;
//! let weights = Weights::open(&folder, "transformer", "diffusion_pytorch_model")?;
//! let manifest = Manifest::new(&weights);
//! let block = manifest.root().pp("transformer_blocks").pp(0);
//! let to_q = block.require("attn.to_q.weight", &[320, 320]);
//! let extra_names = manifest.finish(&[])?;
//! let mut values = Vec::new();
//! weights.read_f32(&to_q, 0..320, &mut values)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What it does not do: no GPU, no upload, no change of type other than to f32.

mod header;
mod index;
mod manifest;
mod values;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::dtype::{DTYPES, StoredDType};
use super::source::{Blob, Source, SourceError};
use crate::advice::Advice;
use crate::checkpoint::source::unfinished_download;
use crate::escape::Escaped;
use crate::tensor::Storage;
use header::{MAX_TENSORS, parse_header};

pub use manifest::{Manifest, WeightPath};

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
    /// A file is still being downloaded, or its download was broken off.
    #[error("{}: the download is not complete ({} lies here as well); fetch the file again", Escaped(.file), Escaped(.sign))]
    Unfinished {
        file: String,
        /// The file that says so.
        sign: String,
    },
    /// The weights are packed into fewer bits.
    #[error(
        "{}: the weights are quantised ({}), which is not supported; get this part of the model in 16 or 32 bits",
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
    /// A tensor has a type that cannot be read.
    #[error(
        "{}: the tensor {} has type {}, which is not supported; supported: {}; use a checkpoint in one of these",
        Escaped(.file), Escaped(.name), Escaped(.dtype), DTYPES.each_ref().map(|row| row.name).join(", ")
    )]
    DType { name: String, dtype: String, file: String },
    /// Several of the above.
    #[error("{}", Many(.problems))]
    Many { problems: Vec<WeightError> },
    /// A weight is NaN or infinite.
    #[error(
        "{}: the tensor {} holds {value} at element {index}; the checkpoint is damaged, fetch it again",
        Escaped(.file), Escaped(.name)
    )]
    NotFinite { name: String, index: u64, value: f32, file: String },
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

type Result<T> = std::result::Result<T, WeightError>;

// ---------------------------------------------------------------------------------------------------------------------
// Tensors

/// Where one tensor lies and what it looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// As in the file, prefix and all.
    pub name: Arc<str>,
    /// How its numbers are stored.
    pub dtype: StoredDType,
    /// Row-major; empty for a scalar.
    pub shape: Vec<usize>,
    /// The file's path, for messages.
    pub file: Arc<str>,
    /// Bytes from the start of the file.
    pub range: Range<u64>,
    shard: usize,
}

impl TensorInfo {
    /// Number of elements; the product of the shape.
    pub fn n_elements(&self) -> u64 {
        self.shape.iter().map(|n| *n as u64).product()
    }

    /// Pixels that the kernel of a convolution `[N, C, height, width]` covers; 1 for other tensors.
    pub fn taps(&self) -> usize {
        match self.shape[..] {
            [_, _, height, width] => height * width,
            _ => 1,
        }
    }

    /// Bytes in the file.
    pub fn n_bytes(&self) -> u64 {
        self.range.end - self.range.start
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Checkpoint

/// The tensors of one checkpoint: one safetensors file, or several with an index.
pub struct Weights {
    /// The folder or file, for messages.
    place: String,
    shards: Vec<Box<dyn Blob>>,
    files: Vec<Arc<str>>,
    tensors: BTreeMap<Arc<str>, TensorInfo>,
    /// The type of the stand-ins for tensors that are missing.
    missing: StoredDType,
}

impl fmt::Debug for Weights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Weights({}, {} tensors)", self.place, self.tensors.len())
    }
}

impl Weights {
    /// Opens the checkpoint `stem` in folder `dir` of `source` and reads its headers.
    ///
    /// Takes the first of `STEM.safetensors.index.json`, `STEM.safetensors`, and the same with diffusers' variants
    /// `fp16` and `bf16`, that has all its files. `dir` may be `""`.
    pub fn open(source: &dyn Source, dir: &str, stem: &str) -> Result<Self> {
        let looked_for = [
            format!("{stem}.safetensors.index.json"),
            format!("{stem}.safetensors"),
            format!("{stem}.safetensors.index.fp16.json"),
            format!("{stem}.fp16.safetensors.index.json"),
            format!("{stem}.fp16.safetensors"),
            format!("{stem}.safetensors.index.bf16.json"),
            format!("{stem}.bf16.safetensors"),
        ];
        let mut incomplete = None;
        for name in &looked_for {
            let path = join(dir, name);
            if !source.exists(&path) {
                continue;
            }
            match name.ends_with(".json") {
                // Another variant may be complete: some people fetch the index of one and the files of another.
                true => match Self::open_index(source, dir, &path) {
                    Err(error @ WeightError::MissingShard { .. }) => {
                        incomplete.get_or_insert(error);
                    }
                    opened => return opened,
                },
                false => return Self::open_file(source, &path),
            }
        }
        if let Some(error) = incomplete {
            return Err(error);
        }
        let files = source.list(dir)?;
        let any = |ends: &[&str]| files.iter().any(|f| ends.iter().any(|end| f.ends_with(end)));
        let hint = if let Some(file) = unfinished_download(source, dir) {
            format!("; {file} is an unfinished download: fetch this part of the model again")
        } else if any(&[".gguf"]) {
            "; quantised weights (GGUF) are not supported, get this part of the model in 16 or 32 bits".into()
        } else if any(&[".bin", ".pt", ".pth", ".ckpt"]) {
            "; pickled checkpoints (.bin, .pt, .ckpt) are not read, save the model with safe_serialization=True"
                .into()
        } else if files.is_empty() {
            "; fetch this part of the model".into()
        } else if any(&[".safetensors"]) {
            "; rename the file if its weights are this part's in the layout of diffusers or transformers".into()
        } else {
            String::new()
        };
        Err(WeightError::NoFile {
            dir: shown(source, dir),
            looked_for: looked_for[..2].join(", "),
            found: if files.is_empty() { "nothing".into() } else { list(files.iter(), 10) },
            hint,
        })
    }

    /// Opens a single safetensors file.
    pub fn open_file(source: &dyn Source, path: &str) -> Result<Self> {
        let mut weights = Self::empty(shown(source, path));
        weights.add_file(source, path)?;
        Ok(weights)
    }

    /// Reads the header of an open safetensors file, which messages call `name`.
    pub fn open_blob(blob: Box<dyn Blob>, name: &str) -> Result<Self> {
        let mut weights = Self::empty(name.to_owned());
        weights.add_blob(blob, name.into())?;
        Ok(weights)
    }

    /// A checkpoint without tensors: every tensor asked for is noted as missing, and its stand-in has the shape that
    /// was expected. Enough to plan a model that is not on this machine.
    pub fn empty(place: String) -> Self {
        Self::stand_in(place, StoredDType::default())
    }

    /// [`Weights::empty`], with stand-ins that count as stored in `dtype`.
    pub fn stand_in(place: String, dtype: StoredDType) -> Self {
        Self {
            place,
            shards: Vec::new(),
            files: Vec::new(),
            tensors: BTreeMap::new(),
            missing: dtype,
        }
    }

    fn open_index(source: &dyn Source, dir: &str, path: &str) -> Result<Self> {
        let index = shown(source, path);
        let map = index::read(source, path, &index)?;
        for shard in map.shards() {
            if !source.exists(&join(dir, shard)) {
                let hint = match unfinished_download(source, dir) {
                    Some(file) => format!(" ({file} is an unfinished download)"),
                    None => String::new(),
                };
                return Err(WeightError::MissingShard { index, shard: shard.to_string(), hint });
            }
        }
        let mut weights = Self::empty(shown(source, dir));
        for shard in map.shards() {
            weights.add_file(source, &join(dir, shard))?;
        }
        for (name, number, shard) in map.entries() {
            if weights.tensors.get(name).map(|info| info.shard) != Some(number) {
                let (name, shard) = (name.into(), shard.into());
                return Err(WeightError::NotInShard { index, name, shard });
            }
        }
        Ok(weights)
    }

    fn add_file(&mut self, source: &dyn Source, path: &str) -> Result<()> {
        let file: Arc<str> = shown(source, path).into();
        let blob = source.blob(path)?;
        let sign = format!("{path}.aria2");
        if source.exists(&sign) {
            let sign = shown(source, &sign);
            return Err(WeightError::Unfinished { file: file.to_string(), sign });
        }
        self.add_blob(blob, file)
    }

    fn add_blob(&mut self, blob: Box<dyn Blob>, file: Arc<str>) -> Result<()> {
        let shard = self.shards.len();
        let header = |reason| WeightError::Header { file: file.to_string(), reason };
        for info in parse_header(blob.as_ref(), &file, shard)? {
            if let Some(first) = self.tensors.get(&info.name) {
                return Err(header(format!("{} is also in {}", info.name, first.file)));
            }
            if self.tensors.len() == MAX_TENSORS {
                return Err(header(format!("the checkpoint has more than {MAX_TENSORS} tensors")));
            }
            self.tensors.insert(info.name.clone(), info);
        }
        self.shards.push(blob);
        self.files.push(file);
        Ok(())
    }

    /// The tensor of that full name.
    pub fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(name)
    }

    /// All tensors, by name.
    pub fn iter(&self) -> impl Iterator<Item = &TensorInfo> {
        self.tensors.values()
    }

    /// All names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(AsRef::as_ref)
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether there is no tensor at all.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// Bytes of all tensors together.
    pub fn total_bytes(&self) -> u64 {
        self.iter().map(TensorInfo::n_bytes).sum()
    }

    /// The checkpoint's files, for messages.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.files.iter().map(AsRef::as_ref)
    }

    /// The folder or file, for messages.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// The raw bytes `range` of a tensor, counted from the tensor's start.
    pub fn bytes(&self, info: &TensorInfo, range: Range<u64>) -> Result<Cow<'_, [u8]>> {
        let (blob, range) = self.locate(info, range)?;
        Ok(blob.bytes(range)?)
    }

    fn locate(&self, info: &TensorInfo, range: Range<u64>) -> Result<(&dyn Blob, Range<u64>)> {
        let Some(blob) = self.shards.get(info.shard).filter(|_| !info.file.is_empty()) else {
            return Err(WeightError::Missing {
                name: info.name.to_string(),
                file: self.place.clone(),
            });
        };
        if range.start > range.end || range.end > info.n_bytes() {
            return Err(out_of_range(info, &range, info.n_bytes(), "bytes"));
        }
        Ok((blob.as_ref(), info.range.start + range.start..info.range.start + range.end))
    }
}

fn out_of_range(
    info: &TensorInfo,
    range: &Range<u64>,
    len: u64,
    unit: &'static str,
) -> WeightError {
    WeightError::Range {
        name: info.name.to_string(),
        start: range.start,
        end: range.end,
        len,
        unit,
        file: info.file.to_string(),
    }
}

pub(super) fn unsupported(info: &TensorInfo) -> WeightError {
    WeightError::DType {
        name: info.name.to_string(),
        dtype: info.dtype.name().chars().take(40).collect(),
        file: info.file.to_string(),
    }
}

fn join(dir: &str, name: &str) -> String {
    if dir.is_empty() { name.into() } else { format!("{dir}/{name}") }
}

fn shown(source: &dyn Source, path: &str) -> String {
    join(source.name().trim_end_matches('/'), path).trim_end_matches('/').to_string()
}

/// `a, b, c and 4 more`
fn list<T: AsRef<str>>(items: impl ExactSizeIterator<Item = T>, max: usize) -> String {
    let rest = items.len().saturating_sub(max);
    let shown: Vec<String> = items.take(max).map(|item| item.as_ref().to_string()).collect();
    match rest {
        0 => shown.join(", "),
        _ => format!("{} and {rest} more", shown.join(", ")),
    }
}
