//! The files that a tokenizer is read from, not yet parsed.

use std::sync::Arc;

use super::{GgufVocabulary, Result, TokenError, Vocabularies, no_file, shown};
use crate::checkpoint::source::{Padding, Source};

/// A file's text.
#[derive(Clone)]
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
    /// What texts are padded with, if these files do not decide that.
    pub(super) padding: Option<Padding>,
}

/// Vocabulary, merges and the rest.
pub(super) enum WordFiles {
    Json(Text),
    Pair {
        vocab: Text,
        merges: Text,
    },
    /// One of [`Vocabularies`].
    Packed(Packed),
    Gguf(Arc<GgufVocabulary>),
}

/// A compressed vocabulary.
pub(super) struct Packed {
    /// As messages show it.
    pub path: String,
    pub bytes: Vec<u8>,
}

impl TokenizerFiles {
    /// `DIR/tokenizer.json`, or `vocab.json` and `merges.txt` where that is missing, or [`Vocabularies::CLIP`].
    pub fn byte_pair(source: &dyn Source, dir: &str) -> Result<Self> {
        if let Some(json) = Text::read(source, dir, "tokenizer.json")? {
            return Self::with(source, dir, WordFiles::Json(json));
        }
        let vocab = Text::read(source, dir, "vocab.json")?;
        if let (Some(vocab), Some(merges)) = (vocab, Text::read(source, dir, "merges.txt")?) {
            return Self::with(source, dir, WordFiles::Pair { vocab, merges });
        }
        match Packed::read(source, &format!("{dir}/{}", Vocabularies::CLIP))? {
            Some(packed) => Self::with(source, dir, WordFiles::Packed(packed)),
            None => Err(no_file(source, dir, "tokenizer.json, or vocab.json with merges.txt")),
        }
    }

    /// `DIR/tokenizer.json`, or [`Vocabularies::T5`] where that is missing.
    pub fn t5(source: &dyn Source, dir: &str) -> Result<Self> {
        if let Some(json) = Text::read(source, dir, "tokenizer.json")? {
            return Self::with(source, dir, WordFiles::Json(json));
        }
        match Packed::read(source, &format!("{dir}/{}", Vocabularies::T5))? {
            Some(packed) => Self::with(source, dir, WordFiles::Packed(packed)),
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
        let padding = source.padding(dir);
        Ok(TokenizerFiles { config, special, added, padding, ..Self::alone(words) })
    }

    /// A vocabulary without files around it.
    fn alone(words: WordFiles) -> Self {
        TokenizerFiles { config: None, special: None, added: None, words, padding: None }
    }

    /// One of [`Vocabularies`].
    pub(super) fn packed(packed: Packed) -> Self {
        Self::alone(WordFiles::Packed(packed))
    }

    /// A vocabulary of a GGUF file.
    pub(super) fn gguf(vocabulary: Arc<GgufVocabulary>) -> Self {
        Self::alone(WordFiles::Gguf(vocabulary))
    }

    /// Pads texts with `padding`, whatever the files say: CLIP-G's are padded with 0, though its vocabulary is that of
    /// CLIP-L, whose texts are padded with the end mark. Only CLIP's tokenizer reads it.
    pub(crate) fn padded_with(mut self, padding: Option<Padding>) -> Self {
        self.padding = padding;
        self
    }
}
