//! Vocabularies that are built in, and those of GGUF files.

use std::path::PathBuf;
use std::sync::Arc;

use ralu::checkpoint::source::Memory;
use ralu::text::*;
use serde_json::Value;

use crate::folders::{Lcg, assert_mentions, repository};

fn json(path: &str) -> Value {
    let path: PathBuf = repository("tests/fixtures").join(path);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn ids(list: &Value) -> Vec<u32> {
    list.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// Embeddings of the encoder that a vocabulary belongs to.
fn rows(kind: TokenizerKind) -> usize {
    if kind == TokenizerKind::T5 { 32_128 } else { 49_408 }
}

/// `published.json` is what transformers 5.24 makes of them with the published files (tests/fixtures/tokens/published.py).
#[test]
fn built_in_vocabularies_give_the_ids_of_the_published_ones() {
    let vocabularies = Vocabularies::built_in();
    let clip = vocabularies.load(TokenizerKind::Clip, 49_408, None).unwrap();
    let t5 = vocabularies.load(TokenizerKind::T5, 32_128, None).unwrap();
    let cases = json("tokens/published.json");
    let cases = cases.as_array().unwrap();
    assert_eq!(cases.len(), 50);
    for case in cases {
        let text = case["text"].as_str().unwrap();
        let words = ids(&case["clip"]);
        let mut expected = [&[49_406], &words[..], &[49_407]].concat();
        let length = expected.len() + 3;
        expected.extend([49_407; 3]);
        let found = clip.encode(text, length).unwrap();
        assert_eq!((found.ids, found.real), (expected, length - 3), "{text:?}");
        let mut expected = ids(&case["t5"]);
        let length = expected.len() + 2;
        expected.extend([0, 0]);
        assert_eq!(t5.encode(text, length).unwrap().ids, expected, "{text:?}");
    }
    // A text longer than the encoder reads.
    let cut = clip.encode(&"cat ".repeat(100), 77).unwrap();
    assert_eq!((cut.ids[1], cut.ids[76], cut.truncated), (2368, 49_407, Some(25)));
    // CLIP-G has CLIP-L's vocabulary and another padding.
    let clip_g = vocabularies.load(TokenizerKind::Clip, 49_408, Some(0)).unwrap();
    assert_eq!(clip_g.encode("a dog", 6).unwrap().ids, [49_406, 320, 1929, 49_407, 0, 0]);
}

#[test]
fn built_in_vocabularies_belong_to_encoders_of_their_size() {
    let vocabularies = Vocabularies::built_in();
    for rows in [32_100, 32_110, 32_128] {
        vocabularies.load(TokenizerKind::T5, rows, None).unwrap().check_vocab(rows).unwrap();
    }
    for (kind, rows, words) in [
        (TokenizerKind::T5, 320, ["T5 tokenizer", "320 embeddings", "32100 to 32128"]),
        (TokenizerKind::T5, 32_129, ["T5 tokenizer", "32129 embeddings", "32100 to 32128"]),
        (TokenizerKind::T5, 256_384, ["T5 tokenizer", "256384 embeddings", "32100 to 32128"]),
        (TokenizerKind::Clip, 1507, ["CLIP tokenizer", "1507 embeddings", "49408"]),
        (TokenizerKind::Clip, 49_409, ["CLIP tokenizer", "49409 embeddings", "49408"]),
        (TokenizerKind::ByteLevel, 151_936, ["byte-level", "none of that kind", "built in"]),
    ] {
        let error = vocabularies.load(kind, rows, None).err().unwrap();
        assert_mentions(&error.to_string(), &words);
        assert_eq!(error.advice().is_some(), kind != TokenizerKind::ByteLevel);
    }
}

/// The same files in a folder, as pages fetch them: whole ones are the built-in ones, damaged ones are errors.
#[test]
fn vocabularies_in_a_folder() {
    let files = repository("src/text/vocabularies");
    let [clip, t5] =
        [Vocabularies::CLIP, Vocabularies::T5].map(|name| std::fs::read(files.join(name)).unwrap());
    let load = |clip: &[u8], t5: &[u8], kind| {
        let source = Memory::new("page").with(Vocabularies::CLIP, clip).with(Vocabularies::T5, t5);
        Vocabularies::from_source(Arc::new(source)).load(kind, rows(kind), None)
    };
    for kind in [TokenizerKind::Clip, TokenizerKind::T5] {
        let built_in = Vocabularies::built_in().load(kind, rows(kind), None);
        let [own, other] = [load(&clip, &t5, kind), built_in]
            .map(|tokenizer| tokenizer.unwrap().encode("café: 12 Ⅳ 猫", 30).unwrap());
        assert_eq!(own, other);
        let named = if kind == TokenizerKind::T5 { Vocabularies::T5 } else { Vocabularies::CLIP };
        // One for the other, cut, changed.
        assert_mentions(&load(&t5, &clip, kind).err().unwrap().to_string(), &["page", named]);
        for end in [0, 1, 2, 1000, clip.len() - 1] {
            let error = load(&clip[..end], &t5[..end], kind).err().unwrap();
            assert_mentions(&error.to_string(), &["page", named]);
        }
        let mut random = Lcg(3);
        for _ in 0..20 {
            let [mut clip, mut t5] = [clip.clone(), t5.clone()];
            let at = random.below(clip.len());
            clip[at] ^= 1 << (random.below(8));
            t5[at] ^= 1 << (random.below(8));
            // The stream carries a checksum, so nothing of it is used.
            assert!(load(&clip, &t5, kind).is_err(), "{at}");
        }
    }
}

/// The fields that llama.cpp's converter makes of a `tokenizer.json`, with rows of the table that are no tokens.
fn gguf(tokenizer: &Value, unused: usize) -> GgufVocabulary {
    let pieces = tokenizer["model"]["vocab"].as_array().unwrap();
    let special = |text: &str| {
        let added = tokenizer["added_tokens"].as_array().unwrap();
        added.iter().any(|one| one["content"] == text)
    };
    let mut made = GgufVocabulary {
        path: "t5.gguf".into(),
        model: "t5".into(),
        add_space_prefix: Some(true),
        remove_extra_whitespaces: Some(true),
        eos_token_id: Some(1),
        padding_token_id: Some(0),
        unknown_token_id: Some(2),
        ..GgufVocabulary::default()
    };
    let mut types = vec![];
    for (i, piece) in pieces.iter().enumerate() {
        let text = piece[0].as_str().unwrap();
        let (kind, score) = match special(text) {
            _ if text == "<unk>" => (2, 0.0),
            true if i < 3 => (3, 0.0),
            true => (4, -1000.0),
            false => (1, piece[1].as_f64().unwrap() as f32),
        };
        made.tokens.push(text.into());
        made.scores.push(score);
        types.push(kind);
    }
    for _ in 0..unused {
        made.tokens.push(format!("[PAD{}]", types.len()));
        made.scores.push(-10000.0);
        types.push(5);
    }
    made.token_types = Some(types);
    let normalizers = tokenizer["normalizer"]["normalizers"].as_array();
    let map = normalizers
        .into_iter()
        .flatten()
        .chain([&tokenizer["normalizer"]])
        .find_map(|one| one["precompiled_charsmap"].as_str());
    made.precompiled_charsmap = map.map(base64);
    made
}

fn base64(text: &str) -> Vec<u8> {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bits = 0u32;
    let mut out = vec![];
    for (i, c) in text.trim_end_matches('=').bytes().enumerate() {
        bits = bits << 6 | alphabet.iter().position(|a| *a == c).unwrap() as u32;
        if i % 4 != 0 {
            out.push((bits >> (6 - i % 4 * 2)) as u8);
        }
    }
    out
}

#[test]
fn vocabularies_of_gguf_files_equal_those_of_tokenizer_json() {
    let cases = json("tokens/published.json");
    let texts = cases.as_array().unwrap().iter().map(|case| case["text"].as_str().unwrap());
    let texts: Vec<&str> = texts.chain(["[PAD1082] [PAD", "</s> <unk>", "a blue car"]).collect();
    for folder in ["tiny-flux-text/tokenizer_2", "flux-a/model/tokenizer_2"] {
        let whole = json(&format!("{folder}/tokenizer.json"));
        let source = Memory::new("m").with("t/tokenizer.json", whole.to_string());
        let expected = T5Tokenizer::load(&source, "t").unwrap();
        let found = gguf(&whole, 28).load().unwrap();
        for text in &texts {
            let [expected, found] = [&expected, &found].map(|one| one.encode(text, 200).unwrap());
            assert_eq!(found, expected, "{folder}: {text:?}");
        }
        let rows = whole["model"]["vocab"].as_array().unwrap().len();
        found.check_vocab(rows).unwrap();
        assert!(found.check_vocab(rows - 1).is_err());
        // A row without a token between others keeps their ids.
        let mut holed = gguf(&whole, 0);
        let word = found.encode("blue", 20).unwrap().ids[0];
        holed.tokens.insert(3, "[PAD3]".into());
        holed.scores.insert(3, -10000.0);
        holed.token_types.as_mut().unwrap().insert(3, 5);
        let holed = holed.load().unwrap();
        assert_eq!(holed.encode("blue", 20).unwrap().ids[0], word + 1);
        holed.check_vocab(rows + 1).unwrap();
        assert!(holed.check_vocab(rows).is_err());
    }
}

#[test]
fn damaged_vocabularies_of_gguf_files() {
    let whole = json("tiny-flux-text/tokenizer_2/tokenizer.json");
    type Damage = fn(&mut GgufVocabulary);
    let cases: &[(Damage, &[&str])] = &[
        (|v| v.model = "gpt2\u{1b}[31m".into(), &["t5.gguf", "gpt2", "expected \"t5\""]),
        (|v| v.scores.truncate(9), &["tokens", "scores", "as many of each"]),
        (|v| v.token_types = Some(vec![1]), &["1 types", "as many of each"]),
        (|v| v.scores[7] = f32::NAN, &["token 7", "NaN"]),
        (|v| v.scores[7] = f32::NEG_INFINITY, &["token 7", "-inf"]),
        (|v| v.tokens[7].clear(), &["no text for token 7"]),
        (|v| v.token_types.as_mut().unwrap()[9] = 6, &["single bytes", "number 9"]),
        (|v| v.add_space_prefix = Some(false), &["add_space_prefix", "expected true"]),
        (|v| v.remove_extra_whitespaces = Some(false), &["remove_extra_whitespaces"]),
        (|v| v.unknown_token_id = Some(3), &["3 as unknown_token_id", "expected 2"]),
        (|v| v.eos_token_id = Some(u32::MAX), &["tokens", "number 4294967295"]),
        (|v| v.precompiled_charsmap = Some(vec![1, 2]), &["precompiled_charsmap", "2 bytes"]),
        (
            |v| {
                *v = GgufVocabulary {
                    path: v.path.clone(),
                    model: "t5".into(),
                    ..Default::default()
                }
            },
            &["0 pieces", "at least 3"],
        ),
        (
            |v| {
                v.tokens = vec!["a".into(); (1 << 18) + 1];
                v.scores = vec![0.0; v.tokens.len()];
                v.token_types = None;
            },
            &["262145 tokens", "at most 262144"],
        ),
    ];
    for (damage, words) in cases {
        let mut vocabulary = gguf(&whole, 3);
        damage(&mut vocabulary);
        let message = vocabulary.load().err().unwrap().to_string();
        assert_mentions(&message, words);
        assert!(!message.contains('\u{1b}'), "{message}");
    }
}
