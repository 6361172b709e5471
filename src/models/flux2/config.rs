//! `transformer/config.json` of FLUX.2.

use serde::Serialize;
use serde_json::Value;

use crate::checkpoint::source::Source;
use crate::models::config::fields::Fields;
use crate::models::config::{Result, TransformerConfig, to_json};
use crate::models::denoiser::Denoiser;
use crate::models::layers::{Loader, TIME_CHANNELS};
use crate::models::rope::{Rope, TextPositions};

use super::network::Flux2;

/// `Flux2Transformer2DModel` without a guidance input. Defaults as in diffusers' `transformer_flux2.py`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Flux2Config {
    /// Numbers per packed image token: 4 x latent channels (128).
    pub in_channels: usize,
    /// Numbers per velocity token; `in_channels` if the file says null.
    pub out_channels: usize,
    /// Double blocks (5 in klein-4B).
    pub num_layers: usize,
    /// Single blocks (20).
    pub num_single_layers: usize,
    /// D, numbers per head (128).
    pub attention_head_dim: usize,
    /// H (24).
    pub num_attention_heads: usize,
    /// Numbers per text token (7680).
    pub joint_attention_dim: usize,
    /// Width of a feed-forward layer (3 x hidden); the file has the ratio.
    pub mlp: usize,
    /// Rotary dimensions per position axis; even, sum D.
    pub axes_dims_rope: Vec<usize>,
    /// Base of the rotary frequencies (2000).
    pub rope_theta: f64,
}

/// The axis of positions on which text tokens are counted.
const TEXT_AXIS: usize = 3;

impl Flux2Config {
    /// Reads a transformer's `config.json`.
    pub fn load(source: &dyn Source, path: &str) -> Result<Self> {
        let fields = Fields::open(source, path)?;
        fields.class("_class_name", "Flux2Transformer2DModel")?;
        fields.quantisation_is_read()?;
        let in_channels = fields.count_or("in_channels", 128)?;
        let attention_head_dim = fields.count_or("attention_head_dim", 128)?;
        let num_attention_heads = fields.count_or("num_attention_heads", 48)?;
        fields.width(
            "num_attention_heads x attention_head_dim",
            num_attention_heads,
            attention_head_dim,
        )?;
        let hidden = num_attention_heads * attention_head_dim;
        let config = Self {
            in_channels,
            out_channels: fields.count_or("out_channels", in_channels)?,
            num_layers: fields.layers_or("num_layers", 8)?,
            num_single_layers: fields.layers_or("num_single_layers", 48)?,
            attention_head_dim,
            num_attention_heads,
            joint_attention_dim: fields.count_or("joint_attention_dim", 15_360)?,
            mlp: mlp_width(&fields, hidden)?,
            axes_dims_rope: fields.counts_or("axes_dims_rope", &[32, 32, 32, 32])?,
            rope_theta: fields.number_or("rope_theta", 2000.0)?,
        };
        config.check(&fields)?;
        Ok(config)
    }

    fn check(&self, fields: &Fields) -> Result<()> {
        let patch_size = fields.count_or("patch_size", 1)?;
        if patch_size != 1 {
            return Err(fields.unsupported("patch_size", patch_size, "1"));
        }
        if fields.flag_or("guidance_embeds", true)? {
            let supported = "false, as FLUX.2 [klein] has; FLUX.2 [dev] is not supported";
            return Err(fields.unsupported("guidance_embeds", true, supported));
        }
        let time = fields.count_or("timestep_guidance_channels", TIME_CHANNELS)?;
        if time != TIME_CHANNELS {
            let supported = TIME_CHANNELS.to_string();
            return Err(fields.unsupported("timestep_guidance_channels", time, &supported));
        }
        let eps = fields.number_or("eps", 1e-6)?;
        if eps != 1e-6 {
            return Err(fields.unsupported("eps", eps, "1e-6"));
        }
        if self.rope_theta < 1.0 {
            return Err(fields.wrong("rope_theta", self.rope_theta, "a number, at least 1"));
        }
        let axes = &self.axes_dims_rope;
        if axes.len() != TEXT_AXIS + 1
            || axes.iter().any(|dim| dim % 2 == 1)
            || axes.iter().sum::<usize>() != self.attention_head_dim
        {
            let expected = format!(
                "4 even numbers whose sum is attention_head_dim = {}",
                self.attention_head_dim
            );
            return Err(fields.wrong("axes_dims_rope", format!("{axes:?}"), &expected));
        }
        Ok(())
    }
}

/// `mlp_ratio` times the width of the network, rounded down as in diffusers.
fn mlp_width(fields: &Fields, hidden: usize) -> Result<usize> {
    let ratio = fields.number_or("mlp_ratio", 3.0)?;
    let width = hidden as f64 * ratio;
    // More than any width that is read elsewhere.
    if !(4.0..=1e6).contains(&width) {
        let expected = format!("a number that gives a width of 4 to 1000000 from {hidden}");
        return Err(fields.wrong("mlp_ratio", ratio, &expected));
    }
    let width = width as usize;
    if !width.is_multiple_of(4) {
        let expected = format!("a number that gives a multiple of 4 from {hidden}, not {width}");
        return Err(fields.wrong("mlp_ratio", ratio, &expected));
    }
    Ok(width)
}

impl TransformerConfig for Flux2Config {
    fn load(&self, loader: &Loader<'_>) -> Box<dyn Denoiser> {
        Box::new(Flux2::load(loader, self))
    }

    fn token_channels(&self) -> usize {
        self.in_channels
    }

    fn hidden(&self) -> usize {
        self.num_attention_heads * self.attention_head_dim
    }

    fn mlp(&self) -> usize {
        self.mlp
    }

    fn head_dim(&self) -> usize {
        self.attention_head_dim
    }

    fn text_dim(&self) -> usize {
        self.joint_attention_dim
    }

    fn pooled_dim(&self) -> Option<usize> {
        None
    }

    fn rope(&self) -> Option<Rope> {
        let (axes, theta) = (self.axes_dims_rope.clone(), self.rope_theta);
        Some(Rope { axes, theta, text: TextPositions::Counted { axis: TEXT_AXIS } })
    }

    /// The modulations are made with the embeddings, whatever is kept of the blocks.
    fn to_json(&self) -> Value {
        to_json(self, "family", super::NAME)
    }
}
