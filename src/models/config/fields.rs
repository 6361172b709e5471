//! Reads the fields of one JSON file. What is wrong with one is said with file, field, found and expected.

use serde_json::{Map, Value};

use super::{ConfigError, Result};
use crate::models::source::Source;

/// The largest size any field may have; keeps products of two far from overflow.
const MAX_COUNT: u64 = 1 << 22;
/// The largest product of heads and head dim.
const MAX_WIDTH: u64 = 1 << 20;
/// More layers than this is a damaged file.
const MAX_LAYERS: u64 = 1024;

/// One JSON object and the name of the file it came from. A null field counts as absent, as in Python.
pub(super) struct Fields {
    pub(super) path: String,
    pub(super) map: Map<String, Value>,
}

impl Fields {
    pub(super) fn open(source: &dyn Source, path: &str) -> Result<Self> {
        match Self::open_if_there(source, path)? {
            Some(fields) => Ok(fields),
            None => {
                let found = source.list("").unwrap_or_default();
                let found = if found.is_empty() { "nothing".into() } else { found.join(", ") };
                Err(ConfigError::MissingFile {
                    path: shown(source, path),
                    found: shortened(&found),
                })
            }
        }
    }

    pub(super) fn open_if_there(source: &dyn Source, path: &str) -> Result<Option<Self>> {
        let Some(text) = source.text(path)? else {
            return Ok(None);
        };
        let path = shown(source, path);
        match serde_json::from_str(&text) {
            Ok(Value::Object(map)) => Ok(Some(Self { path, map })),
            Ok(other) => Err(ConfigError::Json {
                path,
                reason: format!(
                    "expected an object in braces, found {}",
                    shortened(&other.to_string())
                ),
            }),
            Err(error) => Err(ConfigError::Json { path, reason: error.to_string() }),
        }
    }

    pub(super) fn get(&self, field: &str) -> Option<&Value> {
        self.map.get(field).filter(|value| !value.is_null())
    }

    pub(super) fn missing(&self, field: &str, expected: &str) -> ConfigError {
        ConfigError::MissingField {
            path: self.path.clone(),
            field: field.into(),
            expected: expected.into(),
        }
    }

    pub(super) fn wrong(
        &self,
        field: &str,
        found: impl std::fmt::Display,
        expected: &str,
    ) -> ConfigError {
        ConfigError::Field {
            path: self.path.clone(),
            field: field.into(),
            found: shortened(&found.to_string()),
            expected: expected.into(),
        }
    }

    pub(super) fn unsupported(
        &self,
        field: &str,
        found: impl std::fmt::Display,
        supported: &str,
    ) -> ConfigError {
        ConfigError::Unsupported {
            path: self.path.clone(),
            field: field.into(),
            found: shortened(&found.to_string()),
            supported: supported.into(),
        }
    }

