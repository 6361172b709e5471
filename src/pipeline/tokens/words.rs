//! The part of tokenizing that the `tokenizers` crate does; only this file and `pieces.rs` name it.

use std::collections::HashMap;

use serde_json::Value;
use serde_json::value::RawValue;
use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::normalizers::replace::ReplacePattern;
use tokenizers::normalizers::{Lowercase, NFC, Precompiled, Replace, Sequence as Normalizers};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::pre_tokenizers::whitespace::WhitespaceSplit;
use tokenizers::{
    AddedToken, DecoderWrapper, Model, NormalizerWrapper, PostProcessorWrapper,
    PreTokenizerWrapper, SplitDelimiterBehavior, TokenizerImpl,
};

use super::character_map::{character_map, check_character_map, decode_base64};
use super::config::Config;
use super::files::{Text, TokenizerFiles, WordFiles};
use super::json::{elements, entries, fields, value};
use super::pieces::Pieces;
use super::{Encoded, Result, TokenError};
use crate::gpu::Turns;

/// Ids above this are a damaged file.
const MAX_ID: u32 = 1 << 24;

/// Entries of a vocabulary or a list of merges that are read between two turns: well under a millisecond's work.
const ENTRIES: usize = 256;

/// A tokenizer with one of the crate's models or one of ours.
type Tokenizer<M> =
    TokenizerImpl<M, NormalizerWrapper, PreTokenizerWrapper, PostProcessorWrapper, DecoderWrapper>;

/// CLIP's.
pub(super) type ClipWords = Words<BPE>;
/// T5's.
pub(super) type T5Words = Words<Pieces>;

/// A tokenizer stripped of everything but text -> ids.
pub(super) struct Words<M> {
    tokenizer: Tokenizer<M>,
    /// The file it came from, for messages.
    path: String,
    /// The largest id that it can give.
    largest: u32,
}

impl Words<BPE> {
    /// What transformers' `CLIPTokenizer` (`tokenization_clip.py`) sets up. `special`: begin and end of text, the latter
    /// also standing for what is unknown.
    pub(super) async fn clip(
        files: &TokenizerFiles,
        config: &Config,
        special: [&str; 2],
        turns: &Turns,
    ) -> Result<Self> {
        let (file, vocab, merges, added) = match &files.words {
            WordFiles::Json(file) => {
                let fields = fields(&file.text).map_err(|reason| file.bad(reason))?;
                turns.due().await;
                let model = fields.get("model").and_then(|model| value::<Fields>(model));
                turns.due().await;
                let vocab = model.as_ref().and_then(|model| entries(model.get("vocab")?));
                let Some(vocab) = vocab else {
                    return Err(file.bad("expected a byte-pair model with a \"vocab\" object"));
                };
                let merges = model.as_ref().and_then(|model| elements(model.get("merges")?));
                let Some(merges) = merges else {
                    return Err(file.bad("expected a byte-pair model with a \"merges\" list"));
                };
                let vocab = read_vocab(file, vocab, turns).await?;
                let mut pairs = Merges::new();
                for (i, merge) in merges.enumerate() {
                    if i % ENTRIES == 0 {
                        turns.due().await;
                    }
                    let pair = listed_merge(merge).ok_or_else(|| {
                        file.bad(format!("a merge of two parts was expected, found {merge}"))
                    })?;
                    pairs.push(pair);
                }
                (file, vocab, pairs, added_tokens(&fields, file)?)
            }
            WordFiles::Pair { vocab: file, merges: list } => {
                let whole: &RawValue = serde_json::from_str(&file.text)
                    .map_err(|error| file.bad(error.to_string()))?;
                turns.due().await;
                let entries = entries(whole).ok_or_else(|| file.bad("expected a JSON object"))?;
                let vocab = read_vocab(file, entries, turns).await?;
                let merges = read_merges(list, turns).await?;
                let mut added = Vec::new();
                for token in special {
                    let Some(id) = vocab.get(token) else {
                        return Err(TokenError::NoToken {
                            path: file.path.clone(),
                            token: token.into(),
                            role: "begin or end of text",
                        });
                    };
                    let normalized = config.is_normalized(u64::from(*id));
                    added.push(AddedToken::from(token, true).normalized(normalized));
                }
                (file, vocab, merges, added)
            }
        };
        turns.due().await;
        let largest = vocab.values().copied().max().unwrap_or(0);
        let model = BPE::builder()
            .vocab_and_merges(vocab, merges)
            .unk_token(special[1].to_owned())
            .continuing_subword_prefix(String::new())
            .end_of_word_suffix("</w>".to_owned())
            .build()
            .map_err(|error| file.bad(error.to_string()))?;
        turns.due().await;
        let tokenizer = clip_rules(model).map_err(|error| file.bad(error.to_string()))?;
        turns.due().await;
        Ok(Self::new(tokenizer, &added, file, largest))
    }
}

