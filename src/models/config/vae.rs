//! `vae/config.json`: latent to picture.

use serde::Serialize;

use super::Result;
use super::fields::{Fields, quoted};
use crate::checkpoint::source::Source;

/// `AutoencoderKL`; only the decoder's side is read.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VaeConfig {
    /// Channels per resolution, from the picture's side (128, 256, 512, 512).
    pub block_out_channels: Vec<usize>,
    /// Residual blocks per encoder level; the decoder has one more.
    pub layers_per_block: usize,
    /// Channels of the latent (16).
    pub latent_channels: usize,
    /// Channels of the picture; 3.
    pub out_channels: usize,
    /// Groups of every group norm; divides all channels (32).
    pub norm_num_groups: usize,
    /// `z = x / scaling_factor + shift_factor` before decoding.
    pub scaling_factor: f64,
    /// 0 if the file says null.
    pub shift_factor: f64,
    /// Whether a 1x1 convolution comes before the decoder.
    pub use_post_quant_conv: bool,
    /// Whether the middle block has attention.
    pub mid_block_add_attention: bool,
}

/// The largest factor of a latent: real ones are near 1, and beyond this the decoder's f32 numbers overflow.
const MAX_FACTOR: f64 = 1e6;

impl VaeConfig {
    /// Pixels per latent pixel, in each direction (8).
    pub fn scale(&self) -> usize {
        1 << (self.block_out_channels.len() - 1)
    }

    /// Reads a VAE's `config.json`.
    pub fn load(source: &dyn Source, path: &str) -> Result<Self> {
        let fields = Fields::open(source, path)?;
        fields.class("_class_name", "AutoencoderKL")?;
        fields.not_quantised()?;
        let config = Self {
            block_out_channels: fields.counts("block_out_channels")?,
            layers_per_block: fields.layers("layers_per_block")?,
            latent_channels: fields.count("latent_channels")?,
            out_channels: fields.count_or("out_channels", 3)?,
            norm_num_groups: fields.count_or("norm_num_groups", 32)?,
            scaling_factor: fields.number("scaling_factor")?,
            shift_factor: fields.number_or("shift_factor", 0.0)?,
            use_post_quant_conv: fields.flag_or("use_post_quant_conv", true)?,
            mid_block_add_attention: fields.flag_or("mid_block_add_attention", true)?,
        };
        let act = fields.string_or("act_fn", "silu")?;
        if act != "silu" && act != "swish" {
            return Err(fields.unsupported("act_fn", quoted(&act), "silu"));
        }
        if let Some(blocks) = fields.optional_strings("up_block_types")? {
            if let Some(other) = blocks.iter().find(|block| *block != "UpDecoderBlock2D") {
                return Err(fields.unsupported(
                    "up_block_types",
                    quoted(other),
                    "UpDecoderBlock2D",
                ));
            }
            if blocks.len() != config.block_out_channels.len() {
                let expected = format!(
                    "{} blocks, as block_out_channels has",
                    config.block_out_channels.len()
                );
                return Err(fields.wrong(
                    "up_block_types",
                    format!("{} blocks", blocks.len()),
                    &expected,
                ));
            }
        }
        let levels = config.block_out_channels.len();
        if !(1..=8).contains(&levels) {
            return Err(fields.wrong(
                "block_out_channels",
                format!("{levels} levels"),
                "1 to 8 levels",
            ));
        }
        if let Some(channels) =
            config.block_out_channels.iter().find(|c| *c % config.norm_num_groups != 0)
        {
            let expected = format!("multiples of norm_num_groups = {}", config.norm_num_groups);
            return Err(fields.wrong("block_out_channels", channels, &expected));
        }
        if config.out_channels != 3 {
            return Err(fields.unsupported(
                "out_channels",
                config.out_channels,
                "3 (red, green, blue)",
            ));
        }
        for (field, factor) in
            [("scaling_factor", config.scaling_factor), ("shift_factor", config.shift_factor)]
        {
            let least = if field == "scaling_factor" { 1.0 / MAX_FACTOR } else { 0.0 };
            if !(least..=MAX_FACTOR).contains(&factor.abs()) {
                let expected = format!("a number of magnitude {least} to {MAX_FACTOR}");
                return Err(fields.wrong(field, factor, &expected));
            }
        }
        Ok(config)
    }
}
