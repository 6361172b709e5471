//! The part of tokenizing that the `tokenizers` crate does; only this file and `pieces.rs` name it.

use std::borrow::Cow;
use std::collections::BTreeMap;

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
use super::config::{Added, Config};
use super::files::{Text, TokenizerFiles, WordFiles};
use super::json::{elements, entries};
use super::pieces::Pieces;
use super::{Encoded, Result, TokenError};
use crate::checkpoint::json::{fields, value};
use crate::turns::Turns;

/// Ids above this are a damaged file.
const MAX_ID: u32 = 1 << 24;

/// More tokens or merges than this are an attack or a damaged file: CLIP has 49408.
const MAX_ENTRIES: usize = 1 << 18;

/// A longer added token is an attack or a damaged file: the longest that are known have some forty bytes.
const MAX_ADDED_BYTES: usize = 1024;
/// More text of added tokens than this is one, too. What finds them takes a hundred bytes of memory for each of these,
/// and minutes where a token has megabytes.
const MAX_ALL_ADDED_BYTES: usize = 1 << 18;

/// A text that added tokens make longer than this is an attack or a mistake: no encoder reads as much.
const MAX_EXPANDED_BYTES: usize = 1 << 20;

/// The id of what is in no piece of T5. transformers' `T5Tokenizer` has it whatever the file says.
const UNKNOWN: u32 = 2;

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
    /// The largest id that it can give, other than for T5's sentinels that no file names.
    largest: u32,
    pads_left: bool,
    truncates_left: bool,
    /// Added tokens that several embeddings were trained for: their ids and texts, and what takes their place.
    vectors: Vec<(u32, String, String)>,
}

impl Words<BPE> {
    /// What transformers' `CLIPTokenizer` (`tokenization_clip.py`) sets up.
    pub(super) async fn clip(
        files: &TokenizerFiles,
        config: &Config,
        turns: &Turns,
    ) -> Result<Self> {
        let (file, vocab, merges) = match &files.words {
            WordFiles::Json(file) => {
                let fields = json_fields(file)?;
                turns.yield_if_due().await;
                let model = model_of(&fields);
                turns.yield_if_due().await;
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
                        turns.yield_if_due().await;
                    }
                    let pair = listed_merge(merge).ok_or_else(|| {
                        let found: String = merge.get().chars().take(60).collect();
                        file.bad(format!("a merge of two parts was expected, found {found}"))
                    })?;
                    pairs.push(pair);
                    check_entries(file, i)?;
                }
                (file, vocab, pairs)
            }
            WordFiles::Pair { vocab: file, merges: list } => {
                let whole: &RawValue = serde_json::from_str(&file.text)
                    .map_err(|error| file.bad(error.to_string()))?;
                turns.yield_if_due().await;
                let entries = entries(whole).ok_or_else(|| file.bad("expected a JSON object"))?;
                let vocab = read_vocab(file, entries, turns).await?;
                let merges = read_merges(list, turns).await?;
                (file, vocab, merges)
            }
        };
        turns.yield_if_due().await;
        let largest = vocab.values().copied().max().unwrap_or(0);
        let mut model = BPE::builder().vocab_and_merges(vocab, merges);
        if let Some(unknown) = config.token("unk_token") {
            model = model.unk_token(unknown.to_owned());
        }
        let model = model
            .continuing_subword_prefix(String::new())
            .end_of_word_suffix("</w>".to_owned())
            .build()
            .map_err(|error| file.bad(error.to_string()))?;
        turns.yield_if_due().await;
        let tokenizer = clip_rules(model).map_err(|error| file.bad(error.to_string()))?;
        turns.yield_if_due().await;
        Self::new(tokenizer, config, file, largest)
    }
}

