//! Tokenizers: their files, and any text.

use arbitrary::{Result, Unstructured};
use ralu::text::{ByteLevelTokenizer, ClipTokenizer, Encoded, T5Tokenizer};
use serde_json::{Value, json};

use super::check::clean;
use super::edits::edited;
use super::limits::{Memory, bounded};
use super::model::{Model, fixtures};

/// Regular expressions, several maps of a vocabulary, and what finds 256 KiB of added tokens, of which a configuration
/// may ask for any number.
const MEMORY: Memory = Memory { bytes: 48 << 20, per_byte: 64 };

/// `tokenizer_config.json` with all that is read of it.
const CONFIG: &str = r#"{
    "added_tokens_decoder": {
        "601": {"content": "<|startoftext|>", "normalized": false, "special": true},
        "602": {"content": "<|endoftext|>", "normalized": false, "special": true},
        "603": {"content": "<cat-toy>", "lstrip": true, "single_word": true, "special": false}
    },
    "additional_special_tokens": ["<extra_id_0>"],
    "bos_token": {"content": "<|startoftext|>"},
    "eos_token": "<|endoftext|>",
    "extra_ids": 3,
    "model_max_length": 77,
    "pad_token": "<|endoftext|>",
    "unk_token": "<|endoftext|>"
}"#;

/// The first byte says which file the rest is, or is a change of. The rest's end is also a text to be encoded.
pub fn check(input: &[u8]) {
    let Some((which, rest)) = input.split_first() else { return };
    let [_, pair, json] = fixtures() else { return };
    let text = String::from_utf8_lossy(&rest[rest.len().saturating_sub(64)..]);
    let raw = std::str::from_utf8(rest);
    let clip_json = "tokenizer/tokenizer.json";
    let t5_json = "tokenizer_2/tokenizer.json";
    let change =
        |model: &Model, path: &str| edited(&model.text_of(path), &mut Unstructured::new(rest));
    let _: Result<()> = (|| {
        match (which % 13, raw) {
            (0, Ok(raw)) => clip(&json.clone().with(clip_json, raw), &text),
            (1, Ok(raw)) => clip(&pair.clone().with("tokenizer/vocab.json", raw), &text),
            (2, Ok(raw)) => clip(&pair.clone().with("tokenizer/merges.txt", raw), &text),
            (3, Ok(raw)) => clip(&pair.clone().with("tokenizer/tokenizer_config.json", raw), &text),
            (4, Ok(raw)) => {
                clip(&pair.clone().with("tokenizer/special_tokens_map.json", raw), &text)
            }
            (5, Ok(raw)) => clip(&pair.clone().with("tokenizer/added_tokens.json", raw), &text),
            (6, Ok(raw)) => t5(&json.clone().with(t5_json, raw), &text),
            (7, _) => clip(&json.clone().with(clip_json, &change(json, clip_json)?), &text),
            (8, _) => {
                let vocab = change(pair, "tokenizer/vocab.json")?;
                clip(&pair.clone().with("tokenizer/vocab.json", &vocab), &text);
            }
            (9, _) => {
                let config = edited(CONFIG, &mut Unstructured::new(rest))?;
                for model in [pair, json] {
                    clip(&model.clone().with("tokenizer/tokenizer_config.json", &config), &text);
                }
            }
            (10, _) => t5(&json.clone().with(t5_json, &change(json, t5_json)?), &text),
            (11, _) => {
                let config = edited(CONFIG, &mut Unstructured::new(rest))?;
                t5(&json.clone().with("tokenizer_2/tokenizer_config.json", &config), &text);
            }
            (12, _) => t5(&json.clone().with(t5_json, &mapped(json, rest)), &text),
            _ => {}
        }
        Ok(())
    })();
}

/// T5's `tokenizer.json` with this character map of sentencepiece's.
fn mapped(model: &Model, map: &[u8]) -> String {
    let text = model.text_of("tokenizer_2/tokenizer.json");
    let mut tokenizer: Value = serde_json::from_str(&text).expect("the fixtures are JSON");
    tokenizer["normalizer"] = json!({
        "type": "Precompiled",
        "precompiled_charsmap": base64(map),
    });
    tokenizer.to_string()
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = (0..3).fold(0, |bits, i| bits << 8 | u32::from(*chunk.get(i).unwrap_or(&0)));
        for i in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * i)) as usize & 63];
            text.push(if i <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

/// Files of CLIP's kind, which language models' tokenizers have as well.
fn clip(model: &Model, text: &str) {
    bounded(MEMORY, model.length(), || encode_clip(model, text));
    bounded(MEMORY, model.length(), || encode_byte_level(model, text));
}

fn t5(model: &Model, text: &str) {
    bounded(MEMORY, model.length(), || encode_t5(model, text));
}

fn encode_clip(model: &Model, text: &str) {
    let Some(tokenizer) = clean(ClipTokenizer::load(model, "tokenizer")) else { return };
    for text in texts(text) {
        let Some(encoded) = clean(tokenizer.encode(text)) else { continue };
        let n = tokenizer.max_length();
        encodes(&encoded, n, |size| tokenizer.check_vocab(size).is_ok());
    }
}

fn encode_byte_level(model: &Model, text: &str) {
    let Some(tokenizer) = clean(ByteLevelTokenizer::load(model, "tokenizer")) else { return };
    for text in texts(text) {
        let Some(encoded) = clean(tokenizer.encode(text, 64, Some(0))) else { continue };
        assert!(encoded.ids[encoded.real..].iter().all(|id| *id == 0));
        encodes(&encoded, 64, |size| tokenizer.check_vocab(size).is_ok());
    }
}

fn encode_t5(model: &Model, text: &str) {
    let Some(tokenizer) = clean(T5Tokenizer::load(model, "tokenizer_2")) else { return };
    for text in texts(text) {
        let Some(encoded) = clean(tokenizer.encode(text, 64)) else { continue };
        // Sentinels have ids though no file names them; `check_vocab` does not know whether a text has some.
        if !text.contains("<extra_id_") {
            encodes(&encoded, 64, |size| tokenizer.check_vocab(size).is_ok());
        }
    }
}

fn texts(own: &str) -> [&str; 5] {
    ["", "a red apple", "Ünïcode 狐🦊\0\u{feff} e\u{301} ﬁ", "<|endoftext|></s><cat-toy> x", own]
}

/// As many ids as were asked for, and none beyond what `check_vocab` lets pass.
fn encodes(encoded: &Encoded, length: usize, fits: impl Fn(usize) -> bool) {
    assert_eq!(encoded.ids.len(), length);
    let largest = encoded.ids.iter().max().copied().unwrap_or(0) as usize;
    assert!(!fits(largest), "id {largest} is given, though {largest} embeddings were enough");
}
