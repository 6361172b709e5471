//! `transformer/config.json`: the denoiser.

use serde::Serialize;

use super::Result;
use super::fields::Fields;
use crate::models::source::Source;

/// The denoiser, by family.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "family", rename_all = "snake_case")]
pub enum TransformerConfig {
    /// FLUX.1.
    Flux(FluxConfig),
}

/// `FluxTransformer2DModel`. Defaults as in diffusers' `transformer_flux.py`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FluxConfig {
    /// Numbers per packed image token: 4 x latent channels (64).
    pub in_channels: usize,
    /// Numbers per velocity token; `in_channels` if the file says null.
    pub out_channels: usize,
    /// Double blocks (19).
    pub num_layers: usize,
    /// Single blocks (38).
    pub num_single_layers: usize,
    /// D, numbers per head (128).
    pub attention_head_dim: usize,
    /// H (24).
    pub num_attention_heads: usize,
    /// Numbers per T5 token (4096).
    pub joint_attention_dim: usize,
    /// Numbers of the CLIP vector (768).
    pub pooled_projection_dim: usize,
    /// Whether distilled guidance is an input (dev: yes, schnell: no).
    pub guidance_embeds: bool,
    /// Rotary dimensions per position axis; even, sum D.
    pub axes_dims_rope: Vec<usize>,
}

impl FluxConfig {
    /// Width of a token inside the transformer: heads x head dim (3072).
    pub fn hidden(&self) -> usize {
        self.num_attention_heads * self.attention_head_dim
    }

    /// Width of the feed-forward layers: 4 x hidden.
    pub fn mlp(&self) -> usize {
        4 * self.hidden()
    }

    /// Width of the sinusoidal embedding of timestep and guidance; fixed in the architecture.
    pub const TIME_CHANNELS: usize = 256;

    /// Reads a transformer's `config.json`.
    pub fn load(source: &dyn Source, path: &str) -> Result<Self> {
        let fields = Fields::open(source, path)?;
        fields.class("_class_name", "FluxTransformer2DModel")?;
        let in_channels = fields.count("in_channels")?;
        let config = Self {
            in_channels,
            out_channels: fields.count_or("out_channels", in_channels)?,
            num_layers: fields.layers("num_layers")?,
            num_single_layers: fields.layers("num_single_layers")?,
            attention_head_dim: fields.count("attention_head_dim")?,
            num_attention_heads: fields.count("num_attention_heads")?,
            joint_attention_dim: fields.count("joint_attention_dim")?,
            pooled_projection_dim: fields.count("pooled_projection_dim")?,
            guidance_embeds: fields.flag_or("guidance_embeds", false)?,
            axes_dims_rope: fields.counts_or("axes_dims_rope", &[16, 56, 56])?,
        };
        let patch_size = fields.count_or("patch_size", 1)?;
        if patch_size != 1 {
            return Err(fields.unsupported("patch_size", patch_size, "1"));
        }
        fields.width(
            "num_attention_heads x attention_head_dim",
            config.num_attention_heads,
            config.attention_head_dim,
        )?;
        let axes = &config.axes_dims_rope;
        if axes.len() != 3
            || axes.iter().any(|dim| dim % 2 == 1)
            || axes.iter().sum::<usize>() != config.attention_head_dim
        {
            let expected = format!(
                "3 even numbers whose sum is attention_head_dim = {}",
                config.attention_head_dim
            );
            return Err(fields.wrong("axes_dims_rope", format!("{axes:?}"), &expected));
        }
        Ok(config)
    }
}
