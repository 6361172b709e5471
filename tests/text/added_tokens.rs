//! Tokens that were added to a tokenizer after its vocabulary was made, special tokens, and the sides of padding and
//! truncation. Expected ids are transformers' (5.24): tests/fixtures/tokens/added.py.

use std::path::PathBuf;

use ralu::checkpoint::source::Memory;
use ralu::text::{ClipTokenizer, Encoded, T5Tokenizer, TokenError};
use serde_json::{Map, Value, json};

const CONFIG: &str = "tokenizer_config.json";

fn fixture(path: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(path);
    std::fs::read_to_string(path).unwrap()
}

/// The files of one of the two tokenizers of the first tiny-flux.
struct Files {
    folder: &'static str,
    memory: Memory,
}

impl Files {
    fn new(folder: &'static str) -> Self {
        let mut memory = Memory::new("model");
        let both = ["tokenizer.json", CONFIG, "special_tokens_map.json"];
        let clip: &[&str] = if folder == "tokenizer" { &["vocab.json", "merges.txt"] } else { &[] };
        for name in both.iter().chain(clip) {
            let path = format!("{folder}/{name}");
            memory.insert(&path, fixture(&format!("tiny-flux-text/{path}")));
        }
        Files { folder, memory }
    }

    fn clip_without_json() -> Self {
        let mut files = Self::new("tokenizer");
        assert!(files.memory.remove("tokenizer/tokenizer.json"));
        files
    }

    fn write(&mut self, name: &str, value: &Value) {
        self.memory.insert(format!("{}/{name}", self.folder), value.to_string());
    }

    /// Changes fields of a file of the fixture; dots lead inside, `"ABSENT"` removes.
    fn edit(&mut self, name: &str, fields: &Map<String, Value>) {
        let text = fixture(&format!("tiny-flux-text/{}/{name}", self.folder));
        let mut whole: Value = serde_json::from_str(&text).unwrap();
        for (path, value) in fields {
            let (above, field) = path.rsplit_once('.').unwrap_or(("", path));
            let inside = above.split('.').filter(|part| !part.is_empty());
            let object = inside.fold(&mut whole, |value, part| &mut value[part]);
            let object = object.as_object_mut().unwrap();
            match value == "ABSENT" {
                true => drop(object.remove(field)),
                false => drop(object.insert(field.to_owned(), value.clone())),
            }
        }
        self.write(name, &whole);
    }

    fn config(&mut self, fields: Value) {
        self.edit(CONFIG, fields.as_object().unwrap());
    }

    fn encode(&self, text: &str, length: usize) -> Result<Encoded, TokenError> {
        match self.folder {
            "tokenizer" => {
                let clip = ClipTokenizer::load(&self.memory, self.folder)?;
                assert_eq!(clip.max_length(), length);
                clip.encode(text)
            }
            _ => T5Tokenizer::load(&self.memory, self.folder)?.encode(text, length),
        }
    }
}

#[test]
fn ids_are_those_of_transformers() {
    let cases: Vec<Map<String, Value>> =
        serde_json::from_str(&fixture("tokens/added.json")).unwrap();
    assert_eq!(cases.len(), 68);
    for case in &cases {
        let (kind, name) = (case["kind"].as_str().unwrap(), case["name"].as_str().unwrap());
        let length = case["length"].as_u64().unwrap() as usize;
        let ids: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
        let mut all = match kind {
            "t5" => vec![Files::new("tokenizer_2")],
            "clip-json" => vec![Files::new("tokenizer")],
            _ => vec![Files::new("tokenizer"), Files::clip_without_json()],
        };
        for files in &mut all {
            let mut config = case["config"].as_object().unwrap().clone();
            if kind != "t5" {
                config.insert("model_max_length".into(), length.into());
            }
            files.edit(CONFIG, &config);
            if case["special"] == false {
                assert!(files.memory.remove(&format!("{}/special_tokens_map.json", files.folder)));
            } else if case["special"].is_object() {
                files.write("special_tokens_map.json", &case["special"]);
            }
            if case["added"].is_object() {
                files.write("added_tokens.json", &case["added"]);
            }
            let whole = case["tokenizer"].as_object().unwrap();
            if !whole.is_empty() {
                files.edit("tokenizer.json", whole);
            }
            let found = files.encode(case["text"].as_str().unwrap(), length).unwrap().ids;
            assert_eq!(found, ids, "{kind}: {name}");
        }
    }
}