    fn optional<T>(
        &self,
        field: &str,
        expected: &str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<T>> {
        match self.get(field) {
            None => Ok(None),
            Some(value) => match read(value) {
                Some(value) => Ok(Some(value)),
                None => Err(self.wrong(field, value, expected)),
            },
        }
    }

    fn optional_whole(&self, field: &str, max: u64) -> Result<Option<usize>> {
        // 1024.0 is the same number to Python's json, so take it.
        let whole = |value: &Value| match value.as_u64() {
            Some(n) => Some(n),
            None => value
                .as_f64()
                .filter(|x| x.fract() == 0.0 && (0.0..1e15).contains(x))
                .map(|x| x as u64),
        };
        self.optional(field, &format!("a whole number from 1 to {max}"), |value| {
            whole(value).filter(|n| (1..=max).contains(n)).and_then(|n| usize::try_from(n).ok())
        })
    }

    pub(super) fn optional_count(&self, field: &str) -> Result<Option<usize>> {
        self.optional_whole(field, MAX_COUNT)
    }

    pub(super) fn count(&self, field: &str) -> Result<usize> {
        self.optional_count(field)?.ok_or_else(|| self.missing(field, "a whole number above 0"))
    }

    pub(super) fn count_or(&self, field: &str, default: usize) -> Result<usize> {
        Ok(self.optional_count(field)?.unwrap_or(default))
    }

    pub(super) fn layers(&self, field: &str) -> Result<usize> {
        self.optional_whole(field, MAX_LAYERS)?
            .ok_or_else(|| self.missing(field, "a whole number above 0"))
    }

    pub(super) fn layers_or(&self, field: &str, default: usize) -> Result<usize> {
        Ok(self.optional_whole(field, MAX_LAYERS)?.unwrap_or(default))
    }

    fn optional_counts(&self, field: &str) -> Result<Option<Vec<usize>>> {
        let one = |value: &Value| {
            value.as_u64().filter(|n| (1..=MAX_COUNT).contains(n)).map(|n| n as usize)
        };
        self.optional(field, "a list of whole numbers above 0", |value| {
            let list = value.as_array()?;
            if list.is_empty() || list.len() > 64 {
                return None;
            }
            list.iter().map(one).collect()
        })
    }

    pub(super) fn counts(&self, field: &str) -> Result<Vec<usize>> {
        self.optional_counts(field)?
            .ok_or_else(|| self.missing(field, "a list of whole numbers above 0"))
    }

    pub(super) fn counts_or(&self, field: &str, default: &[usize]) -> Result<Vec<usize>> {
        Ok(self.optional_counts(field)?.unwrap_or_else(|| default.to_vec()))
    }

    /// A list of whole numbers from 0 on; empty if the field is absent.
    pub(super) fn indices(&self, field: &str) -> Result<Vec<usize>> {
        let one = |value: &Value| value.as_u64().filter(|n| *n <= MAX_LAYERS).map(|n| n as usize);
        let list = self.optional(field, "a list of whole numbers", |value| {
            value.as_array()?.iter().map(one).collect::<Option<Vec<usize>>>()
        })?;
        Ok(list.unwrap_or_default())
    }

    pub(super) fn optional_number(&self, field: &str) -> Result<Option<f64>> {
        self.optional(field, "a finite number", |value| value.as_f64().filter(|x| x.is_finite()))
    }

    pub(super) fn number(&self, field: &str) -> Result<f64> {
        self.optional_number(field)?.ok_or_else(|| self.missing(field, "a number"))
    }

    pub(super) fn number_or(&self, field: &str, default: f64) -> Result<f64> {
        Ok(self.optional_number(field)?.unwrap_or(default))
    }

    pub(super) fn eps_or(&self, field: &str, default: f64) -> Result<f64> {
        let eps = self.number_or(field, default)?;
        if eps > 0.0 && eps < 1.0 {
            return Ok(eps);
        }
        Err(self.wrong(field, eps, "a small number above 0"))
    }

    pub(super) fn id_or(&self, field: &str, default: u32) -> Result<u32> {
        // Some configs list several ids; the first is the one transformers' tokenizers emit.
        let read = |value: &Value| match value {
            Value::Array(list) => list.first().and_then(Value::as_u64),
            _ => value.as_u64(),
        };
        let id = self.optional(field, "a token id", |value| {
            read(value).and_then(|id| u32::try_from(id).ok())
        })?;
        Ok(id.unwrap_or(default))
    }

    pub(super) fn flag_or(&self, field: &str, default: bool) -> Result<bool> {
        Ok(self.optional(field, "true or false", Value::as_bool)?.unwrap_or(default))
    }

    pub(super) fn optional_string(&self, field: &str) -> Result<Option<String>> {
        self.optional(field, "a string", |value| value.as_str().map(str::to_string))
    }

    pub(super) fn string(&self, field: &str) -> Result<String> {
        self.optional_string(field)?.ok_or_else(|| self.missing(field, "a string"))
    }

    pub(super) fn string_or(&self, field: &str, default: &str) -> Result<String> {
        Ok(self.optional_string(field)?.unwrap_or_else(|| default.to_string()))
    }

    /// A class name, if there is one, must be the expected one.
    pub(super) fn class(&self, field: &str, expected: &str) -> Result<()> {
        match self.optional_string(field)? {
            Some(class) if class != expected => {
                Err(self.unsupported(field, quoted(&class), expected))
            }
            _ => Ok(()),
        }
    }

    /// A product of two sizes stays within reason.
    pub(super) fn width(&self, what: &str, a: usize, b: usize) -> Result<()> {
        if a as u64 * b as u64 > MAX_WIDTH {
            return Err(self.wrong(what, format!("{a} x {b}"), &format!("at most {MAX_WIDTH}")));
        }
        Ok(())
    }
}

/// `path` as messages show it.
pub(super) fn shown(source: &dyn Source, path: &str) -> String {
    format!("{}/{path}", source.name().trim_end_matches('/'))
}

pub(super) fn quoted(text: &str) -> String {
    format!("{text:?}")
}

/// Keeps a damaged file from filling the screen.
fn shortened(text: &str) -> String {
    const MAX: usize = 200;
    match text.char_indices().nth(MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_string(),
    }
}
