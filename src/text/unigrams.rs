//! T5's pieces and character map, from whatever has them.

use std::borrow::Cow;

use super::Result;
use super::character_map::{character_map, decode_base64};
use super::files::{Packed, Text, TokenizerFiles, WordFiles};
use super::gguf::{GgufToken, GgufVocabulary};
use super::json::elements;
use super::pieces::Pieces;
use super::words::{ENTRIES, MAX_ENTRIES, UNKNOWN, check_entries, json_fields, model_of};
use crate::checkpoint::json::value;
use crate::turns::Turns;

/// A unigram model.
pub(super) struct Unigrams<'f> {
    /// The file, for messages.
    pub path: Cow<'f, str>,
    pub pieces: Pieces,
    /// Sentencepiece's, not yet checked.
    pub character_map: Option<Vec<u8>>,
}

impl<'f> Unigrams<'f> {
    pub async fn read(files: &'f TokenizerFiles, turns: &Turns) -> Result<Self> {
        match &files.words {
            WordFiles::Json(file) | WordFiles::Pair { vocab: file, .. } => {
                Self::of_json(file, turns).await
            }
            WordFiles::Packed(packed) => Self::of_packed(packed, turns).await,
            WordFiles::Gguf(vocabulary) => Self::of_gguf(vocabulary, turns).await,
        }
    }

    async fn of_json(file: &'f Text, turns: &Turns) -> Result<Self> {
        let fields = json_fields(file)?;
        turns.yield_if_due().await;
        let model = model_of(&fields);
        turns.yield_if_due().await;
        let vocab = model.as_ref().and_then(|model| elements(model.get("vocab")?));
        let Some(vocab) = vocab else {
            return Err(file.bad("expected a unigram model with a \"vocab\" list"));
        };
        let mut pieces = Pieces::new(UNKNOWN);
        for (i, piece) in vocab.enumerate() {
            if i % ENTRIES == 0 {
                turns.yield_if_due().await;
            }
            match value::<(String, f64)>(piece) {
                Some((text, score)) if !text.is_empty() => pieces.push(text, score),
                _ => {
                    let piece: String = piece.get().chars().take(60).collect();
                    let reason = format!("a piece is {piece}; expected a text and its score");
                    return Err(file.bad(reason));
                }
            }
            check_entries(file, i)?;
        }
        let character_map = match fields.get("normalizer").and_then(|raw| character_map(raw)) {
            Some(map) => Some(
                decode_base64(&map)
                    .ok_or_else(|| file.bad("precompiled_charsmap is not base64"))?,
            ),
            None => None,
        };
        turns.yield_if_due().await;
        Ok(Unigrams { path: file.path.as_str().into(), pieces, character_map })
    }

    async fn of_packed(packed: &'f Packed, turns: &Turns) -> Result<Self> {
        let unpacked = packed.pieces()?;
        let mut pieces = Pieces::new(UNKNOWN);
        for (i, (text, score)) in unpacked.texts.lines().zip(&unpacked.scores).enumerate() {
            if i % ENTRIES == 0 {
                turns.yield_if_due().await;
            }
            pieces.push(text.to_owned(), f64::from(*score));
        }
        let character_map = Some(unpacked.character_map);
        Ok(Unigrams { path: packed.path.as_str().into(), pieces, character_map })
    }

    async fn of_gguf(vocabulary: &'f GgufVocabulary, turns: &Turns) -> Result<Self> {
        let n = vocabulary.tokens.len();
        if n > MAX_ENTRIES {
            return Err(vocabulary.bad(format!("has {n} tokens; expected at most {MAX_ENTRIES}")));
        }
        let mut pieces = Pieces::new(UNKNOWN);
        for (i, token) in vocabulary.pieces().enumerate() {
            if i % ENTRIES == 0 {
                turns.yield_if_due().await;
            }
            match token {
                GgufToken::Piece("", _) => {
                    return Err(vocabulary.bad(format!("has no text for token {i}")));
                }
                GgufToken::Piece(text, score) => pieces.push(text.to_owned(), score),
                GgufToken::Unused => pieces.push_unused(),
            }
        }
        let character_map = vocabulary.precompiled_charsmap.clone().filter(|map| !map.is_empty());
        Ok(Unigrams { path: vocabulary.path.as_str().into(), pieces, character_map })
    }
}
