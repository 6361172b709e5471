//! Reads the fields of one JSON file. What is wrong with one is said with file, field, found and expected.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::{ConfigError, Result, places};
use crate::checkpoint::json;
use crate::checkpoint::source::Source;

/// The largest size any field may have; keeps products of two far from overflow.
const MAX_COUNT: u64 = 1 << 22;
/// The largest product of heads and head dim.
const MAX_WIDTH: u64 = 1 << 20;
/// More layers than this is a damaged file.
const MAX_LAYERS: u64 = 1024;

/// One JSON object and the name of the file it came from. A null field counts as absent, as in Python.
///
/// Values stay text until somebody asks for them, so that a file takes no more memory than its length.
pub(crate) struct Fields {
    pub(crate) path: String,
    pub(crate) map: BTreeMap<String, Box<RawValue>>,
}

impl Fields {
    pub(crate) fn open(source: &dyn Source, path: &str) -> Result<Self> {
        match Self::open_if_there(source, path)? {
            Some(fields) => Ok(fields),
            None => Err(places::missing(source, path)),
        }
    }

    pub(crate) fn open_if_there(source: &dyn Source, path: &str) -> Result<Option<Self>> {
        match source.text(path)? {
            None => Ok(None),
            Some(text) => Self::parse(shown(source, path), &text).map(Some),
        }
    }

    fn parse(path: String, text: &str) -> Result<Self> {
        match json::fields(text, |_| true) {
            Ok(map) => {
                let map = map.into_iter().map(|(name, value)| (name, value.to_owned())).collect();
                Ok(Self { path, map })
            }
            Err(reason) => Err(ConfigError::Json { path, reason: shortened(&reason) }),
        }
    }

    /// The object that a field holds, if it holds one.
    pub(crate) fn inside(&self, field: &str) -> Result<Option<Self>> {
        match self.get(field) {
            Some(value) if json::is_object(value) => {
                Self::parse(self.path.clone(), value.get()).map(Some)
            }
            _ => Ok(None),
        }
    }

    pub(crate) fn get(&self, field: &str) -> Option<&RawValue> {
        self.map.get(field).map(AsRef::as_ref).filter(|value| value.get() != "null")
    }

    /// Whether a field is there and null.
    pub(crate) fn is_null(&self, field: &str) -> bool {
        self.map.get(field).is_some_and(|value| value.get() == "null")
    }

    pub(crate) fn missing(&self, field: &str, expected: &str) -> ConfigError {
        ConfigError::MissingField {
            path: self.path.clone(),
            field: field.into(),
            expected: expected.into(),
        }
    }

