//! What ops compute, by their definitions: to count operations, and to measure kernels on a model's own shapes.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Mul};

use serde::Serialize;

use super::Storage;

/// What one call of an op computes, by the op's definition: how kernels cut it into dispatches, what they pad and what they
/// save does not change it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Work {
    /// `[rows, k]` by the transpose of a weight `[n, k]`.
    Linear {
        /// Rows.
        rows: usize,
        /// Outputs.
        n: usize,
        /// Inputs.
        k: usize,
        /// How the weight is stored.
        storage: Storage,
    },
    /// Attention of `queries` rows to `keys` rows, in `heads` heads of `head_dim` numbers.
    Attention {
        /// Rows of queries.
        queries: usize,
        /// Rows of keys and values.
        keys: usize,
        /// Heads of queries.
        heads: usize,
        /// Heads of keys and values.
        kv_heads: usize,
        /// Numbers in a head.
        head_dim: usize,
    },
    /// A 3x3 convolution with a result of `height` x `width` pixels.
    Conv2d {
        /// Height of the result in pixels.
        height: usize,
        /// Width of the result in pixels.
        width: usize,
        /// Channels going in.
        input: usize,
        /// Channels coming out.
        output: usize,
        /// Whether the picture is doubled before it is convolved: the input is half as high and wide.
        upsample: bool,
        /// How the weight is stored.
        storage: Storage,
    },
    /// The norm of each of `rows` rows of `width` numbers.
    Norm {
        /// Rows.
        rows: usize,
        /// Numbers in a row.
        width: usize,
    },
    /// The norm and the rotation of each head of `rows` queries or keys.
    QkNormRope {
        /// Rows.
        rows: usize,
        /// Heads in a row.
        heads: usize,
        /// Numbers in a head.
        head_dim: usize,
    },
    /// An activation.
    Activation {
        /// Rows.
        rows: usize,
        /// Numbers in a row.
        width: usize,
    },
    /// A weighted sum of `inputs` matrices.
    Combine {
        /// Rows.
        rows: usize,
        /// Numbers in a row.
        width: usize,
        /// Matrices.
        inputs: usize,
    },
    /// A step of Euler's method.
    Euler {
        /// Rows.
        rows: usize,
        /// Numbers in a row.
        width: usize,
    },
    /// The statistics of a group norm.
    GroupNorm {
        /// Pixels.
        pixels: usize,
        /// Channels of a pixel.
        channels: usize,
        /// Groups of channels.
        groups: usize,
    },
}

impl Work {
    /// The op's name.
    pub fn name(&self) -> &'static str {
        match self {
            Work::Linear { .. } => "linear",
            Work::Attention { .. } => "attention",
            Work::Conv2d { .. } => "conv2d",
            Work::Norm { .. } => "norm",
            Work::QkNormRope { .. } => "qk_norm_rope",
            Work::Activation { .. } => "activation",
            Work::Combine { .. } => "combine",
            Work::Euler { .. } => "euler",
            Work::GroupNorm { .. } => "group_norm",
        }
    }

    /// The operations of its matrix products; none for ops whose work is to move numbers.
    pub fn flops(&self) -> Flops {
        let product = |sizes: &[usize]| sizes.iter().map(|size| *size as f64).product::<f64>();
        match *self {
            Work::Linear { rows, n, k, .. } => {
                Flops { linear: product(&[2, rows, n, k]), ..Default::default() }
            }
            Work::Conv2d { height, width, input, output, .. } => Flops {
                linear: product(&[2 * 9, height, width, input, output]),
                ..Default::default()
            },
            Work::Attention { queries, keys, heads, head_dim, .. } => Flops {
                attention: product(&[4, queries, keys, heads, head_dim]),
                ..Default::default()
            },
            _ => Flops::default(),
        }
    }

    /// Bytes of its operands and results, each counted once.
    pub fn bytes(&self) -> f64 {
        let f32s = |numbers: usize| 4.0 * numbers as f64;
        match *self {
            Work::Linear { rows, n, k, storage } => {
                f32s(rows * (n + k)) + storage.bytes_of(n * k) as f64
            }
            Work::Attention { queries, keys, heads, kv_heads, head_dim } => {
                f32s(2 * (queries * heads + keys * kv_heads) * head_dim)
            }
            Work::Conv2d { height, width, input, output, upsample, storage } => {
                let pixels = height * width;
                let read = if upsample { pixels / 4 } else { pixels };
                f32s(read * input + pixels * output) + storage.bytes_of(9 * input * output) as f64
            }
            Work::Norm { rows, width } | Work::Activation { rows, width } => f32s(2 * rows * width),
            Work::QkNormRope { rows, heads, head_dim } => f32s(rows * head_dim * (2 * heads + 1)),
            Work::Combine { rows, width, inputs } => f32s((inputs + 1) * rows * width),
            // Two velocities, and the latents twice.
            Work::Euler { rows, width } => f32s(4 * rows * width),
            Work::GroupNorm { pixels, channels, .. } => f32s(2 * pixels * channels),
        }
    }
}

/// The shape alone.
impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Work::Linear { rows, n, k, .. } => write!(f, "[{rows}, {k}] x [{n}, {k}]"),
            Work::Attention { queries, keys, heads, head_dim, .. } => {
                write!(f, "[{queries}, {heads} x {head_dim}]")?;
                if keys != queries { write!(f, " to {keys} keys") } else { Ok(()) }
            }
            Work::Conv2d { height, width, input, output, upsample, .. } => {
                let doubled = if upsample { " doubled" } else { "" };
                write!(f, "[{height}, {width}, {input}]{doubled} to {output}")
            }
            Work::Norm { rows, width }
            | Work::Activation { rows, width }
            | Work::Combine { rows, width, .. }
            | Work::Euler { rows, width } => write!(f, "[{rows}, {width}]"),
            Work::QkNormRope { rows, heads, head_dim } => {
                write!(f, "[{rows}, {heads} x {head_dim}]")
            }
            Work::GroupNorm { pixels, channels, groups } => {
                write!(f, "[{pixels}, {channels}] in {groups}")
            }
        }
    }
}

/// Floating point operations of matrix products: a multiplication and an addition count two. Papers count the linear layers
/// alone, so those and attention are kept apart.
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
