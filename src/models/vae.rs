//! The decoder of AutoencoderKL: from latents to pixels.
//!
//! Diffusers' `Decoder`. Pictures are `[H * W, C]`; those larger than one storage binding, or than the recorder allows
//! a band to be, are held in bands of rows with copies of their neighbours' border rows, and group norms take the
//! statistics of the whole, so the result is exact, not tiled.
//!
//! In bands, the most that is alive together is twice the last picture of `block_out_channels[0]` channels: what the last
//! level is enlarged to has twice its channels, and a residual block needs its input while it makes its output, as a norm
//! in its middle needs all of that. For FLUX and SD3 at 1024 x 1024 this is 1 GiB, at 2048 x 2048 4 GiB. A decoder that is
//! to take less has bands wait on the host ([`crate::tensor::spill`]).

use super::config::VaeConfig;
use super::layers::Loader;
use crate::ops::{
    Activation, Attention, Conv2d, Conv2dOptions, Epilogue, LinearLayer, Weights, Write, attention,
    combine, conv2d, group_affine, group_affine_apply, linear, linear_into,
};
use crate::tensor::{Resident, Tensor};

/// Epsilon of all group norms.
const EPS: f32 = 1e-6;

/// Channels of the decoded picture in memory: red, green, blue and a zero, as kernels work on four.
pub const IMAGE_CHANNELS: usize = 4;

/// The decoder.
pub struct VaeDecoder {
    /// Standard deviations and means of packed latents, `[2, 4 C]`.
    batch_norm: Option<Resident>,
    post_quant_conv: Option<LinearLayer>,
    conv_in: Conv2d,
    mid_resnets: [ResnetBlock; 2],
    mid_attention: Option<AttentionBlock>,
    up_blocks: Vec<UpBlock>,
    norm_out: GroupNorm,
    conv_out: Conv2d,
}

/// A picture and its width in pixels.
#[derive(Clone, Copy)]
struct Picture<'r> {
    x: Tensor<'r>,
    width: usize,
}

impl<'r> Picture<'r> {
    fn height(self) -> usize {
        self.x.rows() / self.width
    }

    /// An uninitialised picture of the same size with `channels` channels.
    fn like(self, name: &str, channels: usize) -> Tensor<'r> {
        self.x.recorder().image(name, self.height(), self.width, channels)
    }
}

struct GroupNorm {
    groups: usize,
    weight: Resident,
    bias: Resident,
}

impl GroupNorm {
    fn load(loader: &Loader<'_>, name: &str, channels: usize, groups: usize) -> Self {
        GroupNorm {
            groups,
            weight: loader.vector(&format!("{name}.weight"), channels),
            bias: loader.vector(&format!("{name}.bias"), channels),
        }
    }

    /// Of a picture, `[2, C]`: what convolutions take as prologue.
    fn affine<'r>(&self, name: &str, x: Tensor<'r>) -> Tensor<'r> {
        let recorder = x.recorder();
        let (weight, bias) = (recorder.resident(&self.weight), recorder.resident(&self.bias));
        group_affine(name, x, self.groups, EPS, weight, bias)
    }
}

struct ResnetBlock {
    norm1: GroupNorm,
    conv1: Conv2d,
    norm2: GroupNorm,
    conv2: Conv2d,
    shortcut: Option<LinearLayer>,
    channels: usize,
}

impl ResnetBlock {
    fn load(loader: &Loader<'_>, input: usize, output: usize, groups: usize) -> Self {
        ResnetBlock {
            norm1: GroupNorm::load(loader, "norm1", input, groups),
            conv1: loader.conv3x3("conv1", output, input),
            norm2: GroupNorm::load(loader, "norm2", output, groups),
            conv2: loader.conv3x3("conv2", output, output),
            shortcut: (input != output).then(|| loader.conv1x1("conv_shortcut", output, input)),
            channels: output,
        }
    }

