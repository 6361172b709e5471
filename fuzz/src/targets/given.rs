//! Tensors that replace what a run would draw.

use arbitrary::Unstructured;
use ralu::pipeline::NamedTensors;

use super::check::clean;
use super::edits::edited;
use super::limits::{Memory, bounded};

/// I32 is kept in twice its bytes.
const MEMORY: Memory = Memory { bytes: 64 << 10, per_byte: 24 };

/// One tensor of each type.
const HEADER: &str = r#"{
    "initial_noise": {"dtype": "F32", "shape": [1, 2, 4], "data_offsets": [0, 32]},
    "ralu_noise_stage2": {"dtype": "F16", "shape": [2, 2], "data_offsets": [32, 40]},
    "ralu_noise_stage3": {"dtype": "BF16", "shape": [4], "data_offsets": [40, 48]},
    "ralu_selected": {"dtype": "I64", "shape": [2], "data_offsets": [48, 64]},
    "prompt_embeds": {"dtype": "I32", "shape": [], "data_offsets": [64, 68]},
    "__metadata__": {"format": "pt"}
}"#;

/// The first byte says whether the rest is a file, a header that gets its length and some bytes, or changes one.
pub fn check(input: &[u8]) {
    let Some((what, rest)) = input.split_first() else { return };
    let file = match what % 3 {
        0 => rest.to_vec(),
        1 => {
            let Some((zeros, header)) = rest.split_first_chunk::<2>() else { return };
            file(header, usize::from(u16::from_le_bytes(*zeros)) / 16)
        }
        _ => match edited(HEADER, &mut Unstructured::new(rest)) {
            Ok(header) => file(header.as_bytes(), 68),
            Err(_) => return,
        },
    };
    let read = || clean(NamedTensors::read(&file, &NamedTensors::GIVEN));
    let Some(tensors) = bounded(MEMORY, file.len(), read) else { return };
    for (name, tensor) in &tensors.0 {
        clean(tensors.indices(name));
        clean(tensors.numbers(name, tensor.shape()));
        clean(tensors.numbers(name, &[1, 2, 3]));
    }
    let bytes = tensors.to_bytes().expect("what was read can be written");
    let again = NamedTensors::read(&bytes, &NamedTensors::GIVEN).expect("it was just written");
    // By their bytes: zeros of either sign are equal.
    assert_eq!(again.to_bytes().expect("it can be written"), bytes);
}

fn file(header: &[u8], zeros: usize) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header);
    file.resize(file.len() + zeros, 0);
    file
}
