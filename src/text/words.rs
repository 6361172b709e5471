//! The part of tokenizing that the `tokenizers` crate does; only this file, `byte_pairs.rs` and `pieces.rs` name it.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::value::RawValue;
use tokenizers::normalizers::Precompiled;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::whitespace::WhitespaceSplit;
use tokenizers::{
    AddedToken, DecoderWrapper, Model, NormalizerWrapper, PostProcessorWrapper,
    PreTokenizerWrapper, TokenizerImpl,
};

use super::character_map::check_character_map;
use super::config::{Added, Config};
use super::files::{Text, TokenizerFiles};
use super::pieces::Pieces;
use super::unigrams::Unigrams;
use super::{Encoded, Result, TokenError};
use crate::checkpoint::json::fields;
use crate::turns::Turns;

/// More tokens or merges than this are an attack or a damaged file: CLIP has 49408.
pub(super) const MAX_ENTRIES: usize = 1 << 18;

/// A longer added token is an attack or a damaged file: the longest that are known have some forty bytes.
const MAX_ADDED_BYTES: usize = 1024;
/// More text of added tokens than this is one, too. What finds them takes a hundred bytes of memory for each of these,
/// and minutes where a token has megabytes.
const MAX_ALL_ADDED_BYTES: usize = 1 << 18;

/// A text that added tokens make longer than this is an attack or a mistake: no encoder reads as much.
const MAX_EXPANDED_BYTES: usize = 1 << 20;

/// The id of what is in no piece of T5. transformers' `T5Tokenizer` has it whatever the file says.
pub(super) const UNKNOWN: u32 = 2;

/// Entries of a vocabulary or a list of merges that are read between two turns: well under a millisecond's work.
pub(super) const ENTRIES: usize = 256;

/// A tokenizer with one of the crate's models or one of ours.
pub(super) type Tokenizer<M> =
    TokenizerImpl<M, NormalizerWrapper, PreTokenizerWrapper, PostProcessorWrapper, DecoderWrapper>;

/// T5's.
pub(super) type T5Words = Words<Pieces>;

/// A tokenizer stripped of everything but text -> ids.
pub(super) struct Words<M> {
    tokenizer: Tokenizer<M>,
    /// The file it came from, for messages.
    path: String,
    /// The largest id that it can give, other than for T5's sentinels that no file names.
    largest: u32,
    pads_left: bool,
    truncates_left: bool,
    /// Added tokens that several embeddings were trained for: their ids and texts, and what takes their place.
    vectors: Vec<(u32, String, String)>,
}

impl Words<Pieces> {
    /// What transformers' `T5Tokenizer` (`tokenization_t5.py`) sets up: of the normalizers only the character map
    /// that comes from sentencepiece, then words split at white space and marked.
    pub(super) async fn t5(files: &TokenizerFiles, config: &Config, turns: &Turns) -> Result<Self> {
        let Unigrams { path, pieces, character_map } = Unigrams::read(files, turns).await?;
        let bad = |reason: String| TokenError::File { path: path.to_string(), reason };
        if UNKNOWN as usize >= pieces.len() {
            return Err(bad(format!(
                "there are {} pieces; expected at least {}, of which number {UNKNOWN} stands for what is unknown",
                pieces.len(),
                UNKNOWN + 1
            )));
        }
        let largest = pieces.len() as u32 - 1;
        let mut tokenizer = Tokenizer::new(pieces);
        turns.yield_if_due().await;
        if let Some(map) = character_map {
            check_character_map(&map, turns)
                .await
                .map_err(|reason| bad(format!("precompiled_charsmap: {reason}")))?;
            let map = Precompiled::from(&map).map_err(|error| bad(error.to_string()))?;
            tokenizer.with_normalizer(Some(map));
            turns.yield_if_due().await;
        }
        let mark = Metaspace::new('▁', PrependScheme::Always, true);
        let split = PreTokenizers::new(vec![WhitespaceSplit.into(), mark.into()]);
        tokenizer.with_pre_tokenizer(Some(split));
        Self::new(tokenizer, config, &path, largest)
    }
}

impl<M: Model> Words<M> {
    pub(super) fn new(
        mut tokenizer: Tokenizer<M>,
        config: &Config,
        path: &str,
        largest: u32,
    ) -> Result<Self> {
        let lengths = config.added.iter().chain(&config.sentinels).map(|one| one.content.len());
        let (longest, all) = (lengths.clone().max().unwrap_or(0), lengths.sum::<usize>());
        if longest > MAX_ADDED_BYTES || all > MAX_ALL_ADDED_BYTES {
            let reason = format!(
                "the tokens that are added to it have up to {longest} bytes, {all} in all; expected at most \
                 {MAX_ADDED_BYTES} each and {MAX_ALL_ADDED_BYTES} in all"
            );
            return Err(TokenError::File { path: path.to_owned(), reason });
        }
        let tokens = |added: &[Added]| added.iter().map(added_token).collect::<Vec<_>>();
        tokenizer.add_tokens(&tokens(&config.added));
        let added = tokenizer.get_added_tokens_decoder().into_keys().max();
        tokenizer.add_tokens(&tokens(&config.sentinels));
        tokenizer.set_encode_special_tokens(config.splits_special);
        let vectors = vectors(&tokenizer);
        Ok(Self {
            tokenizer,
            path: path.to_owned(),
            largest: largest.max(added.unwrap_or(0)),
            pads_left: config.pads_left,
            truncates_left: config.truncates_left,
            vectors,
        })
    }

