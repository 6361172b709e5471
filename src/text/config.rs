//! The files that lie around a vocabulary: special tokens, added tokens, the longest text.
//!
//! `tokenizer_config.json`, `special_tokens_map.json`, `added_tokens.json` and the `added_tokens` of a `tokenizer.json` may
//! each name tokens. Which of them count, and in which order they get their ids, is what transformers 5 does in
//! `PreTrainedTokenizerBase._from_pretrained` and `TokenizersBackend.__init__`.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::Result;
use super::files::{Text, TokenizerFiles, WordFiles};
use super::json::{elements, entries};
use crate::checkpoint::json::{self, Name, fields, value};

/// A vocabulary and its rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Clip,
    T5,
    ByteLevel,
}

impl Kind {
    /// The special tokens of transformers' class, where no file says otherwise.
    fn defaults(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Kind::Clip => &[
                ("unk_token", "<|endoftext|>"),
                ("bos_token", "<|startoftext|>"),
                ("eos_token", "<|endoftext|>"),
                ("pad_token", "<|endoftext|>"),
            ],
            Kind::T5 => &[("eos_token", "</s>"), ("unk_token", "<unk>"), ("pad_token", "<pad>")],
            Kind::ByteLevel => &[
                ("unk_token", "<|endoftext|>"),
                ("eos_token", "<|endoftext|>"),
                ("pad_token", "<|endoftext|>"),
            ],
        }
    }
}

/// Tokens with a role, in the order in which they get ids.
const ROLES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// More added tokens than this are an attack or a damaged file.
const MAX_ADDED: usize = 1 << 16;

/// A text that is one token wherever it occurs. Fields are those of the `tokenizers` crate's `AddedToken`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Added {
    pub content: String,
    pub single_word: bool,
    pub lstrip: bool,
    pub rstrip: bool,
    /// Whether it is looked for after normalizing (lower-casing) rather than before.
    pub normalized: bool,
    pub special: bool,
}

impl Added {
    /// A special token that a file gives as a text.
    fn special(content: String) -> Self {
        let [single_word, lstrip, rstrip, normalized] = [false; 4];
        Added { content, single_word, lstrip, rstrip, normalized, special: true }
    }
}

/// What the files around a vocabulary say.
pub(super) struct Config {
    /// By role.
    roles: BTreeMap<String, Token>,
    /// The tokens that the files add, in the order in which they get ids.
    pub added: Vec<Added>,
    /// T5's sentinels, which transformers adds after them, unasked.
    pub sentinels: Vec<Added>,
    /// `model_max_length`, unless absent, absurd or the 1e30 that means "no limit".
    pub max_length: Option<usize>,
    /// Whether padding comes in front of the text.
    pub pads_left: bool,
    /// Whether a long text loses its beginning.
    pub truncates_left: bool,
    /// Whether special tokens that stand in a text are split like other words.
    pub splits_special: bool,
    /// Whether a text is given a space in front if it has none: `add_prefix_space`, which byte-level tokenizers read.
    pub adds_space: bool,
}

/// A token as a file gives it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Token {
    Text(String),
    Added(Added),
    Null,
}

impl Token {
    fn content(&self) -> Option<&str> {
        match self {
            Token::Text(content) => Some(content),
            Token::Added(added) => Some(&added.content),
            Token::Null => None,
        }
    }
}

/// An object that describes a token. What is absent has the defaults of the `tokenizers` crate.
#[derive(Deserialize)]
struct Described {
    content: String,
    id: Option<i64>,
    single_word: Option<bool>,
    lstrip: Option<bool>,
    rstrip: Option<bool>,
    normalized: Option<bool>,
    special: Option<bool>,
}

impl Described {
    fn added(self, special: Option<bool>) -> Added {
        let special = special.or(self.special).unwrap_or(false);
        Added {
            content: self.content,
            single_word: self.single_word.unwrap_or(false),
            lstrip: self.lstrip.unwrap_or(false),
            rstrip: self.rstrip.unwrap_or(false),
            normalized: self.normalized.unwrap_or(!special),
            special,
        }
    }
}

