//! `transformer/config.json`: the denoiser.

use serde::Serialize;

use super::Result;
use super::fields::{Fields, quoted};
use crate::checkpoint::source::Source;

/// The denoiser, by family.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "family", rename_all = "snake_case")]
pub enum TransformerConfig {
    /// FLUX.1.
    Flux(FluxConfig),
    /// Stable Diffusion 3 and 3.5.
    Sd3(Sd3Config),
}

impl TransformerConfig {
    /// Numbers of an image token going in: 4 x latent channels.
    pub fn token_channels(&self) -> usize {
        match self {
            TransformerConfig::Flux(flux) => flux.in_channels,
            TransformerConfig::Sd3(sd3) => 4 * sd3.in_channels,
        }
    }

    /// Width of a token inside the transformer.
    pub fn hidden(&self) -> usize {
        match self {
            TransformerConfig::Flux(flux) => flux.hidden(),
            TransformerConfig::Sd3(sd3) => sd3.hidden(),
        }
    }

    /// Width of a token inside an MLP.
    pub fn mlp(&self) -> usize {
        match self {
            TransformerConfig::Flux(flux) => flux.mlp(),
            TransformerConfig::Sd3(sd3) => sd3.mlp(),
        }
    }

    /// Numbers per head.
    pub fn head_dim(&self) -> usize {
        match self {
            TransformerConfig::Flux(flux) => flux.attention_head_dim,
            TransformerConfig::Sd3(sd3) => sd3.attention_head_dim,
        }
    }

    /// Numbers per text token going in.
    pub fn text_dim(&self) -> usize {
        match self {
            TransformerConfig::Flux(flux) => flux.joint_attention_dim,
            TransformerConfig::Sd3(sd3) => sd3.joint_attention_dim,
        }
    }

    /// Numbers of the pooled text vector.
    pub fn pooled_dim(&self) -> usize {
        match self {
            TransformerConfig::Flux(flux) => flux.pooled_projection_dim,
            TransformerConfig::Sd3(sd3) => sd3.pooled_projection_dim,
        }
    }

    /// Whether distilled guidance is an input.
    pub fn has_guidance_input(&self) -> bool {
        match self {
            TransformerConfig::Flux(flux) => flux.guidance_embeds,
            TransformerConfig::Sd3(_) => false,
        }
    }
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
        fields.not_quantised()?;
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
    /// Width of a token inside the transformer: heads x head dim (1536).
    pub fn hidden(&self) -> usize {
        self.num_attention_heads * self.attention_head_dim
    }

    /// Width of the feed-forward layers: 4 x hidden.
    pub fn mlp(&self) -> usize {
        4 * self.hidden()
    }

    /// Side of a patch in latent pixels; fixed in the architecture.
    pub const PATCH: usize = 2;

    /// Reads a transformer's `config.json`.
    pub fn load(source: &dyn Source, path: &str) -> Result<Self> {
        let fields = Fields::open(source, path)?;
        fields.class("_class_name", "SD3Transformer2DModel")?;
        fields.not_quantised()?;
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
