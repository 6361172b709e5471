//! The header of a safetensors file: which tensors it holds, and where; damaged ones are refused.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::scaling::{DeclaredLayer, declared_layers};
use super::{Result, TensorInfo, WeightError};
use crate::checkpoint::dtype::StoredDType;
use crate::checkpoint::json::{self, Name};
use crate::checkpoint::source::Blob;
use crate::escape::Escaped;

/// More tensors than this in one file, or in one checkpoint, are an attack or a damaged file: FLUX.1 has 780.
pub(crate) const MAX_TENSORS: usize = 1 << 16;
/// More dimensions than this are an attack or a damaged file: images, volumes and their batches have 5.
const MAX_DIMENSIONS: usize = 16;
/// Longer names of types than this are an attack or a damaged file: `F8_E4M3FNUZ` is among the longest.
const MAX_DTYPE_BYTES: usize = 32;
/// As in the reference implementation: a longer header is an attack or a damaged file.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// Reads the header of one safetensors file: `u64` length, JSON of that length, then the tensors' bytes.
/// <https://huggingface.co/docs/safetensors#format>
///
/// Gives the tensors, and the layers with the formats that the metadata declares for them.
pub(super) fn parse_header(
    blob: &dyn Blob,
    file: &Arc<str>,
    shard: usize,
) -> Result<(Vec<TensorInfo>, Vec<DeclaredLayer>)> {
    let invalid = |reason: String| WeightError::Header { file: file.to_string(), reason };
    let len = blob.len();
    let start = blob.bytes(0..len.min(64))?;
    if let Some(other) = other_format(&start) {
        return Err(WeightError::OtherFormat { file: file.to_string(), what: other });
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
    // Before so much is read: other files have any number in the place of the length.
    if header_bytes > 0 && start.get(8) != Some(&b'{') {
        return Err(invalid(
            "the header is not the JSON it should be: it does not begin with {".into(),
        ));
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
                // It may quote what it found, whatever its length.
                let error: String = error.to_string().chars().take(300).collect();
                return Err(invalid(format!("the header is not the JSON it should be: {error}")));
            }
        };

    let (entries, metadata) = entries;
    let declared = metadata.map_or(Ok(vec![]), declared_layers).map_err(&invalid)?;
    let mut tensors = Vec::with_capacity(entries.len());
    for (name, entry) in entries {
        let of = |what: &str| {
            let name: String = name.chars().take(200).collect();
            invalid(format!("the tensor {name}: {what}"))
        };
        let field = |name: &str| entry.get(name).copied();
        let dtype = match field("dtype").and_then(json::value::<String>) {
            Some(dtype) if dtype.len() <= MAX_DTYPE_BYTES => StoredDType::named(&dtype),
            Some(dtype) => {
                let (found, most) = (dtype.len(), MAX_DTYPE_BYTES);
                return Err(of(&format!(
                    "its dtype is a text of {found} bytes, expected at most {most}"
                )));
            }
            None => return Err(of("no dtype")),
        };
        let shape = field("shape");
        let Some(shape) = shape.and_then(|shape| json::list::<u64>(shape, MAX_DIMENSIONS)) else {
            let found = match shape {
                Some(shape) if shape.get().starts_with('[') => {
                    let found: String = shape.get().chars().take(60).collect();
                    format!(" but {found}")
                }
                _ => String::new(),
            };
            return Err(of(&format!(
                "no shape (a list of at most {MAX_DIMENSIONS} whole numbers: no tensor has more dimensions){found}"
            )));
        };
        let offsets = field("data_offsets").and_then(|offsets| json::list::<u64>(offsets, 2));
        let Some([begin, end]) = offsets.and_then(|offsets| <[u64; 2]>::try_from(offsets).ok())
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
        if let Some(row) = dtype.known()
            && row.block.bytes_of(n_elements) != Some(end - begin)
        {
            return Err(of(&format!(
                "shape {shape:?} of {dtype} does not make {} bytes",
                end - begin
            )));
        }
        let Ok(shape) = shape.into_iter().map(usize::try_from).collect() else {
            return Err(of("its shape is too large for this machine"));
        };
        let range = data + begin..data + end;
        let name = name.as_ref().into();
        tensors.push(TensorInfo::stored(name, dtype, shape, file.clone(), range, shard));
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
    Ok((tensors, declared))
}

/// The texts of the header's `__metadata__`, of a file whose header was read before.
pub(super) fn metadata(blob: &dyn Blob, file: &Arc<str>) -> Result<BTreeMap<String, String>> {
    let invalid = |reason: String| WeightError::Header { file: file.to_string(), reason };
    let start = blob.bytes(0..8)?;
    let bytes = start.first_chunk::<8>().map_or(0, |n| u64::from_le_bytes(*n));
    let header = blob.bytes(8..8 + bytes.min(MAX_HEADER_BYTES))?;
    let text = std::str::from_utf8(&header).unwrap_or_default();
    let found = json::fields(text, |name| name == "__metadata__").map_err(invalid)?;
    let Some(texts) = found.get("__metadata__") else { return Ok(BTreeMap::new()) };
    let texts = json::fields(texts.get(), |_| true).map_err(invalid)?;
    let text = |(name, raw): (String, &RawValue)| Some((name, json::value::<String>(raw)?));
    Ok(texts.into_iter().filter_map(text).collect())
}

/// The format of a file that is no safetensors file, judged by its beginning, and what to do about it.
fn other_format(start: &[u8]) -> Option<&'static str> {
    let low = String::from_utf8_lossy(start).trim_start().to_ascii_lowercase();
    match start {
        // The name of the first file in the archive; PyTorch's begin with a folder of its own.
        [b'P', b'K', 3, 4, ..]
            if start.get(30..).is_some_and(|name| name.starts_with(b"model_index.json")) =>
        {
            Some(
                "a DDUF archive, which is not read; unpack it (it is a ZIP file) and give the folder",
            )
        }
        [b'P', b'K', 3, 4, ..] | [0x80, 2..=5, b'}' | b'c' | b'(' | 0x95 | 0x8a, ..] => Some(
            "a pickled checkpoint of PyTorch, which is not read, as it can run any program; get the model as safetensors, \
             or load it in ComfyUI and save it there, convert it with stable-diffusion.cpp (sd -M convert), or save it \
             with safe_serialization=True",
        ),
        [0x89, b'H', b'D', b'F', ..] => {
            Some("an HDF5 file, which is not read; get the model as safetensors")
        }
        _ if low.starts_with("version https://git-lfs") => Some(
            "a Git LFS pointer, not the file itself; run `git lfs pull` in the model folder to get it",
        ),
        _ if low.starts_with("<!doctype") || low.starts_with("<html") => Some(
            "a web page: the server had answered with a page (to log in, or an error); download the file again",
        ),
        [0x1f, 0x8b, ..] => Some("a file that was compressed with gzip; unpack it first"),
        // A length like this would be that of petabytes.
        [..] if start.len() >= 8 && start[..8].iter().all(|b| (b' '..=b'~').contains(b)) => Some(
            "a text: the server may have answered with an error; look into it, and download the file again",
        ),
        _ if start.len() == 64 && start.iter().all(|b| *b == 0) => {
            Some("an unfinished download, which begins with zeros; fetch the file again")
        }
        _ => None,
    }
}

