//! The file of the user's configuration.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use ralu::escape::Escaped;
use serde_json::Value;
use toml_edit::{Document, Item, Value as TomlValue};

use super::check;
use crate::error::{Error, Result};
use crate::files;
use crate::output::shown;

/// More is no list of defaults.
const MAX_BYTES: u64 = 1 << 20;

/// What the file says.
pub struct Config {
    /// Where it is, or would be. `None` if the system names no place.
    pub path: Option<PathBuf>,
    /// Whether it is there.
    pub exists: bool,
    /// In its order.
    pub entries: Vec<Entry>,
}

/// The default of an option.
pub struct Entry {
    /// The option's name without dashes in front.
    pub name: String,
    /// The line that it stands in, from 1.
    pub line: usize,
    /// What the file says.
    pub value: Value,
}

impl Config {
    /// Where the file would be, and nothing of it.
    pub fn unread() -> Config {
        let path = ralu_host::config_file();
        Config { exists: path.as_ref().is_some_and(|path| path.is_file()), path, entries: vec![] }
    }

    /// Reads the file; `names` are those that it may set.
    ///
    /// # Errors
    ///
    /// If it cannot be read, is no TOML, sets what is not known, or has a value that no option takes.
    pub fn read(names: &[String]) -> Result<Config> {
        let mut config = Config::unread();
        let Some(path) = config.path.clone() else { return Ok(config) };
        let failed = |reason: String| {
            Error::failed(format!(
                "the configuration {} {reason}; --no-config leaves it out",
                shown(&path)
            ))
        };
        let text = match File::open(&path) {
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
            {
                return Ok(config);
            }
            file => file.and_then(|file| files::read_all(file, MAX_BYTES)),
        };
        let text = text.map_err(|error| failed(format!("cannot be read: {error}")))?;
        let text = String::from_utf8(text).map_err(|_| failed("is not UTF-8".into()))?;
        config.exists = true;
        config.entries = parse(&text, names, &path)?;
        Ok(config)
    }
}

fn parse(text: &str, names: &[String], path: &Path) -> Result<Vec<Entry>> {
    let line_of =
        |at: usize| text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
    let failed = |line: usize, reason: &str| {
        Error::failed(format!(
            "the configuration {}, line {line}: {}; `ralu config --no-config` says what can be set, and --no-config leaves it out",
            shown(path),
            Escaped(reason)
        ))
    };
    let document = Document::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start.min(text.len()));
        failed(line_of(at), error.message())
    })?;
    let table = document.as_table();
    let mut entries: Vec<Entry> = Vec::new();
    for (key, item) in table.iter() {
        let span = table.get_key_value(key).and_then(|(key, _)| key.span());
        let line = line_of(span.map_or(0, |span| span.start.min(text.len())));
        let name = key.replace('_', "-");
        if !names.contains(&name) {
            return Err(failed(
                line,
                &format!("{key:?} is not known; expected the name of an option, as in width = 512"),
            ));
        }
        let value = json(item).ok_or_else(|| {
            failed(line, &format!("{key} has no value of an option; expected a text, a number, true, false, or a list of these"))
        })?;
        let entry = Entry { name, line, value };
        if entries.iter().any(|other| other.name == entry.name) {
            return Err(failed(line, &format!("{key} is set twice; expected it once")));
        }
        check(&entry).map_err(|reason| failed(line, &reason))?;
        entries.push(entry);
    }
    Ok(entries)
}

/// A value that options can have.
fn json(item: &Item) -> Option<Value> {
    fn of(value: &TomlValue) -> Option<Value> {
        match value {
            TomlValue::String(text) => Some(text.value().as_str().into()),
            TomlValue::Integer(number) => Some((*number.value()).into()),
            TomlValue::Float(number) => Some((*number.value()).into()),
            TomlValue::Boolean(truth) => Some((*truth.value()).into()),
            TomlValue::Array(list) => {
                list.iter().map(of).collect::<Option<Vec<_>>>().map(Value::Array)
            }
            TomlValue::Datetime(_) | TomlValue::InlineTable(_) => None,
        }
    }
    of(item.as_value()?)
}

impl Entry {
    /// The option as it would be typed; none for a switch that is off.
    pub fn words(&self) -> Vec<String> {
        let word = |value: &str| format!("--{}={value}", self.name);
        let text = |value: &Value| match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        match &self.value {
            Value::Bool(false) => vec![],
            Value::Bool(true) => vec![format!("--{}", self.name)],
            // An option that may be given several times.
            Value::Array(list) if self.name == "lora" => {
                list.iter().map(|value| word(&text(value))).collect()
            }
            Value::Array(list) => {
                vec![word(&list.iter().map(text).collect::<Vec<_>>().join(","))]
            }
            other => vec![word(&text(other))],
        }
    }
}