    /// `text` as `FluxPipeline` gives it to its tokenizers: where `<a>`, `<a>_1` and `<a>_2` are added tokens, `<a>` stands
    /// for all of them. diffusers' `TextualInversionLoaderMixin.maybe_convert_prompt`.
    pub(super) fn expanded<'t>(&self, text: &'t str) -> Result<Cow<'t, str>> {
        let mut text = Cow::Borrowed(text);
        if self.vectors.is_empty() {
            return Ok(text);
        }
        let ids = self.words(&text)?;
        for (_, content, all) in self.vectors.iter().filter(|(id, ..)| ids.contains(id)) {
            // What replaces one token may hold another one.
            if text.matches(content).count() * all.len() > MAX_EXPANDED_BYTES {
                let content: String = content.chars().take(60).collect();
                return Err(TokenError::Encode {
                    path: self.path.clone(),
                    reason: format!(
                        "{content} stands for so many tokens that the text gets too long"
                    ),
                });
            }
            text = text.replace(content, all).into();
        }
        Ok(text)
    }

    /// The ids of a text's tokens, without marks.
    fn words(&self, text: &str) -> Result<Vec<u32>> {
        match self.tokenizer.encode_fast(text, false) {
            Ok(encoding) => Ok(encoding.get_ids().to_vec()),
            Err(error) => {
                Err(TokenError::Encode { path: self.path.clone(), reason: error.to_string() })
            }
        }
    }

    /// The id of a role's token.
    pub(super) fn role(&self, config: &Config, role: &'static str) -> Result<u32> {
        let path = || self.path.clone();
        let Some(token) = config.token(role) else {
            return Err(TokenError::NullToken { path: path(), role });
        };
        let id = self.tokenizer.token_to_id(token);
        id.ok_or_else(|| TokenError::NoToken { path: path(), token: token.into(), role })
    }

    pub(super) fn check_vocab(&self, vocab_size: usize) -> Result<()> {
        if (self.largest as usize) < vocab_size {
            return Ok(());
        }
        let Self { path, largest, .. } = self;
        Err(TokenError::Vocabulary { path: path.clone(), largest: *largest, vocab_size })
    }

    /// The id of a token, added or of the vocabulary; `role` is what it is wanted for.
    pub(super) fn id(&self, token: &str, role: &'static str) -> Result<u32> {
        self.tokenizer.token_to_id(token).ok_or_else(|| TokenError::NoToken {
            path: self.path.clone(),
            token: token.into(),
            role,
        })
    }

    /// At most `length` ids of a text's tokens, without marks and padding, and how many more it has.
    pub(super) fn cut(&self, text: &str, length: usize) -> Result<(Vec<u32>, usize)> {
        let mut ids = self.words(text)?;
        let dropped = ids.len().saturating_sub(length);
        match self.truncates_left {
            true => drop(ids.drain(..dropped)),
            false => ids.truncate(length),
        }
        Ok((ids, dropped))
    }

    /// Whether padding comes in front of the text.
    pub(super) fn pads_left(&self) -> bool {
        self.pads_left
    }

    /// The file it came from, for messages.
    pub(super) fn path(&self) -> &str {
        &self.path
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
        let words = self.words(text)?;
        let dropped = words.len().saturating_sub(room);
        let kept = match self.truncates_left {
            true => &words[dropped..],
            false => &words[..words.len() - dropped],
        };
        let padding = std::iter::repeat_n(pad, room - kept.len());
        let mut ids = Vec::with_capacity(length);
        if self.pads_left {
            ids.extend(padding.clone());
        }
        ids.extend(bos);
        ids.extend_from_slice(kept);
        ids.push(eos);
        if !self.pads_left {
            ids.extend(padding);
        }
        let real = n_marks + kept.len();
        Ok(Encoded { ids, real, truncated: (dropped > 0).then_some(dropped) })
    }
}

pub(super) type Fields<'a> = BTreeMap<String, &'a RawValue>;

/// The parts of a `tokenizer.json` that are read.
pub(super) fn json_fields(file: &Text) -> Result<Fields<'_>> {
    let wanted = ["model", "normalizer"];
    fields(&file.text, |name| wanted.contains(&name)).map_err(|reason| file.bad(reason))
}

/// The model's parts that are read.
pub(super) fn model_of<'a>(fields: &Fields<'a>) -> Option<Fields<'a>> {
    let wanted = ["merges", "vocab"];
    let model = *fields.get("model")?;
    self::fields(model.get(), |name| wanted.contains(&name)).ok()
}

/// Rejects entry `i` of a vocabulary or a list of merges if there are too many.
pub(super) fn check_entries(file: &Text, i: usize) -> Result<()> {
    match i < MAX_ENTRIES {
        true => Ok(()),
        false => Err(file.bad(format!("more than {MAX_ENTRIES} tokens or merges"))),
    }
}

/// The added tokens that were trained as several: id, content, and the text that [`Words::expanded`] writes out.
fn vectors<M: Model>(tokenizer: &Tokenizer<M>) -> Vec<(u32, String, String)> {
    let added = tokenizer.get_added_tokens_decoder();
    let ids: BTreeMap<&str, u32> =
        added.iter().map(|(id, token)| (token.content.as_str(), *id)).collect();
    let several = ids.iter().filter_map(|(content, id)| {
        let names = (1..).map(|i| format!("{content}_{i}"));
        let more: Vec<String> = names.take_while(|name| ids.contains_key(name.as_str())).collect();
        (!more.is_empty())
            .then(|| (*id, content.to_string(), format!("{content} {}", more.join(" "))))
    });
    several.collect()
}

fn added_token(added: &Added) -> AddedToken {
    AddedToken::from(added.content.clone(), added.special)
        .single_word(added.single_word)
        .lstrip(added.lstrip)
        .rstrip(added.rstrip)
        .normalized(added.normalized)
}
