//! The byte-level tokenizer against transformers' `Qwen2Tokenizer` (5.24: tests/fixtures/tokens/byte_level.py), against the
//! ids that the fixtures' pictures were drawn from, and over damaged files.

use std::path::PathBuf;

use ralu::checkpoint::source::Memory;
use ralu::text::{ByteLevelTokenizer, Encoded, TokenError};
use safetensors::SafeTensors;
use serde_json::{Map, Value, json};

const CONFIG: &str = "tokenizer_config.json";
const WHOLE: &str = "tokenizer.json";

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// A fixture's tokenizer in memory, to be changed.
fn files(fixture: &str) -> Memory {
    let folder = fixtures().join(fixture).join("model/tokenizer");
    let mut memory = Memory::new("model");
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        memory.insert(format!("tokenizer/{name}"), std::fs::read(&path).unwrap());
    }
    memory
}

fn json_of(fixture: &str, name: &str) -> Value {
    let path = fixtures().join(fixture).join("model/tokenizer").join(name);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn write(memory: &mut Memory, name: &str, value: &Value) {
    memory.insert(format!("tokenizer/{name}"), value.to_string());
}

fn load(memory: &Memory) -> Result<ByteLevelTokenizer, TokenError> {
    ByteLevelTokenizer::load(memory, "tokenizer")
}

/// The id that fixtures are padded with.
fn pad(tokenizer: &ByteLevelTokenizer) -> u32 {
    tokenizer.id("<|endoftext|>", "padding").unwrap()
}

#[test]
fn ids_are_those_of_transformers() {
    let text = std::fs::read_to_string(fixtures().join("tokens/byte_level.json")).unwrap();
    let cases: Vec<Map<String, Value>> = serde_json::from_str(&text).unwrap();
    assert_eq!(cases.len(), 64);
    for case in &cases {
        let (name, folder) = (case["name"].as_str().unwrap(), case["folder"].as_str().unwrap());
        let mut memory = files(folder);
        let mut config = json_of(folder, CONFIG);
        let fields = config.as_object_mut().unwrap();
        for (field, value) in case.get("config").and_then(Value::as_object).into_iter().flatten() {
            match value == "ABSENT" {
                true => drop(fields.remove(field)),
                false => drop(fields.insert(field.clone(), value.clone())),
            }
        }
        write(&mut memory, CONFIG, &config);
        let tokenizer = load(&memory).unwrap();
        let text = case["text"].as_str().unwrap();
        let found = match case.get("length").and_then(Value::as_u64) {
            None => tokenizer.encode(text, 4096, None),
            Some(length) => tokenizer.encode(text, length as usize, Some(pad(&tokenizer))),
        };
        let ids: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
        assert_eq!(found.unwrap().ids, ids, "{folder}: {name}: {text:?}");
    }
}

#[test]
fn ids_are_those_that_the_fixtures_were_drawn_from() {
    for (fixture, tokenizer) in
        [("klein-a", "klein-a"), ("z-image-turbo-a", "klein-a"), ("qwen-image-a", "qwen-image-a")]
    {
        let folder = fixtures().join(fixture);
        let case: Value =
            serde_json::from_slice(&std::fs::read(folder.join("case.json")).unwrap()).unwrap();
        let expected = std::fs::read(folder.join("expected.safetensors")).unwrap();
        let expected = SafeTensors::deserialize(&expected).unwrap();
        let ids = expected.tensor("llm_ids").unwrap();
        let ids: Vec<u32> = ids
            .data()
            .chunks_exact(8)
            .map(|id| u64::from_le_bytes(id.try_into().unwrap()) as u32)
            .collect();
        let tokenizer = load(&files(tokenizer)).unwrap();
        let pad = (fixture == "klein-a").then(|| pad(&tokenizer));
        let length = if fixture == "qwen-image-a" { 1024 } else { 64 };
        let found = tokenizer.encode(case["text"].as_str().unwrap(), length, pad).unwrap();
        assert_eq!(found.ids, ids, "{fixture}");
        if let Some(tokens) = case["tokens"].as_u64().filter(|_| fixture != "qwen-image-a") {
            assert_eq!(found.real, tokens as usize, "{fixture}");
        }
        assert_eq!(found.truncated, None, "{fixture}");
    }
}

#[test]
fn what_is_cut_and_what_is_padding_is_said() {
    let tokenizer = load(&files("klein-a")).unwrap();
    let pad = pad(&tokenizer);
    let whole = tokenizer.encode("a red boat<|im_end|>", 4096, None).unwrap();
    let n = whole.ids.len();
    assert_eq!((whole.real, whole.truncated), (n, None));
    let padded = tokenizer.encode("a red boat<|im_end|>", n + 3, Some(pad)).unwrap();
    assert_eq!(padded.ids, [&whole.ids[..], &[pad; 3]].concat());
    assert_eq!((padded.real, padded.truncated), (n, None));
    let cut = tokenizer.encode("a red boat<|im_end|>", n - 2, Some(pad)).unwrap();
    let expected = Encoded { ids: whole.ids[..n - 2].to_vec(), real: n - 2, truncated: Some(2) };
    assert_eq!(cut, expected);
    // A user's padding token is a token like others.
    let own = tokenizer.encode("<|endoftext|>", 2, Some(pad)).unwrap();
    assert_eq!(own, Encoded { ids: vec![pad, pad], real: 1, truncated: None });
}

#[test]
fn both_forms_of_the_files_give_one_tokenizer() {
    let whole = json_of("klein-a", WHOLE);
    let mut memory = files("klein-a");
    assert!(memory.remove("tokenizer/tokenizer.json"));
    write(&mut memory, "vocab.json", &whole["model"]["vocab"]);
    let merges = whole["model"]["merges"].as_array().unwrap();
    let lines: Vec<String> = merges
        .iter()
        .map(|merge| format!("{} {}", merge[0].as_str().unwrap(), merge[1].as_str().unwrap()))
        .collect();
    memory.insert("tokenizer/merges.txt", format!("#version: 0.2\n{}\n", lines.join("\n")));
    let text = "<|im_start|>user\nsandy wooden boats, 12 <think>\n\n</think>\n\n \u{1f600}";
    let [one, two] = [files("klein-a"), memory]
        .map(|files| load(&files).unwrap().encode(text, 99, None).unwrap());
    assert_eq!(one, two);
}

/// Asserts that loading fails, with a message that says all of `parts`.
fn refused(memory: &Memory, parts: &[&str]) {
    let message = match load(memory) {
        Ok(_) => panic!("nothing is wrong; expected {parts:?}"),
        Err(error) => error.to_string(),
    };
    for part in parts {
        assert!(message.contains(part), "{message:?} does not say {part:?}");
    }
}

#[test]
fn damaged_files_are_refused() {
    refused(&Memory::new("model"), &["no tokenizer", "vocab.json with merges.txt"]);
    let mut half = files("qwen-image-a");
    assert!(half.remove("tokenizer/merges.txt"));
    refused(&half, &["no tokenizer", "vocab.json with merges.txt", "found"]);

    let mut broken = files("klein-a");
    broken.insert("tokenizer/tokenizer.json", "{\"model\": {");
    refused(&broken, &["model/tokenizer/tokenizer.json", "fetch the file again"]);

    let edited = |edit: &dyn Fn(&mut Value)| {
        let mut whole = json_of("klein-a", WHOLE);
        edit(&mut whole["model"]);
        let mut memory = files("klein-a");
        write(&mut memory, WHOLE, &whole);
        memory
    };
    refused(&edited(&|model| model["vocab"] = json!([])), &["\"vocab\" object"]);
    refused(&edited(&|model| model["merges"] = json!({})), &["\"merges\" list"]);
    refused(&edited(&|model| model["merges"][0] = json!(["a"])), &["a merge of two parts"]);
    refused(&edited(&|model| model["vocab"]["a"] = json!(-1)), &["the id of \"a\" is -1"]);
    // A byte without a token would vanish from texts.
    let no_byte =
        |model: &mut Value| drop(model["vocab"].as_object_mut().unwrap().remove("\u{122}"));
    refused(&edited(&no_byte), &["no token '\u{122}'", "256 bytes"]);
    // A merge of parts that are no tokens.
    let odd_merge = |model: &mut Value| model["merges"][0] = json!(["zz", "\u{1b}[2J"]);
    refused(&edited(&odd_merge), &["zz"]);
}

#[test]
fn escape_sequences_of_a_file_do_not_reach_the_terminal() {
    let mut whole = json_of("klein-a", WHOLE);
    whole["model"]["merges"][0] = json!(["a", "\u{1b}[2J"]);
    let mut memory = files("klein-a");
    write(&mut memory, WHOLE, &whole);
    let message = load(&memory).err().unwrap().to_string();
    assert!(!message.contains('\u{1b}'), "{message:?}");
}

#[test]
fn what_cannot_be_encoded_is_an_error() {
    let tokenizer = load(&files("klein-a")).unwrap();
    let error = tokenizer.encode("a", 0, None).unwrap_err();
    assert!(matches!(error, TokenError::Length { found: 0, least: 1 }), "{error}");
    let error = tokenizer.id("<|vision_pad|>", "padding").unwrap_err().to_string();
    assert!(error.contains("<|vision_pad|>") && error.contains("padding"), "{error}");
    tokenizer.check_vocab(447).unwrap();
    let error = tokenizer.check_vocab(446).unwrap_err().to_string();
    assert!(error.contains("up to 446") && error.contains("446 embeddings"), "{error}");

    let mut config = json_of("klein-a", CONFIG);
    config["padding_side"] = json!("left");
    let mut memory = files("klein-a");
    write(&mut memory, CONFIG, &config);
    let left = load(&memory).unwrap();
    assert_eq!(left.encode("a red boat", 9, None).unwrap().truncated, None);
    let error = left.encode("a red boat", 9, Some(442)).unwrap_err().to_string();
    assert!(error.contains("pads on the left") && error.contains("expected right"), "{error}");
}