impl Words<Pieces> {
    /// What transformers' `T5Tokenizer` (`tokenization_t5.py`) sets up: of the normalizers only the character map
    /// that comes from sentencepiece, then words split at white space and marked.
    pub(super) async fn t5(files: &TokenizerFiles, turns: &Turns) -> Result<Self> {
        let (WordFiles::Json(file) | WordFiles::Pair { vocab: file, .. }) = &files.words;
        let fields = fields(&file.text).map_err(|reason| file.bad(reason))?;
        turns.due().await;
        let model = fields.get("model").and_then(|model| value::<Fields>(model));
        turns.due().await;
        let vocab = model.as_ref().and_then(|model| elements(model.get("vocab")?));
        let Some(vocab) = vocab else {
            return Err(file.bad("expected a unigram model with a \"vocab\" list"));
        };
        let unk = model.as_ref().and_then(|model| value(model.get("unk_id")?)).unwrap_or(2);
        let mut pieces = Pieces::new(unk);
        for (i, piece) in vocab.enumerate() {
            if i % ENTRIES == 0 {
                turns.due().await;
            }
            match value::<(String, f64)>(piece) {
                Some((text, score)) if !text.is_empty() => pieces.push(text, score),
                _ => {
                    let reason = format!("a piece is {piece}; expected a text and its score");
                    return Err(file.bad(reason));
                }
            }
        }
        if unk as usize >= pieces.len() {
            let reason = format!("unk_id is {unk}, but there are {} pieces", pieces.len());
            return Err(file.bad(reason));
        }
        let largest = pieces.len() as u32 - 1;
        let mut tokenizer = Tokenizer::new(pieces);
        turns.due().await;
        let normalizer = fields.get("normalizer").and_then(|raw| value::<Value>(raw));
        if let Some(map) = normalizer.as_ref().and_then(character_map) {
            let map =
                decode_base64(map).ok_or_else(|| file.bad("precompiled_charsmap is not base64"))?;
            turns.due().await;
            check_character_map(&map, turns)
                .await
                .map_err(|reason| file.bad(format!("precompiled_charsmap: {reason}")))?;
            let map = Precompiled::from(&map).map_err(|error| file.bad(error.to_string()))?;
            tokenizer.with_normalizer(Some(map));
            turns.due().await;
        }
        let mark = Metaspace::new('▁', PrependScheme::Always, true);
        let split = PreTokenizers::new(vec![WhitespaceSplit.into(), mark.into()]);
        tokenizer.with_pre_tokenizer(Some(split));
        Ok(Self::new(tokenizer, &added_tokens(&fields, file)?, file, largest))
    }
}

impl<M: Model> Words<M> {
    fn new(mut tokenizer: Tokenizer<M>, added: &[AddedToken], file: &Text, largest: u32) -> Self {
        tokenizer.add_tokens(added);
        let added = tokenizer.get_added_tokens_decoder().into_keys().max();
        Self { tokenizer, path: file.path.clone(), largest: largest.max(added.unwrap_or(0)) }
    }

    pub(super) fn id(&self, token: &str, role: &'static str) -> Result<u32> {
        self.tokenizer.token_to_id(token).ok_or_else(|| TokenError::NoToken {
            path: self.path.clone(),
            token: token.into(),
            role,
        })
    }

