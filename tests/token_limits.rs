//! Tokenizers whose files would take gigabytes or minutes are refused.
#![cfg(not(target_arch = "wasm32"))]

use std::path::Path;

use ralu::checkpoint::source::{Folder, Memory, Source};
use ralu::text::ClipTokenizer;
use serde_json::{Value, json};

/// flux-a's CLIP tokenizer with these tokens added.
fn with_added(contents: impl IntoIterator<Item = String>) -> Result<ClipTokenizer, String> {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/flux-a/model");
    let text = Folder::open(fixture).unwrap().text("tokenizer/tokenizer.json").unwrap().unwrap();
    let mut tokenizer: Value = serde_json::from_str(&text).unwrap();
    let added = tokenizer["added_tokens"].as_array_mut().unwrap();
    for content in contents {
        added.push(json!({"id": 603 + added.len(), "content": content, "special": false}));
    }
    let source = Memory::new("model").with("tokenizer/tokenizer.json", tokenizer.to_string());
    ClipTokenizer::load(&source, "tokenizer").map_err(|error| error.to_string())
}

/// Found by fuzzing: the automaton that finds added tokens takes a hundred times their bytes.
#[test]
fn added_tokens_have_few_bytes() {
    let longest = with_added(["ab".repeat(512)]).unwrap();
    let ids = longest.encode(&"ab".repeat(512)).unwrap().ids;
    assert!(ids[1] > 602 && ids[2] == 602, "{:?}", &ids[..3]);

    let too_long = with_added(["ab".repeat(1 << 20)]).err().unwrap();
    assert!(too_long.contains("up to 2097152 bytes") && too_long.contains("1024"), "{too_long}");

    let too_many = with_added((0..300).map(|i| format!("{i:0>1000}"))).err().unwrap();
    assert!(too_many.contains("in all; expected") && too_many.contains("262144"), "{too_many}");
}
