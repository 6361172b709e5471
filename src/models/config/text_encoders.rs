//! The text encoders' `config.json`: CLIP (one in FLUX, two in SD3) and T5, and how long T5's texts may be.

use std::sync::Arc;

use serde::Serialize;

use super::Result;
use super::fields::{Fields, quoted};
use crate::checkpoint::source::Source;
use crate::models::encoders::TextEncoderConfig;
use crate::models::family::{EncoderSlot, TextLength};

/// CLIP's activation function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ClipAct {
    /// `x * sigmoid(1.702 x)`.
    QuickGelu,
    /// Exact (erf) GELU.
    Gelu,
}

/// `CLIPTextModel` or `CLIPTextModelWithProjection`. Absent fields have the defaults of transformers'
/// `CLIPTextConfig`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClipConfig {
    /// Rows of the token table (49408).
    pub vocab_size: usize,
    /// Width of a token (768).
    pub hidden_size: usize,
    /// Width of the feed-forward layer (3072).
    pub intermediate_size: usize,
    /// Blocks (12).
    pub num_hidden_layers: usize,
    /// Heads; divides `hidden_size` (12).
    pub num_attention_heads: usize,
    /// Rows of the position table; also the number of tokens (77).
    pub max_position_embeddings: usize,
    /// Activation between the feed-forward layers.
    pub hidden_act: ClipAct,
    /// Added to the variance (1e-5).
    pub layer_norm_eps: f64,
    /// Token id of the end mark, whose place the pooled vector is taken from: [`ClipConfig::pooled_position`].
    pub eos_token_id: u32,
    /// Width of the projected pooled vector; `None` for a `CLIPTextModel`, which has no projection.
    pub projection_dim: Option<usize>,
}

impl ClipConfig {
    /// Numbers per head.
    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }

    /// Which token's final hidden state is the pooled vector.
    ///
    /// transformers' `CLIPTextTransformer.forward`: with the legacy `eos_token_id == 2` (which the FLUX.1 repositories
    /// have) the first position of the largest id, else the first position equal to `eos_token_id`; 0 if there is
    /// none (that is what `argmax` over zeros gives).
    pub fn pooled_position(&self, ids: &[u32]) -> usize {
        if self.eos_token_id == 2 {
            let largest = ids.iter().copied().max();
            return ids.iter().position(|id| Some(*id) == largest).unwrap_or(0);
        }
        ids.iter().position(|id| *id == self.eos_token_id).unwrap_or(0)
    }

    /// Numbers of the pooled vector.
    pub fn pooled_dim(&self) -> usize {
        self.projection_dim.unwrap_or(self.hidden_size)
    }

    /// Reads a CLIP text encoder's `config.json`. `projected` is whether its class has a projection.
    pub fn load(source: &dyn Source, path: &str, projected: bool) -> Result<Self> {
        let mut fields = Fields::open(source, path)?;
        fields.quantisation_is_read()?;
        // A full CLIP config keeps the text half one level down.
        if let Some(text) = fields.inside("text_config")? {
            fields = text;
        }
        let act = fields.string_or("hidden_act", "quick_gelu")?;
        let config = Self {
            vocab_size: fields.count_or("vocab_size", 49408)?,
            hidden_size: fields.count_or("hidden_size", 512)?,
            intermediate_size: fields.count_or("intermediate_size", 2048)?,
            num_hidden_layers: fields.layers_or("num_hidden_layers", 12)?,
            num_attention_heads: fields.count_or("num_attention_heads", 8)?,
            max_position_embeddings: fields.count_or("max_position_embeddings", 77)?,
            hidden_act: match act.as_str() {
                "quick_gelu" => ClipAct::QuickGelu,
                "gelu" => ClipAct::Gelu,
                _ => {
                    return Err(fields.unsupported("hidden_act", quoted(&act), "quick_gelu, gelu"));
                }
            },
            layer_norm_eps: fields.eps_or("layer_norm_eps", 1e-5)?,
            eos_token_id: fields.id_or("eos_token_id", 49407)?,
            projection_dim: match projected {
                true => Some(fields.count_or("projection_dim", 512)?),
                false => None,
            },
        };
        if !config.hidden_size.is_multiple_of(config.num_attention_heads) {
            let expected =
                format!("a multiple of num_attention_heads = {}", config.num_attention_heads);
            return Err(fields.wrong("hidden_size", config.hidden_size, &expected));
        }
        if config.max_position_embeddings < 3 {
            return Err(fields.wrong(
                "max_position_embeddings",
                config.max_position_embeddings,
                "at least 3 (77 in CLIP)",
            ));
        }
        Ok(config)
    }
}

/// `T5EncoderModel` with gated GELU (T5 v1.1). Absent fields have the defaults of transformers' `T5Config`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct T5Config {
    /// Rows of the token table (32128).
    pub vocab_size: usize,
    /// Width of a token (4096).
    pub d_model: usize,
    /// Numbers per head; heads x d_kv need not be d_model.
    pub d_kv: usize,
    /// Width of the gated feed-forward layer (10240).
    pub d_ff: usize,
    /// Heads (64).
    pub num_heads: usize,
    /// Blocks (24).
    pub num_layers: usize,
    /// Rows of the position bias table; a multiple of 4 (32).
    pub relative_attention_num_buckets: usize,
    /// Distance from which on all share the last bucket (128).
    pub relative_attention_max_distance: usize,
    /// Added to the mean square (1e-6).
    pub layer_norm_epsilon: f64,
}

