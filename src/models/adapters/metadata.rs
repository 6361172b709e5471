//! PEFT's configuration in the header of a file, which diffusers writes: where it says alpha, tensors need not.

use std::collections::BTreeMap;

use serde_json::Value;

use super::AdapterError;

/// The text in the header that has it, and the longest that is read.
const NAME: &str = "lora_adapter_metadata";
const MAX_BYTES: usize = 1 << 20;

/// PEFT's configuration of all parts: `transformer.lora_alpha` and so on.
#[derive(Default)]
pub struct Configuration(serde_json::Map<String, Value>);

impl Configuration {
    /// Reads it from the texts of a header.
    pub fn read(texts: &BTreeMap<String, String>, file: &str) -> Result<Self, AdapterError> {
        let Some(text) = texts.get(NAME) else { return Ok(Configuration::default()) };
        let wrong =
            |reason: &str| AdapterError::Metadata { file: file.into(), reason: reason.into() };
        if text.len() > MAX_BYTES {
            return Err(wrong("has more than 1 MiB, expected PEFT's configuration"));
        }
        match serde_json::from_str(text) {
            Ok(Value::Object(fields)) => Ok(Configuration(fields)),
            Ok(_) => Err(wrong("is no object, expected PEFT's configuration")),
            Err(error) => Err(wrong(&format!("is no JSON ({error})"))),
        }
    }

    /// What the product of a layer of `rank` is multiplied by, if the configuration of `part` says it.
    pub fn scale(&self, part: &str, layer: &str, rank: usize) -> Option<f64> {
        let field = |name: &str| self.0.get(&format!("{part}.{name}"));
        let own = field("alpha_pattern").and_then(Value::as_object).and_then(|patterns| {
            patterns.iter().find(|(pattern, _)| matches(pattern, layer)).map(|(_, alpha)| alpha)
        });
        let alpha = own.or(field("lora_alpha"))?.as_f64()?;
        let rank = rank as f64;
        let is_root = field("use_rslora").and_then(Value::as_bool).unwrap_or(false);
        Some(alpha / if is_root { rank.sqrt() } else { rank })
    }
}

/// Whether a pattern of PEFT is a name or the end of it after a dot. Patterns are regular expressions of which names in
/// practice are all; `\.`, `.` and `\d+` are understood.
fn matches(pattern: &str, name: &str) -> bool {
    let starts = name.match_indices('.').map(|(at, _)| at + 1);
    std::iter::once(0).chain(starts).any(|at| is(pattern.as_bytes(), &name.as_bytes()[at..]))
}

fn is(pattern: &[u8], name: &[u8]) -> bool {
    match pattern {
        [] => name.is_empty(),
        [b'\\', b'd', b'+', rest @ ..] => {
            let digits = name.iter().take_while(|b| b.is_ascii_digit()).count();
            digits > 0 && is(rest, &name[digits..])
        }
        [b'.', rest @ ..] => name.split_first().is_some_and(|(_, name)| is(rest, name)),
        [b'\\', escaped, rest @ ..] | [escaped, rest @ ..] => {
            name.split_first().is_some_and(|(first, name)| first == escaped && is(rest, name))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alpha_is_the_patterns_or_that_of_all() {
        let text = r#"{"transformer.lora_alpha": 8, "transformer.alpha_pattern": {"b.1.proj": 3, "ff\\.net.2": 1, "c.\\d+.x": 2},
            "te.lora_alpha": 6, "te.use_rslora": true}"#;
        let texts = BTreeMap::from([(NAME.to_owned(), text.to_owned())]);
        let found = Configuration::read(&texts, "f").unwrap();
        let scale = |layer| found.scale("transformer", layer, 4).unwrap();
        assert_eq!(scale("b.0.proj"), 2.0);
        assert_eq!(scale("b.1.proj"), 0.75);
        assert_eq!(scale("a.b.1.proj"), 0.75);
        assert_eq!(scale("ab.1.proj"), 2.0);
        assert_eq!(scale("t.0.ff.net.2"), 0.25);
        assert_eq!(scale("c.17.x"), 0.5);
        assert_eq!(found.scale("te", "q_proj", 4), Some(3.0));
        assert_eq!(found.scale("other", "q_proj", 4), None);
    }
}
