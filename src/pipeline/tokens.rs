//! Text to token ids, as transformers does it.
//!
//! [`ClipTokenizer`] and [`T5Tokenizer`] give what their namesakes give with `padding="max_length", truncation=True`.
//! Like transformers 5, they take only vocabulary, merges, special tokens and T5's character map from the files, and set
//! up normalizing and splitting themselves: exports of one tokenizer differ in these, and in the truncation and padding
//! a `tokenizer.json` may carry. Begin and end marks, truncation and padding are done here; the `tokenizers` crate does
//! the rest.
//!
//! ```no_run
//! # use ralu::{models::source::Folder, pipeline::tokens::ClipTokenizer};
//! let folder = Folder::open("models/tiny-flux")?;
//! let clip = ClipTokenizer::load(&folder, "tokenizer")?;
//! assert_eq!(clip.encode("a red apple")?.ids.len(), 77);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

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

use crate::models::source::{Source, SourceError};

/// Why text cannot be turned into tokens.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// The bytes could not be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// No tokenizer in the folder.
    #[error(
        "{dir}: no tokenizer; looked for {looked_for}; found {found}; fetch this part of the model"
    )]
    NoFile { dir: String, looked_for: String, found: String },
    /// A tokenizer file is damaged.
    #[error("{path}: not a usable tokenizer file: {reason}; fetch the file again")]
    File { path: String, reason: String },
    /// A special token is not in the vocabulary.
    #[error(
        "{path}: the vocabulary has no token {token:?} ({role}); the tokenizer's files do not belong together"
    )]
    NoToken { path: String, token: String, role: &'static str },
    /// The tokenizer has more tokens than the encoder has embeddings.
    #[error(
        "{path}: the tokenizer has token ids up to {largest}, but the text encoder has {vocab_size} embeddings; \
         the model folder mixes parts that do not belong together"
    )]
    Vocabulary { path: String, largest: u32, vocab_size: usize },
    /// The asked length has no room for a token.
    #[error("a text length of {found} tokens was asked for; expected at least {least}")]
    Length { found: usize, least: usize },
    /// The tokenizer refused the text.
    #[error("{path}: the tokenizer cannot encode this text: {reason}")]
    Encode { path: String, reason: String },
}

type Result<T> = std::result::Result<T, TokenError>;

/// A text as token ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// Exactly the asked number of ids: text, end mark, padding.
    pub ids: Vec<u32>,
    /// How many tokens of the text did not fit and were dropped.
    pub truncated: Option<usize>,
}

/// CLIP's byte-pair tokenizer.
pub struct ClipTokenizer {
    words: Words,
    bos: u32,
    eos: u32,
    pad: u32,
    max_length: usize,
}

