//! `vae/config.json`: latent to picture.

use serde::Serialize;

use super::Result;
use super::fields::{Fields, quoted};
use crate::checkpoint::source::Source;

/// `AutoencoderKL`, or `AutoencoderKLFlux2`, which has a batch norm in place of the factors; only the decoder's side is read.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VaeConfig {
    /// Channels of the decoder per resolution, from the picture's side (128, 256, 512, 512).
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
    /// Added to the variances of the batch norm of packed latents, which is undone before decoding (1e-4); `None` if there
    /// is none, and the factors count.
    pub batch_norm_eps: Option<f64>,
    /// Whether a 1x1 convolution comes before the decoder.
    pub use_post_quant_conv: bool,
    /// Whether the middle block has attention.
    pub mid_block_add_attention: bool,
}

/// The class whose latents have a batch norm.
const WITH_BATCH_NORM: &str = "AutoencoderKLFlux2";

/// The largest factor of a latent: real ones are near 1, and beyond this the decoder's f32 numbers overflow.
const MAX_FACTOR: f64 = 1e6;

impl VaeConfig {
    /// Pixels per latent pixel, in each direction (8).
    pub fn scale(&self) -> usize {
        1 << (self.block_out_channels.len() - 1)
    }

    /// Reads the `config.json` of a VAE of the class `class`.
    pub fn load(source: &dyn Source, path: &str, class: &str) -> Result<Self> {
        let fields = Fields::open(source, path)?;
        fields.class("_class_name", class)?;
        fields.quantisation_is_read()?;
        let has_batch_norm = class == WITH_BATCH_NORM;
        let config = Self {
            block_out_channels: decoder_channels(&fields)?,
            layers_per_block: fields.layers("layers_per_block")?,
            latent_channels: fields.count("latent_channels")?,
            out_channels: fields.count_or("out_channels", 3)?,
            norm_num_groups: fields.count_or("norm_num_groups", 32)?,
            scaling_factor: match has_batch_norm {
                true => 1.0,
                false => fields.number("scaling_factor")?,
            },
            shift_factor: match has_batch_norm {
                true => 0.0,
                false => fields.number_or("shift_factor", 0.0)?,
            },
            batch_norm_eps: match has_batch_norm {
                true => Some(fields.eps_or("batch_norm_eps", 1e-4)?),
                false => None,
            },
            use_post_quant_conv: fields.flag_or("use_post_quant_conv", true)?,
            mid_block_add_attention: fields.flag_or("mid_block_add_attention", true)?,
        };
        if has_batch_norm {
            let patch = fields.counts_or("patch_size", &[2, 2])?;
            if patch != [2, 2] {
                return Err(fields.unsupported("patch_size", format!("{patch:?}"), "[2, 2]"));
            }
        }
        let act = fields.string_or("act_fn", "silu")?;
        if act != "silu" && act != "swish" {
            return Err(fields.unsupported("act_fn", quoted(&act), "silu"));
        }
        if let Some(blocks) = fields.optional_strings("up_block_types", 64)? {
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

/// The decoder's channels: its own where they differ from the encoder's, of which there are as many.
fn decoder_channels(fields: &Fields) -> Result<Vec<usize>> {
    let field = "decoder_block_out_channels";
    let both = fields.counts("block_out_channels")?;
    let Some(own) = fields.optional_counts(field)? else { return Ok(both) };
    if own.len() != both.len() {
        let expected = format!("{} levels, as block_out_channels has", both.len());
        return Err(fields.wrong(field, format!("{} levels", own.len()), &expected));
    }
    Ok(own)
}
