//! The jump between two RALU stages.

use super::{ITEMS, quads, read, read_write, whole};
use crate::tensor::{Dispatch, PipelineKey, Tensor, fold_groups};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    tokens: u32,
    c4: u32,
    gain: f32,
    noise_gain: f32,
}

/// `y[i] = gain * x[source(i)] + noise_gain * noise[i]`: gathers tokens and adds noise.
///
/// `x` `[N, C]`, `noise` and `y` `[M, C]`, all contiguous. `source` holds M integers as u32 bits,
/// `token * 8 + code`; codes 0 to 3 fill the new patch with one pixel of the old one, 4 copies the patch.
/// RALU section 3.2; the gains are its a_k and b_k.
#[track_caller]
pub fn renoise<'r>(
    name: &str,
    x: Tensor<'r>,
    source: Tensor<'r>,
    noise: Tensor<'r>,
    gain: f32,
    noise_gain: f32,
    y: Tensor<'r>,
) {
    let recorder = x.recorder();
    assert_eq!(x.cols(), y.cols(), "{name}: x has {} columns, y {}", x.cols(), y.cols());
    assert_eq!(noise.cols(), y.cols(), "{name}: noise has {} columns", noise.cols());
    assert_eq!(noise.rows(), y.rows(), "{name}: noise has {} rows", noise.rows());
    assert!(source.rows() * source.cols() >= y.rows(), "{name}: too few sources");
    let params = Params { tokens: y.rows() as u32, c4: quads(y.cols()), gain, noise_gain };
    recorder.dispatch(Dispatch {
        pipeline: PipelineKey {
            shader: "renoise",
            entry: "main",
            roles: vec![],
            overrides: vec![],
        },
        params: bytemuck::bytes_of(&params).to_vec(),
        bindings: vec![
            read(whole(name, "x", x)),
            read(whole(name, "source", source)),
            read(whole(name, "noise", noise)),
            read_write(whole(name, "y", y)),
        ],
        groups: fold_groups((y.rows() * y.cols() / 4).div_ceil(ITEMS)),
        flops: (y.rows() * y.cols()) as f64 * 4.0,
        label: name.to_owned(),
    });
}

/// `x` `[N, C]`, `source` `[M]`, `noise` `[M, C]`. Gives `[M, C]`.
pub fn reference(
    x: &[f32],
    channels: usize,
    source: &[u32],
    noise: &[f32],
    gain: f64,
    noise_gain: f64,
) -> Vec<f64> {
    let mut out = Vec::with_capacity(noise.len());
    for (i, source) in source.iter().enumerate() {
        let (token, code) = ((source / 8) as usize, source % 8);
        for c in 0..channels {
            let from = if code < 4 { c / 4 * 4 + code as usize } else { c };
            out.push(
                gain * f64::from(x[token * channels + from])
                    + noise_gain * f64::from(noise[i * channels + c]),
            );
        }
    }
    out
}