/// The header's entries in order, `__metadata__` apart from them, duplicates refused (a JSON map would keep the last one).
struct Entries;

impl<'de> DeserializeSeed<'de> for Entries {
    type Value = (Vec<(Cow<'de, str>, Entry<'de>)>, Option<&'de RawValue>);

    fn deserialize<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> std::result::Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Entries {
    type Value = (Vec<(Cow<'de, str>, Entry<'de>)>, Option<&'de RawValue>);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object from tensor names to descriptions")
    }

    fn visit_map<A: MapAccess<'de>>(
        self,
        mut map: A,
    ) -> std::result::Result<Self::Value, A::Error> {
        let (mut entries, mut metadata) = (Vec::new(), None);
        let mut seen = BTreeSet::new();
        while let Some(Name(name)) = map.next_key()? {
            if name == "__metadata__" {
                metadata = Some(map.next_value()?);
                continue;
            }
            if !seen.insert(name.clone()) {
                let name: String = name.chars().take(200).collect();
                return Err(A::Error::custom(format_args!(
                    "the name {} occurs twice",
                    Escaped(&name)
                )));
            }
            if seen.len() > MAX_TENSORS {
                return Err(A::Error::custom(format_args!("more than {MAX_TENSORS} tensors")));
            }
            // What is no object has no fields.
            let entry: &RawValue = map.next_value()?;
            let wanted = ["dtype", "shape", "data_offsets"];
            let fields = json::fields(entry.get(), |name| wanted.contains(&name));
            entries.push((name, fields.unwrap_or_default()));
        }
        Ok((entries, metadata))
    }
}

/// The fields of one tensor that are read.
type Entry<'a> = BTreeMap<String, &'a RawValue>;
