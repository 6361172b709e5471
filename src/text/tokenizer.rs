//! What all tokenizers do.

use std::borrow::Cow;
use std::fmt;

use super::vocabularies::ready_made;
use super::{
    ByteLevelTokenizer, ClipTokenizer, Encoded, GgufVocabulary, Result, T5Tokenizer, TokenizerFiles,
};
use crate::checkpoint::json;
use crate::checkpoint::source::{Source, SourceError};
use crate::checkpoint::weights::Weights;
use crate::sync::{MaybeSend, MaybeSync};
use crate::turns::{Turns, complete_at_once};

/// Turns text into token ids.
pub trait Tokenizer: MaybeSend + MaybeSync {
    /// Exactly `length` ids: marks, text, padding. A long text loses its end, never a mark.
    fn encode(&self, text: &str, length: usize) -> Result<Encoded>;

    /// `text` with every added token that was trained as several (`<a>`, `<a>_1`, ...) written out.
    fn expanded<'t>(&self, text: &'t str) -> Result<Cow<'t, str>>;

    /// Fails if this tokenizer can emit ids that an embedding table of `vocab_size` rows does not have.
    fn check_vocab(&self, vocab_size: usize) -> Result<()>;
}

/// The kinds of tokenizers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenizerKind {
    /// CLIP's byte pairs in lower case: [`ClipTokenizer`].
    Clip,
    /// T5's SentencePiece unigrams: [`T5Tokenizer`].
    T5,
    /// Byte-level byte pairs, as GPT-2 and Qwen have them: [`ByteLevelTokenizer`].
    ByteLevel,
}

impl fmt::Display for TokenizerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TokenizerKind::Clip => "CLIP",
            TokenizerKind::T5 => "T5",
            TokenizerKind::ByteLevel => "byte-level",
        })
    }
}

impl TokenizerKind {
    /// Whose tokenizer the text of a `tokenizer.json` is, CLIP's or T5's, by its model; `None` if it is no such file.
    pub(crate) fn of_json(text: &str) -> Option<Self> {
        let whole = json::fields(text, |name| name == "model").ok()?;
        let wanted = ["type", "merges"];
        let model = json::fields(whole.get("model")?.get(), |name| wanted.contains(&name)).ok()?;
        match model.get("type").and_then(|kind| json::value::<String>(kind)).as_deref() {
            Some("Unigram") => Some(TokenizerKind::T5),
            Some("BPE") => Some(TokenizerKind::Clip),
            // Older files do not say it.
            None if model.contains_key("merges") => Some(TokenizerKind::Clip),
            _ => None,
        }
    }

    /// Loads the tokenizer in `DIR`.
    pub fn load(self, source: &dyn Source, dir: &str) -> Result<Box<dyn Tokenizer>> {
        let files = self.read(source, dir)?;
        complete_at_once(self.parse(&files, &Turns::none()))
    }

    /// The files of a tokenizer in `DIR`.
    pub(crate) fn read(self, source: &dyn Source, dir: &str) -> Result<TokenizerFiles> {
        match self {
            TokenizerKind::Clip | TokenizerKind::ByteLevel => {
                TokenizerFiles::byte_pair(source, dir)
            }
            TokenizerKind::T5 => TokenizerFiles::t5(source, dir),
        }
    }

    /// The tokenizer of a text encoder that has `rows` embeddings: the files in `DIR`, else the vocabulary in the GGUF file of
    /// its weights, else the one that comes with the source or is built in.
    pub(crate) fn find(
        self,
        source: &dyn Source,
        dir: &str,
        weights: Option<&Weights>,
        rows: usize,
    ) -> Result<TokenizerFiles> {
        let has = |name: &str| is_there(source, &format!("{dir}/{name}"));
        let alone = match (weights, self) {
            // Without its own weights it is a folder, whose tokenizer is missing if it is not there.
            (None, _) => return self.read(source, dir),
            _ if has("tokenizer.json")? || has("vocab.json")? => return self.read(source, dir),
            (Some(weights), TokenizerKind::T5) => GgufVocabulary::of(weights)?,
            _ => None,
        };
        let files = match alone {
            Some(vocabulary) => vocabulary.files()?,
            None => ready_made(source, self, rows)?,
        };
        Ok(files.padded_with(source.padding(dir)))
    }

    /// The tokenizer that is in `files`, which [`TokenizerKind::read`] has read.
    pub(crate) async fn parse(
        self,
        files: &TokenizerFiles,
        turns: &Turns,
    ) -> Result<Box<dyn Tokenizer>> {
        Ok(match self {
            TokenizerKind::Clip => Box::new(ClipTokenizer::parse(files, turns).await?),
            TokenizerKind::T5 => Box::new(T5Tokenizer::parse(files, turns).await?),
            TokenizerKind::ByteLevel => {
                let tokenizer = ByteLevelTokenizer::parse(files, turns).await?;
                // Files whose texts cannot be padded are an error now, not at the first prompt.
                tokenizer.encode("", 1, Some(tokenizer.pad()?))?;
                Box::new(tokenizer)
            }
        })
    }
}

/// Whether a file is there. [`Source::exists`] also says no while that is not known yet, and a vocabulary would be fetched
/// that nobody needs.
fn is_there(source: &dyn Source, path: &str) -> Result<bool> {
    match source.blob(path) {
        Err(absent @ SourceError::Absent { .. }) => Err(absent.into()),
        Err(SourceError::MissingFile { .. }) => Ok(false),
        // Reading it says what is wrong with it.
        _ => Ok(true),
    }
}

impl Tokenizer for ClipTokenizer {
    fn encode(&self, text: &str, length: usize) -> Result<Encoded> {
        self.words.encode(text, Some(self.bos), self.eos, self.pad, length)
    }

    fn expanded<'t>(&self, text: &'t str) -> Result<Cow<'t, str>> {
        self.expanded(text)
    }

    fn check_vocab(&self, vocab_size: usize) -> Result<()> {
        self.check_vocab(vocab_size)
    }
}

impl Tokenizer for T5Tokenizer {
    fn encode(&self, text: &str, length: usize) -> Result<Encoded> {
        self.encode(text, length)
    }

    fn expanded<'t>(&self, text: &'t str) -> Result<Cow<'t, str>> {
        self.expanded(text)
    }

    fn check_vocab(&self, vocab_size: usize) -> Result<()> {
        self.check_vocab(vocab_size)
    }
}

impl Tokenizer for ByteLevelTokenizer {
    fn encode(&self, text: &str, length: usize) -> Result<Encoded> {
        self.encode(text, length, Some(self.pad()?))
    }

    fn expanded<'t>(&self, text: &'t str) -> Result<Cow<'t, str>> {
        self.expanded(text)
    }

    fn check_vocab(&self, vocab_size: usize) -> Result<()> {
        self.check_vocab(vocab_size)
    }
}
