//! The ops that are measured: their shapes in a model, what they do, and how they are recorded.

use ralu::gpu::{Gpu, Store, block_on};
use ralu::models::config::ModelConfig;
use ralu::ops::{
    Activation, Affine, Attention, Conv2d, Conv2dOptions, LinearLayer, NormKind, Weights, Write,
    activate, attention, combine, conv2d, euler_step, group_norm, linear, norm, qk_norm_rope,
};
use ralu::pipeline::RunSchedule;
use ralu::tensor::{PackedWeight, Recorder, Resident, ResidentIds, Storage};

use super::super::error::Result;

/// What is measured.
pub enum Op {
    Linear {
        m: usize,
        n: usize,
        k: usize,
    },
    Attention {
        n: usize,
        heads: usize,
        head_dim: usize,
    },
    Norm {
        n: usize,
        width: usize,
    },
    QkNormRope {
        n: usize,
        heads: usize,
        head_dim: usize,
    },
    Activation {
        n: usize,
        width: usize,
    },
    /// A weighted sum of two matrices.
    Combine {
        n: usize,
        width: usize,
    },
    Euler {
        n: usize,
        width: usize,
    },
    Conv {
        height: usize,
        width: usize,
        input: usize,
        output: usize,
    },
    GroupNorm {
        height: usize,
        width: usize,
        channels: usize,
        groups: usize,
    },
}

/// The shapes of the last stage: a step of the transformer, then the decoder.
pub fn cases(config: &ModelConfig, schedule: &RunSchedule, n_text: usize) -> Vec<Op> {
    let network = &config.transformer;
    let (d, head_dim) = (network.hidden(), network.head_dim());
    let (mlp, heads) = (network.mlp(), d / head_dim);
    let img = schedule.rows * schedule.cols;
    let n = img + n_text;
    let mut cases = vec![
        Op::Linear { m: n, n: d, k: d },
        Op::Linear { m: n, n: mlp, k: d },
        Op::Linear { m: n, n: d, k: mlp },
        Op::Linear { m: n, n: d, k: d + mlp },
        Op::Linear { m: n_text, n: d, k: d },
        Op::Linear { m: 1, n: 6 * d, k: d },
        Op::Attention { n, heads, head_dim },
        Op::Norm { n, width: d },
        Op::QkNormRope { n, heads, head_dim },
        Op::Activation { n, width: mlp },
        Op::Combine { n, width: d },
        Op::Euler { n: img, width: 4 * config.vae.latent_channels },
    ];
    let vae = &config.vae;
    let levels = vae.block_out_channels.len();
    let (mut height, mut width) = (2 * schedule.rows, 2 * schedule.cols);
    for level in (0..levels).rev() {
        let channels = vae.block_out_channels[level];
        cases.push(Op::Conv { height, width, input: channels, output: channels });
        cases.push(Op::GroupNorm { height, width, channels, groups: vae.norm_num_groups });
        if level > 0 {
            (height, width) = (2 * height, 2 * width);
        }
    }
    cases
}

impl Op {
    pub fn name(&self) -> &'static str {
        match self {
            Op::Linear { .. } => "linear",
            Op::Attention { .. } => "attention",
            Op::Norm { .. } => "norm",
            Op::QkNormRope { .. } => "qk_norm_rope",
            Op::Activation { .. } => "activation",
            Op::Combine { .. } => "combine",
            Op::Euler { .. } => "euler",
            Op::Conv { .. } => "conv2d",
            Op::GroupNorm { .. } => "group_norm",
        }
    }

    pub fn shape(&self) -> String {
        match *self {
            Op::Linear { m, n, k } => format!("[{m}, {k}] x [{n}, {k}]"),
            Op::Attention { n, heads, head_dim } | Op::QkNormRope { n, heads, head_dim } => {
                format!("[{n}, {heads} x {head_dim}]")
            }
            Op::Norm { n, width }
            | Op::Activation { n, width }
            | Op::Combine { n, width }
            | Op::Euler { n, width } => format!("[{n}, {width}]"),
            Op::Conv { height, width, input, output } => {
                format!("[{height}, {width}, {input}] to {output}")
            }
            Op::GroupNorm { height, width, channels, groups } => {
                format!("[{height}, {width}, {channels}] in {groups}")
            }
        }
    }

    /// Multiplications and additions of products; 0 where moving bytes is the work.
    pub fn flops(&self) -> f64 {
        let product = |sizes: &[usize]| sizes.iter().map(|size| *size as f64).product::<f64>();
        match *self {
            Op::Linear { m, n, k } => 2.0 * product(&[m, n, k]),
            Op::Attention { n, heads, head_dim } => 4.0 * product(&[n, n, heads, head_dim]),
            Op::Conv { height, width, input, output } => {
                18.0 * product(&[height, width, input, output])
            }
            _ => 0.0,
        }
    }

    /// Bytes of operands and results.
    pub fn bytes(&self, storage: Storage) -> f64 {
        let weight = |numbers: usize| storage.bytes_of(numbers) as usize;
        let bytes = match *self {
            Op::Linear { m, n, k } => 4 * (m * k + m * n) + weight(n * k),
            Op::Attention { n, heads, head_dim } => 4 * 4 * n * heads * head_dim,
            Op::Norm { n, width } | Op::Activation { n, width } => 4 * 2 * n * width,
            // Two inputs and the result; two velocities, and the latents twice.
            Op::Combine { n, width } => 4 * 3 * n * width,
            Op::Euler { n, width } => 4 * 4 * n * width,
            Op::QkNormRope { n, heads, head_dim } => 4 * n * head_dim * (2 * heads + 1),
            Op::Conv { height, width, input, output } => {
                4 * height * width * (input + output) + weight(9 * input * output)
            }
            Op::GroupNorm { height, width, channels, .. } => 4 * 2 * height * width * channels,
        };
        bytes as f64
    }
}