    pub(super) fn check_vocab(&self, vocab_size: usize) -> Result<()> {
        if (self.largest as usize) < vocab_size {
            return Ok(());
        }
        let Self { path, largest, .. } = self;
        Err(TokenError::Vocabulary { path: path.clone(), largest: *largest, vocab_size })
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

type Fields<'a> = HashMap<String, &'a RawValue>;

/// Normalizing and splitting as CLIP has them.
fn clip_rules(model: BPE) -> tokenizers::Result<Tokenizer<BPE>> {
    let mut tokenizer = Tokenizer::new(model);
    let space = Replace::new(ReplacePattern::Regex(r"\s+".into()), " ")?;
    let normalizer = Normalizers::new(vec![NFC.into(), space.into(), Lowercase.into()]);
    tokenizer.with_normalizer(Some(normalizer));
    let pattern = concat!(
        r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|",
        r"[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+",
    );
    let words =
        Split::new(SplitPattern::Regex(pattern.into()), SplitDelimiterBehavior::Removed, true)?;
    let bytes = ByteLevel::new(false, true, true);
    tokenizer.with_pre_tokenizer(Some(PreTokenizers::new(vec![words.into(), bytes.into()])));
    Ok(tokenizer)
}

/// Tokens and their ids.
async fn read_vocab<'a>(
    file: &Text,
    entries: impl Iterator<Item = (&'a RawValue, &'a RawValue)>,
    turns: &Turns,
) -> Result<Vocab> {
    let mut vocab = Vocab::new();
    for (i, (token, id)) in entries.enumerate() {
        if i % ENTRIES == 0 {
            turns.due().await;
        }
        let Some(token) = value::<String>(token) else {
            return Err(file.bad(format!("a token is {token}, which is no text")));
        };
        let Some(number) = value(id).filter(|id| *id <= MAX_ID) else {
            let reason =
                format!("the id of {token:?} is {id}; expected a whole number up to {MAX_ID}");
            return Err(file.bad(reason));
        };
        vocab.insert(token, number);
    }
    Ok(vocab)
}

/// The lines of a `merges.txt`.
async fn read_merges(file: &Text, turns: &Turns) -> Result<Merges> {
    let mut merges = Merges::new();
    // The first line is "#version: 0.2"; a later line may well begin with '#'.
    for (number, line) in file.text.lines().enumerate() {
        if number % ENTRIES == 0 {
            turns.due().await;
        }
        if line.is_empty() || line.starts_with("#version") {
            continue;
        }
        let Some(pair) = split_merge(line) else {
            let line: String = line.chars().take(60).collect();
            let reason = format!(
                "line {}: expected two parts with a space between, found {line:?}",
                number + 1
            );
            return Err(file.bad(reason));
        };
        merges.push(pair);
    }
    Ok(merges)
}

/// A merge in a `tokenizer.json`: `"a b"` or `["a", "b"]`, by age of the file.
fn listed_merge(merge: &RawValue) -> Option<(String, String)> {
    match value::<String>(merge) {
        Some(line) => split_merge(&line),
        None => value(merge),
    }
}

/// `"a b"` -> `("a", "b")`
fn split_merge(line: &str) -> Option<(String, String)> {
    let (a, b) = line.split_once(' ')?;
    let whole = !a.is_empty() && !b.is_empty() && !b.contains(' ');
    whole.then(|| (a.to_string(), b.to_string()))
}

/// `added_tokens` of a `tokenizer.json`: texts that are one token wherever they occur.
fn added_tokens(fields: &Fields<'_>, file: &Text) -> Result<Vec<AddedToken>> {
    let listed = fields.get("added_tokens").and_then(|raw| value::<Vec<Value>>(raw));
    let mut added = Vec::new();
    for token in listed.iter().flatten() {
        let content = token.get("content").and_then(Value::as_str).ok_or_else(|| {
            file.bad(format!("an added token is {token}; expected an object with \"content\""))
        })?;
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