    /// The residual is added in place, so the input is overwritten unless a shortcut changes its width.
    fn forward<'r>(&self, picture: Picture<'r>) -> Picture<'r> {
        let norm1 = self.norm1.affine("norm1", picture.x);
        let h = picture.like("conv1", self.channels);
        let after = |norm| Conv2dOptions { prologue: Some(norm), ..Default::default() };
        conv2d("conv1", picture.x, picture.width, &self.conv1, h, after(norm1));
        let y = match &self.shortcut {
            None => picture.x,
            Some(shortcut) => {
                let y = picture.like("shortcut", self.channels);
                let record =
                    || linear_into("shortcut", picture.x, shortcut, y, Epilogue::default());
                // Each band of the input is done with then.
                picture.x.recorder().early(record);
                y
            }
        };
        let norm2 = self.norm2.affine("norm2", h);
        let options = Conv2dOptions { add: true, ..after(norm2) };
        conv2d("conv2", h, picture.width, &self.conv2, y, options);
        Picture { x: y, ..picture }
    }
}

/// Self-attention over all pixels, one head as wide as the channels.
struct AttentionBlock {
    norm: GroupNorm,
    q: LinearLayer,
    k: LinearLayer,
    v: LinearLayer,
    out: LinearLayer,
}

impl AttentionBlock {
    fn load(loader: &Loader<'_>, channels: usize, groups: usize) -> Self {
        let linear = |name| loader.linear(name, channels, channels);
        AttentionBlock {
            norm: GroupNorm::load(loader, "group_norm", channels, groups),
            q: linear("to_q"),
            k: linear("to_k"),
            v: linear("to_v"),
            out: linear("to_out.0"),
        }
    }

    fn forward<'r>(&self, picture: Picture<'r>) {
        let x = picture.x;
        let h = picture.like("norm", x.cols());
        group_affine_apply("norm", x, self.norm.affine("norm", x), false, h);
        let q = picture.like("q", x.cols());
        linear_into("q", h, &self.q, q, Epilogue::default());
        // Every query sees all of these.
        let [k, v] = [("k", &self.k), ("v", &self.v)]
            .map(|(name, layer)| linear(name, h, layer, Activation::Identity));
        let attn = picture.like("attn", x.cols());
        let head_dim = x.cols();
        let options = Attention {
            head_dim,
            scale: 1.0 / (head_dim as f32).sqrt(),
            causal: false,
            bias: None,
        };
        attention("attn", [q, k, v], attn, options);
        let add = Epilogue { write: Write::Add, ..Default::default() };
        linear_into("out", attn, &self.out, x, add);
    }
}

struct UpBlock {
    resnets: Vec<ResnetBlock>,
    upsampler: Option<Conv2d>,
}

impl VaeDecoder {
    /// Asks for all weights of the decoder; the encoder is not used.
    pub fn load(loader: &Loader<'_>, config: &VaeConfig) -> Self {
        let groups = config.norm_num_groups;
        let channels = &config.block_out_channels;
        let top = channels.last().copied().unwrap_or(0);
        let decoder = loader.pp("decoder");
        let mid = decoder.pp("mid_block");
        let resnet = |i: usize| ResnetBlock::load(&mid.pp("resnets").pp(i), top, top, groups);

        let mut input = top;
        let last = channels.len() - 1;
        let up_blocks = channels.iter().rev().enumerate().map(|(i, &output)| {
            let block = decoder.pp("up_blocks").pp(i);
            let resnets = (0..=config.layers_per_block)
                .map(|j| {
                    let input = if j == 0 { input } else { output };
                    ResnetBlock::load(&block.pp("resnets").pp(j), input, output, groups)
                })
                .collect();
            input = output;
            let upsampler = (i < last).then(|| block.conv3x3("upsamplers.0.conv", output, output));
            UpBlock { resnets, upsampler }
        });
        let up_blocks: Vec<UpBlock> = up_blocks.collect();
        let latent = config.latent_channels;
        VaeDecoder {
            batch_norm: (config.batch_norm_eps).map(|eps| loader.batch_norm("bn", 4 * latent, eps)),
            post_quant_conv: config
                .use_post_quant_conv
                .then(|| loader.conv1x1("post_quant_conv", latent, latent)),
            conv_in: decoder.conv3x3("conv_in", top, latent),
            mid_resnets: [resnet(0), resnet(1)],
            mid_attention: config
                .mid_block_add_attention
                .then(|| AttentionBlock::load(&mid.pp("attentions.0"), top, groups)),
            up_blocks,
            norm_out: GroupNorm::load(&decoder, "conv_norm_out", input, groups),
            conv_out: decoder.conv3x3("conv_out", config.out_channels, input),
        }
    }