    pub(crate) fn wrong(
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

    pub(crate) fn unsupported(
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
        read: impl Fn(&RawValue) -> Option<T>,
    ) -> Result<Option<T>> {
        match self.get(field) {
            None => Ok(None),
            Some(value) => match read(value) {
                Some(value) => Ok(Some(value)),
                None => Err(self.wrong(field, on_one_line(value), expected)),
            },
        }
    }

    fn optional_whole(&self, field: &str, max: u64) -> Result<Option<usize>> {
        self.optional(field, &format!("a whole number from 1 to {max}"), |value| {
            whole(value).filter(|n| (1..=max).contains(n)).and_then(|n| usize::try_from(n).ok())
        })
    }

    pub(crate) fn optional_count(&self, field: &str) -> Result<Option<usize>> {
        self.optional_whole(field, MAX_COUNT)
    }

    pub(crate) fn count(&self, field: &str) -> Result<usize> {
        self.optional_count(field)?.ok_or_else(|| self.missing(field, "a whole number above 0"))
    }

    pub(crate) fn count_or(&self, field: &str, default: usize) -> Result<usize> {
        Ok(self.optional_count(field)?.unwrap_or(default))
    }

    pub(crate) fn layers(&self, field: &str) -> Result<usize> {
        self.optional_whole(field, MAX_LAYERS)?
            .ok_or_else(|| self.missing(field, "a whole number above 0"))
    }

    pub(crate) fn layers_or(&self, field: &str, default: usize) -> Result<usize> {
        Ok(self.optional_whole(field, MAX_LAYERS)?.unwrap_or(default))
    }

    pub(crate) fn optional_counts(&self, field: &str) -> Result<Option<Vec<usize>>> {
        self.optional(field, "a list of 1 to 64 whole numbers above 0", |value| {
            let list: Vec<&RawValue> = json::list(value, 64)?;
            let one = |value: &&RawValue| {
                whole(value).filter(|n| (1..=MAX_COUNT).contains(n)).map(|n| n as usize)
            };
            list.iter().map(one).collect::<Option<Vec<_>>>().filter(|list| !list.is_empty())
        })
    }

    pub(crate) fn counts(&self, field: &str) -> Result<Vec<usize>> {
        self.optional_counts(field)?
            .ok_or_else(|| self.missing(field, "a list of whole numbers above 0"))
    }

    pub(crate) fn counts_or(&self, field: &str, default: &[usize]) -> Result<Vec<usize>> {
        Ok(self.optional_counts(field)?.unwrap_or_else(|| default.to_vec()))
    }

    /// A list of whole numbers from 0 on; empty if the field is absent.
    pub(crate) fn indices(&self, field: &str) -> Result<Vec<usize>> {
        let list = self.optional(field, "a list of whole numbers", |value| {
            let list: Vec<&RawValue> = json::list(value, MAX_LAYERS as usize)?;
            let one =
                |value: &&RawValue| whole(value).filter(|n| *n <= MAX_LAYERS).map(|n| n as usize);
            list.iter().map(one).collect::<Option<Vec<usize>>>()
        })?;
        Ok(list.unwrap_or_default())
    }

    /// A number that is finite also in the precision that is computed in.
    pub(crate) fn optional_number(&self, field: &str) -> Result<Option<f64>> {
        self.optional(field, "a finite number that fits 32 bits", |value| {
            json::value::<f64>(value).filter(|x| (*x as f32).is_finite())
        })
    }

    pub(crate) fn number(&self, field: &str) -> Result<f64> {
        self.optional_number(field)?.ok_or_else(|| self.missing(field, "a number"))
    }

    pub(crate) fn number_or(&self, field: &str, default: f64) -> Result<f64> {
        Ok(self.optional_number(field)?.unwrap_or(default))
    }

    pub(crate) fn eps_or(&self, field: &str, default: f64) -> Result<f64> {
        let eps = self.number_or(field, default)?;
        // As the kernels get it.
        if (eps as f32) >= f32::MIN_POSITIVE && eps < 1.0 {
            return Ok(eps);
        }
        Err(self.wrong(field, eps, "a small number above 0"))
    }

    pub(crate) fn id_or(&self, field: &str, default: u32) -> Result<u32> {
        // Some configs list several ids; the first is the one transformers' tokenizers emit.
        let read = |value: &RawValue| match json::list::<u64>(value, 64) {
            Some(list) => list.first().copied(),
            None => json::value(value),
        };
        let id = self.optional(field, "a token id", |value| {
            read(value).and_then(|id| u32::try_from(id).ok())
        })?;
        Ok(id.unwrap_or(default))
    }

    pub(crate) fn optional_flag(&self, field: &str) -> Result<Option<bool>> {
        self.optional(field, "true or false", |value| json::value(value))
    }

    pub(crate) fn flag_or(&self, field: &str, default: bool) -> Result<bool> {
        Ok(self.optional_flag(field)?.unwrap_or(default))
    }

    pub(crate) fn optional_string(&self, field: &str) -> Result<Option<String>> {
        self.optional(field, "a string", |value| json::value(value))
    }

    pub(crate) fn optional_strings(&self, field: &str, most: usize) -> Result<Option<Vec<String>>> {
        let expected = format!("a list of at most {most} strings");
        self.optional(field, &expected, |value| json::list(value, most))
    }

    pub(crate) fn string(&self, field: &str) -> Result<String> {
        self.optional_string(field)?.ok_or_else(|| self.missing(field, "a string"))
    }

    pub(crate) fn string_or(&self, field: &str, default: &str) -> Result<String> {
        Ok(self.optional_string(field)?.unwrap_or_else(|| default.to_string()))
    }

    /// A class name, if there is one, must be the expected one.
    pub(crate) fn class(&self, field: &str, expected: &str) -> Result<()> {
        match self.optional_string(field)? {
            Some(class) if class != expected => {
                Err(self.unsupported(field, quoted(&class), expected))
            }
            _ => Ok(()),
        }
    }

    /// Weights that somebody has quantised can be read if they are NF4 of bitsandbytes: all else that is to know of these
    /// stands with the tensors. Of others, shapes say nothing.
    pub(crate) fn quantisation_is_read(&self) -> Result<()> {
        for field in ["quantization_config", "compression_config"] {
            if let Some(value) = self.get(field).filter(|value| !is_nf4(value)) {
                let (path, how) = (self.path.clone(), shortened(&on_one_line(value)));
                return Err(ConfigError::Quantised { path, field: field.into(), how });
            }
        }
        Ok(())
    }

    /// A product of two sizes stays within reason.
    pub(crate) fn width(&self, what: &str, a: usize, b: usize) -> Result<()> {
        if a as u64 * b as u64 > MAX_WIDTH {
            return Err(self.wrong(what, format!("{a} x {b}"), &format!("at most {MAX_WIDTH}")));
        }
        Ok(())
    }
}

/// A whole number. 1024.0 is one to Python's json, so also here.
fn whole(value: &RawValue) -> Option<u64> {
    json::value(value).or_else(|| {
        let number: f64 = json::value(value)?;
        (number.fract() == 0.0 && (0.0..1e15).contains(&number)).then_some(number as u64)
    })
}

/// Whether a `quantization_config` of transformers and diffusers describes NF4 in bytes, as bitsandbytes makes it.
fn is_nf4(config: &RawValue) -> bool {
    let Ok(fields) = json::fields(config.get(), |_| true) else { return false };
    let text = |name: &str| fields.get(name).and_then(|raw| json::value::<String>(raw));
    let flag = |name: &str| fields.get(name).and_then(|raw| json::value::<bool>(raw));
    text("quant_method").as_deref() == Some("bitsandbytes")
        && flag("load_in_4bit") == Some(true)
        && text("bnb_4bit_quant_type").as_deref() == Some("nf4")
        && text("bnb_4bit_quant_storage").is_none_or(|storage| storage == "uint8")
}

/// The beginning of a value as it stands in the file, its lines joined.
fn on_one_line(value: &RawValue) -> String {
    let start: String = value.get().chars().take(2 * MAX_SHOWN).collect();
    start.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// `path` as messages show it.
pub(crate) fn shown(source: &dyn Source, path: &str) -> String {
    source.shown(path)
}

pub(crate) fn quoted(text: &str) -> String {
    format!("{text:?}")
}

/// Characters of a file that a message shows.
const MAX_SHOWN: usize = 200;

/// Keeps a damaged file from filling the screen.
pub(crate) fn shortened(text: &str) -> String {
    match text.char_indices().nth(MAX_SHOWN) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_string(),
    }
}