#[test]
fn added_tokens_need_embeddings() {
    let mut files = Files::clip_without_json();
    let load = |files: &Files| ClipTokenizer::load(&files.memory, "tokenizer").unwrap();
    load(&files).check_vocab(1507).unwrap();
    files.config(json!({"additional_special_tokens": ["<cat-toy>"]}));
    let message = load(&files).check_vocab(1507).unwrap_err().to_string();
    assert!(message.contains("model/tokenizer/vocab.json"), "{message}");
    assert!(message.contains("up to 1507") && message.contains("1507 embeddings"), "{message}");
    load(&files).check_vocab(1508).unwrap();

    // The sentinels that transformers adds to T5 unasked have no embeddings in small models, and nobody writes them.
    let mut files = Files::new("tokenizer_2");
    files.config(json!({"additional_special_tokens": "ABSENT", "extra_ids": "ABSENT"}));
    T5Tokenizer::load(&files.memory, "tokenizer_2").unwrap().check_vocab(1081).unwrap();
    files.config(json!({"extra_special_tokens": ["<x>"]}));
    assert!(T5Tokenizer::load(&files.memory, "tokenizer_2").unwrap().check_vocab(1081).is_err());
}

#[test]
fn what_is_no_token_is_refused() {
    let refused = |config: Value, part: &str| {
        for mut files in [Files::new("tokenizer"), Files::clip_without_json()] {
            files.config(config.clone());
            let message = files.encode("a", 77).unwrap_err().to_string();
            assert!(message.contains("model/tokenizer/"), "{message}");
            assert!(message.contains(part), "{part:?} is not in: {message}");
        }
    };
    refused(json!({"pad_token": null}), "\"pad_token\" is null");
    refused(json!({"eos_token": 3}), "eos_token is 3");
    refused(json!({"bos_token": {"text": "a"}}), "bos_token is");
    refused(json!({"added_tokens_decoder": {"x": {"content": "a"}}}), "added_tokens_decoder");
    refused(json!({"added_tokens_decoder": {"7": {}}}), "added_tokens_decoder");
    refused(json!({"added_tokens_decoder": null}), "added_tokens_decoder");
    refused(json!({"extra_special_tokens": [3]}), "extra_special_tokens is 3");
    refused(json!({"extra_special_tokens": "<a>"}), "extra_special_tokens is \"<a>\"");
    refused(json!({"padding_side": "top"}), "padding_side is \"top\"");
    refused(json!({"truncation_side": 1}), "truncation_side is 1");
    let mut files = Files::clip_without_json();
    files.config(json!({"added_tokens_decoder": "ABSENT"}));
    for (added, part) in [(json!({"<a>": "x"}), "\"<a>\" is \"x\""), (json!([1]), "[1]")] {
        files.write("added_tokens.json", &added);
        let message = files.encode("a", 77).unwrap_err().to_string();
        assert!(message.contains("model/tokenizer/added_tokens.json"), "{message}");
        assert!(message.contains(part), "{message}");
    }
}

/// What diffusers' FluxPipeline does to a prompt before it encodes it: tokens with several embeddings are written out.
#[test]
fn tokens_with_several_embeddings_are_written_out() {
    let mut files = Files::clip_without_json();
    let added = ["<s0>", "<s0>_1", "<s0>_2", "<t>", "<u>_1"];
    files.config(json!({ "extra_special_tokens": added }));
    let clip = ClipTokenizer::load(&files.memory, "tokenizer").unwrap();
    let expanded = |text: &str| clip.expanded(text).unwrap().into_owned();
    assert_eq!(expanded("a <s0> and <t>"), "a <s0> <s0>_1 <s0>_2 and <t>");
    assert_eq!(expanded("a <u> cat"), "a <u> cat");
    let ids = clip.encode(&expanded("<s0>")).unwrap().ids;
    assert_eq!(ids[..5], [1505, 1507, 1508, 1509, 1506]);
    // Each of two tokens stands in what replaces the other.
    let names = |name: &str| -> Vec<String> {
        (1..20_000).map(|i| format!("{name}_{i}")).chain([name.to_owned()]).collect()
    };
    let many = [names("Z"), names("_")].concat();
    files.config(json!({ "extra_special_tokens": many }));
    let clip = ClipTokenizer::load(&files.memory, "tokenizer").unwrap();
    let message = clip.expanded("Z _ Z").unwrap_err().to_string();
    assert!(message.contains("so many tokens"), "{message}");
}
