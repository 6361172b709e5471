//! The files that a tokenizer is read from, as text.

use super::{Result, TokenError, no_file, shown};
use crate::checkpoint::source::Source;

/// A file's text.
pub(super) struct Text {
    /// As messages show it.
    pub path: String,
    pub text: String,
}

impl Text {
    fn read(source: &dyn Source, dir: &str, name: &str) -> Result<Option<Self>> {
        let path = format!("{dir}/{name}");
        let text = source.text(&path)?;
        Ok(text.map(|text| Text { path: shown(source, &path), text }))
    }

    /// An error about this file.
    pub fn bad(&self, reason: impl Into<String>) -> TokenError {
        TokenError::File { path: self.path.clone(), reason: reason.into() }
    }
}

/// What a folder has for a tokenizer. Nothing is parsed yet, so that reading it again costs next to nothing where files
/// have to be fetched first.
pub(crate) struct TokenizerFiles {
    pub(super) config: Option<Text>,
    pub(super) special: Option<Text>,
    pub(super) added: Option<Text>,
    pub(super) words: WordFiles,
}

/// Vocabulary, merges and the rest: in one file or two.
pub(super) enum WordFiles {
    Json(Text),
    Pair { vocab: Text, merges: Text },
}

impl TokenizerFiles {
    /// `DIR/tokenizer.json`, or `vocab.json` and `merges.txt` where that is missing.
    pub fn byte_pair(source: &dyn Source, dir: &str) -> Result<Self> {
        if let Some(json) = Text::read(source, dir, "tokenizer.json")? {
            return Self::with(source, dir, WordFiles::Json(json));
        }
        let vocab = Text::read(source, dir, "vocab.json")?;
        let (Some(vocab), Some(merges)) = (vocab, Text::read(source, dir, "merges.txt")?) else {
            return Err(no_file(source, dir, "tokenizer.json, or vocab.json with merges.txt"));
        };
        Self::with(source, dir, WordFiles::Pair { vocab, merges })
    }

    /// `DIR/tokenizer.json`.
    pub fn t5(source: &dyn Source, dir: &str) -> Result<Self> {
        match Text::read(source, dir, "tokenizer.json")? {
            Some(json) => Self::with(source, dir, WordFiles::Json(json)),
            None => Err(no_file(
                source,
                dir,
                "tokenizer.json (spiece.model alone is not read; transformers' save_pretrained writes tokenizer.json)",
            )),
        }
    }

    fn with(source: &dyn Source, dir: &str, words: WordFiles) -> Result<Self> {
        let config = Text::read(source, dir, "tokenizer_config.json")?;
        let special = Text::read(source, dir, "special_tokens_map.json")?;
        let added = Text::read(source, dir, "added_tokens.json")?;
        Ok(TokenizerFiles { config, special, added, words })
    }
}