    /// Undoes the batch norm of packed latents, if there is one. `x` `[N, 4 C]` are latents and `velocity` `[N, 4 C]` leads
    /// from them to clean ones; the results do so for latents that are not normalised.
    ///
    /// The norm is linear in each number: `deviation * (x - sigma v) + mean` is `(deviation * x + mean) - sigma *
    /// (deviation * v)`.
    pub fn without_norm<'r>(&self, x: Tensor<'r>, velocity: Tensor<'r>) -> [Tensor<'r>; 2] {
        let Some(norm) = &self.batch_norm else { return [x, velocity] };
        let recorder = x.recorder();
        let norm = recorder.resident(norm);
        let [new_x, new_velocity] =
            ["bn.x", "bn.velocity"].map(|name| recorder.temp(name, x.rows(), x.cols()));
        group_affine_apply("bn.x", x, norm, false, new_x);
        let (once, deviations) = (Weights::Constant([1.0, 0.0, 0.0]), norm.row_range(0..1));
        combine("bn.velocity", &[velocity], once, Some(deviations), Write::Store, new_velocity);
        [new_x, new_velocity]
    }

    /// Decodes latents `[H * W, latent channels]` of width `width`, already unscaled, into `pixels` `[H' * W', 4]`:
    /// red, green and blue in [-1, 1], and a zero.
    pub fn forward<'r>(&self, latents: Tensor<'r>, width: usize, pixels: Tensor<'r>) {
        let recorder = latents.recorder();
        let mut x = Picture { x: latents, width };
        if let Some(post_quant_conv) = &self.post_quant_conv {
            let y = x.like("post_quant_conv", latents.cols());
            linear_into("post_quant_conv", x.x, post_quant_conv, y, Epilogue::default());
            x.x = y;
        }
        let y = x.like("conv_in", self.conv_in.weight.n);
        conv2d("conv_in", x.x, width, &self.conv_in, y, Conv2dOptions::default());
        x.x = y;

        recorder.scope("mid", || {
            x = recorder.scope("0", || self.mid_resnets[0].forward(x));
            if let Some(attention) = &self.mid_attention {
                recorder.scope("attn", || attention.forward(x));
            }
            x = recorder.scope("1", || self.mid_resnets[1].forward(x));
        });

        for (i, block) in self.up_blocks.iter().enumerate() {
            recorder.scope(format!("up.{i}"), || {
                for (j, resnet) in block.resnets.iter().enumerate() {
                    x = recorder.scope(j.to_string(), || resnet.forward(x));
                }
                if let Some(conv) = &block.upsampler {
                    let (height, width) = (2 * x.height(), 2 * x.width);
                    let y = recorder.image("upsample", height, width, conv.weight.n);
                    let options = Conv2dOptions { upsample: true, ..Default::default() };
                    conv2d("upsample", x.x, x.width, conv, y, options);
                    x = Picture { x: y, width };
                }
            });
        }

        let prologue = Some(self.norm_out.affine("norm_out", x.x));
        let options = Conv2dOptions { prologue, ..Default::default() };
        conv2d("conv_out", x.x, x.width, &self.conv_out, pixels, options);
    }
}
