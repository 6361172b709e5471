//! `transformer/config.json` of Stable Diffusion 3 and 3.5.

use serde::Serialize;
use serde_json::Value;

use crate::checkpoint::source::Source;
use crate::models::config::fields::{Fields, quoted};
use crate::models::config::{Result, TransformerConfig, to_json};
use crate::models::denoiser::Denoiser;
use crate::models::layers::Loader;
use crate::models::rope::Rope;

use super::network::Sd3;

/// `SD3Transformer2DModel`. Defaults as in diffusers' `transformer_sd3.py`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Sd3Config {
    /// Latent channels (16); a token has 2 x 2 of each.
    pub in_channels: usize,
    /// Latent channels of the velocity; `in_channels` if the file says null.
    pub out_channels: usize,
    /// Blocks (24; 38 in SD3.5-large).
    pub num_layers: usize,
    /// D, numbers per head (64).
    pub attention_head_dim: usize,
    /// H (24; 38 in SD3.5-large).
    pub num_attention_heads: usize,
    /// Numbers per text token (4096).
    pub joint_attention_dim: usize,
    /// Numbers of the pooled text vector (2048).
    pub pooled_projection_dim: usize,
    /// Side P of the table of positions (192; 384 in SD3.5-medium).
    pub pos_embed_max_size: usize,
    /// Latent pixels of the picture that the table's coordinates are scaled to (128).
    pub sample_size: usize,
    /// Whether queries and keys have an RMS norm (3.5 does, 3 does not).
    pub qk_norm: bool,
    /// Blocks with a second, image-only self-attention (SD3.5-medium: 0 to 12). Ascending.
    pub dual_attention_layers: Vec<usize>,
}

impl Sd3Config {
    /// Side of a patch in latent pixels; fixed in the architecture.
    pub const PATCH: usize = 2;

    /// Reads a transformer's `config.json`.
    pub fn load(source: &dyn Source, path: &str) -> Result<Self> {
        let fields = Fields::open(source, path)?;
        fields.class("_class_name", "SD3Transformer2DModel")?;
        fields.quantisation_is_read()?;
        let in_channels = fields.count_or("in_channels", 16)?;
        let num_layers = fields.layers_or("num_layers", 18)?;
        let qk_norm = match fields.optional_string("qk_norm")?.as_deref() {
            None => false,
            Some("rms_norm") => true,
            Some(other) => {
                return Err(fields.unsupported("qk_norm", quoted(other), "null, \"rms_norm\""));
            }
        };
        let mut dual_attention_layers = fields.indices("dual_attention_layers")?;
        dual_attention_layers.sort_unstable();
        dual_attention_layers.dedup();
        let config = Self {
            in_channels,
            out_channels: fields.count_or("out_channels", in_channels)?,
            num_layers,
            attention_head_dim: fields.count_or("attention_head_dim", 64)?,
            num_attention_heads: fields.count_or("num_attention_heads", 18)?,
            joint_attention_dim: fields.count_or("joint_attention_dim", 4096)?,
            pooled_projection_dim: fields.count_or("pooled_projection_dim", 2048)?,
            pos_embed_max_size: fields.count_or("pos_embed_max_size", 96)?,
            sample_size: fields.count_or("sample_size", 128)?,
            qk_norm,
            dual_attention_layers,
        };
        let patch_size = fields.count_or("patch_size", Self::PATCH)?;
        if patch_size != Self::PATCH {
            return Err(fields.unsupported("patch_size", patch_size, "2"));
        }
        fields.width(
            "num_attention_heads x attention_head_dim",
            config.num_attention_heads,
            config.attention_head_dim,
        )?;
        let hidden = config.hidden();
        let caption = fields.count_or("caption_projection_dim", hidden)?;
        if caption != hidden {
            let expected = format!("num_attention_heads x attention_head_dim = {hidden}");
            return Err(fields.wrong("caption_projection_dim", caption, &expected));
        }
        if !hidden.is_multiple_of(4) {
            let expected = "a multiple of 4: a position is two sines and two cosines";
            return Err(fields.wrong("num_attention_heads x attention_head_dim", hidden, expected));
        }
        if let Some(layer) = config.dual_attention_layers.iter().find(|l| **l >= num_layers) {
            let expected = format!("layers from 0 to {}", num_layers - 1);
            return Err(fields.wrong("dual_attention_layers", layer, &expected));
        }
        Ok(config)
    }
}

impl TransformerConfig for Sd3Config {
    fn load(&self, loader: &Loader<'_>) -> Box<dyn Denoiser> {
        Box::new(Sd3::load(loader, self))
    }

    fn token_channels(&self) -> usize {
        Self::PATCH * Self::PATCH * self.in_channels
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

    fn rope(&self) -> Option<Rope> {
        None
    }

    fn positions_per_side(&self) -> Option<usize> {
        Some(self.pos_embed_max_size)
    }

    fn to_json(&self) -> Value {
        to_json(self, "family", super::NAME)
    }
}
