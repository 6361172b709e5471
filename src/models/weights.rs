//! Weights as plain data: which tensors a safetensors checkpoint holds, and what a model needs of them.
//!
//! - [`Weights`] parses headers only, so opening a 24 GB checkpoint takes milliseconds.
//! - [`Manifest`] and its cursor [`WeightPath`] collect what a model asks for. Misses and wrong shapes are noted, not
//!   thrown, so that model code has no `?` and the user sees everything that is wrong at once.
//! - [`Weights::read_f32`] and [`first_not_finite`] look at values.
//!
//! The header parser is our own rather than the `safetensors` crate's: offsets stay 64 bits wide in the browser, a
//! tensor of a type we cannot read does not spoil the file, and duplicated names are found.
//!
//! ```no_run
//! # use ralu::models::{source::Folder, weights::{Manifest, Weights}};
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

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::{Bound, Range};
use std::sync::Arc;

use half::{bf16, f16};
use serde::Serialize;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use super::source::{Blob, Source, SourceError};

/// Why weights cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WeightError {
    /// The bytes could not be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// No checkpoint in the folder.
    #[error("{dir}: no weights; looked for {looked_for}; found {found}{hint}")]
    NoFile { dir: String, looked_for: String, found: String, hint: String },
    /// The file is not a readable safetensors file.
    #[error("{file}: not a valid safetensors file: {reason}; fetch the file again")]
    Header { file: String, reason: String },
    /// The index of a sharded checkpoint is damaged.
    #[error("{file}: not a valid index of a sharded checkpoint: {reason}")]
    Index { file: String, reason: String },
    /// The index names a file that is not there.
    #[error(
        "{index}: names the file {shard}, which is not there; the download is incomplete, fetch it again"
    )]
    MissingShard { index: String, shard: String },
    /// The index says a tensor is in a file that does not have it.
    #[error(
        "{index}: says that {name} is in {shard}, but that file does not have it; the files belong to different downloads, fetch them again"
    )]
    NotInShard { index: String, name: String, shard: String },
    /// A tensor is not there.
    #[error(
        "{file}: the tensor {name} is missing; this checkpoint is incomplete or of another model"
    )]
    Missing { name: String, file: String },
    /// A tensor has another shape than the model's configuration says.
    #[error(
        "{file}: the tensor {name} has shape {found:?}, expected {expected:?}; config.json and weights do not belong together"
    )]
    Shape { name: String, expected: Vec<usize>, found: Vec<usize>, file: String },
    /// A tensor has a type that cannot be read.
    #[error(
        "{file}: the tensor {name} has type {dtype}, which is not supported; supported: F32, F16, BF16, F64; use a checkpoint in one of these"
    )]
    DType { name: String, dtype: String, file: String },
    /// Several of the above.
    #[error("{}", Many(.problems))]
    Many { problems: Vec<WeightError> },
    /// A weight is NaN or infinite.
    #[error(
        "{file}: the tensor {name} holds {value} at element {index}; the checkpoint is damaged, fetch it again"
    )]
    NotFinite { name: String, index: u64, value: f32, file: String },
    /// Elements outside a tensor were asked for.
    #[error("{file}: the tensor {name} has {len} {unit}; {start}..{end} were asked for")]
    Range { name: String, start: u64, end: u64, len: u64, unit: &'static str, file: String },
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

/// How a tensor's numbers are stored in the file, little-endian.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum StoredDType {
    F32,
    F16,
    BF16,
    F64,
    /// Something we cannot compute with, by its safetensors name (`F8_E4M3`, `I8`, …).
    Other(String),
}

impl StoredDType {
    fn parse(name: &str) -> Self {
        match name {
            "F32" => Self::F32,
            "F16" => Self::F16,
            "BF16" => Self::BF16,
            "F64" => Self::F64,
            other => Self::Other(other.into()),
        }
    }

    /// The safetensors name.
    pub fn name(&self) -> &str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::F64 => "F64",
            Self::Other(name) => name,
        }
    }

    /// Bytes per number; `None` for types we do not read.
    pub fn bytes(&self) -> Option<usize> {
        match self {
            Self::F64 => Some(8),
            Self::F32 => Some(4),
            Self::F16 | Self::BF16 => Some(2),
            Self::Other(_) => None,
        }
    }
}

