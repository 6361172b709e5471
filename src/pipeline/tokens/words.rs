//! The part of tokenizing that the `tokenizers` crate does; only this file names it.

use serde_json::{Map, Value, json};
use tokenizers::models::bpe::BPE;
use tokenizers::models::unigram::Unigram;
use tokenizers::normalizers::replace::ReplacePattern;
use tokenizers::normalizers::{Lowercase, NFC, Precompiled, Replace, Sequence as Normalizers};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::pre_tokenizers::whitespace::WhitespaceSplit;
use tokenizers::{AddedToken, SplitDelimiterBehavior, Tokenizer};

use super::character_map::{character_map, check_character_map, decode_base64};
use super::config::Config;
use super::{Encoded, Result, TokenError, read_object, shown};
use crate::models::source::Source;

/// Ids above this are a damaged file.
const MAX_ID: u64 = 1 << 24;

/// A tokenizer stripped of everything but text -> ids.
pub(super) struct Words {
    tokenizer: Tokenizer,
    /// The file it came from, for messages.
    path: String,
}

impl Words {
    /// From CLIP's `DIR/tokenizer.json`; `None` if there is none.
    pub(super) fn clip_json(source: &dyn Source, dir: &str, unk: &str) -> Result<Option<Self>> {
        let Some((file, path)) = read_object(source, dir, "tokenizer.json")? else {
            return Ok(None);
        };
        let bad = |reason: &str| TokenError::File { path: path.clone(), reason: reason.into() };
        let model = file.get("model");
        let Some(vocab) = model.and_then(|model| model.get("vocab")?.as_object()) else {
            return Err(bad("expected a byte-pair model with a \"vocab\" object"));
        };
        let Some(merges) = model.and_then(|model| model.get("merges")?.as_array()) else {
            return Err(bad("expected a byte-pair model with a \"merges\" list"));
        };
        // Either "a b" or ["a", "b"], by age of the file.
        let pair = |merge: &Value| match merge {
            Value::String(merge) => split_merge(merge),
            Value::Array(parts) => match parts.as_slice() {
                [Value::String(a), Value::String(b)] => Some([a.clone(), b.clone()]),
                _ => None,
            },
            _ => None,
        };
        let mut pairs = Vec::with_capacity(merges.len());
        for merge in merges {
            pairs.push(pair(merge).ok_or_else(|| {
                bad(&format!("a merge of two parts was expected, found {merge}"))
            })?);
        }
        let added = added_tokens(&file, &path)?;
        Self::clip(vocab, pairs, &added, unk, path).map(Some)
    }

    /// From CLIP's `DIR/vocab.json` and `DIR/merges.txt`; `None` if either is missing.
    pub(super) fn clip_files(
        source: &dyn Source,
        dir: &str,
        config: &Config,
        special: [&str; 2],
    ) -> Result<Option<Self>> {
        let merges_path = format!("{dir}/merges.txt");
        let (Some((vocab, path)), Some(merges)) =
            (read_object(source, dir, "vocab.json")?, source.text(&merges_path)?)
        else {
            return Ok(None);
        };
        let mut pairs = Vec::new();
        // The first line is "#version: 0.2"; a later line may well begin with '#'.
        for (number, line) in merges.lines().enumerate() {
            if line.is_empty() || line.starts_with("#version") {
                continue;
            }
            let Some(pair) = split_merge(line) else {
                let line: String = line.chars().take(60).collect();
                return Err(TokenError::File {
                    path: shown(source, &merges_path),
                    reason: format!(
                        "line {}: expected two parts with a space between, found {line:?}",
                        number + 1
                    ),
                });
            };
            pairs.push(pair);
        }
        let mut added = Vec::new();
        for token in special {
            let Some(id) = vocab.get(token).and_then(Value::as_u64) else {
                return Err(TokenError::NoToken {
                    path,
                    token: token.into(),
                    role: "begin or end of text",
                });
            };
            added.push(AddedToken::from(token, true).normalized(config.is_normalized(id)));
        }
        Self::clip(&vocab, pairs, &added, special[1], path).map(Some)
    }

    /// What transformers' `CLIPTokenizer` (`tokenization_clip.py`) sets up.
    fn clip(
        vocab: &Map<String, Value>,
        merges: Vec<[String; 2]>,
        added: &[AddedToken],
        unk: &str,
        path: String,
    ) -> Result<Self> {
        if let Some((token, id)) =
            vocab.iter().find(|(_, id)| id.as_u64().is_none_or(|id| id > MAX_ID))
        {
            let reason =
                format!("the id of {token:?} is {id}; expected a whole number up to {MAX_ID}");
            return Err(TokenError::File { path, reason });
        }
        let model = json!({
            "unk_token": unk,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "</w>",
            "fuse_unk": false,
            "vocab": vocab,
            "merges": merges,
        });
        let build = || -> tokenizers::Result<Tokenizer> {
            let mut tokenizer = Tokenizer::new(serde_json::from_value::<BPE>(model)?);
            let space = Replace::new(ReplacePattern::Regex(r"\s+".into()), " ")?;
            let normalizer = Normalizers::new(vec![NFC.into(), space.into(), Lowercase.into()]);
            tokenizer.with_normalizer(Some(normalizer));
            let pattern = concat!(
                r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|",
                r"[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+",
            );
            let words = Split::new(
                SplitPattern::Regex(pattern.into()),
                SplitDelimiterBehavior::Removed,
                true,
            )?;
            let bytes = ByteLevel::new(false, true, true);
            tokenizer
                .with_pre_tokenizer(Some(PreTokenizers::new(vec![words.into(), bytes.into()])));
            tokenizer.add_tokens(added);
            Ok(tokenizer)
        };
        match build() {
            Ok(tokenizer) => Ok(Self { tokenizer, path }),
            Err(error) => Err(TokenError::File { path, reason: error.to_string() }),
        }
    }

