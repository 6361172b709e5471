//! What a model costs: floating point operations (a multiply and an add count 2) and parameters, from its
//! configuration alone.
//!
//! Only matrix products and convolutions are counted; norms, activations and rotations are well below one per cent.
//! Linear layers and attention (`Q K^T` and `P V`) are kept apart in [`Flops`], because papers count the former only.
//!
//! ```
//! use ralu::models::{builtin, cost};
//! let config = builtin::get("flux.1-dev").unwrap();
//! // 1024 x 1024 pixels are 4096 image tokens; 59.5 TFLOP linear, 74.4 with attention.
//! let step = cost::step(&config, 4096, 512);
//! assert!((step.linear / 1e12 - 59.5).abs() < 0.1);
//! assert!((step.total() / 1e12 - 74.4).abs() < 0.1);
//! ```

use std::iter::Sum;
use std::ops::{Add, AddAssign, Mul};

use serde::Serialize;

use super::config::{
    ClipConfig, FluxConfig, ModelConfig, Sd3Config, T5Config, TransformerConfig, VaeConfig,
};

/// Floating point operations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Flops {
    /// Linear layers and convolutions.
    pub linear: f64,
    /// Scores and weighted sums of attention.
    pub attention: f64,
}

impl Flops {
    /// Both parts.
    pub fn total(self) -> f64 {
        self.linear + self.attention
    }

    /// A `[n, k] x [k, m]` product for each of `n` tokens.
    fn dense(n: usize, k: usize, m: usize) -> Self {
        Self { linear: 2.0 * n as f64 * k as f64 * m as f64, attention: 0.0 }
    }

    /// Self-attention over `n` tokens, `width` = heads x head dim.
    fn attention(n: usize, width: usize) -> Self {
        Self { linear: 0.0, attention: 4.0 * width as f64 * (n as f64) * (n as f64) }
    }
}

impl Add for Flops {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { linear: self.linear + other.linear, attention: self.attention + other.attention }
    }
}

impl AddAssign for Flops {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Mul<f64> for Flops {
    type Output = Self;

    fn mul(self, times: f64) -> Self {
        Self { linear: self.linear * times, attention: self.attention * times }
    }
}

impl Sum for Flops {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), Add::add)
    }
}

/// One evaluation of the denoiser: `img` image tokens, `txt` text tokens, batch 1.
pub fn step(config: &ModelConfig, img: usize, txt: usize) -> Flops {
    match &config.transformer {
        TransformerConfig::Flux(flux) => flux_step(flux, img, txt),
        TransformerConfig::Sd3(sd3) => sd3_step(sd3, img, txt),
    }
}

/// What is left of [`step`] when a temporal cache stands in for all blocks: embeddings and the last layer. With
/// `modulated`, the blocks' modulations too, for caches that keep outputs from before the gates.
pub fn reused_step(config: &ModelConfig, img: usize, txt: usize, modulated: bool) -> Flops {
    let (ends, modulations) = match &config.transformer {
        TransformerConfig::Flux(flux) => (flux_ends(flux, img, txt), flux_modulations(flux)),
        TransformerConfig::Sd3(sd3) => (sd3_ends(sd3, img, txt), sd3_modulations(sd3)),
    };
    if modulated { ends + modulations } else { ends }
}

/// One evaluation of a FLUX transformer: `img` image tokens, `txt` text tokens, batch 1.
pub fn flux_step(config: &FluxConfig, img: usize, txt: usize) -> Flops {
    let (d, mlp, n) = (config.hidden(), config.mlp(), img + txt);
    // Per token: q, k, v and the output (4 d^2), the feed-forward pair (2 d mlp). A single block fuses the output
    // and the second feed-forward layer, at the same cost.
    let block = Flops::dense(n, d, 4 * d + 2 * mlp) + Flops::attention(n, d);
    flux_ends(config, img, txt)
        + flux_modulations(config)
        + block * (config.num_layers + config.num_single_layers) as f64
}

