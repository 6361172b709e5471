//! Weights as plain data: which tensors a checkpoint holds, and what a model needs of them.
//!
//! - [`Weights`] parses headers only (`header.rs`, and [`gguf`]), so opening a 24 GB checkpoint takes
//!   milliseconds. What a file is, its first bytes say, not its name.
//! - `views.rs`: tensors under other names, rows of tensors, and halves that change places, without copies.
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

mod error;
mod header;
mod index;
mod manifest;
mod scaling;
mod values;
mod views;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::changes::LowRank;
use super::dtype::StoredDType;
use super::gguf;
use super::source::{Blob, Source};
use crate::checkpoint::source::unfinished_download;
use header::parse_header;

pub use error::WeightError;
pub(crate) use header::MAX_TENSORS;
pub use manifest::{Manifest, WeightPath};
pub use scaling::{NestedScales, Nf4Scales, Scales, Scaling};
pub(crate) use views::{Viewed, not_split};

type Result<T> = std::result::Result<T, WeightError>;

// ---------------------------------------------------------------------------------------------------------------------
// Tensors

/// Where one tensor lies and what it looks like.
///
/// It need not be one of the file's: see `views.rs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// As in the file, prefix and all, or as the model calls it.
    pub name: Arc<str>,
    /// How its numbers are stored.
    pub dtype: StoredDType,
    /// Row-major; empty for a scalar.
    pub shape: Vec<usize>,
    /// The file's path, for messages.
    pub file: Arc<str>,
    /// Bytes from the start of the file.
    pub range: Range<u64>,
    /// What the stored codes need to become numbers, if that is in other tensors.
    pub scaling: Option<Scaling>,
    shard: usize,
    /// Whether the file has the second half of the rows before the first.
    halves_swapped: bool,
}

impl TensorInfo {
    /// A tensor as the file has it.
    pub(crate) fn stored(
        name: Arc<str>,
        dtype: StoredDType,
        shape: Vec<usize>,
        file: Arc<str>,
        range: Range<u64>,
        shard: usize,
    ) -> Self {
        TensorInfo { name, dtype, shape, file, range, scaling: None, shard, halves_swapped: false }
    }

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

/// The tensors of one checkpoint: one file, or several with an index.
///
/// Cheap to clone: clones share the open files.
#[derive(Clone)]
pub struct Weights {
    /// The folder or file, for messages.
    place: String,
    shards: Vec<Arc<dyn Blob>>,
    files: Vec<Arc<str>>,
    /// Of the first file, if it is GGUF.
    gguf: Option<Arc<gguf::Metadata>>,
    tensors: BTreeMap<Arc<str>, TensorInfo>,
    /// Layers and the formats that headers declare for them, until the tensors are joined.
    declared: Vec<scaling::DeclaredLayer>,
    /// The type of the stand-ins for tensors that are missing.
    missing: StoredDType,
    /// What is added to layers, by their names, while networks run.
    low_rank: Arc<BTreeMap<String, Vec<LowRank>>>,
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
        if let Some(weights) = source.weights(dir) {
            return Ok(weights.clone());
        }
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
            "; a GGUF file is not looked for in a model folder: give it as this part of the model"
                .into()
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

    /// Opens a single file, safetensors or GGUF, or all files of an index (`….safetensors.index.json`).
    pub fn open_path(source: &dyn Source, path: &str) -> Result<Self> {
        match path.to_ascii_lowercase().ends_with(".index.json") {
            true => {
                Self::open_index(source, path.rsplit_once('/').map_or("", |(dir, _)| dir), path)
            }
            false => Self::open_file(source, path),
        }
    }

    /// Opens a single file, safetensors or GGUF.
    pub fn open_file(source: &dyn Source, path: &str) -> Result<Self> {
        let mut weights = Self::empty(shown(source, path));
        weights.add_file(source, path)?;
        weights.join_scales()?;
        Ok(weights)
    }