    /// From T5's `DIR/tokenizer.json`; `None` if there is none.
    ///
    /// What transformers' `T5Tokenizer` (`tokenization_t5.py`) sets up: of the normalizers only the character map
    /// that comes from sentencepiece, then words split at white space and marked.
    pub(super) fn t5_json(source: &dyn Source, dir: &str) -> Result<Option<Self>> {
        let Some((file, path)) = read_object(source, dir, "tokenizer.json")? else {
            return Ok(None);
        };
        let bad = |reason: &str| TokenError::File { path: path.clone(), reason: reason.into() };
        let model = file.get("model");
        let Some(vocab) = model.and_then(|model| model.get("vocab")?.as_array()) else {
            return Err(bad("expected a unigram model with a \"vocab\" list"));
        };
        let mut pieces = Vec::with_capacity(vocab.len());
        for piece in vocab {
            match piece.as_array().map(Vec::as_slice) {
                Some([Value::String(text), score]) if !text.is_empty() && score.is_number() => {
                    pieces.push((text.clone(), score.as_f64().unwrap_or(0.0)));
                }
                _ => {
                    return Err(bad(&format!("a piece is {piece}; expected a text and its score")));
                }
            }
        }
        let unk = model.and_then(|model| model.get("unk_id")?.as_u64()).unwrap_or(2);
        let Some(unk) = usize::try_from(unk).ok().filter(|unk| *unk < pieces.len()) else {
            return Err(bad(&format!("unk_id is {unk}, but there are {} pieces", pieces.len())));
        };

        let unigram =
            Unigram::from(pieces, Some(unk), false).map_err(|error| bad(&error.to_string()))?;
        let mut tokenizer = Tokenizer::new(unigram);
        if let Some(map) = file.get("normalizer").and_then(character_map) {
            let map =
                decode_base64(map).ok_or_else(|| bad("precompiled_charsmap is not base64"))?;
            check_character_map(&map)
                .map_err(|reason| bad(&format!("precompiled_charsmap: {reason}")))?;
            let map = Precompiled::from(&map).map_err(|error| bad(&error.to_string()))?;
            tokenizer.with_normalizer(Some(map));
        }
        let mark = Metaspace::new('▁', PrependScheme::Always, true);
        let split = PreTokenizers::new(vec![WhitespaceSplit.into(), mark.into()]);
        tokenizer.with_pre_tokenizer(Some(split));
        tokenizer.add_tokens(&added_tokens(&file, &path)?);
        Ok(Some(Self { tokenizer, path }))
    }

    pub(super) fn id(&self, token: &str, role: &'static str) -> Result<u32> {
        self.tokenizer.token_to_id(token).ok_or_else(|| TokenError::NoToken {
            path: self.path.clone(),
            token: token.into(),
            role,
        })
    }

    pub(super) fn check_vocab(&self, vocab_size: usize) -> Result<()> {
        let largest = self.tokenizer.get_vocab(true).into_values().max().unwrap_or(0);
        if (largest as usize) < vocab_size {
            return Ok(());
        }
        Err(TokenError::Vocabulary { path: self.path.clone(), largest, vocab_size })
    }

    /// `[bos] text eos pad...`, `length` ids in all.
    pub(super) fn encode(
        &self,
        text: &str,
        bos: Option<u32>,
        eos: u32,
        pad: u32,
        length: usize,
    ) -> Result<Encoded> {
        let n_marks = 1 + usize::from(bos.is_some());
        let Some(room) = length.checked_sub(n_marks) else {
            return Err(TokenError::Length { found: length, least: n_marks });
        };
        let encoding = match self.tokenizer.encode_fast(text, false) {
            Ok(encoding) => encoding,
            Err(error) => {
                return Err(TokenError::Encode {
                    path: self.path.clone(),
                    reason: error.to_string(),
                });
            }
        };
        let words = encoding.get_ids();
        let kept = words.len().min(room);
        let mut ids = Vec::with_capacity(length);
        ids.extend(bos);
        ids.extend_from_slice(&words[..kept]);
        ids.push(eos);
        ids.resize(length, pad);
        let dropped = words.len() - kept;
        Ok(Encoded { ids, truncated: (dropped > 0).then_some(dropped) })
    }
}

/// `"a b"` -> `["a", "b"]`
fn split_merge(line: &str) -> Option<[String; 2]> {
    let (a, b) = line.split_once(' ')?;
    let whole = !a.is_empty() && !b.is_empty() && !b.contains(' ');
    whole.then(|| [a.to_string(), b.to_string()])
}

/// `added_tokens` of a `tokenizer.json`: texts that are one token wherever they occur.
fn added_tokens(file: &Map<String, Value>, path: &str) -> Result<Vec<AddedToken>> {
    let bad = |token: &Value| TokenError::File {
        path: path.into(),
        reason: format!("an added token is {token}; expected an object with \"content\""),
    };
    let mut added = Vec::new();
    for token in file.get("added_tokens").and_then(Value::as_array).into_iter().flatten() {
        let content = token.get("content").and_then(Value::as_str).ok_or_else(|| bad(token))?;
        let flag =
            |name: &str, default: bool| token.get(name).and_then(Value::as_bool).unwrap_or(default);
        let special = flag("special", true);
        added.push(
            AddedToken::from(content, special)
                .single_word(flag("single_word", false))
                .lstrip(flag("lstrip", false))
                .rstrip(flag("rstrip", false))
                .normalized(flag("normalized", !special)),
        );
    }
    Ok(added)
}