impl fmt::Display for StoredDType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where one tensor lies and what it looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// As in the file, prefix and all.
    pub name: Arc<str>,
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
    /// `fp16` and `bf16`. `dir` may be `""`.
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
        for name in &looked_for {
            let path = join(dir, name);
            if !source.exists(&path) {
                continue;
            }
            return match name.ends_with(".json") {
                true => Self::open_index(source, dir, &path),
                false => Self::open_file(source, &path),
            };
        }
        let files = source.list(dir)?;
        let pickled = files
            .iter()
            .any(|f| [".bin", ".pt", ".pth", ".ckpt"].iter().any(|end| f.ends_with(end)));
        let hint = if pickled {
            "; pickled checkpoints (.bin, .pt, .ckpt) are not read, save the model with safe_serialization=True"
        } else if files.is_empty() {
            "; fetch this part of the model"
        } else {
            ""
        };
        Err(WeightError::NoFile {
            dir: shown(source, dir),
            looked_for: looked_for[..2].join(", "),
            found: if files.is_empty() { "nothing".into() } else { list(files.iter(), 10) },
            hint: hint.into(),
        })
    }

    /// Opens a single safetensors file.
    pub fn open_file(source: &dyn Source, path: &str) -> Result<Self> {
        let mut weights = Self::empty(shown(source, path));
        weights.add_file(source, path)?;
        Ok(weights)
    }

    /// A checkpoint without tensors: every tensor asked for is noted as missing, and its stand-in has the shape that
    /// was expected. Enough to plan a model that is not on this machine.
    pub fn empty(place: String) -> Self {
        Self { place, shards: Vec::new(), files: Vec::new(), tensors: BTreeMap::new() }
    }

    fn open_index(source: &dyn Source, dir: &str, path: &str) -> Result<Self> {
        let index = shown(source, path);
        let damaged = |reason: String| WeightError::Index { file: index.clone(), reason };
        let text = source.text(path)?.unwrap_or_default();
        let json: Value =
            serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
        let Some(map) = json.get("weight_map").and_then(Value::as_object) else {
            return Err(damaged(
                "expected an object \"weight_map\" from tensor names to file names".into(),
            ));
        };
        let mut shards = BTreeSet::new();
        for (name, shard) in map {
            // A shard lies beside its index: a name with a folder in it is an attempt to read something else.
            match shard.as_str() {
                Some(shard)
                    if !shard.is_empty()
                        && !shard.contains(['/', '\\', ':', '\0'])
                        && shard != ".." =>
                {
                    shards.insert(shard)
                }
                _ => {
                    return Err(damaged(format!(
                        "the file of {name} is {shard}; expected a plain file name"
                    )));
                }
            };
        }
        if shards.is_empty() {
            return Err(damaged("\"weight_map\" is empty".into()));
        }
        for shard in &shards {
            if !source.exists(&join(dir, shard)) {
                return Err(WeightError::MissingShard { index, shard: shard.to_string() });
            }
        }
        let mut weights = Self::empty(shown(source, dir));
        let mut found_in = BTreeMap::new();
        for shard in shards {
            found_in.insert(shard, weights.shards.len());
            weights.add_file(source, &join(dir, shard))?;
        }
        for (name, shard) in map {
            let shard = shard.as_str().unwrap_or_default();
            let there = weights.tensors.get(name.as_str()).map(|info| info.shard);
            if there.is_none() || there != found_in.get(shard).copied() {
                return Err(WeightError::NotInShard {
                    index,
                    name: name.clone(),
                    shard: shard.into(),
                });
            }
        }
        Ok(weights)
    }

    fn add_file(&mut self, source: &dyn Source, path: &str) -> Result<()> {
        let file: Arc<str> = shown(source, path).into();
        let blob = source.blob(path)?;
        let shard = self.shards.len();
        for info in parse_header(blob.as_ref(), &file, shard)? {
            if let Some(first) = self.tensors.get(&info.name) {
                let reason = format!("{} is also in {}", info.name, first.file);
                return Err(WeightError::Header { file: file.to_string(), reason });
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

    /// Says that a part of a tensor (bytes from the tensor's start) has been uploaded and need not stay in memory.
    pub fn release(&self, info: &TensorInfo, range: Range<u64>) {
        if let Ok((blob, range)) = self.locate(info, range) {
            blob.release(range);
        }
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

    /// Appends elements `range` of a tensor (row-major) to `out`, as f32.
    ///
    /// Fails with [`WeightError::NotFinite`] at the first NaN or infinity (also a f64 too large for f32).
    pub fn read_f32(&self, info: &TensorInfo, range: Range<u64>, out: &mut Vec<f32>) -> Result<()> {
        let Some(size) = info.dtype.bytes() else {
            return Err(unsupported(info));
        };
        if range.start > range.end || range.end > info.n_elements() {
            return Err(out_of_range(info, &range, info.n_elements(), "elements"));
        }
        let bytes = self.bytes(info, range.start * size as u64..range.end * size as u64)?;
        let first = out.len();
        append_f32(&info.dtype, &bytes, out);
        match out[first..].iter().position(|x| !x.is_finite()) {
            None => Ok(()),
            Some(at) => Err(WeightError::NotFinite {
                name: info.name.to_string(),
                index: range.start + at as u64,
                value: out[first + at],
                file: info.file.to_string(),
            }),
        }
    }

    /// Rows `rows` of a tensor of rank 1 or more, as f32: `[rows.len(), the other dimensions]`.
    ///
    /// Meant for embedding tables, of which a prompt needs a few rows.
    pub fn rows_f32(&self, info: &TensorInfo, rows: Range<usize>) -> Result<Vec<f32>> {
        let n_rows = info.shape.first().copied().unwrap_or(0) as u64;
        let asked = rows.start as u64..rows.end as u64;
        if asked.start > asked.end || asked.end > n_rows {
            return Err(out_of_range(info, &asked, n_rows, "rows"));
        }
        let width = info.n_elements().checked_div(n_rows).unwrap_or(0);
        let mut out = Vec::new();
        self.read_f32(info, asked.start * width..asked.end * width, &mut out)?;
        Ok(out)
    }

    /// The whole tensor as f32.
    pub fn tensor_f32(&self, info: &TensorInfo) -> Result<Vec<f32>> {
        let mut out = Vec::new();
        self.read_f32(info, 0..info.n_elements(), &mut out)?;
        Ok(out)
    }

    /// Checks bytes of a tensor that start at byte `offset` of it for NaN and infinity, without converting them.
    pub fn check_finite(&self, info: &TensorInfo, offset: u64, bytes: &[u8]) -> Result<()> {
        let (Some(at), Some(size)) = (first_not_finite(&info.dtype, bytes), info.dtype.bytes())
        else {
            return Ok(());
        };
        let mut value = Vec::new();
        append_f32(&info.dtype, &bytes[at * size..][..size], &mut value);
        Err(WeightError::NotFinite {
            name: info.name.to_string(),
            index: offset / size as u64 + at as u64,
            value: value.first().copied().unwrap_or(f32::NAN),
            file: info.file.to_string(),
        })
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

fn unsupported(info: &TensorInfo) -> WeightError {
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

// ---------------------------------------------------------------------------------------------------------------------
// Values

/// Appends little-endian numbers to `out` as f32. Bytes that do not fill a number are left; types we do not read
/// append nothing.
pub fn append_f32(dtype: &StoredDType, bytes: &[u8], out: &mut Vec<f32>) {
    match dtype {
        StoredDType::F32 => out.extend(bytes.as_chunks_ref::<4>().map(f32::from_le_bytes)),
        StoredDType::F16 => {
            out.extend(bytes.as_chunks_ref::<2>().map(|b| f16::from_le_bytes(b).to_f32()))
        }
        StoredDType::BF16 => {
            out.extend(bytes.as_chunks_ref::<2>().map(|b| bf16::from_le_bytes(b).to_f32()))
        }
        StoredDType::F64 => {
            out.extend(bytes.as_chunks_ref::<8>().map(|b| f64::from_le_bytes(b) as f32))
        }
        StoredDType::Other(_) => {}
    }
}

/// Index of the first NaN or infinity among little-endian numbers. Looks at exponents only, so it is fast enough
/// to run over a whole checkpoint while it is uploaded.
pub fn first_not_finite(dtype: &StoredDType, bytes: &[u8]) -> Option<usize> {
    match dtype {
        StoredDType::F32 => bytes
            .as_chunks_ref::<4>()
            .position(|b| u32::from_le_bytes(b) & 0x7f80_0000 == 0x7f80_0000),
        StoredDType::F16 => {
            bytes.as_chunks_ref::<2>().position(|b| u16::from_le_bytes(b) & 0x7c00 == 0x7c00)
        }
        StoredDType::BF16 => {
            bytes.as_chunks_ref::<2>().position(|b| u16::from_le_bytes(b) & 0x7f80 == 0x7f80)
        }
        StoredDType::F64 => {
            bytes.as_chunks_ref::<8>().position(|b| !(f64::from_le_bytes(b) as f32).is_finite())
        }
        StoredDType::Other(_) => None,
    }
}

/// `slice::as_chunks`, which is younger than our oldest supported compiler.
trait Chunks {
    fn as_chunks_ref<const N: usize>(&self) -> impl Iterator<Item = [u8; N]>;
}

impl Chunks for [u8] {
    fn as_chunks_ref<const N: usize>(&self) -> impl Iterator<Item = [u8; N]> {
        self.chunks_exact(N).map(|chunk| {
            let mut out = [0; N];
            out.copy_from_slice(chunk);
            out
        })
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Header

/// As in the reference implementation: a longer header is an attack or a damaged file.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// Reads the header of one safetensors file: `u64` length, JSON of that length, then the tensors' bytes.
/// <https://huggingface.co/docs/safetensors#format>
fn parse_header(blob: &dyn Blob, file: &Arc<str>, shard: usize) -> Result<Vec<TensorInfo>> {
    let invalid = |reason: String| WeightError::Header { file: file.to_string(), reason };
    let len = blob.len();
    let start = blob.bytes(0..len.min(64))?;
    if start.starts_with(b"version https://git-lfs") {
        return Err(invalid(
            "it is a Git LFS pointer, not the file itself (git lfs pull gets it)".into(),
        ));
    }
    let Some(n) = start.first_chunk::<8>() else {
        return Err(invalid(format!("it has only {len} bytes")));
    };
    let header_bytes = u64::from_le_bytes(*n);
    if header_bytes > MAX_HEADER_BYTES {
        return Err(invalid(format!(
            "its first 8 bytes announce a header of {header_bytes} bytes, expected at most {MAX_HEADER_BYTES} (is it another format?)"
        )));
    }
    let data = 8 + header_bytes;
    if data > len {
        return Err(invalid(format!(
            "the header should have {header_bytes} bytes, but the file ends after {len}: truncated"
        )));
    }
    let header = blob.bytes(8..data)?;
    let text = match std::str::from_utf8(&header) {
        Ok(text) => text,
        Err(error) => {
            return Err(invalid(format!(
                "the header is not UTF-8 at byte {}",
                8 + error.valid_up_to()
            )));
        }
    };
    let mut json = serde_json::Deserializer::from_str(text);
    let entries =
        match Entries.deserialize(&mut json).and_then(|entries| json.end().map(|()| entries)) {
            Ok(entries) => entries,
            Err(error) => {
                return Err(invalid(format!("the header is not the JSON it should be: {error}")));
            }
        };

    let mut tensors = Vec::with_capacity(entries.len());
    for (name, entry) in entries {
        let of = |what: &str| {
            invalid(format!("the tensor {}: {what}", name.chars().take(200).collect::<String>()))
        };
        let dtype = match entry.get("dtype").and_then(Value::as_str) {
            Some(dtype) => StoredDType::parse(dtype),
            None => return Err(of("no dtype")),
        };
        let Some(shape) = numbers(&entry, "shape") else {
            return Err(of("no shape (a list of whole numbers)"));
        };
        let Some([begin, end]) =
            numbers(&entry, "data_offsets").and_then(|o| <[u64; 2]>::try_from(o).ok())
        else {
            return Err(of("no data_offsets (two whole numbers)"));
        };
        if begin > end || end > len - data {
            return Err(of(&format!(
                "its bytes {begin}..{end} are not inside the file, which holds {} bytes of tensors: truncated or damaged",
                len - data
            )));
        }
        let Some(n_elements) = shape.iter().try_fold(1u64, |n, dim| n.checked_mul(*dim)) else {
            return Err(of(&format!("its shape {shape:?} overflows")));
        };
        if let Some(size) = dtype.bytes() {
            if n_elements.checked_mul(size as u64) != Some(end - begin) {
                return Err(of(&format!(
                    "shape {shape:?} of {dtype} does not make {} bytes",
                    end - begin
                )));
            }
        }
        let Ok(shape) = shape.into_iter().map(usize::try_from).collect() else {
            return Err(of("its shape is too large for this machine"));
        };
        tensors.push(TensorInfo {
            name: name.into(),
            dtype,
            shape,
            file: file.clone(),
            range: data + begin..data + end,
            shard,
        });
    }

    let mut by_place: Vec<&TensorInfo> = tensors.iter().filter(|info| info.n_bytes() > 0).collect();
    by_place.sort_by_key(|info| info.range.start);
    for pair in by_place.windows(2) {
        if pair[1].range.start < pair[0].range.end {
            return Err(invalid(format!(
                "the tensors {} and {} overlap",
                pair[0].name, pair[1].name
            )));
        }
    }
    Ok(tensors)
}

fn numbers(entry: &Value, key: &str) -> Option<Vec<u64>> {
    entry.get(key)?.as_array()?.iter().map(Value::as_u64).collect()
}

/// The header's entries in order, `__metadata__` left out, duplicates refused (a JSON map would keep the last one).
struct Entries;

impl<'de> DeserializeSeed<'de> for Entries {
    type Value = Vec<(String, Value)>;

    fn deserialize<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> std::result::Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Entries {
    type Value = Vec<(String, Value)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object from tensor names to descriptions")
    }

    fn visit_map<A: MapAccess<'de>>(
        self,
        mut map: A,
    ) -> std::result::Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        let mut seen = BTreeSet::new();
        while let Some((name, value)) = map.next_entry::<String, Value>()? {
            if name == "__metadata__" {
                continue;
            }
            if !seen.insert(name.clone()) {
                return Err(serde::de::Error::custom(format!("the name {name} occurs twice")));
            }
            entries.push((name, value));
        }
        Ok(entries)
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Manifest

/// What a model needs of a checkpoint, collected while the model is built.
pub struct Manifest<'w> {
    weights: &'w Weights,
    report: RefCell<Report>,
}

#[derive(Default)]
struct Report {
    problems: Vec<WeightError>,
    used: BTreeSet<Arc<str>>,
    order: Vec<TensorInfo>,
}

impl<'w> Manifest<'w> {
    /// Nothing asked for yet.
    pub fn new(weights: &'w Weights) -> Self {
        Self { weights, report: RefCell::default() }
    }

    /// The cursor at the top of the names.
    pub fn root(&self) -> WeightPath<'_> {
        WeightPath { manifest: self, prefix: String::new() }
    }

    /// The checkpoint.
    pub fn weights(&self) -> &'w Weights {
        self.weights
    }

    /// The tensors found so far, each once, in the order they were first asked for.
    pub fn tensors(&self) -> Vec<TensorInfo> {
        self.report.borrow().order.clone()
    }

    /// Bytes in the file of the tensors found so far, each counted once.
    pub fn total_bytes(&self) -> u64 {
        self.report.borrow().order.iter().map(TensorInfo::n_bytes).sum()
    }

    /// Ends the collection: an error that lists everything missing, misshapen or of an unsupported type; or the
    /// names nobody asked for, which a caller may want to warn about.
    ///
    /// Names covered by `ignored` are not reported. `"encoder."` covers names that start so, and a name without
    /// final dot such as `"position_ids"` also covers names that end in `.position_ids`.
    pub fn finish(&self, ignored: &[&str]) -> Result<Vec<String>> {
        let mut report = self.report.borrow_mut();
        let mut problems = std::mem::take(&mut report.problems);
        match problems.len() {
            0 => {}
            1 => return Err(problems.remove(0)),
            _ => return Err(WeightError::Many { problems }),
        }
        let covered = |name: &str| {
            ignored.iter().any(|entry| {
                name.starts_with(entry)
                    || name
                        .strip_suffix(entry)
                        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            })
        };
        let extra =
            self.weights.names().filter(|name| !report.used.contains(*name) && !covered(name));
        Ok(extra.map(str::to_string).collect())
    }
}

/// A cursor over a checkpoint's names, as in `w.pp("transformer_blocks").pp(0).require("norm1.linear.weight", ..)`.
#[derive(Clone)]
pub struct WeightPath<'m> {
    manifest: &'m Manifest<'m>,
    prefix: String,
}

impl WeightPath<'_> {
    /// One level down: a name or an index. May hold dots.
    #[must_use]
    pub fn pp(&self, part: impl fmt::Display) -> Self {
        Self { manifest: self.manifest, prefix: self.full(&part.to_string()) }
    }

    /// One level down if any name lies there, else where we are: CLIP checkpoints have `text_model.` before every
    /// name, or not, depending on the version of transformers that wrote them.
    #[must_use]
    pub fn pp_if_present(&self, part: &str) -> Self {
        let below = self.full(part) + ".";
        let mut after = self
            .manifest
            .weights
            .tensors
            .range::<str, _>((Bound::Included(below.as_str()), Bound::Unbounded));
        match after.next().is_some_and(|(name, _)| name.starts_with(&below)) {
            true => self.pp(part),
            false => self.clone(),
        }
    }

    /// The names above, joined by dots.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Whether a tensor is there; asks for nothing.
    pub fn has(&self, name: &str) -> bool {
        self.manifest.weights.info(&self.full(name)).is_some()
    }

    /// The tensor `name`, which must have `shape` and a type we read.
    ///
    /// If it has not, that is noted for [`Manifest::finish`] and a stand-in with the expected shape comes back, which
    /// cannot be read: building goes on, so that all problems are found together.
    pub fn require(&self, name: &str, shape: &[usize]) -> TensorInfo {
        self.require_any(&[name], shape)
    }

    /// Like [`require`](Self::require), for a tensor that may be stored under several names; takes the first that is
    /// there, and counts all as asked for. (T5: `shared.weight` is `encoder.embed_tokens.weight`.)
    pub fn require_any(&self, names: &[&str], shape: &[usize]) -> TensorInfo {
        let weights = self.manifest.weights;
        let names: Vec<String> = names.iter().map(|name| self.full(name)).collect();
        let report = &mut *self.manifest.report.borrow_mut();
        let found = names.iter().find_map(|name| weights.info(name));
        let is_new = found.is_some_and(|info| !report.used.contains(&info.name));
        for info in names.iter().filter_map(|name| weights.info(name)) {
            report.used.insert(info.name.clone());
        }
        let Some(info) = found else {
            let name = names.join(" or ");
            report
                .problems
                .push(WeightError::Missing { name: name.clone(), file: weights.place.clone() });
            return TensorInfo {
                name: name.into(),
                dtype: StoredDType::F32,
                shape: shape.to_vec(),
                file: "".into(),
                range: 0..0,
                shard: usize::MAX,
            };
        };
        if info.shape != shape {
            report.problems.push(WeightError::Shape {
                name: info.name.to_string(),
                expected: shape.to_vec(),
                found: info.shape.clone(),
                file: info.file.to_string(),
            });
            return TensorInfo {
                shape: shape.to_vec(),
                file: "".into(),
                shard: usize::MAX,
                ..info.clone()
            };
        }
        if info.dtype.bytes().is_none() {
            report.problems.push(unsupported(info));
        }
        if is_new {
            report.order.push(info.clone());
        }
        info.clone()
    }

    /// The tensor `name` if it is there (then like [`require`](Self::require)), else nothing.
    pub fn optional(&self, name: &str, shape: &[usize]) -> Option<TensorInfo> {
        self.has(name).then(|| self.require(name, shape))
    }

    fn full(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.to_string() } else { format!("{}.{name}", self.prefix) }
    }
}