/// Residents of one measurement.
pub struct Operands<'g> {
    gpu: &'g Gpu,
    ids: ResidentIds,
    pub store: Store,
    storage: Storage,
}

impl<'g> Operands<'g> {
    /// None yet; weights will be kept as `storage` says.
    pub fn new(gpu: &'g Gpu, storage: Storage) -> Self {
        Operands { gpu, ids: ResidentIds::default(), store: Store::default(), storage }
    }

    fn vector(&self, n: usize) -> Result<Resident> {
        let n = n.next_multiple_of(4);
        let vector = self.ids.matrix("vector", 1, n, u64::MAX);
        block_on(self.gpu, async {
            self.store.create(self.gpu, &vector).await?;
            self.store.write(self.gpu, &vector, &vec![0.5; n]).await
        })?;
        Ok(vector)
    }

    /// Zeros: the kernels do not look.
    fn weight(&self, n: usize, k: usize) -> Result<PackedWeight> {
        let limit = self.gpu.caps().max_binding_bytes;
        let weight = PackedWeight::new(&self.ids, "weight", n, k, self.storage, limit);
        block_on(self.gpu, self.store.create_packed(self.gpu, &weight))?;
        Ok(weight)
    }

    fn layer(&self, n: usize, k: usize) -> Result<LinearLayer> {
        Ok(LinearLayer { weight: self.weight(n, k)?, bias: Some(self.vector(n)?) })
    }
}

/// Records an op `repeats` times.
pub fn record(operands: &Operands<'_>, recorder: &Recorder, op: &Op, repeats: usize) -> Result<()> {
    match *op {
        Op::Linear { m, n, k } => {
            let layer = operands.layer(n, k)?;
            let x = recorder.temp("x", m, k);
            for _ in 0..repeats {
                linear("linear", x, &layer, Activation::default());
            }
        }
        Op::Attention { n, heads, head_dim } => {
            let [q, k, v, y] =
                ["q", "k", "v", "y"].map(|name| recorder.temp(name, n, heads * head_dim));
            let scale = 1.0 / (head_dim as f32).sqrt();
            for _ in 0..repeats {
                let options = Attention { head_dim, scale, causal: false, bias: None };
                attention("attention", [q, k, v], y, options);
            }
        }
        Op::Norm { n, width } => {
            let (scale, shift) = (operands.vector(width)?, operands.vector(width)?);
            let x = recorder.temp("x", n, width);
            let (scale, shift) = (recorder.resident(&scale), recorder.resident(&shift));
            for _ in 0..repeats {
                let affine = Affine::Modulate { scale, shift };
                norm("norm", x, NormKind::Layer { eps: 1e-6 }, affine);
            }
        }
        Op::QkNormRope { n, heads, head_dim } => {
            let weight = operands.vector(head_dim)?;
            let x = recorder.temp("x", n, heads * head_dim);
            let table = recorder.temp("table", n, head_dim);
            for _ in 0..repeats {
                qk_norm_rope("qk_norm_rope", x, recorder.resident(&weight), table, 1e-6);
            }
        }
        Op::Activation { n, width } => {
            let x = recorder.temp("x", n, width);
            for _ in 0..repeats {
                activate("activation", x, Activation::GeluTanh);
            }
        }
        Op::Combine { n, width } => {
            let [a, b, y] = ["a", "b", "y"].map(|name| recorder.temp(name, n, width));
            for _ in 0..repeats {
                let weights = Weights::Constant([0.5, 0.5, 0.0]);
                combine("combine", &[a, b], weights, None, Write::Store, y);
            }
        }
        Op::Euler { n, width } => {
            let step = operands.vector(4)?;
            let [v, velocity, x] = ["v", "velocity", "x"].map(|name| recorder.temp(name, n, width));
            for _ in 0..repeats {
                euler_step("euler", v, None, recorder.resident(&step), velocity, x);
            }
        }
        Op::Conv { height, width, input, output } => {
            let layer = Conv2d {
                weight: operands.weight(output, 9 * input)?,
                bias: operands.vector(output)?,
            };
            let x = recorder.image("x", height, width, input);
            let y = recorder.image("y", height, width, output.next_multiple_of(4));
            // The end of a group norm, as most of the decoder's convolutions have it.
            let affine = recorder.temp("affine", 2, input);
            for _ in 0..repeats {
                let options = Conv2dOptions { prologue: Some(affine), ..Default::default() };
                conv2d("conv2d", x, width, &layer, y, options);
            }
        }
        Op::GroupNorm { height, width, channels, groups } => {
            let (weight, bias) = (operands.vector(channels)?, operands.vector(channels)?);
            let x = recorder.image("x", height, width, channels);
            let y = recorder.image("y", height, width, channels);
            for _ in 0..repeats {
                let (weight, bias) = (recorder.resident(&weight), recorder.resident(&bias));
                group_norm("group_norm", x, groups, 1e-6, weight, bias, true, y);
            }
        }
    }
    Ok(())
}
