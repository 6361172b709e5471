//! JSON from strangers takes no more memory than a few times its length, whatever it holds.
#![cfg(not(target_arch = "wasm32"))]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use ralu::checkpoint::source::{Memory, Source, SourceError};
use ralu::checkpoint::weights::Weights;
use ralu::models::config::{GenerationConfig, ModelIndex, SchedulerConfig, VaeConfig};
use ralu::text::{ClipTokenizer, T5Tokenizer};

/// Counts the bytes that are allocated, and the most that ever were.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(now, Ordering::Relaxed);
        // SAFETY: what the caller guarantees is what the system asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the same.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A file that is read, and by what. The result is what the error says, if it is one.
struct Case {
    name: &'static str,
    path: &'static str,
    bytes: Vec<u8>,
    read: fn(&dyn Source) -> Option<String>,
    /// In the error; `None` if there is none.
    expected: Option<&'static str>,
}

/// The most bytes that may be allocated for a byte of a file.
const FACTOR: usize = 6;
/// What is needed in any case.
const BASE: usize = 8 << 20;

fn said<T, E: ToString>(result: Result<T, E>) -> Option<String> {
    result.err().map(|error| error.to_string())
}

fn weights(source: &dyn Source) -> Option<String> {
    said(Weights::open(source, "", "model"))
}

fn vae(source: &dyn Source) -> Option<String> {
    said(VaeConfig::load(source, "config.json", "AutoencoderKL"))
}

fn clip(source: &dyn Source) -> Option<String> {
    said(ClipTokenizer::load(source, "t"))
}

fn t5(source: &dyn Source) -> Option<String> {
    said(T5Tokenizer::load(source, "t"))
}

fn header(json: &str) -> Vec<u8> {
    [&(json.len() as u64).to_le_bytes()[..], json.as_bytes()].concat()
}

/// `n` elements with commas between.
fn many(element: &str, n: usize) -> String {
    vec![element; n].join(",")
}

/// `n` fields of different names.
fn fields(n: usize, value: &str) -> String {
    let all: Vec<String> = (0..n).map(|i| format!("\"{i:x}\":{value}")).collect();
    all.join(",")
}

