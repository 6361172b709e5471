//! The `config.json` of a Qwen3 language model that is a text encoder.

use serde::Serialize;

use super::Result;
use super::fields::{Fields, quoted};
use crate::checkpoint::source::Source;
use crate::ops::MAX_HEAD_DIM;

/// `Qwen3ForCausalLM` or `Qwen3Model`. Absent fields have the defaults of transformers' `Qwen3Config`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Qwen3Config {
    /// Rows of the token table (151936).
    pub vocab_size: usize,
    /// Width of a token (2560 in Qwen3-4B).
    pub hidden_size: usize,
    /// Width of the gated feed-forward layer (9728).
    pub intermediate_size: usize,
    /// Layers (36).
    pub num_hidden_layers: usize,
    /// Heads of queries (32).
    pub num_attention_heads: usize,
    /// Heads of keys and values; divides `num_attention_heads` (8).
    pub num_key_value_heads: usize,
    /// Numbers per head (128); heads x head_dim need not be `hidden_size`.
    pub head_dim: usize,
    /// Added to the mean square (1e-6).
    pub rms_norm_eps: f64,
    /// Base of the rotations' frequencies (1e6).
    pub rope_theta: f64,
}

impl Qwen3Config {
    /// <https://huggingface.co/Qwen/Qwen3-4B>
    pub const QWEN3_4B: Qwen3Config = Qwen3Config {
        vocab_size: 151_936,
        hidden_size: 2560,
        intermediate_size: 9728,
        num_hidden_layers: 36,
        num_attention_heads: 32,
        num_key_value_heads: 8,
        head_dim: 128,
        rms_norm_eps: 1e-6,
        rope_theta: 1e6,
    };

    /// <https://huggingface.co/Qwen/Qwen3-8B>
    pub const QWEN3_8B: Qwen3Config =
        Qwen3Config { hidden_size: 4096, intermediate_size: 12_288, ..Self::QWEN3_4B };

    /// Width of the queries: heads x head_dim.
    pub fn query_width(&self) -> usize {
        self.num_attention_heads * self.head_dim
    }

    /// Width of the keys, and of the values.
    pub fn key_width(&self) -> usize {
        self.num_key_value_heads * self.head_dim
    }

    /// Reads a text encoder's `config.json`. `least_layers` is how many layers the denoiser needs the hidden states of.
    pub fn load(source: &dyn Source, path: &str, least_layers: usize) -> Result<Self> {
        let fields = Fields::open(source, path)?;
        fields.quantisation_is_read()?;
        check_kind(&fields)?;
        let num_attention_heads = fields.count_or("num_attention_heads", 32)?;
        let default_key_heads =
            if fields.is_null("num_key_value_heads") { num_attention_heads } else { 32 };
        let config = Self {
            vocab_size: fields.count_or("vocab_size", 151_936)?,
            hidden_size: fields.count_or("hidden_size", 4096)?,
            intermediate_size: fields.count_or("intermediate_size", 22_016)?,
            num_hidden_layers: fields.layers_or("num_hidden_layers", 32)?,
            num_attention_heads,
            num_key_value_heads: fields.count_or("num_key_value_heads", default_key_heads)?,
            head_dim: fields.count_or("head_dim", 128)?,
            rms_norm_eps: fields.eps_or("rms_norm_eps", 1e-6)?,
            rope_theta: rope_theta(&fields)?,
        };
        config.check(&fields, least_layers)?;
        Ok(config)
    }

    fn check(&self, fields: &Fields, least_layers: usize) -> Result<()> {
        if self.num_hidden_layers < least_layers {
            let expected =
                format!("at least {least_layers}, as the model reads what that layer gives");
            return Err(fields.wrong("num_hidden_layers", self.num_hidden_layers, &expected));
        }
        fields.width("num_attention_heads x head_dim", self.num_attention_heads, self.head_dim)?;
        if !self.num_attention_heads.is_multiple_of(self.num_key_value_heads) {
            let expected =
                format!("a divisor of num_attention_heads = {}", self.num_attention_heads);
            return Err(fields.wrong("num_key_value_heads", self.num_key_value_heads, &expected));
        }
        if !self.head_dim.is_multiple_of(4) || self.head_dim > MAX_HEAD_DIM {
            let expected = format!("a multiple of 4, at most {MAX_HEAD_DIM}");
            return Err(fields.unsupported("head_dim", self.head_dim, &expected));
        }
        for (field, width) in
            [("hidden_size", self.hidden_size), ("intermediate_size", self.intermediate_size)]
        {
            if !width.is_multiple_of(4) {
                return Err(fields.unsupported(field, width, "multiples of 4"));
            }
        }
        Ok(())
    }
}

/// Rejects other language models, some of which have the same tensors, and what Qwen3 could do but no released one does.
fn check_kind(fields: &Fields) -> Result<()> {
    let kind = fields.string("model_type")?;
    if kind != "qwen3" {
        // Comfy-Org/ComfyUI#14526: Qwen3-VL has the same shapes, and gives other pictures.
        let supported = "qwen3; get the text encoder that belongs to this model";
        return Err(fields.unsupported("model_type", quoted(&kind), supported));
    }
    let act = fields.string_or("hidden_act", "silu")?;
    if act != "silu" {
        return Err(fields.unsupported("hidden_act", quoted(&act), "silu"));
    }
    for field in ["attention_bias", "use_sliding_window"] {
        if fields.flag_or(field, false)? {
            return Err(fields.unsupported(field, true, "false"));
        }
    }
    let types = fields.optional_strings("layer_types", 64)?.unwrap_or_default();
    if let Some(other) = types.iter().find(|kind| *kind != "full_attention") {
        return Err(fields.unsupported("layer_types", quoted(other), "full_attention everywhere"));
    }
    Ok(())
}

/// The base of the rotations' frequencies, at its own place or, as newer versions of transformers write it, inside
/// `rope_parameters`. Scaled rotations are rejected.
fn rope_theta(fields: &Fields) -> Result<f64> {
    for field in ["rope_scaling", "rope_parameters"] {
        let Some(value) = fields.get(field) else { continue };
        let Some(inside) = fields.inside(field)? else {
            return Err(fields.wrong(field, value.get(), "an object, or null"));
        };
        for name in ["rope_type", "type"] {
            let kind = inside.string_or(name, "default")?;
            if kind != "default" {
                let path = format!("{field}.{name}");
                return Err(fields.unsupported(&path, quoted(&kind), "default"));
            }
        }
        if inside.number_or("partial_rotary_factor", 1.0)? != 1.0 {
            let path = format!("{field}.partial_rotary_factor");
            return Err(fields.unsupported(&path, "not 1", "1"));
        }
    }
    let inside = match fields.inside("rope_parameters")? {
        Some(inside) => inside.optional_number("rope_theta")?,
        None => None,
    };
    let theta = match (inside, fields.optional_number("rope_theta")?) {
        (Some(inside), Some(own)) if inside != own => {
            let expected = format!("{inside}, as rope_parameters has it");
            return Err(fields.wrong("rope_theta", own, &expected));
        }
        (inside, own) => inside.or(own).unwrap_or(10_000.0),
    };
    if theta < 1.0 {
        return Err(fields.wrong("rope_theta", theta, "a number, at least 1"));
    }
    Ok(theta)
}
