//! Safetensors files: fp8 with scales as ComfyUI has them, NF4 as bitsandbytes has it.
//! <https://huggingface.co/docs/safetensors#format>

use std::io::Write;

use serde_json::{Map, Value, json};

use super::{Export, OutTensor, Result, Rows, Stored, Weights};
use crate::checkpoint::dtype::nf4::{BLOCK_NUMBERS, LEVELS};
use crate::checkpoint::quantise::QuantFormat;

/// A tensor in the file.
struct Entry {
    name: String,
    dtype: &'static str,
    shape: Vec<u64>,
    bytes: u64,
}

pub(super) fn write(
    export: &Export,
    weights: &Weights,
    out: &mut dyn Write,
    progress: &mut dyn FnMut(u64) -> std::io::Result<()>,
) -> Result<()> {
    out.write_all(&header(export))?;
    let mut rows = Rows { weights, out, progress };
    for tensor in &export.tensors {
        let scales = rows.write(tensor)?;
        for value in scales.iter().chain(levels(tensor)) {
            rows.out.write_all(&value.to_le_bytes())?;
        }
    }
    for text in export.tensors.iter().filter_map(description) {
        rows.out.write_all(text.1.as_bytes())?;
    }
    Ok(())
}

/// Length and JSON of the header, padded to a multiple of 8 bytes.
fn header(export: &Export) -> Vec<u8> {
    // Descriptions come last, as they have any length.
    let texts = export.tensors.iter().filter_map(description).map(|(name, text)| {
        let bytes = text.len() as u64;
        Entry { name, dtype: "U8", shape: vec![bytes], bytes }
    });
    let mut offset = 0;
    let entries = export.tensors.iter().flat_map(entries).chain(texts).map(|entry| {
        let end = offset + entry.bytes;
        let value =
            json!({"dtype": entry.dtype, "shape": entry.shape, "data_offsets": [offset, end]});
        offset = end;
        (entry.name, value)
    });
    let mut text = Value::Object(entries.collect::<Map<_, _>>()).to_string();
    text.push_str(&" ".repeat(text.len().next_multiple_of(8) - text.len()));
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

/// What is written for a tensor before the descriptions, in order.
fn entries(tensor: &OutTensor) -> Vec<Entry> {
    let (name, bytes) = (tensor.name.clone(), tensor.n_bytes());
    let shape: Vec<u64> = tensor.shape.iter().map(|side| *side as u64).collect();
    let floats = |name: String, shape: &[u64]| {
        let bytes = 4 * shape.iter().product::<u64>();
        Entry { name, dtype: "F32", shape: shape.to_vec(), bytes }
    };
    match tensor.stored {
        Stored::Quantised(QuantFormat::Nf4) => vec![
            Entry { name: name.clone(), dtype: "U8", shape: vec![bytes, 1], bytes },
            floats(format!("{name}.absmax"), &[tensor.n_elements() / BLOCK_NUMBERS]),
            floats(format!("{name}.quant_map"), &[LEVELS.len() as u64]),
        ],
        Stored::Quantised(_) => vec![
            Entry { name: name.clone(), dtype: tensor.dtype().name, shape, bytes },
            floats(format!("{name}_scale"), &[]),
        ],
        Stored::As(dtype) => vec![Entry { name, dtype: dtype.name, shape, bytes }],
    }
}

/// The numbers of NF4's codes, which follow the scales.
fn levels(tensor: &OutTensor) -> &'static [f32] {
    match tensor.stored {
        Stored::Quantised(QuantFormat::Nf4) => &LEVELS,
        _ => &[],
    }
}

/// The tensor of bytes that describes a quantised one: its name and its JSON.
fn description(tensor: &OutTensor) -> Option<(String, String)> {
    let name = &tensor.name;
    match tensor.stored {
        Stored::Quantised(QuantFormat::Nf4) => Some((
            format!("{name}.quant_state.bitsandbytes__nf4"),
            json!({"quant_type": "nf4", "blocksize": BLOCK_NUMBERS, "dtype": "bfloat16", "shape": tensor.shape})
                .to_string(),
        )),
        Stored::Quantised(_) => {
            let layer = name.strip_suffix("weight").unwrap_or(name);
            Some((format!("{layer}comfy_quant"), json!({"format": "float8_e4m3fn"}).to_string()))
        }
        Stored::As(_) => None,
    }
}