impl T5Config {
    /// Width of q, k and v: heads x d_kv.
    pub fn inner(&self) -> usize {
        self.num_heads * self.d_kv
    }

    /// Reads a T5 encoder's `config.json`.
    pub fn load(source: &dyn Source, path: &str) -> Result<Self> {
        let fields = Fields::open(source, path)?;
        fields.quantisation_is_read()?;
        let config = Self {
            vocab_size: fields.count_or("vocab_size", 32128)?,
            d_model: fields.count_or("d_model", 512)?,
            d_kv: fields.count_or("d_kv", 64)?,
            d_ff: fields.count_or("d_ff", 2048)?,
            num_heads: fields.count_or("num_heads", 8)?,
            num_layers: fields.layers_or("num_layers", 6)?,
            relative_attention_num_buckets: fields
                .count_or("relative_attention_num_buckets", 32)?,
            relative_attention_max_distance: fields
                .count_or("relative_attention_max_distance", 128)?,
            layer_norm_epsilon: fields.eps_or("layer_norm_epsilon", 1e-6)?,
        };
        // transformers derives the activation from feed_forward_proj: "gated-gelu" always means gelu_new (the tanh
        // form), whatever dense_act_fn says; the default "relu" is T5 v1.0.
        let proj = fields.string_or("feed_forward_proj", "relu")?;
        if proj != "gated-gelu" && proj != "gated-gelu_new" {
            return Err(fields.unsupported(
                "feed_forward_proj",
                quoted(&proj),
                "gated-gelu (T5 v1.1, as FLUX has)",
            ));
        }
        fields.width("num_heads x d_kv", config.num_heads, config.d_kv)?;
        let buckets = config.relative_attention_num_buckets;
        if !buckets.is_multiple_of(4) {
            return Err(fields.wrong("relative_attention_num_buckets", buckets, "a multiple of 4"));
        }
        if config.relative_attention_max_distance <= buckets / 4 {
            let expected =
                format!("more than a quarter of relative_attention_num_buckets = {buckets}");
            return Err(fields.wrong(
                "relative_attention_max_distance",
                config.relative_attention_max_distance,
                &expected,
            ));
        }
        Ok(config)
    }
}

/// `model_max_length` in a tokenizer's `tokenizer_config.json`. transformers writes about 1e30 for "no limit".
pub(super) fn model_max_length(source: &dyn Source, folder: &str) -> Result<Option<usize>> {
    let path = format!("{folder}/tokenizer_config.json");
    match Fields::open_if_there(source, &path)? {
        None => Ok(None),
        Some(fields) => max_length_in(&fields).map(|found| found.map(|(_, length)| length)),
    }
}

/// The field that says how many tokens a text may have, and how many.
fn max_length_in(fields: &Fields) -> Result<Option<(&'static str, usize)>> {
    for field in ["model_max_length", "max_len"] {
        match fields.optional_number(field)? {
            Some(length) if length >= NO_LIMIT => return Ok(None),
            Some(length) if length >= 2.0 && length.fract() == 0.0 => {
                return Ok(Some((field, length as usize)));
            }
            Some(length) => return Err(fields.wrong(field, length, "a whole number, at least 2")),
            None => {}
        }
    }
    Ok(None)
}

/// From here on, a tokenizer's length means that there is no limit.
const NO_LIMIT: f64 = 1e6;

/// Tokens that the encoders of fixed length read: the length that their tokenizers say, else the number of places in
/// the tables of positions; `None` if there are no such encoders. Those that say it must agree, as diffusers takes the
/// first one's for all.
pub(super) fn fixed_length(
    source: &dyn Source,
    encoders: &[(&EncoderSlot, Arc<dyn TextEncoderConfig>)],
) -> Result<Option<usize>> {
    let encoders = || encoders.iter().filter(|(slot, _)| slot.length == TextLength::Fixed);
    // The narrowest table, of those that all read the same number of tokens.
    let narrowest = encoders()
        .filter_map(|(slot, config)| Some((slot.folder, config.max_positions()?)))
        .min_by_key(|(_, places)| *places);
    let Some((narrowest, places)) = narrowest else { return Ok(None) };
    let mut first: Option<(String, usize)> = None;
    for (slot, _) in encoders() {
        let path = format!("{}/tokenizer_config.json", slot.tokenizer);
        let Some(fields) = Fields::open_if_there(source, &path)? else { continue };
        let Some((field, length)) = max_length_in(&fields)? else { continue };
        if length > places {
            let expected = format!(
                "at most {places}, the number of places that {narrowest}/config.json has (max_position_embeddings)"
            );
            return Err(fields.wrong(field, length, &expected));
        }
        match &first {
            Some((path, other)) if *other != length => {
                let expected = format!("{other}, as {path} has it");
                return Err(fields.wrong(field, length, &expected));
            }
            Some(_) => {}
            None => first = Some((path, length)),
        }
    }
    Ok(Some(first.map_or(places, |(_, length)| length)))
}
