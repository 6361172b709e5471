//! The tensors of a GGUF file: where they lie and what they look like.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::GgufError;
use super::cursor::Cursor;
use super::metadata::{Metadata, Value};
use crate::checkpoint::dtype::StoredDType;
use crate::checkpoint::weights::{MAX_TENSORS, TensorInfo, WeightError};

/// Dimensions of a tensor, at most.
const MAX_DIMENSIONS: u32 = 4;
/// Where tensors begin, if the file does not say: multiples of this.
const ALIGNMENT: u64 = 32;
/// A larger alignment is an attack or a damaged file.
const MAX_ALIGNMENT: u64 = 1 << 20;

type Result<T> = std::result::Result<T, WeightError>;

/// A tensor as the header has it.
struct Entry {
    name: String,
    /// The slowest first.
    shape: Vec<u64>,
    kind: u32,
    /// From the start of the data.
    offset: u64,
}

pub(super) fn read(
    cursor: &mut Cursor<'_>,
    metadata: &Metadata,
    n: u64,
    shard: usize,
) -> Result<Vec<TensorInfo>> {
    if n > MAX_TENSORS as u64 {
        return Err(
            cursor.damaged(format!("{n} tensors are announced, expected at most {MAX_TENSORS}"))
        );
    }
    let mut entries = Vec::new();
    let mut names = BTreeSet::new();
    for _ in 0..n {
        let entry = read_entry(cursor)?;
        if !names.insert(entry.name.clone()) {
            return Err(cursor.damaged(format!("the tensor {} occurs twice", entry.name)));
        }
        entries.push(entry);
    }
    let alignment = metadata.count("general.alignment");
    let alignment = match (metadata.get("general.alignment"), alignment) {
        (None, _) => ALIGNMENT,
        (_, Some(n)) if n.is_power_of_two() && n <= MAX_ALIGNMENT => n,
        (Some(found), _) => {
            return Err(cursor.damaged(format!(
                "general.alignment is {found:?}, expected a power of two up to {MAX_ALIGNMENT}"
            )));
        }
    };
    let data = cursor.at().next_multiple_of(alignment);
    let mut tensors = Vec::with_capacity(entries.len());
    for entry in entries {
        tensors.push(locate(cursor, metadata, entry, (data, alignment), shard)?);
    }
    end_unknown_types(&mut tensors, cursor.len());
    check_overlaps(cursor, &tensors)?;
    Ok(tensors)
}

fn read_entry(cursor: &mut Cursor<'_>) -> Result<Entry> {
    let name = cursor.text("the name of a tensor")?;
    let what = format!("the tensor {}", shown(&name));
    let n_dimensions = cursor.u32(&what)?;
    if !(1..=MAX_DIMENSIONS).contains(&n_dimensions) {
        return Err(cursor.damaged(format!(
            "{what} has {n_dimensions} dimensions, expected 1 to {MAX_DIMENSIONS}"
        )));
    }
    let mut shape = Vec::new();
    for _ in 0..n_dimensions {
        shape.push(cursor.u64(&what)?);
    }
    let product = shape.iter().try_fold(1u64, |n, dim| n.checked_mul(*dim));
    if product.is_none_or(|n| n >= 1 << 63) {
        return Err(cursor.damaged(format!("{what} has the shape {shape:?}, which overflows")));
    }
    // The file has the fastest first.
    shape.reverse();
    Ok(Entry { name, shape, kind: cursor.u32(&what)?, offset: cursor.u64(&what)? })
}

