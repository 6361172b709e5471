//! `transformer/config.json` of FLUX.1.

use serde::Serialize;
use serde_json::Value;

use crate::checkpoint::source::Source;
use crate::models::config::fields::Fields;
use crate::models::config::{Result, TransformerConfig, to_json};
use crate::models::denoiser::Denoiser;
use crate::models::layers::Loader;
use crate::models::rope::{Rope, TextPositions};

use super::network::Flux;

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
    /// Reads a transformer's `config.json`.
    pub fn load(source: &dyn Source, path: &str) -> Result<Self> {
        let fields = Fields::open(source, path)?;
        fields.class("_class_name", "FluxTransformer2DModel")?;
        fields.quantisation_is_read()?;
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

/// Base of the rotary frequencies.
const ROPE_THETA: f64 = 10_000.0;

impl TransformerConfig for FluxConfig {
    fn load(&self, loader: &Loader<'_>) -> Box<dyn Denoiser> {
        Box::new(Flux::load(loader, self))
    }

    fn token_channels(&self) -> usize {
        self.in_channels
    }

    fn hidden(&self) -> usize {
        self.num_attention_heads * self.attention_head_dim
    }

    fn mlp(&self) -> usize {
        4 * self.hidden()
    }

    fn head_dim(&self) -> usize {
        self.attention_head_dim
    }

    fn text_dim(&self) -> usize {
        self.joint_attention_dim
    }

    fn pooled_dim(&self) -> Option<usize> {
        Some(self.pooled_projection_dim)
    }

    fn has_guidance_input(&self) -> bool {
        self.guidance_embeds
    }

    fn rope(&self) -> Option<Rope> {
        let axes = self.axes_dims_rope.clone();
        Some(Rope { axes, theta: ROPE_THETA, text: TextPositions::Origin })
    }

    fn to_json(&self) -> Value {
        to_json(self, "family", super::NAME)
    }
}
