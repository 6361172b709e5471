//! Tokenizers whose files would take gigabytes or minutes are refused, and so are prompts with tokens that an encoder does
//! not know.

use std::path::Path;

use ralu::checkpoint::source::{Blob, Folder, Memory, Source, SourceError};
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

/// The bundled model with another text in place of T5's `tokenizer_config.json`.
struct WithConfig {
    model: Folder,
    config: String,
}

const T5_CONFIG: &str = "tokenizer_2/tokenizer_config.json";

impl Source for WithConfig {
    fn name(&self) -> String {
        self.model.name()
    }

    fn text(&self, path: &str) -> Result<Option<String>, SourceError> {
        if path == T5_CONFIG { Ok(Some(self.config.clone())) } else { self.model.text(path) }
    }

    fn exists(&self, path: &str) -> bool {
        self.model.exists(path)
    }

    fn list(&self, dir: &str) -> Result<Vec<String>, SourceError> {
        self.model.list(dir)
    }

    fn blob(&self, path: &str) -> Result<Box<dyn Blob>, SourceError> {
        self.model.blob(path)
    }
}

/// Found by fuzzing: transformers gives T5 sentinels that no file names, for which a model may have no embeddings.
#[test]
fn a_prompt_with_a_sentinel_is_refused() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny-flux");
    let model = Folder::open(folder).unwrap();
    let mut config: Value = serde_json::from_str(&model.text(T5_CONFIG).unwrap().unwrap()).unwrap();
    // As it is, the model has no sentinels, and their marks are text like other text.
    assert_eq!(config["extra_ids"], 0);
    config["extra_ids"] = json!(8);
    assert!(config.as_object_mut().unwrap().remove("additional_special_tokens").is_some());
    let model = Box::new(WithConfig { model, config: config.to_string() });
    let pipeline = Pipeline::open(crate::common::gpu(), model, Options::default()).unwrap();
    let vocab = pipeline.config().text_encoders[1].config.vocab_size();
    let message = |mut request: Request| {
        (request.width, request.height) = (Some(64), Some(64));
        let mut run = pipeline.start(request).unwrap();
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
    let found = format!("the prompt is a text with token {}", vocab + 7);
    let expected = format!("tokens that T5 has embeddings of, 0 to {}", vocab - 1);
    assert!(refused.contains(&found) && refused.contains(&expected), "{refused}");
    let mut request = Request::new("a fox");
    (request.negative_prompt, request.true_cfg) = (Some(sentinel.into()), Some(2.0));
    let refused = message(request);
    assert!(refused.contains("the negative prompt is a text with token"), "{refused}");
}
