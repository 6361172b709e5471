//! How much a matrix changed from one step to the next: what temporal caches decide by.

use super::{LANES, quads, read, read_write, whole};
use crate::tensor::{Dispatch, PipelineKey, Tensor, fold_groups, row_pieces};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    rows: u32,
    c4: u32,
    a_offset: u32,
    a_stride: u32,
    b_offset: u32,
    b_stride: u32,
    first_row: u32,
    group_rows: u32,
    groups: u32,
}

/// Rows whose sums one invocation makes.
const GROUP_ROWS: usize = 4;

/// Rows of `partials` that [`change`] fills for a matrix of `rows` rows.
pub fn change_rows(rows: usize) -> usize {
    rows.div_ceil(GROUP_ROWS)
}

/// Sums of `|a - b|` and `|b|` over groups of rows. `a` and `b` `[M, C]`, `partials` `[change_rows(M), 4]`.
///
/// [`relative_change`] finishes on the host.
#[track_caller]
pub fn change<'r>(name: &str, a: Tensor<'r>, b: Tensor<'r>, partials: Tensor<'r>) {
    assert_eq!(a.cols(), b.cols(), "{name}: a has {} columns, b {}", a.cols(), b.cols());
    let needed = change_rows(a.rows());
    assert!(partials.rows() >= needed, "{name}: {} partials, {needed} needed", partials.rows());
    assert_eq!(partials.cols(), 4, "{name}: a partial has {} numbers", partials.cols());
    let recorder = a.recorder();
    let partials = whole(name, "partials", partials);
    for piece in row_pieces(&[a, b], usize::MAX) {
        let [(a_buffer, a_at), (b_buffer, b_at)] = [piece.at[0], piece.at[1]];
        let groups = (piece.row0 + piece.rows).div_ceil(GROUP_ROWS) - piece.row0 / GROUP_ROWS;
        let params = Params {
            rows: piece.rows as u32,
            c4: quads(a.cols()),
            a_offset: quads(a_at),
            a_stride: quads(a.row_stride()),
            b_offset: quads(b_at),
            b_stride: quads(b.row_stride()),
            first_row: piece.row0 as u32,
            group_rows: GROUP_ROWS as u32,
            groups: groups as u32,
        };
        recorder.dispatch(Dispatch {
            pipeline: PipelineKey {
                shader: "change",
                entry: "main",
                roles: vec![],
                overrides: vec![],
            },
            params: bytemuck::bytes_of(&params).to_vec(),
            bindings: vec![read(a_buffer), read(b_buffer), read_write(partials)],
            groups: fold_groups(groups.div_ceil(LANES)),
            flops: (piece.rows * a.cols() * 4) as f64,
            label: name.to_owned(),
        });
    }
}

/// `mean |a - b| / mean |b|` from the numbers of [`change`]'s partials. Of nothing but zeros: 0 if nothing changed,
/// else infinity.
pub fn relative_change(partials: &[f32]) -> f64 {
    let sum = |i: usize| partials.chunks_exact(4).map(|p| f64::from(p[i])).sum::<f64>();
    let (changes, sizes) = (sum(0), sum(1));
    if changes == 0.0 { 0.0 } else { changes / sizes }
}

/// `a` and `b` of the same length. Gives `(sum |a - b|, sum |b|)`.
pub fn reference(a: &[f32], b: &[f32]) -> (f64, f64) {
    a.iter().zip(b).fold((0.0, 0.0), |(changes, sizes), (a, b)| {
        let (a, b) = (f64::from(*a), f64::from(*b));
        (changes + (a - b).abs(), sizes + b.abs())
    })
}
