//! Text to token ids, as transformers does it.
//!
//! [`ClipTokenizer`] and [`T5Tokenizer`] give what their namesakes give with `padding="max_length", truncation=True`.
//! [`ByteLevelTokenizer`] is that of language models, and leaves the frame around a prompt and the length to its caller.
//! Like transformers 5, they take only vocabulary, merges, special and added tokens, the sides of padding and truncation,
//! and T5's character map from the files, and set up normalizing and splitting themselves: exports of one tokenizer
//! differ in these, and in the lengths a `tokenizer.json` may carry. Begin and end marks, truncation and padding are done
//! here; the `tokenizers` crate does the rest.
//!
//! ```no_run
//! # use ralu::{checkpoint::source::Folder, text::ClipTokenizer};
//! let folder = Folder::open("models/tiny-flux")?;
//! let clip = ClipTokenizer::load(&folder, "tokenizer")?;
//! assert_eq!(clip.encode("a red apple")?.ids.len(), 77);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod byte_level;
mod byte_pairs;
mod character_map;
mod config;
mod files;
mod gguf;
mod json;
mod pieces;
mod tokenizer;
mod unigrams;
mod vocabularies;
mod words;

use std::borrow::Cow;
use std::ops::RangeInclusive;

use crate::advice::Advice;
use crate::checkpoint::source::unfinished_download;
use crate::checkpoint::source::{Padding, Source, SourceError};
use crate::checkpoint::weights::WeightError;
use crate::escape::Escaped;
use crate::turns::{Turns, complete_at_once};
pub use byte_level::ByteLevelTokenizer;
use byte_pairs::BytePairWords;
use config::{Config, Kind};
pub(crate) use files::TokenizerFiles;
pub use gguf::GgufVocabulary;
pub use tokenizer::{Tokenizer, TokenizerKind};
pub use vocabularies::Vocabularies;
use words::T5Words;

/// Why text cannot be turned into tokens.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the messages name the fields")]
pub enum TokenError {
    /// The bytes could not be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The metadata of a GGUF file is damaged.
    #[error(transparent)]
    Weights(#[from] WeightError),
    /// No tokenizer in the folder.
    #[error(
        "{}: no tokenizer; looked for {looked_for}; found {}; fetch this part of the model{}",
        Escaped(.dir), Escaped(.found), Escaped(.hint)
    )]
    NoFile {
        dir: String,
        looked_for: &'static str,
        found: String,
        /// What more is known, in brackets; may be empty.
        hint: String,
    },
    /// A tokenizer file is damaged.
    #[error("{}: not a usable tokenizer file: {}; fetch the file again", Escaped(.path), Escaped(.reason))]
    File { path: String, reason: String },
    /// A role that has to have a token has none.
    #[error("{}: \"{role}\" is null; expected a token", Escaped(.path))]
    NullToken { path: String, role: &'static str },
    /// A special token is not in the vocabulary.
    #[error(
        "{}: the vocabulary has no token \"{}\" ({role}); the tokenizer's files do not belong together",
        Escaped(.path), Escaped(.token)
    )]
    NoToken { path: String, token: String, role: &'static str },
    /// The tokenizer has more tokens than the encoder has embeddings.
    #[error(
        "{}: the tokenizer has token ids up to {largest} (those in added_tokens_decoder, added_tokens.json and the like \
         included), but the text encoder has {vocab_size} embeddings; the model folder mixes parts that \
         do not belong together",
        Escaped(.path)
    )]
    Vocabulary { path: String, largest: u32, vocab_size: usize },
    /// The ready-made vocabulary does not belong to the encoder.
    #[error("the model comes without a {kind} tokenizer, and {}", why_not_built_in(.expected, .rows))]
    NotBuiltIn {
        kind: TokenizerKind,
        /// Embeddings of the text encoder.
        rows: usize,
        /// How many the encoders have that the vocabulary belongs to; `None` if there is no vocabulary of this kind.
        expected: Option<RangeInclusive<usize>>,
    },
    /// Padding would stand in front of the text.
    #[error(
        "{}: the tokenizer pads on the left (padding_side); expected right, where the text encoder masks it; get the \
         tokenizer that belongs to this model",
        Escaped(.path)
    )]
    PadsLeft { path: String },
    /// The asked length has no room for a token.
    #[error("a text length of {found} tokens was asked for; expected at least {least}")]
    Length { found: usize, least: usize },
    /// The tokenizer refused the text.
    #[error("{}: the tokenizer cannot encode this text: {}", Escaped(.path), Escaped(.reason))]
    Encode { path: String, reason: String },
}

type Result<T> = std::result::Result<T, TokenError>;

impl TokenError {
    /// What may help, where the message does not say it.
    pub fn advice(&self) -> Option<Advice> {
        match self {
            Self::NotBuiltIn { kind: TokenizerKind::T5, .. } => Some(Advice::GiveT5Tokenizer),
            Self::NotBuiltIn { kind: TokenizerKind::Clip, .. } => Some(Advice::GiveClipTokenizer),
            _ => None,
        }
    }
}