impl Words<Pieces> {
    /// What transformers' `T5Tokenizer` (`tokenization_t5.py`) sets up: of the normalizers only the character map
    /// that comes from sentencepiece, then words split at white space and marked.
    pub(super) async fn t5(files: &TokenizerFiles, config: &Config, turns: &Turns) -> Result<Self> {
        let (WordFiles::Json(file) | WordFiles::Pair { vocab: file, .. }) = &files.words;
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
        if UNKNOWN as usize >= pieces.len() {
            let reason = format!(
                "there are {} pieces; expected at least {}, of which number {UNKNOWN} stands for what is unknown",
                pieces.len(),
                UNKNOWN + 1
            );
            return Err(file.bad(reason));
        }
        let largest = pieces.len() as u32 - 1;
        let mut tokenizer = Tokenizer::new(pieces);
        turns.yield_if_due().await;
        if let Some(map) = fields.get("normalizer").and_then(|raw| character_map(raw)) {
            let map = decode_base64(&map)
                .ok_or_else(|| file.bad("precompiled_charsmap is not base64"))?;
            turns.yield_if_due().await;
            check_character_map(&map, turns)
                .await
                .map_err(|reason| file.bad(format!("precompiled_charsmap: {reason}")))?;
            let map = Precompiled::from(&map).map_err(|error| file.bad(error.to_string()))?;
            tokenizer.with_normalizer(Some(map));
            turns.yield_if_due().await;
        }
        let mark = Metaspace::new('▁', PrependScheme::Always, true);
        let split = PreTokenizers::new(vec![WhitespaceSplit.into(), mark.into()]);
        tokenizer.with_pre_tokenizer(Some(split));
        Self::new(tokenizer, config, file, largest)
    }
}

impl<M: Model> Words<M> {
    fn new(
        mut tokenizer: Tokenizer<M>,
        config: &Config,
        file: &Text,
        largest: u32,
    ) -> Result<Self> {
        let lengths = config.added.iter().chain(&config.sentinels).map(|one| one.content.len());
        let (longest, all) = (lengths.clone().max().unwrap_or(0), lengths.sum::<usize>());
        if longest > MAX_ADDED_BYTES || all > MAX_ALL_ADDED_BYTES {
            return Err(file.bad(format!(
                "the tokens that are added to it have up to {longest} bytes, {all} in all; expected at most \
                 {MAX_ADDED_BYTES} each and {MAX_ALL_ADDED_BYTES} in all"
            )));
        }
        let tokens = |added: &[Added]| added.iter().map(added_token).collect::<Vec<_>>();
        tokenizer.add_tokens(&tokens(&config.added));
        let added = tokenizer.get_added_tokens_decoder().into_keys().max();
        tokenizer.add_tokens(&tokens(&config.sentinels));
        tokenizer.set_encode_special_tokens(config.splits_special);
        let vectors = vectors(&tokenizer);
        Ok(Self {
            tokenizer,
            path: file.path.clone(),
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
        Ok(Encoded { ids, truncated: (dropped > 0).then_some(dropped) })
    }
}

type Fields<'a> = BTreeMap<String, &'a RawValue>;

/// The parts of a `tokenizer.json` that are read.
fn json_fields(file: &Text) -> Result<Fields<'_>> {
    let wanted = ["model", "normalizer"];
    fields(&file.text, |name| wanted.contains(&name)).map_err(|reason| file.bad(reason))
}

/// The model's parts that are read.
fn model_of<'a>(fields: &Fields<'a>) -> Option<Fields<'a>> {
    let wanted = ["merges", "vocab"];
    let model = *fields.get("model")?;
    self::fields(model.get(), |name| wanted.contains(&name)).ok()
}

/// Rejects entry `i` of a vocabulary or a list of merges if there are too many.
fn check_entries(file: &Text, i: usize) -> Result<()> {
    match i < MAX_ENTRIES {
        true => Ok(()),
        false => Err(file.bad(format!("more than {MAX_ENTRIES} tokens or merges"))),
    }
}

/// See [`Words::expanded`].
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
            turns.yield_if_due().await;
        }
        let Some(token) = value::<String>(token) else {
            let token: String = token.get().chars().take(60).collect();
            return Err(file.bad(format!("a token is {token}, which is no text")));
        };
        let Some(number) = value(id).filter(|id| *id <= MAX_ID) else {
            let [token, id] = [&token, id.get()].map(|s| s.chars().take(60).collect::<String>());
            let reason =
                format!("the id of {token:?} is {id}; expected a whole number up to {MAX_ID}");
            return Err(file.bad(reason));
        };
        vocab.insert(token, number);
        check_entries(file, i)?;
    }
    Ok(vocab)
}

/// The lines of a `merges.txt`.
async fn read_merges(file: &Text, turns: &Turns) -> Result<Merges> {
    let mut merges = Merges::new();
    // The first line is "#version: 0.2"; a later line may well begin with '#'.
    for (number, line) in file.text.lines().enumerate() {
        if number % ENTRIES == 0 {
            turns.yield_if_due().await;
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
        check_entries(file, number)?;
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
