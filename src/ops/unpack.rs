//! From tokens to the picture that the VAE decodes.

use super::{LANES, quads, read, read_write, whole};
use crate::tensor::{Dispatch, PipelineKey, Tensor, fold_groups, row_pieces};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    grid_width: u32,
    c4: u32,
    pixels: u32,
    pixel0: u32,
    y_offset: u32,
    inverse_scale: f32,
    shift: f32,
}

/// `(x - sigma * velocity) / scaling_factor + shift_factor`, unpacked to `y` `[H * W, C]`.
///
/// `x` and `velocity` `[N, 4 * C]` in raster order of a grid `grid_width` tokens wide; `step` `[1, 4]` has
/// sigma at index 2. The clean estimate is Tweedie's, with the last velocity: no extra evaluation.
#[track_caller]
#[allow(clippy::too_many_arguments, reason = "an op lists its operands")]
pub fn unpack<'r>(
    name: &str,
    x: Tensor<'r>,
    velocity: Tensor<'r>,
    step: Tensor<'r>,
    grid_width: usize,
    scaling_factor: f32,
    shift_factor: f32,
    y: Tensor<'r>,
) {
    let recorder = x.recorder();
    assert_eq!(x.cols(), 4 * y.cols(), "{name}: x has {} columns, y {}", x.cols(), y.cols());
    assert_eq!(y.rows(), 4 * x.rows(), "{name}: y has {} pixels, x {} tokens", y.rows(), x.rows());
    assert_eq!(velocity.rows(), x.rows(), "{name}: velocity has {} rows", velocity.rows());
    assert!(y.is_whole(), "{name}: y must be contiguous");
    let x_buffer = whole(name, "x", x);
    let velocity = whole(name, "velocity", velocity);
    let step = whole(name, "step", step);
    for piece in row_pieces(&[y], usize::MAX) {
        let (y_buffer, y_at) = piece.at[0];
        let params = Params {
            grid_width: grid_width as u32,
            c4: quads(y.cols()),
            pixels: piece.rows as u32,
            pixel0: piece.row0 as u32,
            y_offset: quads(y_at),
            inverse_scale: 1.0 / scaling_factor,
            shift: shift_factor,
        };
        recorder.dispatch(Dispatch {
            pipeline: PipelineKey {
                shader: "unpack",
                entry: "main",
                roles: vec![],
                overrides: vec![],
            },
            params: bytemuck::bytes_of(&params).to_vec(),
            bindings: vec![read(x_buffer), read(velocity), read(step), read_write(y_buffer)],
            groups: fold_groups((piece.rows * y.cols() / 4).div_ceil(LANES)),
            flops: (piece.rows * y.cols()) as f64 * 4.0,
            label: name.to_owned(),
        });
    }
}

/// `x`, `velocity` `[N, 4 * C]`. Gives `[H * W, C]`.
pub fn reference(
    x: &[f32],
    velocity: &[f32],
    channels: usize,
    sigma: f64,
    grid_width: usize,
    scaling_factor: f64,
    shift_factor: f64,
) -> Vec<f64> {
    let tokens = x.len() / (4 * channels);
    let grid_height = tokens / grid_width;
    let mut out = Vec::with_capacity(x.len());
    for row in 0..2 * grid_height {
        for column in 0..2 * grid_width {
            let token = row / 2 * grid_width + column / 2;
            for c in 0..channels {
                let at = token * 4 * channels + c * 4 + row % 2 * 2 + column % 2;
                let clean = f64::from(x[at]) - sigma * f64::from(velocity[at]);
                out.push(clean / scaling_factor + shift_factor);
            }
        }
    }
    out
}
