//! Requests as JavaScript writes them: plain objects.

use ralu::pipeline::{RaluChoice, Request, Rng};
use ralu::sampling::cache::CacheSpec;
use ralu::sampling::{Preset, Variant};
use serde::Deserialize;
use wasm_bindgen::JsValue;

/// `GenerateRequest` in `package/ralu.d.ts`, without what JavaScript keeps for itself.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Fields {
    prompt: String,
    negative_prompt: Option<String>,
    width: Option<usize>,
    height: Option<usize>,
    steps: Option<usize>,
    guidance: Option<f64>,
    true_cfg: Option<f64>,
    max_sequence_length: Option<usize>,
    #[serde(default)]
    seed: u64,
    count: Option<usize>,
    #[serde(default)]
    rng: RngField,
    #[serde(default)]
    ralu: RaluField,
    #[serde(default)]
    variant: VariantField,
    cache: Option<String>,
    #[serde(default)]
    stage_pictures: bool,
    #[serde(default)]
    tensors: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RngField {
    #[default]
    Philox,
    Torch,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum VariantField {
    Official,
    #[default]
    Exact,
}

/// A name, or parameters of one's own.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum RaluField {
    Name(String),
    #[serde(rename_all = "camelCase")]
    Custom {
        stage_steps: [usize; 3],
        stage_ends: [f64; 3],
        up_ratio: f64,
        shifts: Option<[f64; 3]>,
        z: Option<f64>,
    },
}

impl Default for RaluField {
    fn default() -> Self {
        RaluField::Name("auto".into())
    }
}

/// Reads an object; says what is wrong with it if it is no request.
pub fn parse(object: &JsValue) -> Result<Request, String> {
    let json = js_sys::JSON::stringify(object).ok().and_then(|json| json.as_string());
    let json = json.ok_or("the request is no plain object")?;
    let fields: Fields = serde_json::from_str(&json)
        .map_err(|error| format!("the request is not valid: {error}"))?;
    let ralu = match fields.ralu {
        RaluField::Name(name) => match name.as_str() {
            "auto" => RaluChoice::Auto,
            "off" => RaluChoice::Off,
            _ => RaluChoice::Preset(name.parse::<Preset>().map_err(|error| error.to_string())?),
        },
        RaluField::Custom { stage_steps, stage_ends, up_ratio, shifts, z } => {
            RaluChoice::Custom { stage_steps, stage_ends, up_ratio, shifts, z }
        }
    };
    let cache = match &fields.cache {
        None => None,
        Some(text) => CacheSpec::parse_option(text).map_err(|error| error.to_string())?,
    };
    Ok(Request {
        prompt: fields.prompt,
        negative_prompt: fields.negative_prompt,
        width: fields.width,
        height: fields.height,
        steps: fields.steps,
        guidance: fields.guidance,
        true_cfg: fields.true_cfg,
        max_sequence_length: fields.max_sequence_length,
        seed: fields.seed,
        count: fields.count,
        rng: match fields.rng {
            RngField::Philox => Rng::Philox,
            RngField::Torch => Rng::Torch,
        },
        ralu,
        variant: match fields.variant {
            VariantField::Official => Variant::Official,
            VariantField::Exact => Variant::Exact,
        },
        cache,
        stage_pictures: fields.stage_pictures,
        collect_tensors: fields.tensors,
        ..Request::default()
    })
}
