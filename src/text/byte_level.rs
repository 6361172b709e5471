//! The tokenizer of language models that are text encoders: byte-level byte pairs.

use std::borrow::Cow;

use super::byte_pairs::BytePairWords;
use super::config::{Config, Kind};
use super::files::TokenizerFiles;
use super::{Encoded, Result, TokenError};
use crate::checkpoint::source::Source;
use crate::turns::{Turns, complete_at_once};

/// Qwen's byte-level byte-pair tokenizer: transformers' `Qwen2Tokenizer`, which Qwen2.5 and Qwen3 have.
///
/// Added tokens (`<|im_start|>`, `<think>`) are found in a text first, whether they are special or not, and whether a
/// template or a user wrote them. What lies between is brought into Unicode's form NFC, split into words, and turned into
/// bytes, each of which has a token, so that no text is unknown.
///
/// In a browser, entries are read a few hundred at a time. What is left in one piece is looking for the fields of a
/// `tokenizer.json`, three times some 50 ms where Qwen's 151387 merges were tried, and the `tokenizers` crate's making of
/// its tables from them, 300 ms there: a page that must not stutter loads it in a worker.
pub struct ByteLevelTokenizer {
    words: BytePairWords,
    path: String,
    /// The token that the files name for padding, if they do.
    pad: Option<String>,
}

impl ByteLevelTokenizer {
    /// Loads `DIR/tokenizer.json`, or `vocab.json` and `merges.txt` where that is missing (Qwen-Image ships only those).
    pub fn load(source: &dyn Source, dir: &str) -> Result<Self> {
        let files = TokenizerFiles::byte_pair(source, dir)?;
        complete_at_once(Self::parse(&files, &Turns::none()))
    }

    /// From the files of [`TokenizerFiles::byte_pair`].
    pub(crate) async fn parse(files: &TokenizerFiles, turns: &Turns) -> Result<Self> {
        let config = Config::parse(files, Kind::ByteLevel)?;
        turns.yield_if_due().await;
        let words = BytePairWords::byte_level(files, &config, turns).await?;
        let pad = config.token("pad_token").map(str::to_owned);
        Ok(Self { path: words.path().to_owned(), words, pad })
    }

    /// The id that texts are padded with: the files' `pad_token`.
    pub fn pad(&self) -> Result<u32> {
        let role = "pad_token";
        match &self.pad {
            Some(pad) => self.id(pad, role),
            None => Err(TokenError::NullToken { path: self.path.clone(), role }),
        }
    }

    /// `text` with every added token that was trained as several (`<a>`, `<a>_1`, ...) written out.
    pub fn expanded<'t>(&self, text: &'t str) -> Result<Cow<'t, str>> {
        self.words.expanded(text)
    }

    /// The id of `token`, which the vocabulary has or which was added to it. `role` says in the error what it is for.
    pub fn id(&self, token: &str, role: &'static str) -> Result<u32> {
        self.words.id(token, role)
    }

    /// The ids of `text`, at most `length` of them, without marks of begin and end: a longer text loses its end, also where that is a template's. Given a
    /// `pad`, a shorter text is followed by as many of these as make `length` ids.
    pub fn encode(&self, text: &str, length: usize, pad: Option<u32>) -> Result<Encoded> {
        if length == 0 {
            return Err(TokenError::Length { found: length, least: 1 });
        }
        if pad.is_some() && self.words.pads_left() {
            return Err(TokenError::PadsLeft { path: self.path.clone() });
        }
        let (mut ids, dropped) = self.words.cut(text, length)?;
        let real = ids.len();
        if let Some(pad) = pad {
            ids.resize(length, pad);
        }
        Ok(Encoded { ids, real, truncated: (dropped > 0).then_some(dropped) })
    }

    /// Fails if this tokenizer can emit ids that an embedding table of `vocab_size` rows does not have.
    pub fn check_vocab(&self, vocab_size: usize) -> Result<()> {
        self.words.check_vocab(vocab_size)
    }
}
