//! What checkpoints say of the formats of their layers, and the signs of formats that are not read.

use serde_json::value::RawValue;

use super::super::{TensorInfo, Weights};
use crate::checkpoint::json;

/// More bytes of JSON for one layer than this are an attack or a damaged file.
pub(super) const MAX_JSON_BYTES: u64 = 1 << 16;

/// A layer, and the format that the metadata declares for it.
pub type DeclaredLayer = (String, String);

/// The layers and formats of `_quantization_metadata` in a header's `__metadata__`: ComfyUI writes there
/// `{"layers": {"LAYER": {"format": "float8_e4m3fn"}}}`. `Err` is a reason.
pub fn declared_layers(metadata: &RawValue) -> Result<Vec<DeclaredLayer>, String> {
    const FIELD: &str = "_quantization_metadata";
    // Other metadata are anyone's.
    let Ok(fields) = json::fields(metadata.get(), |name| name == FIELD) else { return Ok(vec![]) };
    let Some(text) = fields.get(FIELD) else { return Ok(vec![]) };
    let wrong = |what: &str| format!("its {FIELD} {what}");
    let text: String =
        json::value(text).ok_or_else(|| wrong("is no text that holds JSON, as it should be"))?;
    let damaged = |error: String| wrong(&format!("is not the JSON it should be: {error}"));
    let fields = json::fields(&text, |name| name == "layers").map_err(damaged)?;
    let Some(layers) = fields.get("layers") else {
        return Err(wrong("has no \"layers\""));
    };
    let layers = json::fields(layers.get(), |_| true).map_err(damaged)?;
    let format = |(layer, raw): (String, &RawValue)| match format_of(raw.get()) {
        Ok(format) => Ok((layer, format)),
        Err(reason) => {
            let layer: String = layer.chars().take(200).collect();
            Err(wrong(&format!("says of {layer}: {reason}")))
        }
    };
    layers.into_iter().map(format).collect()
}

/// The format in ComfyUI's description of a layer: `{"format": "float8_e4m3fn"}`. `Err` is a reason.
pub(super) fn format_of(text: &str) -> Result<String, String> {
    let fields = json::fields(text, |name| name == "format" || name.starts_with("convrot"))
        .map_err(|error| format!("not the JSON it should be: {error}"))?;
    let format = fields.get("format").and_then(|raw| json::value::<String>(raw));
    let Some(format) = format else { return Err("no \"format\", which should be a text".into()) };
    // Weights that were turned by a Hadamard matrix.
    let rotated =
        |(name, raw): (&String, &&RawValue)| name.starts_with("convrot") && raw.get() != "false";
    Ok(match fields.iter().any(rotated) {
        true => format!("{format} with convrot"),
        false => format,
    })
}

/// The dtype, as safetensors calls it, of one of ComfyUI's formats that is read.
pub(super) fn dtype_of(format: &str) -> Option<&'static str> {
    match format {
        "float8_e4m3fn" => Some("F8_E4M3"),
        "float8_e5m2" => Some("F8_E5M2"),
        _ => None,
    }
}

/// What shows that weights are quantised in a way that is not read: the type of a weight, or a tensor that only such
/// weights have. Gives one of the tensors, and what is said of it.
pub fn foreign(weights: &Weights) -> Option<(&TensorInfo, String)> {
    /// Ends of names, and whose they are. The first that is there counts: AWQ's and GPTQ's are alike.
    const NAMES: [(&str, &str); 10] = [
        (".wscales", "SVDQuant of nunchaku"),
        (".proj_down", "SVDQuant of nunchaku"),
        (".smooth_factor", "SVDQuant of nunchaku"),
        (".SCB", "int8 of bitsandbytes"),
        (".scb", "int8 of bitsandbytes"),
        (".qweight", "GPTQ or AWQ"),
        (".qzeros", "GPTQ or AWQ"),
        (".weight_packed", "compressed-tensors"),
        (".absmax", "bitsandbytes"),
        (".quant_map", "bitsandbytes"),
    ];
    /// Types of safetensors that are no quantised weights.
    const INTEGERS: [&str; 7] = ["BOOL", "I16", "I32", "I64", "U16", "U32", "U64"];
    let shown = |info: &TensorInfo| info.name.chars().take(200).collect::<String>();
    let quantised = |info: &&TensorInfo| {
        let dtype = info.dtype.name();
        let is_weight = &*info.name == "weight" || info.name.ends_with(".weight");
        // Those of GGUF files have an error of their own, which names the type.
        let is_other = INTEGERS.contains(&dtype) || dtype.starts_with("GGML");
        is_weight && info.dtype.known().is_none() && !is_other
    };
    if let Some(info) = weights.iter().find(quantised) {
        let dtype = info.dtype.name();
        let same = |other: &&TensorInfo| quantised(other) && other.dtype == info.dtype;
        let sign = match weights.iter().filter(same).count() {
            1 => format!("the tensor {} has type {dtype}", shown(info)),
            n => format!("{n} tensors have type {dtype}, the first is {}", shown(info)),
        };
        return Some((info, sign));
    }
    NAMES.iter().find_map(|(end, whose)| {
        let info = weights.iter().find(|info| info.name.ends_with(end))?;
        Some((info, format!("{whose}: the tensor {} is there", shown(info))))
    })
}