/// The end of [`TokenError::NotBuiltIn`]'s message.
fn why_not_built_in(expected: &Option<RangeInclusive<usize>>, rows: &usize) -> String {
    let Some(expected) = expected else { return "none of that kind is built in".into() };
    let expected = match expected.start() == expected.end() {
        true => expected.start().to_string(),
        false => format!("{} to {}", expected.start(), expected.end()),
    };
    format!("its text encoder has {rows} embeddings; the built-in vocabulary belongs to {expected}")
}

/// A text as token ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// Marks, text and padding.
    pub ids: Vec<u32>,
    /// How many of the ids are marks and text; the others are padding.
    pub real: usize,
    /// How many tokens of the text did not fit and were dropped.
    pub truncated: Option<usize>,
}

/// CLIP's byte-pair tokenizer.
pub struct ClipTokenizer {
    words: BytePairWords,
    bos: u32,
    eos: u32,
    pad: u32,
    max_length: usize,
}

impl ClipTokenizer {
    /// Loads `DIR/tokenizer.json`, or `vocab.json` and `merges.txt` where that is missing (the FLUX.1 repositories ship
    /// only those for CLIP). The result is that of transformers' fast `CLIPTokenizer`.
    pub fn load(source: &dyn Source, dir: &str) -> Result<Self> {
        let files = TokenizerFiles::byte_pair(source, dir)?;
        complete_at_once(Self::parse(&files, &Turns::none()))
    }

    /// From the files of [`TokenizerFiles::byte_pair`]. Those of CLIP ViT-L take a tenth of a second on a slow processor.
    pub(crate) async fn parse(files: &TokenizerFiles, turns: &Turns) -> Result<Self> {
        let config = Config::parse(files, Kind::Clip)?;
        turns.yield_if_due().await;
        let words = BytePairWords::clip(files, &config, turns).await?;
        Ok(Self {
            bos: words.role(&config, "bos_token")?,
            eos: words.role(&config, "eos_token")?,
            pad: match files.padding {
                None => words.role(&config, "pad_token")?,
                Some(Padding::End) => words.role(&config, "eos_token")?,
                Some(Padding::Id(id)) => id,
            },
            max_length: config.max_length.unwrap_or(77),
            words,
        })
    }

    /// Number of ids [`encode`](Self::encode) returns: the tokenizer's `model_max_length`, 77.
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// Begin mark, text, end mark, padding; a long text loses its end, never the end mark.
    pub fn encode(&self, text: &str) -> Result<Encoded> {
        self.words.encode(text, Some(self.bos), self.eos, self.pad, self.max_length)
    }

    /// `text` with every added token that was trained as several (`<a>`, `<a>_1`, ...) written out, as diffusers'
    /// `FluxPipeline` does before it encodes a prompt; `StableDiffusion3Pipeline` does not.
    pub fn expanded<'t>(&self, text: &'t str) -> Result<Cow<'t, str>> {
        self.words.expanded(text)
    }

    /// Fails if this tokenizer can emit ids that an embedding table of `vocab_size` rows does not have.
    pub fn check_vocab(&self, vocab_size: usize) -> Result<()> {
        self.words.check_vocab(vocab_size)
    }
}

/// T5's unigram tokenizer.
pub struct T5Tokenizer {
    words: T5Words,
    eos: u32,
    pad: u32,
}

impl T5Tokenizer {
    /// Loads `DIR/tokenizer.json`.
    pub fn load(source: &dyn Source, dir: &str) -> Result<Self> {
        let files = TokenizerFiles::t5(source, dir)?;
        complete_at_once(Self::parse(&files, &Turns::none()))
    }

    /// From the files of [`TokenizerFiles::t5`].
    pub(crate) async fn parse(files: &TokenizerFiles, turns: &Turns) -> Result<Self> {
        let config = Config::parse(files, Kind::T5)?;
        turns.yield_if_due().await;
        let words = T5Words::t5(files, &config, turns).await?;
        Ok(Self {
            eos: words.role(&config, "eos_token")?,
            pad: words.role(&config, "pad_token")?,
            words,
        })
    }

    /// Text, end mark, padding to `max_len` ids; a long text loses its end, never the end mark.
    pub fn encode(&self, text: &str, max_len: usize) -> Result<Encoded> {
        self.words.encode(text, None, self.eos, self.pad, max_len)
    }

    /// `text` with every added token that was trained as several (`<a>`, `<a>_1`, ...) written out, as diffusers'
    /// `FluxPipeline` does before it encodes a prompt; `StableDiffusion3Pipeline` does not.
    pub fn expanded<'t>(&self, text: &'t str) -> Result<Cow<'t, str>> {
        self.words.expanded(text)
    }

    /// Fails if this tokenizer can emit ids that an embedding table of `vocab_size` rows does not have.
    pub fn check_vocab(&self, vocab_size: usize) -> Result<()> {
        self.words.check_vocab(vocab_size)
    }
}

fn shown(source: &dyn Source, path: &str) -> String {
    source.shown(path)
}

fn no_file(source: &dyn Source, dir: &str, looked_for: &'static str) -> TokenError {
    let found = source.list(dir).unwrap_or_default();
    TokenError::NoFile {
        dir: shown(source, dir),
        looked_for,
        found: match found.len() {
            0 => "nothing".into(),
            _ => found.join(", ").chars().take(200).collect(),
        },
        hint: match unfinished_download(source, dir) {
            Some(file) => format!(" ({file} is an unfinished download)"),
            None => String::new(),
        },
    }
}