fn cases() -> Vec<Case> {
    let case = |name, path, text: String, read, expected| Case {
        name,
        path,
        bytes: if path == "model.safetensors" { header(&text) } else { text.into_bytes() },
        read,
        expected,
    };
    let tensor = r#"{"dtype":"F32","shape":[],"data_offsets":[0,0]}"#;
    let file = "model.safetensors";
    let index = "model.safetensors.index.json";
    let vae_config = |more: String| {
        format!(
            r#"{{"block_out_channels":[32,32,32,32],"layers_per_block":1,"latent_channels":16,"scaling_factor":1,{more}}}"#
        )
    };
    let bpe = |more: String| format!(r#"{{"model":{{"vocab":{{"a":0}},"merges":[]}},{more}}}"#);
    let unigram = |more: String| {
        format!(r#"{{"model":{{"vocab":[["<pad>",0],["</s>",0],["<unk>",0]]}},{more}}}"#)
    };
    vec![
        case(
            "a shape of many dimensions",
            file,
            format!(
                r#"{{"a":{{"dtype":"F32","shape":[{}],"data_offsets":[0,0]}}}}"#,
                many("0", 5_000_000)
            ),
            weights,
            Some("at most 16 whole numbers"),
        ),
        case(
            "a tensor of nonsense",
            file,
            format!(r#"{{"a":{{"x":[{}]}}}}"#, many("[]", 3_000_000)),
            weights,
            Some("no dtype"),
        ),
        case(
            "a tensor that is a list",
            file,
            format!(r#"{{"a":[{}]}}"#, many("{}", 3_000_000)),
            weights,
            Some("no dtype"),
        ),
        case(
            "deep nonsense",
            file,
            format!(r#"{{"a":{{"x":{}{}}}}}"#, "[".repeat(5_000_000), "]".repeat(5_000_000)),
            weights,
            Some("no dtype"),
        ),
        case(
            "nonsense in a field that nobody reads",
            file,
            format!(r#"{{"__metadata__":{{"x":[{}]}}}}"#, many("{}", 3_000_000)),
            weights,
            None,
        ),
        case(
            "many offsets",
            file,
            format!(
                r#"{{"a":{{"dtype":"F32","shape":[],"data_offsets":[{}]}}}}"#,
                many("0", 5_000_000)
            ),
            weights,
            Some("no data_offsets"),
        ),
        case(
            "a long type",
            file,
            format!(
                r#"{{"a":{{"dtype":"{}","shape":[],"data_offsets":[0,0]}}}}"#,
                "F".repeat(9_000_000)
            ),
            weights,
            Some("expected at most 32"),
        ),
        case(
            "a long name",
            file,
            format!(r#"{{"{}":{tensor}}}"#, "n".repeat(9_000_000)),
            weights,
            Some("expected at most 1024"),
        ),
        case(
            "many tensors",
            file,
            format!("{{{}}}", fields(150_000, tensor)),
            weights,
            Some("more than 65536 tensors"),
        ),
        case(
            "an index with nonsense",
            index,
            format!(r#"{{"metadata":[{}],"weight_map":{{}}}}"#, many("[]", 3_000_000)),
            weights,
            Some("\"weight_map\" is empty"),
        ),
        case(
            "an index of many tensors",
            index,
            format!(r#"{{"weight_map":{{{}}}}}"#, fields(700_000, r#""a""#)),
            weights,
            Some("more than 65536 tensors"),
        ),
        case(
            "an index of many files",
            index,
            format!(
                r#"{{"weight_map":{{{}}}}}"#,
                (0..300_000).map(|i| format!("\"{i}\":\"{i}\"")).collect::<Vec<_>>().join(",")
            ),
            weights,
            Some("more than 1000 files"),
        ),
        case(
            "a tensor in a file of nonsense",
            index,
            format!(r#"{{"weight_map":{{"a":[{}]}}}}"#, many("[]", 3_000_000)),
            weights,
            Some("plain file name"),
        ),
        case(
            "a configuration with nonsense",
            "config.json",
            vae_config(format!(r#""x":[{}]"#, many("[]", 1_000_000))),
            vae,
            None,
        ),
        case(
            "a configuration with nonsense where a number should be",
            "config.json",
            vae_config(format!(r#""norm_num_groups":[{}]"#, many("{}", 1_000_000))),
            vae,
            Some("norm_num_groups"),
        ),
        case(
            "a configuration with nonsense where a list should be",
            "config.json",
            vae_config(format!(r#""up_block_types":[{}]"#, many("[]", 1_000_000))),
            vae,
            Some("up_block_types"),
        ),
        case(
            "a configuration of many fields",
            "config.json",
            format!("{{{}}}", fields(300_000, "0")),
            vae,
            Some("more than 16384 fields"),
        ),
        case(
            "a configuration that is a list",
            "config.json",
            format!("[{}]", many("{}", 1_000_000)),
            vae,
            Some("an object"),
        ),
        case(
            "a pipeline of nonsense",
            "model_index.json",
            format!(r#"{{"_class_name":"FluxPipeline","vae":[{}]}}"#, many("[]", 1_000_000)),
            |source| said(ModelIndex::load(source)),
            Some("transformer"),
        ),
        case(
            "defaults of nonsense",
            "generation_config.json",
            format!(r#"{{"width":[{}]}}"#, many("[]", 1_000_000)),
            |source| said(GenerationConfig::load(source)),
            Some("width"),
        ),
        case(
            "a scheduler of nonsense",
            "s.json",
            format!(r#"{{"shift":{{"a":[{}]}}}}"#, many("[]", 1_000_000)),
            |source| said(SchedulerConfig::load(source, "s.json")),
            Some("shift"),
        ),
        case(
            "a normalizer of nonsense",
            "t/tokenizer.json",
            unigram(format!(r#""normalizer":{{"normalizers":[{}]}}"#, many("[]", 3_000_000))),
            t5,
            None,
        ),
        case(
            "added tokens of nonsense",
            "t/tokenizer.json",
            unigram(format!(r#""added_tokens":[{}]"#, many("[]", 3_000_000))),
            t5,
            Some("an added token is []"),
        ),
        case(
            "a vocabulary of nonsense",
            "t/tokenizer.json",
            format!(r#"{{"model":{{"vocab":[[{}]]}}}}"#, many("[]", 3_000_000)),
            t5,
            Some("a piece is [[],[]"),
        ),
        case(
            "many pieces",
            "t/tokenizer.json",
            format!(r#"{{"model":{{"vocab":[{}]}}}}"#, many(r#"["abcdefgh",0]"#, 700_000)),
            t5,
            Some("more than 262144"),
        ),
        case(
            "many words",
            "t/tokenizer.json",
            format!(r#"{{"model":{{"vocab":{{{}}},"merges":[]}}}}"#, fields(900_000, "0")),
            clip,
            Some("more than 262144"),
        ),
        case(
            "many merges",
            "t/tokenizer.json",
            format!(
                r#"{{"model":{{"vocab":{{"a":0}},"merges":[{}]}}}}"#,
                many(r#""a a""#, 1_500_000)
            ),
            clip,
            Some("more than 262144"),
        ),
        case(
            "padding of nonsense",
            "t/tokenizer.json",
            bpe(format!(r#""padding":[{}]"#, many("[]", 3_000_000))),
            clip,
            None,
        ),
    ]
}

/// One test, so that nothing else allocates.
#[test]
fn memory_is_a_small_multiple_of_the_file() {
    for Case { name, path, bytes, read, expected } in cases() {
        let length = bytes.len();
        let source = Memory::new("m").with(path, &bytes);
        drop(bytes);
        let before = NOW.load(Ordering::Relaxed);
        PEAK.store(before, Ordering::Relaxed);
        let error = read(&source);
        let used = PEAK.load(Ordering::Relaxed) - before;
        match (&error, expected) {
            (None, None) => {}
            (Some(error), Some(part)) => {
                assert!(error.contains(part), "{name}: {part:?} is not in: {error}");
                assert!(error.len() < 1000, "{name}: an error of {} bytes", error.len());
            }
            (found, expected) => panic!("{name}: expected {expected:?}, found {found:?}"),
        }
        let most = FACTOR * length + BASE;
        assert!(used <= most, "{name}: {used} bytes for a file of {length}");
    }

    // Files around a vocabulary.
    for (name, text, part) in [
        (
            "tokenizer_config.json",
            format!(r#"{{"chat_template":[{}]}}"#, many("[]", 1_000_000)),
            None,
        ),
        (
            "tokenizer_config.json",
            format!(r#"{{"added_tokens_decoder":{{"1":[{}]}}}}"#, many("[]", 1_000_000)),
            Some("added_tokens_decoder"),
        ),
        ("special_tokens_map.json", format!(r#"{{"x":[{}]}}"#, many("{}", 1_000_000)), None),
        ("added_tokens.json", format!("{{{}}}", fields(800_000, "1")), None),
    ] {
        let source = Memory::new("m")
            .with("t/tokenizer.json", r#"{"model":{"vocab":{"a":0},"merges":[]}}"#)
            .with(format!("t/{name}"), &text);
        let (length, before) = (text.len(), NOW.load(Ordering::Relaxed));
        PEAK.store(before, Ordering::Relaxed);
        let error = clip(&source);
        let used = PEAK.load(Ordering::Relaxed) - before;
        assert_eq!(error.is_some(), part.is_some(), "{name}: {error:?}");
        assert!(part.is_none_or(|part| error.unwrap().contains(part)), "{name}");
        assert!(used <= FACTOR * length + BASE, "{name}: {used} bytes for a file of {length}");
    }

    // A configuration is small.
    let source = Memory::new("m").with("vae/config.json", vec![b' '; (4 << 20) + 1]);
    assert!(matches!(source.text("vae/config.json"), Err(SourceError::TooLarge { .. })));
    // A large lie costs nothing.
    let lie = [&90_000_000u64.to_le_bytes()[..], b"{}"].concat();
    let source = Memory::new("m").with("model.safetensors", &lie);
    let before = NOW.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    assert!(weights(&source).unwrap().contains("truncated"));
    assert!(PEAK.load(Ordering::Relaxed) - before < 1 << 20);
}
