//! GGUF files, version 3. <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>

use std::io::Write;

use super::{Export, Result, Rows, Stored, Weights};
use crate::checkpoint::quantise::QuantFormat;

/// Where tensors begin: at multiples of this.
const ALIGNMENT: u64 = 32;

/// Types of metadata.
const UINT32: u32 = 4;
const STRING: u32 = 8;

pub(super) fn write(
    export: &Export,
    weights: &Weights,
    out: &mut dyn Write,
    progress: &mut dyn FnMut(u64) -> std::io::Result<()>,
) -> Result<()> {
    out.write_all(&header(export))?;
    let mut rows = Rows { weights, out, progress };
    for tensor in &export.tensors {
        rows.write(tensor)?;
        let padding = tensor.n_bytes().next_multiple_of(ALIGNMENT) - tensor.n_bytes();
        rows.out.write_all(&[0; ALIGNMENT as usize][..padding as usize])?;
    }
    Ok(())
}

/// Everything before the first tensor's numbers.
fn header(export: &Export) -> Vec<u8> {
    let mut out = b"GGUF".to_vec();
    out.extend(3u32.to_le_bytes());
    out.extend((export.tensors.len() as u64).to_le_bytes());
    let file_type = file_type(export);
    let n_entries = 1 + u64::from(export.architecture.is_some()) + u64::from(file_type.is_some());
    out.extend(n_entries.to_le_bytes());
    if let Some(architecture) = &export.architecture {
        string(&mut out, "general.architecture");
        out.extend(STRING.to_le_bytes());
        string(&mut out, architecture);
    }
    let numbers = file_type
        .map(|kind| ("general.file_type", kind))
        .into_iter()
        .chain([("general.quantization_version", 2)]);
    for (name, value) in numbers {
        string(&mut out, name);
        out.extend(UINT32.to_le_bytes());
        out.extend(value.to_le_bytes());
    }
    let mut offset = 0u64;
    for tensor in &export.tensors {
        string(&mut out, &tensor.name);
        // The fastest dimension first; a scalar is a vector of one.
        let sides = tensor.shape.iter().rev().map(|side| *side as u64);
        let sides: Vec<u64> = if tensor.shape.is_empty() { vec![1] } else { sides.collect() };
        out.extend((sides.len() as u32).to_le_bytes());
        sides.iter().for_each(|side| out.extend(side.to_le_bytes()));
        out.extend(tensor.dtype().ggml.unwrap_or(0).to_le_bytes());
        out.extend(offset.to_le_bytes());
        offset += tensor.n_bytes().next_multiple_of(ALIGNMENT);
    }
    out.resize(out.len().next_multiple_of(ALIGNMENT as usize), 0);
    out
}

fn string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

/// llama.cpp's number for files whose matrices are mostly of a format; none if nothing is quantised.
fn file_type(export: &Export) -> Option<u32> {
    let count = |format: QuantFormat| {
        export.tensors.iter().filter(|tensor| tensor.stored == Stored::Quantised(format)).count()
    };
    let most = QuantFormat::ALL.into_iter().max_by_key(|format| count(*format))?;
    let kind = match most {
        QuantFormat::Q4_0 => 2,
        QuantFormat::Q8_0 => 7,
        QuantFormat::Q5_0 => 8,
        QuantFormat::Q2K => 10,
        QuantFormat::Q3K => 11,
        QuantFormat::Q4K => 14,
        QuantFormat::Q5K => 16,
        QuantFormat::Q6K => 18,
        QuantFormat::Fp8 | QuantFormat::Nf4 => return None,
    };
    (count(most) > 0).then_some(kind)
}