type Raw<'a> = BTreeMap<String, &'a RawValue>;

/// A file's fields, and the file for messages.
struct File<'a> {
    text: &'a Text,
    fields: Raw<'a>,
}

impl<'a> File<'a> {
    fn open(text: &'a Option<Text>) -> Result<Option<Self>> {
        let Some(text) = text else { return Ok(None) };
        const WANTED: [&str; 10] = [
            "add_prefix_space",
            "added_tokens_decoder",
            "additional_special_tokens",
            "extra_ids",
            "extra_special_tokens",
            "max_len",
            "model_max_length",
            "padding_side",
            "split_special_tokens",
            "truncation_side",
        ];
        let wanted = |name: &str| WANTED.contains(&name) || name.ends_with("_token");
        let fields = fields(&text.text, wanted).map_err(|reason| text.bad(reason))?;
        Ok(Some(File { text, fields }))
    }

    /// `null` is a value here.
    fn token(&self, field: &str, raw: &RawValue, special: Option<bool>) -> Result<Token> {
        if raw.get() == "null" {
            return Ok(Token::Null);
        }
        if let Some(content) = value::<String>(raw) {
            return Ok(Token::Text(content));
        }
        match value::<Described>(raw) {
            Some(described) => Ok(Token::Added(described.added(special))),
            None => Err(self.text.bad(format!(
                "{field} is {}; expected a text, or an object with \"content\"",
                short(raw)
            ))),
        }
    }

    /// A list of tokens; `None` if the field is absent or null.
    fn tokens(&self, field: &str) -> Result<Option<Vec<Token>>> {
        let Some(raw) = self.fields.get(field).filter(|raw| raw.get() != "null") else {
            return Ok(None);
        };
        let Some(list) = json::list::<&RawValue>(raw, MAX_ADDED) else {
            return Err(self.text.bad(format!(
                "{field} is {}; expected a list of at most {MAX_ADDED} tokens",
                short(raw)
            )));
        };
        list.iter().map(|raw| self.token(field, raw, Some(true))).collect::<Result<_>>().map(Some)
    }

    /// The tokens of an object that names them; empty if the field is no object.
    fn named(&self, field: &str) -> Result<Vec<(String, Token)>> {
        let Some(raw) = self.fields.get(field).filter(|raw| json::is_object(raw)) else {
            return Ok(vec![]);
        };
        let inside = fields(raw.get(), |_| true).map_err(|reason| self.text.bad(reason))?;
        let token = |(name, raw): (String, &RawValue)| Ok((name, self.token(field, raw, None)?));
        inside.into_iter().map(token).collect()
    }

    /// Whether a list or object is absent, null or empty: what Python takes for false.
    fn is_nothing(&self, field: &str) -> bool {
        self.fields.get(field).is_none_or(|raw| {
            raw.get() == "null"
                || json::list::<&RawValue>(raw, 0).is_some()
                || fields(raw.get(), |_| true).is_ok_and(|fields| fields.is_empty())
        })
    }

    /// Whether a side is the left one; `None` if the field is absent.
    fn is_left(&self, field: &str) -> Result<Option<bool>> {
        let Some(raw) = self.fields.get(field).filter(|raw| raw.get() != "null") else {
            return Ok(None);
        };
        match value::<String>(raw).as_deref() {
            Some("left") => Ok(Some(true)),
            Some("right") => Ok(Some(false)),
            _ => Err(self.text.bad(format!("{field} is {}; expected left or right", short(raw)))),
        }
    }

    fn max_length(&self) -> Option<usize> {
        let length = |field: &str| value::<f64>(self.fields.get(field)?);
        let length = length("model_max_length").or_else(|| length("max_len"))?;
        (2.0..1e6).contains(&length).then_some(length as usize)
    }

