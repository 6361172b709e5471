//! What all tokenizers do.

use std::borrow::Cow;

use super::{ByteLevelTokenizer, ClipTokenizer, Encoded, Result, T5Tokenizer, TokenizerFiles};
use crate::checkpoint::source::Source;
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

impl TokenizerKind {
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