impl ClipTokenizer {
    /// Loads `DIR/tokenizer.json`, or `vocab.json` and `merges.txt` where that is missing (the FLUX.1 repositories ship
    /// only those for CLIP). The result is that of transformers' fast `CLIPTokenizer`.
    pub fn load(source: &dyn Source, dir: &str) -> Result<Self> {
        let config = Config::load(source, dir)?;
        let bos = config.token("bos_token", "<|startoftext|>");
        let eos = config.token("eos_token", "<|endoftext|>");
        let pad = config.token("pad_token", &eos);
        let words = match Words::clip_json(source, dir, &eos)? {
            Some(words) => words,
            None => match Words::clip_files(source, dir, &config, [&bos, &eos])? {
                Some(words) => words,
                None => {
                    return Err(no_file(
                        source,
                        dir,
                        "tokenizer.json, or vocab.json with merges.txt",
                    ));
                }
            },
        };
        Ok(Self {
            bos: words.id(&bos, "begin of text")?,
            eos: words.id(&eos, "end of text")?,
            pad: words.id(&pad, "padding")?,
            max_length: config.max_length(77),
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

    /// Fails if this tokenizer can emit ids that an embedding table of `vocab_size` rows does not have.
    pub fn check_vocab(&self, vocab_size: usize) -> Result<()> {
        self.words.check_vocab(vocab_size)
    }
}

/// T5's unigram tokenizer.
pub struct T5Tokenizer {
    words: Words,
    eos: u32,
    pad: u32,
}

impl T5Tokenizer {
    /// Loads `DIR/tokenizer.json`.
    pub fn load(source: &dyn Source, dir: &str) -> Result<Self> {
        let config = Config::load(source, dir)?;
        let Some(words) = Words::t5_json(source, dir)? else {
            return Err(no_file(source, dir, "tokenizer.json (spiece.model alone is not read)"));
        };
        Ok(Self {
            eos: words.id(&config.token("eos_token", "</s>"), "end of text")?,
            pad: words.id(&config.token("pad_token", "<pad>"), "padding")?,
            words,
        })
    }

    /// Text, end mark, padding to `max_len` ids; a long text loses its end, never the end mark.
    pub fn encode(&self, text: &str, max_len: usize) -> Result<Encoded> {
        self.words.encode(text, None, self.eos, self.pad, max_len)
    }

    /// Fails if this tokenizer can emit ids that an embedding table of `vocab_size` rows does not have.
    pub fn check_vocab(&self, vocab_size: usize) -> Result<()> {
        self.words.check_vocab(vocab_size)
    }
}

fn shown(source: &dyn Source, path: &str) -> String {
    format!("{}/{path}", source.name().trim_end_matches('/'))
}

fn no_file(source: &dyn Source, dir: &str, looked_for: &str) -> TokenError {
    let found = source.list(dir).unwrap_or_default();
    TokenError::NoFile {
        dir: shown(source, dir),
        looked_for: looked_for.into(),
        found: if found.is_empty() { "nothing".into() } else { found.join(", ") },
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// The part the tokenizers crate does

/// A tokenizer stripped of everything but text -> ids.
struct Words {
    tokenizer: Tokenizer,
    /// The file it came from, for messages.
    path: String,
}

impl Words {
    /// From CLIP's `DIR/tokenizer.json`; `None` if there is none.
    fn clip_json(source: &dyn Source, dir: &str, unk: &str) -> Result<Option<Self>> {
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
    fn clip_files(
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
    fn t5_json(source: &dyn Source, dir: &str) -> Result<Option<Self>> {
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

    fn id(&self, token: &str, role: &'static str) -> Result<u32> {
        self.tokenizer.token_to_id(token).ok_or_else(|| TokenError::NoToken {
            path: self.path.clone(),
            token: token.into(),
            role,
        })
    }

    fn check_vocab(&self, vocab_size: usize) -> Result<()> {
        let largest = self.tokenizer.get_vocab(true).into_values().max().unwrap_or(0);
        if (largest as usize) < vocab_size {
            return Ok(());
        }
        Err(TokenError::Vocabulary { path: self.path.clone(), largest, vocab_size })
    }

    /// `[bos] text eos pad...`, `length` ids in all.
    fn encode(
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

// ---------------------------------------------------------------------------------------------------------------------
// tokenizer_config.json

/// `tokenizer_config.json`, and `special_tokens_map.json` behind it; both may be missing.
struct Config {
    config: Map<String, Value>,
    special: Map<String, Value>,
}

impl Config {
    fn load(source: &dyn Source, dir: &str) -> Result<Self> {
        let read = |name: &str| {
            Ok::<_, TokenError>(
                read_object(source, dir, name)?.map_or_else(Map::new, |(map, _)| map),
            )
        };
        Ok(Self {
            config: read("tokenizer_config.json")?,
            special: read("special_tokens_map.json")?,
        })
    }

    /// A special token: a string, or an object with `content`.
    fn token(&self, role: &str, default: &str) -> String {
        let text = |value: &Value| {
            value.as_str().or_else(|| value.get("content")?.as_str()).map(str::to_string)
        };
        let found =
            self.config.get(role).and_then(text).or_else(|| self.special.get(role).and_then(text));
        found.unwrap_or_else(|| default.into())
    }

    /// Whether the token is looked for in the text after lower-casing rather than before.
    fn is_normalized(&self, id: u64) -> bool {
        let added =
            self.config.get("added_tokens_decoder").and_then(|added| added.get(id.to_string()));
        added.and_then(|token| token.get("normalized")?.as_bool()).unwrap_or(false)
    }

    /// `model_max_length`, unless absent, absurd or the 1e30 that means "no limit".
    fn max_length(&self, default: usize) -> usize {
        match self.config.get("model_max_length").and_then(Value::as_f64) {
            Some(length) if (3.0..1e6).contains(&length) => length as usize,
            _ => default,
        }
    }
}

/// Ids above this are a damaged file.
const MAX_ID: u64 = 1 << 24;

/// A JSON file that holds an object, and its path for messages; `None` if there is no such file.
fn read_object(
    source: &dyn Source,
    dir: &str,
    name: &str,
) -> Result<Option<(Map<String, Value>, String)>> {
    let path = format!("{dir}/{name}");
    let Some(text) = source.text(&path)? else {
        return Ok(None);
    };
    let path = shown(source, &path);
    match serde_json::from_str(&text) {
        Ok(Value::Object(map)) => Ok(Some((map, path))),
        Ok(_) => Err(TokenError::File { path, reason: "expected a JSON object".into() }),
        Err(error) => Err(TokenError::File { path, reason: error.to_string() }),
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

// ---------------------------------------------------------------------------------------------------------------------
// Sentencepiece's character map

/// The map in a `normalizer`, which is one or a sequence.
fn character_map(normalizer: &Value) -> Option<&str> {
    let one = |normalizer: &'_ Value| -> bool {
        normalizer.get("type").and_then(Value::as_str) == Some("Precompiled")
    };
    let map = match normalizer.get("normalizers").and_then(Value::as_array) {
        Some(sequence) => sequence.iter().find(|normalizer| one(normalizer))?,
        None if one(normalizer) => normalizer,
        None => return None,
    };
    map.get("precompiled_charsmap")?.as_str()
}

/// Standard base64; `None` if it is not.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=').as_bytes();
    let mut out = Vec::with_capacity(text.len() / 4 * 3 + 3);
    for chunk in text.chunks(4) {
        let mut bits = 0u32;
        for &c in chunk {
            let six = match c {
                b'A'..=b'Z' => c - b'A',
                b'a'..=b'z' => c - b'a' + 26,
                b'0'..=b'9' => c - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                _ => return None,
            };
            bits = bits << 6 | u32::from(six);
        }
        bits <<= 6 * (4 - chunk.len());
        match chunk.len() {
            1 => return None,
            n => out.extend_from_slice(&bits.to_be_bytes()[1..n]),
        }
    }
    Some(out)
}

/// Walks through the whole map once, so that no text can lead out of it: `spm_precompiled`, which applies it,
/// indexes without looking.
///
/// The map is a `u32` length in bytes, a double-array trie of `u32` units, and the replacements as UTF-8 text, each
/// ended by 0 (sentencepiece, `normalizer.cc`; the unit's bits are Darts-clone's).
fn check_character_map(map: &[u8]) -> std::result::Result<(), String> {
    let Some((head, rest)) = map.split_first_chunk::<4>() else {
        return Err(format!("it has only {} bytes", map.len()));
    };
    let n_units = u32::from_le_bytes(*head) as usize / 4;
    if n_units == 0 || n_units > rest.len() / 4 {
        return Err(format!("a trie of {n_units} units does not fit into {} bytes", rest.len()));
    }
    let (trie, text) = rest.split_at(4 * n_units);
    let text =
        std::str::from_utf8(text).map_err(|_| "the replacements are not UTF-8".to_string())?;
    let unit = |at: usize| match trie.get(4 * at..4 * at + 4) {
        Some(&[a, b, c, d]) => Ok(u32::from_le_bytes([a, b, c, d])),
        _ => Err(format!("the trie leads to unit {at}, but has {n_units}")),
    };
    let offset = |unit: u32| (unit as usize >> 10) << ((unit & 1 << 9) >> 6);

    let mut seen = vec![false; n_units];
    let mut to_visit = vec![offset(unit(0)?)];
    while let Some(node) = to_visit.pop() {
        // Any byte may follow, in any node.
        for c in 1..=255usize {
            let at = node ^ c;
            let found = unit(at)?;
            if found & (1 << 31 | 0xff) != c as u32 || std::mem::replace(&mut seen[at], true) {
                continue;
            }
            let child = at ^ offset(found);
            if found >> 8 & 1 == 1 {
                let start = (unit(child)? & !(1 << 31)) as usize;
                if !text.is_char_boundary(start) {
                    return Err(format!(
                        "a replacement starts at {start}, which is no place in the text"
                    ));
                }
            }
            to_visit.push(child);
        }
    }
    Ok(())
}
