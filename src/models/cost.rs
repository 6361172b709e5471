//! What a model costs: floating point operations (a multiply and an add count 2) and parameters, from its
//! configuration alone.
//!
//! Only matrix products and convolutions are counted; norms, activations and rotations are well below one per cent.
//! Linear layers and attention (`Q K^T` and `P V`) are kept apart in [`Flops`], because papers count the former only.
//!
//! ```
//! use ralu::models::builtin;
//! let config = builtin::get("flux.1-dev").unwrap();
//! // 1024 x 1024 pixels are 4096 image tokens; 59.5 TFLOP linear, 74.4 with attention.
//! let step = config.transformer.step_flops(4096, 512);
//! assert!((step.linear / 1e12 - 59.5).abs() < 0.1);
//! assert!((step.total() / 1e12 - 74.4).abs() < 0.1);
//! ```

use std::iter::Sum;
use std::ops::{Add, AddAssign, Mul};

use serde::Serialize;

use super::config::{ModelConfig, VaeConfig};

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
    pub(crate) fn dense(n: usize, k: usize, m: usize) -> Self {
        Self { linear: 2.0 * n as f64 * k as f64 * m as f64, attention: 0.0 }
    }

    /// Self-attention over `n` tokens, `width` = heads x head dim.
    pub(crate) fn attention(n: usize, width: usize) -> Self {
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

/// All text encoders, once, for a text of `n` tokens where the length is not fixed.
pub fn text_encoders(config: &ModelConfig, n: usize) -> Flops {
    config.text_encoders.iter().map(|encoder| encoder.config.flops(encoder.length(n))).sum()
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

/// Numbers of parameters, per part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Parameters {
    /// The denoiser.
    pub transformer: u64,
    /// The text encoders, in the order of [`ModelConfig::text_encoders`]. Embeddings are counted once.
    pub text_encoders: Vec<u64>,
    /// The decoder alone: the encoder's half of the file is never loaded.
    pub vae_decoder: u64,
}

impl Parameters {
    /// Counts a model's parameters.
    pub fn of(config: &ModelConfig) -> Self {
        Self {
            transformer: config.transformer.parameters(),
            text_encoders: (config.text_encoders.iter())
                .map(|encoder| encoder.config.parameters())
                .collect(),
            vae_decoder: vae_decoder_parameters(&config.vae),
        }
    }

    /// All parts together.
    pub fn total(&self) -> u64 {
        self.transformer + self.text_encoders.iter().sum::<u64>() + self.vae_decoder
    }
}

/// Weights and bias of a linear layer.
pub(crate) fn linear(k: usize, m: usize) -> u64 {
    (k as u64 + 1) * m as u64
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
