//! Models in single files: GGUF, and all parts in one.

use std::sync::{Arc, OnceLock};

use arbitrary::{Result, Unstructured};
use ralu::checkpoint::weights::Weights;
use ralu::models::files::{Contents, ModelFiles, ModelPaths};

use super::check::{clean, keeps_its_word, message};
use super::edits::edited;
use super::limits::{Memory, bounded};
use super::model::{File, MEMORY, Model, fixture, weights};

/// A header is read into little more than itself, and a tensor's name is kept under those of its parts, too.
const HEADER_MEMORY: Memory = Memory { bytes: 512 << 10, per_byte: 32 };

const FILE: &str = "model.safetensors";

/// Headers of whole files, and how many bytes follow them: all parts in one, and a denoiser in GGUF.
struct Headers {
    all_in_one: Model,
    gguf: (Vec<u8>, u64),
}

fn headers() -> &'static Headers {
    static HEADERS: OnceLock<Headers> = OnceLock::new();
    HEADERS.get_or_init(|| {
        let bytes = |path: &str| {
            std::fs::read(fixture("formats").join(path)).expect("tests/fixtures is there")
        };
        let all = bytes("flux-aio-fp8/flux1-dev-fp8-aio.safetensors");
        let length = all.first_chunk().map_or(0, |length| u64::from_le_bytes(*length)) as usize + 8;
        let header = std::str::from_utf8(&all[8..length]).expect("fixtures are UTF-8");
        let gguf = bytes("flux-gguf/flux1-dev-mixed.gguf");
        let source = ralu::checkpoint::source::Memory::new("m").with("f", &gguf);
        let tensors = Weights::open_file(&source, "f").expect("fixtures can be read");
        let data = tensors.iter().map(|info| info.range.start).min().unwrap_or(0) as usize;
        Headers {
            all_in_one: Model::empty()
                .with_file(FILE, weights(header, (all.len() - length) as u64)),
            gguf: (gguf[..data].to_vec(), (gguf.len() - data) as u64),
        }
    })
}

/// The first byte says what the rest is.
pub fn check(input: &[u8]) {
    let Some((what, rest)) = input.split_first() else { return };
    match what % 3 {
        // A file.
        0 => file(File::Weights { head: rest.into(), zeros: 1 << 12 }),
        // Changes in the header of a file with all parts.
        1 => {
            let (header, zeros) = headers().all_in_one.header_of(FILE);
            if let Ok(header) = edited(header, &mut Unstructured::new(rest)) {
                file(weights(&header, zeros));
            }
        }
        // Changes in a GGUF header.
        _ => {
            let (head, zeros) = &headers().gguf;
            let _ = changed(head, &mut Unstructured::new(rest))
                .map(|head| file(File::Weights { head: head.into(), zeros: *zeros }));
        }
    }
}

/// Up to eight bytes changed, and perhaps some taken out.
fn changed(head: &[u8], input: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let mut head = head.to_vec();
    for _ in 0..input.int_in_range(1..=8u8)? {
        let at = input.int_in_range(0..=head.len() - 1)?;
        head[at] = input.arbitrary()?;
    }
    if input.ratio(1, 8u8)? {
        let at = input.int_in_range(0..=head.len() - 1)?;
        let end = input.int_in_range(at..=head.len())?;
        head.drain(at..end.max(at));
    }
    Ok(head)
}

fn file(file: File) {
    let model = Model::empty().with_file(FILE, file);
    let tokenizers = |folder: &str| {
        std::fs::read_to_string(fixture("formats").join(folder)).expect("tests/fixtures is there")
    };
    let model = model
        .with("clip/tokenizer.json", &tokenizers("tokenizers/clip/tokenizer.json"))
        .with("t5/tokenizer.json", &tokenizers("tokenizers/t5/tokenizer.json"));
    let length = model.length();
    let Some(opened) = bounded(HEADER_MEMORY, length, || clean(Weights::open_file(&model, FILE)))
    else {
        return;
    };
    if let Some(contents) = clean(Contents::of(&opened, None)) {
        message(&ralu::escape::escape(&contents.in_words()));
    }
    let paths = ModelPaths::default().with(|paths| {
        paths.model = FILE.into();
        paths.clip_tokenizer = Some("clip".into());
        paths.t5_tokenizer = Some("t5/tokenizer.json".into());
    });
    bounded(MEMORY, length, || {
        let opened = ModelFiles::open(Arc::new(model.clone()), &paths);
        if let Some(files) = clean(opened) {
            keeps_its_word(&files);
        }
    });
}