fn locate(
    cursor: &Cursor<'_>,
    metadata: &Metadata,
    entry: Entry,
    (data, alignment): (u64, u64),
    shard: usize,
) -> Result<TensorInfo> {
    let Entry { name, shape, kind, offset } = entry;
    let what = || format!("the tensor {}", shown(&name));
    if !offset.is_multiple_of(alignment) {
        return Err(cursor.damaged(format!(
            "{} begins at {offset}, expected a multiple of {alignment}",
            what()
        )));
    }
    let dtype = StoredDType::of_ggml(kind);
    let n: u64 = shape.iter().product();
    let bytes = match dtype.known() {
        None => 0,
        Some(row) => {
            let columns = shape.last().copied().unwrap_or(1);
            let rows = row.block.bytes_of(columns).and(row.block.bytes_of(n));
            rows.ok_or_else(|| {
                cursor.damaged(format!(
                    "{} has rows of {columns} numbers in {dtype}, expected a multiple of {}",
                    what(),
                    row.block.numbers
                ))
            })?
        }
    };
    let start = data.checked_add(offset);
    let end = start.and_then(|start| start.checked_add(bytes));
    let (Some(start), Some(end)) = (start, end.filter(|end| *end <= cursor.len())) else {
        return Err(GgufError::Truncated {
            file: cursor.file.to_string(),
            what: what(),
            at: data.saturating_add(offset),
            needed: bytes,
            len: cursor.len(),
        }
        .into());
    };
    let mut sides = Vec::new();
    for side in original_shape(cursor, metadata, &name, n)?.unwrap_or(shape) {
        sides
            .push(usize::try_from(side).map_err(|_| {
                cursor.damaged(format!("{} is too large for this machine", what()))
            })?);
    }
    Ok(TensorInfo::stored(Arc::from(name), dtype, sides, cursor.file.clone(), start..end, shard))
}

/// The shape that the tensor had before a converter made it a matrix: `comfy.gguf.orig_shape.NAME`, a list of i32.
fn original_shape(
    cursor: &Cursor<'_>,
    metadata: &Metadata,
    name: &str,
    n: u64,
) -> Result<Option<Vec<u64>>> {
    const I32: u32 = 5;
    let entry = format!("comfy.gguf.orig_shape.{name}");
    let Some(Value::Array { item: I32, count, range }) = metadata.get(&entry) else {
        return Ok(None);
    };
    if *count > 16 {
        return Err(cursor.damaged(format!("{} has {count} dimensions", shown(&entry))));
    }
    let bytes = cursor.read_at(range.clone())?;
    let shape: Vec<u64> = bytes
        .chunks_exact(4)
        .map(|b| u64::from(u32::from_le_bytes([b[0], b[1], b[2], b[3]])))
        .collect();
    let product = shape.iter().try_fold(1u64, |n, dim| n.checked_mul(*dim));
    if product != Some(n) {
        return Err(cursor
            .damaged(format!("{} is {shape:?}, but the tensor has {n} numbers", shown(&entry))));
    }
    Ok(Some(shape))
}

/// A tensor of a type whose size is not known ends where the next one begins.
fn end_unknown_types(tensors: &mut [TensorInfo], len: u64) {
    let mut starts: Vec<u64> = tensors.iter().map(|info| info.range.start).collect();
    starts.sort_unstable();
    for info in tensors.iter_mut().filter(|info| info.dtype.known().is_none()) {
        let next = starts.partition_point(|start| *start <= info.range.start);
        info.range.end = starts.get(next).copied().unwrap_or(len);
    }
}

fn check_overlaps(cursor: &Cursor<'_>, tensors: &[TensorInfo]) -> Result<()> {
    let mut by_place: Vec<&TensorInfo> = tensors.iter().filter(|info| info.n_bytes() > 0).collect();
    by_place.sort_by_key(|info| info.range.start);
    match by_place.windows(2).find(|pair| pair[1].range.start < pair[0].range.end) {
        None => Ok(()),
        Some(pair) => Err(cursor.damaged(format!(
            "the tensors {} and {} overlap",
            shown(&pair[0].name),
            shown(&pair[1].name)
        ))),
    }
}

/// A name of bounded length, for messages.
fn shown(name: &str) -> String {
    name.chars().take(200).collect()
}
