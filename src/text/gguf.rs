//! T5's vocabulary as llama.cpp's converter writes it into a GGUF file's metadata.

use std::sync::Arc;

use super::{Result, T5Tokenizer, TokenError, TokenizerFiles};
use crate::checkpoint::gguf::Value;
use crate::checkpoint::weights::Weights;
use crate::turns::{Turns, complete_at_once};

/// What a token is: `tokenizer.ggml.token_type`.
mod token_type {
    pub const UNKNOWN: i32 = 2;
    pub const CONTROL: i32 = 3;
    pub const USER_DEFINED: i32 = 4;
    pub const UNUSED: i32 = 5;
    pub const BYTE: i32 = 6;
}

/// The fields `tokenizer.ggml.*` of a GGUF file, as they stand there.
#[derive(Clone, Debug, Default)]
pub struct GgufVocabulary {
    /// The file, for messages.
    pub path: String,
    /// `model`: only `t5` is read.
    pub model: String,
    /// `tokens`, by their ids.
    pub tokens: Vec<String>,
    /// `scores`: logarithms of the tokens' likelihoods.
    pub scores: Vec<f32>,
    /// `token_type`; without it all tokens are normal ones.
    pub token_types: Option<Vec<i32>>,
    /// `add_space_prefix`.
    pub add_space_prefix: Option<bool>,
    /// `remove_extra_whitespaces`.
    pub remove_extra_whitespaces: Option<bool>,
    /// `eos_token_id`.
    pub eos_token_id: Option<u32>,
    /// `padding_token_id`.
    pub padding_token_id: Option<u32>,
    /// `unknown_token_id`.
    pub unknown_token_id: Option<u32>,
    /// `precompiled_charsmap`: sentencepiece's character map.
    pub precompiled_charsmap: Option<Vec<u8>>,
}

/// A token of a [`GgufVocabulary`].
pub(super) enum GgufToken<'a> {
    /// A piece of text and its score.
    Piece(&'a str, f64),
    /// A row of the embedding table that no text leads to.
    Unused,
}

impl GgufVocabulary {
    /// Whether weights are of a GGUF file that has a vocabulary.
    pub(crate) fn is_in(weights: &Weights) -> bool {
        weights.gguf().is_some_and(|metadata| metadata.get("tokenizer.ggml.tokens").is_some())
    }

    /// The vocabulary in the metadata of a GGUF file; `None` if it has none, or the weights are of other files.
    pub(crate) fn of(weights: &Weights) -> Result<Option<Self>> {
        let Some(metadata) = weights.gguf() else { return Ok(None) };
        let name = |field: &str| format!("tokenizer.ggml.{field}");
        let array = |field: &str| weights.gguf_array(&name(field));
        let Some(tokens) = array("tokens")? else { return Ok(None) };
        let flag = |field: &str| match metadata.get(&name(field)) {
            Some(Value::Flag(flag)) => Some(*flag),
            _ => None,
        };
        let id = |field: &str| u32::try_from(metadata.count(&name(field))?).ok();
        Ok(Some(GgufVocabulary {
            path: weights.place().to_owned(),
            model: metadata.text(&name("model")).unwrap_or_default().to_owned(),
            tokens: tokens.texts()?,
            scores: array("scores")?.map(|array| array.floats()).transpose()?.unwrap_or_default(),
            token_types: array("token_type")?.map(|array| array.integers()).transpose()?,
            add_space_prefix: flag("add_space_prefix"),
            remove_extra_whitespaces: flag("remove_extra_whitespaces"),
            eos_token_id: id("eos_token_id"),
            padding_token_id: id("padding_token_id"),
            unknown_token_id: id("unknown_token_id"),
            precompiled_charsmap: array("precompiled_charsmap")?
                .map(|array| array.bytes())
                .transpose()?,
        }))
    }

