//! Activation functions, on their own and as epilogues.

use super::{ITEMS, quads, read, read_write};
use crate::tensor::{Dispatch, PipelineKey, Tensor, Work, fold_groups, row_pieces};

/// What is applied to each number. The discriminants are those of `shaders/lib/activation.wgsl`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activation {
    /// `x`.
    #[default]
    Identity = 0,
    /// `x * sigmoid(x)`.
    Silu = 1,
    /// The tanh approximation of GELU (`gelu_new`, `approximate="tanh"`).
    GeluTanh = 2,
    /// `x * sigmoid(1.702 x)`, as OpenAI's CLIP has it.
    QuickGelu = 3,
    /// GELU by the error function.
    GeluErf = 4,
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    rows: u32,
    c4: u32,
    x_offset: u32,
    x_stride: u32,
    y_offset: u32,
    y_stride: u32,
}

/// `activation(x)` of a matrix `[M, C]`.
#[track_caller]
pub fn activate<'r>(name: &str, x: Tensor<'r>, activation: Activation) -> Tensor<'r> {
    let y = x.recorder().temp(name, x.rows(), x.cols());
    activate_into(name, x, activation, y);
    y
}

/// Writes `activation(x)` to `y`, another matrix of the same shape.
#[track_caller]
pub fn activate_into<'r>(name: &str, x: Tensor<'r>, activation: Activation, y: Tensor<'r>) {
    assert_eq!(x.cols(), y.cols(), "{name}: x has {} columns, y {}", x.cols(), y.cols());
    let recorder = x.recorder();
    recorder.note(Work::Activation { rows: x.rows(), width: x.cols() });
    for piece in row_pieces(&[x, y], usize::MAX) {
        let [(x_buffer, x_at), (y_buffer, y_at)] = [piece.at[0], piece.at[1]];
        let params = Params {
            rows: piece.rows as u32,
            c4: quads(x.cols()),
            x_offset: quads(x_at),
            x_stride: quads(x.row_stride()),
            y_offset: quads(y_at),
            y_stride: quads(y.row_stride()),
        };
        recorder.dispatch(Dispatch {
            pipeline: PipelineKey {
                shader: "activation",
                entry: "main",
                roles: vec![],
                overrides: vec![("ACTIVATION", f64::from(activation as u32))],
            },
            params: bytemuck::bytes_of(&params).to_vec(),
            bindings: vec![read(x_buffer), read_write(y_buffer)],
            groups: fold_groups((piece.rows * x.cols() / 4).div_ceil(ITEMS)),
            flops: (piece.rows * x.cols()) as f64 * 8.0,
            label: name.to_owned(),
        });
    }
}

/// One number through an activation function.
pub fn reference(x: f64, activation: Activation) -> f64 {
    let sigmoid = |x: f64| 1.0 / (1.0 + libm::exp(-x));
    match activation {
        Activation::Identity => x,
        Activation::Silu => x * sigmoid(x),
        Activation::GeluTanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
            0.5 * x * (1.0 + libm::tanh(inner))
        }
        Activation::QuickGelu => x * sigmoid(1.702 * x),
        Activation::GeluErf => 0.5 * x * (1.0 + libm::erf(x / std::f64::consts::SQRT_2)),
    }
}