    /// `added_tokens_decoder`: tokens by their ids.
    fn decoder(&self) -> Result<Option<BTreeMap<i64, Added>>> {
        let Some(raw) = self.fields.get("added_tokens_decoder") else { return Ok(None) };
        let bad = |found: &str| {
            self.text.bad(format!(
                "added_tokens_decoder has {found}; expected an object from ids to objects with \"content\""
            ))
        };
        let mut decoder = BTreeMap::new();
        for (id, token) in entries(raw).ok_or_else(|| bad(&short(raw)))? {
            let number = value::<Name<'_>>(id).and_then(|Name(id)| id.trim().parse().ok());
            let described = value::<Described>(token);
            let (Some(number), Some(described)) = (number, described) else {
                return Err(bad(&format!("{}: {}", short(id), short(token))));
            };
            decoder.insert(number, described.added(None));
            if decoder.len() > MAX_ADDED {
                return Err(bad(&format!("more than {MAX_ADDED} tokens")));
            }
        }
        Ok(Some(decoder))
    }
}

/// What a `tokenizer.json`, if there is one, says besides the vocabulary.
struct Whole<'a>(Option<(&'a Text, Raw<'a>)>);

impl<'a> Whole<'a> {
    fn open(files: &'a TokenizerFiles) -> Result<Self> {
        let WordFiles::Json(file) = &files.words else { return Ok(Self(None)) };
        let wanted = ["added_tokens", "padding", "truncation"];
        let fields = fields(&file.text, |name| wanted.contains(&name));
        Ok(Self(Some((file, fields.map_err(|reason| file.bad(reason))?))))
    }
}

impl Config {
    pub(super) fn parse(files: &TokenizerFiles, kind: Kind) -> Result<Self> {
        let config = File::open(&files.config)?;
        let whole = Whole::open(files)?;
        let mut roles: BTreeMap<String, Token> = BTreeMap::new();
        let mut own: Vec<(String, Token)> = Vec::new();
        let mut extra: Option<Vec<Token>> = None;
        let mut additional: Option<Vec<Token>> = None;
        if let Some(config) = &config {
            match config.is_nothing("extra_special_tokens") {
                true if config.fields.contains_key("additional_special_tokens") => {
                    extra = config.tokens("additional_special_tokens")?;
                }
                true => {
                    extra = config.fields.get("extra_special_tokens").map(|_| vec![]);
                }
                false => {
                    own = config.named("extra_special_tokens")?;
                    if own.is_empty() {
                        extra = config.tokens("extra_special_tokens")?;
                    }
                    additional = config.tokens("additional_special_tokens")?;
                }
            }
            take_roles(config, None, &mut roles, &mut own)?;
        }

        let decoder = match &config {
            Some(config) => config.decoder()?,
            None => None,
        };
        let decoder = match decoder {
            Some(decoder) => decoder,
            // Files of older versions of transformers count only without it.
            None => {
                if let Some(special) = File::open(&files.special)? {
                    take_roles(&special, Some(true), &mut roles, &mut own)?;
                    own.extend(special.named("extra_special_tokens")?);
                    if !special
                        .fields
                        .get("extra_special_tokens")
                        .is_some_and(|r| json::is_object(r))
                        && let Some(more) = special.tokens("extra_special_tokens")?
                    {
                        let extra = extra.get_or_insert_default();
                        let mut seen: HashSet<Token> = extra.iter().cloned().collect();
                        extra.extend(more.into_iter().filter(|token| seen.insert(token.clone())));
                    }
                    if let Some(found) = special.tokens("additional_special_tokens")? {
                        additional = Some(found);
                    }
                }
                legacy(files, &whole, &roles, extra.as_deref().unwrap_or_default())?
            }
        };

        if let WordFiles::Gguf(vocabulary) = &files.words {
            let named = vocabulary.roles();
            roles.extend(
                named.map(|(role, token)| (role.to_owned(), Token::Text(token.to_owned()))),
            );
        }

        // A role's token has the properties that it was added with.
        let known: BTreeMap<&str, &Added> =
            decoder.values().map(|added| (added.content.as_str(), added)).collect();
        for token in roles.values_mut() {
            if let Some(added) = token.content().and_then(|content| known.get(content)) {
                *token = Token::Added((*added).clone());
            }
        }
        for (role, content) in kind.defaults() {
            roles.entry((*role).to_owned()).or_insert_with(|| Token::Text((*content).to_owned()));
        }
        let extra_ids = config.as_ref().and_then(|config| value(config.fields.get("extra_ids")?));
        let wants_sentinels =
            kind == Kind::T5 && extra.is_none() && !additional.as_deref().is_some_and(has_sentinel);
        let extra = extra.or(additional).unwrap_or_default();
        let mut added = in_order(decoder, &roles, &own, &extra);
        if kind == Kind::ByteLevel {
            // `Qwen2Tokenizer` adds these once more, by their texts alone.
            let own = own.iter().map(|(_, token)| token);
            let special = roles.values().chain(own).chain(&extra);
            let special: BTreeSet<&str> = special.filter_map(Token::content).collect();
            for token in added.iter_mut().filter(|one| special.contains(one.content.as_str())) {
                *token = Added::special(std::mem::take(&mut token.content));
            }
        }
        let known: BTreeSet<&str> = added.iter().map(|added| added.content.as_str()).collect();
        let sentinels = match wants_sentinels {
            true => 0..extra_ids.unwrap_or(100).min(MAX_ADDED),
            false => 0..0,
        };
        let sentinels = sentinels.map(|i| format!("<extra_id_{i}>"));
        let sentinels = sentinels.filter(|content| !known.contains(content.as_str()));
        let sentinels = sentinels.map(Added::special).collect();
        let [pads_left, truncates_left] = sides(&whole, config.as_ref())?;
        let flag = |field: &str| config.as_ref().and_then(|c| value(c.fields.get(field)?));
        Ok(Self {
            roles,
            added,
            sentinels,
            max_length: config.as_ref().and_then(File::max_length),
            pads_left,
            truncates_left,
            splits_special: flag("split_special_tokens").unwrap_or(false),
            adds_space: flag("add_prefix_space").unwrap_or(false),
        })
    }

