//! RMS norm of query and key heads, then rotary positions if there are any.

use super::{LANES, quads, read, read_write, whole};
use crate::tensor::{Dispatch, PipelineKey, Tensor, Work, fold_groups, row_pieces};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    rows: u32,
    heads: u32,
    d4: u32,
    x_offset: u32,
    x_stride: u32,
    table_row: u32,
    eps: f32,
}

/// Invocations that share a head, at most: those of the smallest graphics chips' subgroups, so that wider ones hold whole
/// heads.
const MAX_HEAD_LANES: usize = 32;

/// Normalises and rotates the heads of `x` `[M, H * D]` in place.
///
/// `weight` `[1, D]`; `table` `[M, D]` holds cos and sin for each row of `x` and each pair of numbers.
/// FLUX reference code: `QKNorm`, `apply_rope`.
#[track_caller]
pub fn qk_norm_rope<'r>(
    name: &str,
    x: Tensor<'r>,
    weight: Tensor<'r>,
    table: Tensor<'r>,
    eps: f32,
) {
    let head_dim = weight.cols();
    assert_eq!(table.cols(), head_dim, "{name}: the table is {} wide", table.cols());
    assert_eq!(table.row_stride(), head_dim, "{name}: the table must be contiguous");
    record(name, x, weight, Some(table), eps);
}

/// Normalises the heads of `x` `[M, H * D]` in place; `weight` `[1, D]`. SD3.5 has no rotary positions.
#[track_caller]
pub fn qk_norm<'r>(name: &str, x: Tensor<'r>, weight: Tensor<'r>, eps: f32) {
    record(name, x, weight, None, eps);
}

#[track_caller]
fn record<'r>(name: &str, x: Tensor<'r>, weight: Tensor<'r>, table: Option<Tensor<'r>>, eps: f32) {
    let head_dim = weight.cols();
    assert!(x.cols().is_multiple_of(head_dim), "{name}: {} columns, heads of {head_dim}", x.cols());
    let recorder = x.recorder();
    let heads = x.cols() / head_dim;
    recorder.note(Work::QkNormRope { rows: x.rows(), heads, head_dim });
    let weight = whole(name, "norm weight", weight);
    let rotate = ("ROTATE", f64::from(u8::from(table.is_some())));
    // On a graphics chip neighbours share a head, so that they read neighbouring memory.
    let (entry, overrides, heads_at_once) = if recorder.caps().is_cpu {
        ("head_per_invocation", vec![rotate], LANES)
    } else {
        let lanes = (head_dim / 4).next_power_of_two().min(MAX_HEAD_LANES);
        ("head_per_lanes", vec![rotate, ("HEAD_LANES", lanes as f64)], LANES / lanes)
    };
    let operands: Vec<_> = [x].into_iter().chain(table).collect();
    for piece in row_pieces(&operands, usize::MAX) {
        let (x_buffer, x_at) = piece.at[0];
        // The weight stands in for an absent table: a binding must not be empty.
        let (table_buffer, table_at) = piece.at.get(1).copied().unwrap_or((weight, 0));
        let params = Params {
            rows: piece.rows as u32,
            heads: heads as u32,
            d4: quads(head_dim),
            x_offset: quads(x_at),
            x_stride: quads(x.row_stride()),
            table_row: (table_at / head_dim) as u32,
            eps,
        };
        recorder.dispatch(Dispatch {
            pipeline: PipelineKey {
                shader: "qk_norm_rope",
                entry,
                roles: vec![],
                overrides: overrides.clone(),
            },
            params: bytemuck::bytes_of(&params).to_vec(),
            bindings: vec![read(weight), read(table_buffer), read_write(x_buffer)],
            groups: fold_groups((piece.rows * heads).div_ceil(heads_at_once)),
            flops: (piece.rows * x.cols()) as f64 * 8.0,
            label: name.to_owned(),
        });
    }
}

/// One head of one row: `x`, `weight` `[D]`, `table` `[D]` as cos, sin pairs.
pub fn reference(x: &[f32], weight: &[f32], table: &[f32], eps: f32) -> Vec<f64> {
    let square = x.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / x.len() as f64;
    let factor = 1.0 / (square + f64::from(eps)).sqrt();
    let v: Vec<f64> =
        x.iter().zip(weight).map(|(x, w)| f64::from(*x) * factor * f64::from(*w)).collect();
    let mut out = Vec::with_capacity(x.len());
    for (pair, rotation) in v.chunks_exact(2).zip(table.chunks_exact(2)) {
        let (cos, sin) = (f64::from(rotation[0]), f64::from(rotation[1]));
        out.push(pair[0] * cos - pair[1] * sin);
        out.push(pair[1] * cos + pair[0] * sin);
    }
    out
}
