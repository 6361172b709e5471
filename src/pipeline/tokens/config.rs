//! `tokenizer_config.json`: special tokens and the longest text.

use serde_json::{Map, Value};

use super::Result;
use super::files::{Text, TokenizerFiles};

/// `tokenizer_config.json`, and `special_tokens_map.json` behind it; both may be missing.
pub(super) struct Config {
    config: Map<String, Value>,
    special: Map<String, Value>,
}

impl Config {
    pub(super) fn parse(files: &TokenizerFiles) -> Result<Self> {
        let object = |file: &Option<Text>| file.as_ref().map_or(Ok(Map::new()), Text::object);
        Ok(Self { config: object(&files.config)?, special: object(&files.special)? })
    }

    /// A special token: a string, or an object with `content`.
    pub(super) fn token(&self, role: &str, default: &str) -> String {
        let text = |value: &Value| {
            value.as_str().or_else(|| value.get("content")?.as_str()).map(str::to_string)
        };
        let found =
            self.config.get(role).and_then(text).or_else(|| self.special.get(role).and_then(text));
        found.unwrap_or_else(|| default.into())
    }

    /// Whether the token is looked for in the text after lower-casing rather than before.
    pub(super) fn is_normalized(&self, id: u64) -> bool {
        let added =
            self.config.get("added_tokens_decoder").and_then(|added| added.get(id.to_string()));
        added.and_then(|token| token.get("normalized")?.as_bool()).unwrap_or(false)
    }

    /// `model_max_length`, unless absent, absurd or the 1e30 that means "no limit".
    pub(super) fn max_length(&self, default: usize) -> usize {
        match self.config.get("model_max_length").and_then(Value::as_f64) {
            Some(length) if (3.0..1e6).contains(&length) => length as usize,
            _ => default,
        }
    }
}
