//! Group norm of a picture, followed by SiLU.

use super::{ITEMS, LANES, quads, read, read_write, whole};
use crate::tensor::{Dispatch, PipelineKey, Tensor, Work, fold_groups, row_pieces};

#[repr(C)]
#[derive(Clone, Copy, Default, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    pixels: u32,
    c4: u32,
    x_offset: u32,
    x_stride: u32,
    y_offset: u32,
    y_stride: u32,
    chunk: u32,
    first_chunk: u32,
    chunks: u32,
    channels_per_group: u32,
    groups: u32,
    eps: f32,
}

fn key(entry: &'static str, overrides: Vec<(&'static str, f64)>) -> PipelineKey {
    PipelineKey { shader: "group_norm", entry, roles: vec![], overrides }
}

/// The channels as the kernels' constant.
fn c4(channels: usize) -> (&'static str, f64) {
    ("C4", f64::from(quads(channels)))
}

/// Normalises groups of channels of the picture `x` `[H * W, C]` over all its pixels, scales by `weight` and
/// adds `bias` (both `[1, C]`), applies SiLU if `silu`, and writes `y` of the same shape.
///
/// Statistics are taken over the whole picture even if it is held in several bands.
#[track_caller]
#[allow(clippy::too_many_arguments, reason = "an op lists its operands")]
pub fn group_norm<'r>(
    name: &str,
    x: Tensor<'r>,
    groups: usize,
    eps: f32,
    weight: Tensor<'r>,
    bias: Tensor<'r>,
    silu: bool,
    y: Tensor<'r>,
) {
    let affine = group_affine(name, x, groups, eps, weight, bias);
    group_affine_apply(name, x, affine, silu, y);
}

/// The first two of a group norm's three passes: what its statistics, weight and bias amount to for each channel,
/// `[2, C]`, a factor and an offset.
#[track_caller]
pub fn group_affine<'r>(
    name: &str,
    x: Tensor<'r>,
    groups: usize,
    eps: f32,
    weight: Tensor<'r>,
    bias: Tensor<'r>,
) -> Tensor<'r> {
    let recorder = x.recorder();
    let channels = x.cols();
    assert!(channels.is_multiple_of(groups), "{name}: {channels} channels in {groups} groups");
    recorder.note(Work::GroupNorm { pixels: x.rows(), channels, groups });
    let chunk = recorder.base(x.base).chunk.unwrap_or((x.rows() / 256).clamp(64, 8192));
    let pieces = row_pieces(&[x], usize::MAX);
    let chunks: usize = pieces.iter().map(|piece| piece.rows.div_ceil(chunk)).sum();
    let partial = recorder.temp(&format!("{name}.partial"), chunks * 3, channels);
    let result = recorder.temp(&format!("{name}.affine"), 2, channels);
    let partial = partial.expect_single("partial").0;
    let affine = result.expect_single("affine").0;
    let weight = whole(name, "weight", weight);
    let bias = whole(name, "bias", bias);

    let mut first_chunk = 0;
    let mut sums = Vec::new();
    for piece in &pieces {
        let (x_buffer, x_at) = piece.at[0];
        let n_chunks = piece.rows.div_ceil(chunk);
        let params = Params {
            pixels: piece.rows as u32,
            c4: quads(channels),
            x_offset: quads(x_at),
            x_stride: quads(x.row_stride()),
            chunk: chunk as u32,
            first_chunk: first_chunk as u32,
            ..Default::default()
        };
        sums.push(Dispatch {
            pipeline: key("stats", vec![c4(channels)]),
            params: bytemuck::bytes_of(&params).to_vec(),
            bindings: vec![read(x_buffer), read_write(partial)],
            groups: fold_groups((n_chunks * channels / 4).div_ceil(LANES)),
            flops: (piece.rows * channels) as f64 * 4.0,
            label: format!("{name}.stats"),
        });
        first_chunk += n_chunks;
    }
    // Of each band as soon as it is there.
    recorder.early(|| sums.into_iter().for_each(|sum| recorder.dispatch(sum)));

    let params = Params {
        c4: quads(channels),
        chunks: chunks as u32,
        channels_per_group: (channels / groups) as u32,
        groups: groups as u32,
        eps,
        ..Default::default()
    };
    recorder.dispatch(Dispatch {
        pipeline: key("fold", vec![]),
        params: bytemuck::bytes_of(&params).to_vec(),
        bindings: vec![read(partial), read(weight), read(bias), read_write(affine)],
        groups: fold_groups(groups.div_ceil(LANES)),
        flops: (chunks * channels) as f64 * 10.0,
        label: format!("{name}.fold"),
    });
    result
}

/// The last pass: `y = x * factor + offset`, then SiLU if `silu`. `x` and `y` are `[M, C]`, `affine` is `[2, C]`.
#[track_caller]
pub fn group_affine_apply<'r>(
    name: &str,
    x: Tensor<'r>,
    affine: Tensor<'r>,
    silu: bool,
    y: Tensor<'r>,
) {
    let recorder = x.recorder();
    let channels = x.cols();
    let affine = whole(name, "affine", affine);
    for piece in row_pieces(&[x, y], usize::MAX) {
        let [(x_buffer, x_at), (y_buffer, y_at)] = [piece.at[0], piece.at[1]];
        let params = Params {
            pixels: piece.rows as u32,
            c4: quads(channels),
            x_offset: quads(x_at),
            x_stride: quads(x.row_stride()),
            y_offset: quads(y_at),
            y_stride: quads(y.row_stride()),
            ..Default::default()
        };
        recorder.dispatch(Dispatch {
            pipeline: key("apply", vec![c4(channels), ("SILU_AFTER", f64::from(u8::from(silu)))]),
            params: bytemuck::bytes_of(&params).to_vec(),
            bindings: vec![read(x_buffer), read(affine), read_write(y_buffer)],
            groups: fold_groups((piece.rows * channels / 4).div_ceil(ITEMS)),
            flops: (piece.rows * channels) as f64 * 8.0,
            label: format!("{name}.apply"),
        });
    }
}

/// `x` `[H * W, C]`, `weight` and `bias` `[C]`.
pub fn reference(
    x: &[f32],
    groups: usize,
    eps: f32,
    weight: &[f32],
    bias: &[f32],
    silu: bool,
) -> Vec<f64> {
    let channels = weight.len();
    let width = channels / groups;
    let mut out = vec![0.0; x.len()];
    for group in 0..groups {
        let own = || {
            (0..x.len()).filter(|i| (i % channels) / width == group).map(|i| (i, f64::from(x[i])))
        };
        let count = own().count() as f64;
        let mean = own().map(|(_, v)| v).sum::<f64>() / count;
        let variance = own().map(|(_, v)| (v - mean).powi(2)).sum::<f64>() / count;
        for (i, v) in own() {
            let c = i % channels;
            let y = (v - mean) / (variance + f64::from(eps)).sqrt() * f64::from(weight[c])
                + f64::from(bias[c]);
            let kind = if silu { super::Activation::Silu } else { super::Activation::Identity };
            out[i] = super::reference::activate(y, kind);
        }
    }
    out
}
