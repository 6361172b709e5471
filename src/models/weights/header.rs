//! The header of a safetensors file: which tensors it holds, and where; damaged ones are refused.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use super::{Result, StoredDType, TensorInfo, WeightError};
use crate::models::source::Blob;

/// As in the reference implementation: a longer header is an attack or a damaged file.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// Reads the header of one safetensors file: `u64` length, JSON of that length, then the tensors' bytes.
/// <https://huggingface.co/docs/safetensors#format>
pub(super) fn parse_header(
    blob: &dyn Blob,
    file: &Arc<str>,
    shard: usize,
) -> Result<Vec<TensorInfo>> {
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
