//! Safetensors files and the index of several.

use arbitrary::{Result, Unstructured};
use ralu::checkpoint::weights::Weights;

use super::check::clean;
use super::edits::edited;
use super::limits::{Memory, bounded};
use super::model::{File, Model, fixtures, weights};

/// A header is read into little more than itself.
const MEMORY: Memory = Memory { bytes: 256 << 10, per_byte: 24 };

/// What [`consistent`] reads of each tensor is small.
const READ_MEMORY: Memory = Memory { bytes: 1 << 20, per_byte: 24 };

/// The file of the index's fixture, and the index.
const SHARDED: [&str; 2] = [
    "transformer/diffusion_pytorch_model-00001-of-00003.safetensors",
    "transformer/diffusion_pytorch_model.safetensors.index.json",
];

/// The first byte says what the rest is.
pub fn check(input: &[u8]) {
    let Some((what, rest)) = input.split_first() else { return };
    let Some(flux) = fixtures().last() else { return };
    match what % 5 {
        // A file.
        0 => file(File::Weights { head: rest.into(), zeros: 0 }),
        // A header, which gets its length, and how many bytes follow it.
        1 => {
            let Some((zeros, text)) = rest.split_first_chunk::<2>() else { return };
            let Ok(text) = std::str::from_utf8(text) else { return };
            file(weights(text, u16::from_le_bytes(*zeros).into()));
        }
        // Changes in a header that is right.
        2 => {
            let (header, zeros) = flux.header_of(SHARDED[0]);
            let _ = edited_file(header, zeros, &mut Unstructured::new(rest)).map(file);
        }
        // An index of two files.
        3 => {
            let Ok(text) = std::str::from_utf8(rest) else { return };
            let tensor = |name| {
                let header = format!(
                    r#"{{"{name}":{{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}}}"#
                );
                weights(&header, 16)
            };
            let model = Model::empty()
                .with("model.safetensors.index.json", text)
                .with_file("1.safetensors", tensor("a"))
                .with_file("2.safetensors", tensor("b"));
            opens(&model, "", "model");
        }
        // Changes in an index that is right.
        _ => {
            let index = flux.text_of(SHARDED[1]);
            let Ok(text) = edited(&index, &mut Unstructured::new(rest)) else { return };
            let model = flux.clone().with(SHARDED[1], &text);
            opens(&model, "transformer", "diffusion_pytorch_model");
        }
    }
}

fn edited_file(header: &str, zeros: u64, input: &mut Unstructured<'_>) -> Result<File> {
    let header = edited(header, input)?;
    Ok(weights(&header, zeros.saturating_add_signed(input.int_in_range(-2..=2)?)))
}

fn file(file: File) {
    let model = Model::empty().with_file("model.safetensors", file);
    opens(&model, "", "model");
}

fn opens(model: &Model, dir: &str, stem: &str) {
    let opened = bounded(MEMORY, model.length(), || clean(Weights::open(model, dir, stem)));
    bounded(READ_MEMORY, model.length(), || opened.iter().for_each(consistent));
}

/// What was accepted lies in its file, is as long as its shape says, and can be read.
fn consistent(weights: &Weights) {
    for info in weights.iter() {
        let n = info.n_bytes();
        if let Some(dtype) = info.dtype.known() {
            assert_eq!(dtype.block.bytes_of(info.n_elements()), Some(n), "{info:?}");
        }
        for range in [0..n.min(64), n.saturating_sub(64)..n] {
            weights.bytes(info, range).expect("a range of an accepted tensor");
        }
        assert!(weights.bytes(info, 0..n + 1).is_err(), "{info:?}");
        if n <= 4096 {
            clean(weights.tensor_f32(info));
            clean(weights.rows_f32(info, 0..1));
        }
    }
}