/// Per picture: 6 modulation vectors for each stream of a double block, 3 for a single block.
fn flux_modulations(config: &FluxConfig) -> Flops {
    let d = config.hidden();
    Flops::dense(1, d, 12 * d) * config.num_layers as f64
        + Flops::dense(1, d, 3 * d) * config.num_single_layers as f64
}

/// Embeddings, and the last layer with its 2 modulation vectors.
fn flux_ends(config: &FluxConfig, img: usize, txt: usize) -> Flops {
    let d = config.hidden();
    let embedder = |channels| Flops::dense(1, channels, d) + Flops::dense(1, d, d);
    let n_time = if config.guidance_embeds { 2.0 } else { 1.0 };
    Flops::dense(img, config.in_channels, d)
        + Flops::dense(txt, config.joint_attention_dim, d)
        + embedder(FluxConfig::TIME_CHANNELS) * n_time
        + embedder(config.pooled_projection_dim)
        + Flops::dense(1, d, 2 * d)
        + Flops::dense(img, d, config.out_channels)
}

/// One evaluation of an SD3 transformer: `img` image tokens, `txt` text tokens, batch 1.
pub fn sd3_step(config: &Sd3Config, img: usize, txt: usize) -> Flops {
    let (d, mlp, n) = (config.hidden(), config.mlp(), img + txt);
    let layers = config.num_layers as f64;
    // Per token: q, k, v and the output (4 d^2), the feed-forward pair (2 d mlp). The last block drops its text
    // after q, k and v. The paper's profiler counts its queries; we count as it does, and do not compute them.
    let dropped = Flops::dense(txt, d, d + 2 * mlp);
    let block = Flops::dense(n, d, 4 * d + 2 * mlp) + Flops::attention(n, d);
    let dual = Flops::dense(img, d, 4 * d) + Flops::attention(img, d);
    let mut sum = sd3_ends(config, img, txt)
        + sd3_modulations(config)
        + block * layers
        + dual * config.dual_attention_layers.len() as f64;
    sum.linear -= dropped.linear;
    sum
}

/// Per picture: 6 modulation vectors for each stream of a block, 3 more with dual attention, 2 for the last text.
fn sd3_modulations(config: &Sd3Config) -> Flops {
    let vectors = 12 * config.num_layers - 4 + 3 * config.dual_attention_layers.len();
    Flops::dense(1, config.hidden(), config.hidden()) * vectors as f64
}

/// Embeddings, and the last layer with its 2 modulation vectors.
fn sd3_ends(config: &Sd3Config, img: usize, txt: usize) -> Flops {
    let d = config.hidden();
    let embedder = |channels| Flops::dense(1, channels, d) + Flops::dense(1, d, d);
    Flops::dense(img, 4 * config.in_channels, d)
        + Flops::dense(txt, config.joint_attention_dim, d)
        + embedder(super::layers::TIME_CHANNELS)
        + embedder(config.pooled_projection_dim)
        + Flops::dense(1, d, 2 * d)
        + Flops::dense(img, d, 4 * config.out_channels)
}

/// Decoding a latent of `height` x `width` latent pixels.
pub fn vae_decode(config: &VaeConfig, height: usize, width: usize) -> Flops {
    let mut sum = Flops::default();
    decoder_layers(config, |layer| match layer {
        Layer::Conv { input, output, side, level } => {
            // 4^level times the latent's pixels, as f64: they may not fit a 32-bit usize.
            let pixels = height as f64 * width as f64 * (1u64 << (2 * level)) as f64;
            sum += Flops::dense(1, side * side * input, output) * pixels;
        }
        Layer::Norm { .. } => {}
        Layer::Attention { channels } => {
            let pixels = height * width;
            sum +=
                Flops::dense(pixels, channels, 4 * channels) + Flops::attention(pixels, channels);
        }
    });
    sum
}

/// The T5 encoder over `n_tokens` (padding included).
pub fn t5(config: &T5Config, n_tokens: usize) -> Flops {
    let (d, inner) = (config.d_model, config.inner());
    let layer = Flops::dense(n_tokens, d, 4 * inner)
        + Flops::dense(n_tokens, d, 3 * config.d_ff)
        + Flops::attention(n_tokens, inner);
    layer * config.num_layers as f64
}