    pub(super) fn bad(&self, reason: impl Into<String>) -> TokenError {
        let reason = format!("its vocabulary (tokenizer.ggml) {}", reason.into());
        TokenError::File { path: self.path.clone(), reason }
    }

    /// Checks what can be checked without building a tokenizer.
    pub(crate) fn files(self) -> Result<TokenizerFiles> {
        if self.model != "t5" {
            let model: String = self.model.chars().take(60).collect();
            return Err(self.bad(format!("is of the kind {model:?}; expected \"t5\"")));
        }
        let n = self.tokens.len();
        let of_types = self.token_types.as_ref().map_or(n, Vec::len);
        if self.scores.len() != n || of_types != n {
            return Err(self.bad(format!(
                "has {n} tokens, {} scores and {of_types} types; expected as many of each",
                self.scores.len()
            )));
        }
        // T5 was trained with both; without them other rules than T5's would split a text.
        if self.add_space_prefix == Some(false) || self.remove_extra_whitespaces == Some(false) {
            return Err(self.bad(
                "says that add_space_prefix or remove_extra_whitespaces is false; expected true, as for T5",
            ));
        }
        for (i, score) in self.scores.iter().enumerate() {
            if !score.is_finite() {
                return Err(self.bad(format!("gives token {i} the score {score}")));
            }
            if self.kind(i) == Some(token_type::BYTE) {
                return Err(
                    self.bad(format!("has single bytes as tokens (number {i}); T5 has none"))
                );
            }
        }
        if let Some(id) = self.unknown_token_id.filter(|id| *id != super::words::UNKNOWN) {
            return Err(self.bad(format!(
                "has {id} as unknown_token_id; expected {}, as for T5",
                super::words::UNKNOWN
            )));
        }
        for id in [self.eos_token_id, self.padding_token_id].into_iter().flatten() {
            if id as usize >= n {
                return Err(self.bad(format!("has {n} tokens, of which a mark is number {id}")));
            }
        }
        Ok(TokenizerFiles::gguf(Arc::new(self)))
    }

    /// The tokenizer with this vocabulary.
    pub fn load(self) -> Result<T5Tokenizer> {
        complete_at_once(T5Tokenizer::parse(&self.files()?, &Turns::none()))
    }

    fn kind(&self, i: usize) -> Option<i32> {
        self.token_types.as_ref().and_then(|types| types.get(i).copied())
    }

    /// All tokens. Those that are no text have no likelihood: the converter's numbers for them (-1000, -10000) would make
    /// unknown characters less likely than with T5's `tokenizer.json`, which gives them 0.
    pub(super) fn pieces(&self) -> impl Iterator<Item = GgufToken<'_>> {
        use token_type::{CONTROL, UNKNOWN, UNUSED, USER_DEFINED};
        self.tokens.iter().zip(&self.scores).enumerate().map(|(i, (text, score))| {
            match self.kind(i) {
                Some(UNUSED) => GgufToken::Unused,
                Some(UNKNOWN | CONTROL | USER_DEFINED) => GgufToken::Piece(text, 0.0),
                _ => GgufToken::Piece(text, f64::from(*score)),
            }
        })
    }

    /// The tokens that are one token wherever they occur in a text, and their ids.
    pub(super) fn added(&self) -> impl Iterator<Item = (u32, &str)> {
        use token_type::{CONTROL, UNKNOWN, USER_DEFINED};
        self.tokens.iter().enumerate().filter_map(|(i, text)| {
            let added = matches!(self.kind(i), Some(UNKNOWN | CONTROL | USER_DEFINED));
            added.then_some((i as u32, text.as_str()))
        })
    }

    /// The tokens that have a role.
    pub(super) fn roles(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let roles = [("eos_token", self.eos_token_id), ("pad_token", self.padding_token_id)];
        roles
            .into_iter()
            .filter_map(|(role, id)| Some((role, self.tokens.get(id? as usize)?.as_str())))
    }
}
