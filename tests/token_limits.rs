//! Tokenizers whose files would take gigabytes or minutes are refused, and so are prompts with tokens that an encoder does
//! not know.
#![cfg(not(target_arch = "wasm32"))]

mod common;

use std::path::Path;

use ralu::checkpoint::source::{Folder, Memory, Source};
use ralu::gpu::block_on;
use ralu::pipeline::{Options, Pipeline, Request};
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

/// Found by fuzzing: transformers gives T5 a hundred sentinels that no file names, and the bundled model has no embeddings of
/// them.
#[test]
fn a_prompt_with_a_sentinel_is_refused() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny-flux");
    let model = Box::new(Folder::open(folder).unwrap());
    let pipeline = Pipeline::open(common::gpu(), model, Options::default()).unwrap();
    let message = |request: Request| {
        let mut run = pipeline.start(request.size(64, 64)).unwrap();
        block_on(pipeline.gpu(), async {
            loop {
                match run.next().await {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("the run ended without an error"),
                    Err(error) => return error.to_string(),
                }
            }
        })
    };
    let sentinel = "a fox <extra_id_7>";
    let refused = message(Request::new(sentinel));
    let expected =
        "tokens that T5 has embeddings of, 0 to 1080; leave out marks such as <extra_id_0>";
    assert!(refused.contains("the prompt is a text with token 1"), "{refused}");
    assert!(refused.contains(expected), "{refused}");
    let mut request = Request::new("a fox");
    (request.negative_prompt, request.true_cfg) = (Some(sentinel.into()), Some(2.0));
    let refused = message(request);
    assert!(refused.contains("the negative prompt is a text with token 1"), "{refused}");
}
