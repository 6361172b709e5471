//! Byte-pair tokenizers: how their files are read, and the rules around them that are CLIP's or a language model's.

use std::borrow::Cow;

use serde_json::value::RawValue;
use tokenizers::SplitDelimiterBehavior;
use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::normalizers::replace::ReplacePattern;
use tokenizers::normalizers::{Lowercase, NFC, Replace, Sequence as Normalizers};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};

use super::Result;
use super::config::Config;
use super::files::{Text, TokenizerFiles, WordFiles};
use super::json::{elements, entries};
use super::words::{ENTRIES, Tokenizer, Words, check_entries, json_fields, model_of};
use crate::checkpoint::json::value;
use crate::turns::Turns;

/// Ids above this are a damaged file.
const MAX_ID: u32 = 1 << 24;

/// CLIP's words, and language models'.
pub(super) type BytePairWords = Words<BPE>;

impl BytePairWords {
    /// What transformers' `CLIPTokenizer` (`tokenization_clip.py`) sets up.
    pub(super) async fn clip(
        files: &TokenizerFiles,
        config: &Config,
        turns: &Turns,
    ) -> Result<Self> {
        let BytePairs { file, vocab, merges } = BytePairs::read(files, turns).await?;
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
        Self::new(tokenizer, config, &file.path, largest)
    }

    /// What transformers' `Qwen2Tokenizer` (`tokenization_qwen2.py`) sets up.
    pub(super) async fn byte_level(
        files: &TokenizerFiles,
        config: &Config,
        turns: &Turns,
    ) -> Result<Self> {
        let BytePairs { file, vocab, merges } = BytePairs::read(files, turns).await?;
        // A text is bytes, and nothing stands for a byte that has no token.
        let bytes = ByteLevel::alphabet();
        if let Some(byte) = bytes.iter().filter(|byte| !vocab.contains_key(&byte.to_string())).min()
        {
            let reason = format!(
                "the vocabulary has no token {byte:?}; expected one for each of the {} bytes",
                bytes.len()
            );
            return Err(file.bad(reason));
        }
        let largest = vocab.values().copied().max().unwrap_or(0);
        // The one step that takes long and cannot be divided; see `ByteLevelTokenizer`.
        let model = BPE::builder()
            .vocab_and_merges(vocab, merges)
            .build()
            .map_err(|error| file.bad(error.to_string()))?;
        turns.yield_if_due().await;
        let tokenizer = byte_level_rules(model, config.adds_space)
            .map_err(|error| file.bad(error.to_string()))?;
        turns.yield_if_due().await;
        Self::new(tokenizer, config, &file.path, largest)
    }
}

/// A byte-pair model as its files have it.
struct BytePairs<'f> {
    /// The one with the vocabulary, for messages.
    file: Cow<'f, Text>,
    vocab: Vocab,
    merges: Merges,
}

impl<'f> BytePairs<'f> {
    async fn read(files: &'f TokenizerFiles, turns: &Turns) -> Result<Self> {
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
                (Cow::Borrowed(file), vocab, pairs)
            }
            WordFiles::Pair { vocab: file, merges: list } => {
                let whole: &RawValue = serde_json::from_str(&file.text)
                    .map_err(|error| file.bad(error.to_string()))?;
                turns.yield_if_due().await;
                let entries = entries(whole).ok_or_else(|| file.bad("expected a JSON object"))?;
                let vocab = read_vocab(file, entries, turns).await?;
                let merges = read_merges(list, turns).await?;
                (Cow::Borrowed(file), vocab, merges)
            }
            WordFiles::Packed(packed) => {
                let text = Text { path: packed.path.clone(), text: packed.merges()? };
                turns.yield_if_due().await;
                let merges = read_merges(&text, turns).await?;
                let vocab = clip_vocab(&merges, turns).await;
                (Cow::Owned(text), vocab, merges)
            }
            WordFiles::Gguf(vocabulary) => {
                return Err(vocabulary.bad("is one of pieces; expected byte pairs"));
            }
        };
        turns.yield_if_due().await;
        Ok(BytePairs { file, vocab, merges })
    }
}

/// CLIP's vocabulary, which follows from its merges: the letters that stand for bytes, the same at a word's end, what the
/// merges make, and the two marks. OpenAI's `simple_tokenizer.py`.
async fn clip_vocab(merges: &Merges, turns: &Turns) -> Vocab {
    // Bytes that are visible characters stand for themselves and come first; the others are numbered from 256 on.
    let visible = |byte: &u32| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let hidden = (0..256).filter(|byte| !visible(byte)).count() as u32;
    let letters = (0..256).filter(visible).chain(256..256 + hidden);
    let letters: Vec<String> = letters.filter_map(char::from_u32).map(String::from).collect();
    let mut vocab = Vocab::new();
    let mut add = |token: String| {
        let id = vocab.len() as u32;
        vocab.entry(token).or_insert(id);
    };
    letters.iter().cloned().for_each(&mut add);
    letters.iter().map(|letter| format!("{letter}</w>")).for_each(&mut add);
    for (i, (a, b)) in merges.iter().enumerate() {
        if i % ENTRIES == 0 {
            turns.yield_if_due().await;
        }
        add(format!("{a}{b}"));
    }
    ["<|startoftext|>", "<|endoftext|>"].map(String::from).into_iter().for_each(&mut add);
    vocab
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

/// Normalizing and splitting as Qwen's tokenizers have them: no lower case, single digits.
fn byte_level_rules(model: BPE, adds_space: bool) -> tokenizers::Result<Tokenizer<BPE>> {
    let mut tokenizer = Tokenizer::new(model);
    tokenizer.with_normalizer(Some(NFC));
    let pattern = concat!(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|",
        r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    );
    let words =
        Split::new(SplitPattern::Regex(pattern.into()), SplitDelimiterBehavior::Isolated, false)?;
    let bytes = ByteLevel::new(adds_space, true, false);
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
