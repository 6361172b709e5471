//! The metadata of a GGUF file: what stands before its tensors.

use std::collections::BTreeMap;
use std::ops::Range;

use super::cursor::Cursor;
use crate::checkpoint::weights::WeightError;

/// More entries than this are an attack or a damaged file: language models have about 40.
const MAX_ENTRIES: u64 = 1 << 16;
/// Arrays in arrays, at most.
const MAX_DEPTH: usize = 4;
/// Longer names are an attack or a damaged file.
const MAX_NAME_BYTES: usize = 1 << 10;
/// Of longer texts, only the place is kept.
const MAX_TEXT_BYTES: u64 = 1 << 16;

/// The value of a metadata entry.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A whole number.
    Integer(i128),
    /// Any number.
    Number(f64),
    /// Yes or no.
    Flag(bool),
    /// Text.
    Text(String),
    /// What is too large to keep: a long text, or an array.
    Array {
        /// GGUF's number of the items' type.
        item: u32,
        /// How many there are.
        count: u64,
        /// Where they lie, in bytes from the start of the file.
        range: Range<u64>,
    },
}

/// The metadata of a GGUF file.
#[derive(Clone, Debug, Default)]
pub struct Metadata(BTreeMap<String, Value>);

impl Metadata {
    pub(super) fn read(cursor: &mut Cursor<'_>, n: u64) -> Result<Self, WeightError> {
        if n > MAX_ENTRIES {
            return Err(cursor.damaged(format!(
                "{n} metadata entries are announced, expected at most {MAX_ENTRIES}"
            )));
        }
        let mut entries = BTreeMap::new();
        for _ in 0..n {
            let name = cursor.text("the name of a metadata entry")?;
            if name.len() > MAX_NAME_BYTES {
                return Err(cursor.damaged(format!(
                    "the name of a metadata entry has {} bytes, expected at most {MAX_NAME_BYTES}",
                    name.len()
                )));
            }
            let what = format!("the metadata entry {name}");
            let kind = cursor.u32(&what)?;
            let value = read_value(cursor, kind, &what)?;
            if entries.insert(name, value).is_some() {
                return Err(cursor.damaged(format!("{what} occurs twice")));
            }
        }
        Ok(Metadata(entries))
    }

    /// An entry.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// All entries, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// An entry that is a text.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.get(name) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// An entry that is a whole number of at least 0.
    pub fn count(&self, name: &str) -> Option<u64> {
        match self.get(name) {
            Some(Value::Integer(n)) => u64::try_from(*n).ok(),
            _ => None,
        }
    }
}

/// Bytes of a value of fixed size; `None` for texts, arrays, and numbers that no type has.
fn size(kind: u32) -> Option<u64> {
    Some(match kind {
        0 | 1 | 7 => 1,
        2 | 3 => 2,
        4..=6 => 4,
        10..=12 => 8,
        _ => return None,
    })
}

const TEXT: u32 = 8;
const ARRAY: u32 = 9;

fn read_value(cursor: &mut Cursor<'_>, kind: u32, what: &str) -> Result<Value, WeightError> {
    if kind == ARRAY {
        let item = cursor.u32(what)?;
        let count = cursor.u64(what)?;
        let start = cursor.at();
        skip_items(cursor, item, count, what, 1)?;
        return Ok(Value::Array { item, count, range: start..cursor.at() });
    }
    if kind == TEXT {
        let n = cursor.u64(what)?;
        if n > MAX_TEXT_BYTES {
            let start = cursor.at();
            cursor.skip(n, what)?;
            return Ok(Value::Array { item: 0, count: n, range: start..cursor.at() });
        }
        let text = cursor.bytes(n, what)?;
        return Ok(Value::Text(String::from_utf8_lossy(text).into_owned()));
    }
    let Some(size) = size(kind) else { return Err(no_type(cursor, kind, what)) };
    let mut word = [0; 8];
    word[..size as usize].copy_from_slice(cursor.bytes(size, what)?);
    let bits = u64::from_le_bytes(word);
    Ok(match kind {
        1 => Value::Integer((bits as i8).into()),
        3 => Value::Integer((bits as i16).into()),
        5 => Value::Integer((bits as i32).into()),
        11 => Value::Integer((bits as i64).into()),
        6 => Value::Number(f32::from_bits(bits as u32).into()),
        12 => Value::Number(f64::from_bits(bits)),
        7 => Value::Flag(bits != 0),
        _ => Value::Integer(bits.into()),
    })
}

fn no_type(cursor: &Cursor<'_>, kind: u32, what: &str) -> WeightError {
    cursor.damaged(format!("{what} has type {kind}, expected 0 to 12"))
}

/// Moves over the items of an array.
fn skip_items(
    cursor: &mut Cursor<'_>,
    item: u32,
    count: u64,
    what: &str,
    depth: usize,
) -> Result<(), WeightError> {
    if depth > MAX_DEPTH {
        return Err(
            cursor.damaged(format!("{what} has arrays in arrays, more than {MAX_DEPTH} deep"))
        );
    }
    if let Some(size) = size(item) {
        return cursor.skip(count.saturating_mul(size), what);
    }
    // A text has at least its length, an array its type and its length.
    let least = match item {
        TEXT => 8,
        ARRAY => 12,
        _ => return Err(no_type(cursor, item, what)),
    };
    if count > cursor.left() / least {
        // As an error of what is missing.
        return cursor.skip(count.saturating_mul(least), what);
    }
    for _ in 0..count {
        if item == TEXT {
            let n = cursor.u64(what)?;
            cursor.skip(n, what)?;
        } else {
            let inner = cursor.u32(what)?;
            let n = cursor.u64(what)?;
            skip_items(cursor, inner, n, what, depth + 1)?;
        }
    }
    Ok(())
}