/// The CLIP text encoder over `n_tokens` (77).
pub fn clip(config: &ClipConfig, n_tokens: usize) -> Flops {
    let d = config.hidden_size;
    let layer = Flops::dense(n_tokens, d, 4 * d + 2 * config.intermediate_size)
        + Flops::attention(n_tokens, d);
    layer * config.num_hidden_layers as f64 + Flops::dense(1, d, config.projection_dim.unwrap_or(0))
}

/// All text encoders, once: `txt` T5 tokens, and CLIP's fixed number.
pub fn text_encoders(config: &ModelConfig, txt: usize) -> Flops {
    let clips = config.clips.iter().map(|clip| self::clip(clip, config.clip_max_length));
    clips.sum::<Flops>() + config.t5.as_ref().map(|config| t5(config, txt)).unwrap_or_default()
}

/// Numbers of parameters, per part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Parameters {
    /// The denoiser.
    pub transformer: u64,
    /// The CLIP text encoders.
    pub clip: u64,
    /// The T5 encoder, embeddings counted once; 0 if there is none.
    pub t5: u64,
    /// The decoder alone: the encoder's half of the file is never loaded.
    pub vae_decoder: u64,
}

impl Parameters {
    /// Counts a model's parameters.
    pub fn of(config: &ModelConfig) -> Self {
        Self {
            transformer: match &config.transformer {
                TransformerConfig::Flux(flux) => flux_parameters(flux),
                TransformerConfig::Sd3(sd3) => sd3_parameters(sd3),
            },
            clip: config.clips.iter().map(clip_parameters).sum(),
            t5: config.t5.as_ref().map_or(0, t5_parameters),
            vae_decoder: vae_decoder_parameters(&config.vae),
        }
    }

    /// All parts together.
    pub fn total(self) -> u64 {
        self.transformer + self.clip + self.t5 + self.vae_decoder
    }
}

/// Weights and bias of a linear layer.
fn linear(k: usize, m: usize) -> u64 {
    (k as u64 + 1) * m as u64
}

/// Parameters of a FLUX transformer.
pub fn flux_parameters(config: &FluxConfig) -> u64 {
    let d = config.hidden();
    let mlp = config.mlp();
    let embedder = |channels| linear(channels, d) + linear(d, d);
    let n_time = if config.guidance_embeds { 2 } else { 1 };
    let qk_norm = 2 * config.attention_head_dim as u64;
    let stream = linear(d, 6 * d) + 4 * linear(d, d) + qk_norm + linear(d, mlp) + linear(mlp, d);
    let single =
        linear(d, 3 * d) + 3 * linear(d, d) + qk_norm + linear(d, mlp) + linear(d + mlp, d);
    linear(config.in_channels, d)
        + linear(config.joint_attention_dim, d)
        + embedder(FluxConfig::TIME_CHANNELS) * n_time
        + embedder(config.pooled_projection_dim)
        + 2 * stream * config.num_layers as u64
        + single * config.num_single_layers as u64
        + linear(d, 2 * d)
        + linear(d, config.out_channels)
}

/// Parameters of an SD3 transformer. Its table of positions is in the checkpoint but is no parameter: it is computed,
/// not learned.
pub fn sd3_parameters(config: &Sd3Config) -> u64 {
    let (d, mlp) = (config.hidden(), config.mlp());
    let embedder = |channels| linear(channels, d) + linear(d, d);
    let qk_norm = if config.qk_norm { 2 * config.attention_head_dim as u64 } else { 0 };
    let feed_forward = linear(d, mlp) + linear(mlp, d);
    let attention = 4 * linear(d, d) + qk_norm;
    let stream = linear(d, 6 * d) + attention + feed_forward;
    // The last block's text: 2 modulation vectors in place of 6, no output, no feed-forward.
    let dropped = 4 * linear(d, d) + linear(d, d) + feed_forward;
    let dual = attention + linear(d, 9 * d) - linear(d, 6 * d);
    linear(4 * config.in_channels, d)
        + linear(config.joint_attention_dim, d)
        + embedder(super::layers::TIME_CHANNELS)
        + embedder(config.pooled_projection_dim)
        + 2 * stream * config.num_layers as u64
        - dropped
        + dual * config.dual_attention_layers.len() as u64
        + linear(d, 2 * d)
        + linear(d, 4 * config.out_channels)
}