    /// The token of a role; `None` if a file says that there is none.
    pub(super) fn token(&self, role: &str) -> Option<&str> {
        self.roles.get(role).and_then(Token::content)
    }
}

/// Takes the tokens with a role, and those that a model calls something else, from a file.
fn take_roles(
    file: &File<'_>,
    special: Option<bool>,
    roles: &mut BTreeMap<String, Token>,
    own: &mut Vec<(String, Token)>,
) -> Result<()> {
    for (name, raw) in file.fields.iter().filter(|(name, _)| name.ends_with("_token")) {
        if ROLES.contains(&name.as_str()) {
            roles.insert(name.clone(), file.token(name, raw, special)?);
        } else if let Ok(token @ (Token::Text(_) | Token::Added(_))) =
            file.token(name, raw, special)
        {
            // Flags such as `add_bos_token` are no tokens.
            own.push((name.clone(), token));
        }
    }
    Ok(())
}

/// `added_tokens.json`, and the `added_tokens` of a `tokenizer.json`.
fn legacy(
    files: &TokenizerFiles,
    whole: &Whole<'_>,
    roles: &BTreeMap<String, Token>,
    extra: &[Token],
) -> Result<BTreeMap<i64, Added>> {
    let mut decoder = BTreeMap::new();
    if let Some(file) = &files.added {
        let special: BTreeSet<&str> =
            roles.values().chain(extra).filter_map(Token::content).collect();
        let bad = |found: String| {
            file.bad(format!("{found}; expected an object from at most {MAX_ADDED} tokens to ids"))
        };
        let whole: &RawValue =
            serde_json::from_str(&file.text).map_err(|error| file.bad(error.to_string()))?;
        for (content, id) in entries(whole).ok_or_else(|| bad(short(whole)))? {
            let (Some(Name(content)), Some(id)) = (value::<Name<'_>>(content), value::<i64>(id))
            else {
                return Err(bad(format!("{} is {}", short(content), short(id))));
            };
            let is_special = special.contains(content.as_ref());
            let content = content.into_owned();
            let token =
                Added { special: is_special, normalized: !is_special, ..Added::special(content) };
            decoder.insert(id, token);
            if decoder.len() > MAX_ADDED {
                return Err(bad(format!("more than {MAX_ADDED} tokens")));
            }
        }
    }
    if let WordFiles::Gguf(vocabulary) = &files.words {
        let tokens = vocabulary.added().take(MAX_ADDED);
        decoder.extend(tokens.map(|(id, text)| (id.into(), Added::special(text.to_owned()))));
    }
    if let Some((file, fields)) = &whole.0 {
        let listed = fields.get("added_tokens").and_then(|raw| elements(raw));
        for (i, token) in listed.into_iter().flatten().enumerate() {
            let described = value::<Described>(token).and_then(|token| Some((token.id?, token)));
            let (Some((id, described)), true) = (described, i < MAX_ADDED) else {
                return Err(file.bad(format!(
                    "an added token is {}; expected at most {MAX_ADDED} objects with \"id\" and \"content\"",
                    short(token)
                )));
            };
            decoder.insert(id, described.added(None));
        }
    }
    Ok(decoder)
}

/// All tokens that are added: those with ids by their ids, then roles, then the others.
fn in_order(
    decoder: BTreeMap<i64, Added>,
    roles: &BTreeMap<String, Token>,
    own: &[(String, Token)],
    extra: &[Token],
) -> Vec<Added> {
    let by_role = ROLES.iter().filter_map(|role| roles.get(*role));
    let named: Vec<&Token> = by_role.chain(own.iter().map(|(_, token)| token)).collect();
    let names: BTreeSet<&str> = named.iter().filter_map(|token| token.content()).collect();
    let mut added: Vec<Added> = decoder.into_values().collect();
    let known: BTreeSet<String> = added.iter().map(|token| token.content.clone()).collect();
    let mut seen: HashSet<&Token> = HashSet::new();
    for token in named.iter().copied().chain(extra) {
        match token {
            Token::Text(text) if !known.contains(text) && seen.insert(token) => {
                added.push(Added::special(text.clone()));
            }
            Token::Added(one) if !known.contains(&one.content) && seen.insert(token) => {
                added.push(one.clone());
            }
            _ => {}
        }
    }
    for token in &mut added {
        token.special |= names.contains(token.content.as_str());
    }
    added
}

/// Whether padding and truncation are on the left, by `tokenizer_config.json`, else by `tokenizer.json`.
fn sides(whole: &Whole<'_>, config: Option<&File<'_>>) -> Result<[bool; 2]> {
    let side = |field: &str| config.map_or(Ok(None), |config| config.is_left(field));
    let (mut pads, mut truncates) = (side("padding_side")?, side("truncation_side")?);
    if let Some((_, fields)) = &whole.0 {
        #[derive(Deserialize)]
        struct Directed {
            direction: String,
        }
        let is_left = |field: &str| -> Option<bool> {
            let directed = value::<Directed>(fields.get(field)?)?;
            Some(directed.direction.eq_ignore_ascii_case("left"))
        };
        pads = pads.or_else(|| is_left("padding"));
        truncates = truncates.or_else(|| is_left("truncation"));
    }
    Ok([pads.unwrap_or(false), truncates.unwrap_or(false)])
}

/// Whether one of T5's sentinels is among the tokens.
fn has_sentinel(tokens: &[Token]) -> bool {
    tokens.iter().filter_map(Token::content).any(|content| content.contains("<extra_id_"))
}

/// The beginning of a value, for messages.
fn short(raw: &RawValue) -> String {
    raw.get().chars().take(100).collect()
}