    /// Reads the header of an open file, safetensors or GGUF, which messages call `name`.
    pub fn open_blob(blob: Box<dyn Blob>, name: &str) -> Result<Self> {
        let mut weights = Self::empty(name.to_owned());
        weights.add_blob(blob, name.into())?;
        weights.join_scales()?;
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
            gguf: None,
            tensors: BTreeMap::new(),
            declared: Vec::new(),
            missing: dtype,
            low_rank: Arc::default(),
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
        weights.join_scales()?;
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
        let tensors = match blob.bytes(0..blob.len().min(4))?.as_ref() == gguf::MAGIC {
            true => {
                let (metadata, tensors) = gguf::read(blob.as_ref(), &file, shard)?;
                self.gguf.get_or_insert_with(|| Arc::new(metadata));
                tensors
            }
            false => {
                let (tensors, declared) = parse_header(blob.as_ref(), &file, shard)?;
                self.declared.extend(declared);
                tensors
            }
        };
        for info in tensors {
            if let Some(first) = self.tensors.get(&info.name) {
                return Err(header(format!("{} is also in {}", info.name, first.file)));
            }
            if self.tensors.len() == MAX_TENSORS {
                return Err(header(format!("the checkpoint has more than {MAX_TENSORS} tensors")));
            }
            self.tensors.insert(info.name.clone(), info);
        }
        self.shards.push(blob.into());
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

    /// The texts in the header of a single safetensors file, by their names.
    pub fn metadata(&self) -> Result<BTreeMap<String, String>> {
        match (&self.shards[..], &self.files[..], &self.gguf) {
            ([blob], [file], None) => header::metadata(blob.as_ref(), file),
            _ => Ok(BTreeMap::new()),
        }
    }

    /// What is added to the layer `name` while the network runs.
    pub fn low_rank(&self, name: &str) -> &[LowRank] {
        self.low_rank.get(name).map_or(&[], Vec::as_slice)
    }

    /// The same checkpoint with products that are added to layers, by their names, while networks run.
    #[must_use]
    pub fn with_low_rank(self, low_rank: BTreeMap<String, Vec<LowRank>>) -> Self {
        Weights { low_rank: low_rank.into(), ..self }
    }

    /// The metadata of a GGUF file.
    pub fn gguf(&self) -> Option<&gguf::Metadata> {
        self.gguf.as_deref()
    }

    /// The bytes of an array or a long text in [`Weights::gguf`], and what it is in messages; `None` if there is none of that
    /// name.
    pub fn gguf_array(&self, name: &str) -> Result<Option<gguf::Array<'_>>> {
        let (Some(metadata), Some(blob)) = (&self.gguf, self.shards.first()) else {
            return Ok(None);
        };
        let file = self.files.first().map_or("", AsRef::as_ref);
        gguf::Array::read(metadata, name, blob.as_ref(), file)
    }

    /// The bytes `range` of a tensor as it is stored, counted from the tensor's start.
    pub fn bytes(&self, info: &TensorInfo, range: Range<u64>) -> Result<Cow<'_, [u8]>> {
        let (blob, range) = self.locate(info, range)?;
        if !info.halves_swapped {
            return Ok(blob.bytes(range)?);
        }
        let Range { start, end } = info.range;
        let middle = start + (end - start) / 2;
        let half = middle - start;
        if range.end <= middle {
            return Ok(blob.bytes(range.start + half..range.end + half)?);
        }
        if range.start >= middle {
            return Ok(blob.bytes(range.start - half..range.end - half)?);
        }
        let second = blob.bytes(start..range.end - half)?;
        let mut bytes = blob.bytes(range.start + half..end)?.into_owned();
        bytes.extend_from_slice(&second);
        Ok(bytes.into())
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
        count: 1,
        file: info.file.to_string(),
    }
}

fn join(dir: &str, name: &str) -> String {
    if dir.is_empty() { name.into() } else { format!("{dir}/{name}") }
}

fn shown(source: &dyn Source, path: &str) -> String {
    source.shown(path)
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