/// Parameters of a CLIP text encoder.
pub fn clip_parameters(config: &ClipConfig) -> u64 {
    let d = config.hidden_size;
    let norm = 2 * d as u64;
    let ff = linear(d, config.intermediate_size) + linear(config.intermediate_size, d);
    let layer = 4 * linear(d, d) + ff + 2 * norm;
    (config.vocab_size + config.max_position_embeddings) as u64 * d as u64
        + layer * config.num_hidden_layers as u64
        + norm
        + (d * config.projection_dim.unwrap_or(0)) as u64
}

/// Parameters of a T5 encoder.
pub fn t5_parameters(config: &T5Config) -> u64 {
    let d = config.d_model as u64;
    let layer = 4 * d * config.inner() as u64 + 3 * d * config.d_ff as u64 + 2 * d;
    let position_bias = (config.relative_attention_num_buckets * config.num_heads) as u64;
    config.vocab_size as u64 * d + layer * config.num_layers as u64 + position_bias + d
}

/// Parameters of a VAE's decoder.
pub fn vae_decoder_parameters(config: &VaeConfig) -> u64 {
    let mut sum = 0;
    decoder_layers(config, |layer| {
        sum += match layer {
            Layer::Conv { input, output, side, .. } => linear(side * side * input, output),
            Layer::Norm { channels } => 2 * channels as u64,
            Layer::Attention { channels } => 4 * linear(channels, channels),
        }
    });
    sum
}

/// A layer of the VAE decoder; `level` counts the doublings before it.
enum Layer {
    Conv { input: usize, output: usize, side: usize, level: usize },
    Norm { channels: usize },
    Attention { channels: usize },
}

/// Walks through the decoder of diffusers' `AutoencoderKL`.
fn decoder_layers(config: &VaeConfig, mut visit: impl FnMut(Layer)) {
    let channels: Vec<usize> = config.block_out_channels.iter().rev().copied().collect();
    let (Some(&top), Some(&bottom)) = (channels.first(), channels.last()) else {
        return;
    };
    let resnet = |visit: &mut dyn FnMut(Layer), input: usize, output: usize, level: usize| {
        visit(Layer::Norm { channels: input });
        visit(Layer::Conv { input, output, side: 3, level });
        visit(Layer::Norm { channels: output });
        visit(Layer::Conv { input: output, output, side: 3, level });
        if input != output {
            visit(Layer::Conv { input, output, side: 1, level });
        }
    };

    if config.use_post_quant_conv {
        visit(Layer::Conv {
            input: config.latent_channels,
            output: config.latent_channels,
            side: 1,
            level: 0,
        });
    }
    visit(Layer::Conv { input: config.latent_channels, output: top, side: 3, level: 0 });

    // Middle
    resnet(&mut visit, top, top, 0);
    if config.mid_block_add_attention {
        visit(Layer::Norm { channels: top });
        visit(Layer::Attention { channels: top });
    }
    resnet(&mut visit, top, top, 0);

    // Up
    let last = channels.len() - 1;
    let mut input = top;
    for (level, output) in channels.iter().copied().enumerate() {
        for _ in 0..=config.layers_per_block {
            resnet(&mut visit, input, output, level);
            input = output;
        }
        if level < last {
            // Doubled first, then convolved.
            visit(Layer::Conv { input: output, output, side: 3, level: level + 1 });
        }
    }

    visit(Layer::Norm { channels: bottom });
    visit(Layer::Conv { input: bottom, output: config.out_channels, side: 3, level: last });
}
