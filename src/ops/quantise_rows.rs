//! Rows rounded to signed bytes in blocks of 32 numbers: the x of products of bytes.

use super::{quads, read, read_write};
use crate::tensor::{CodeOrder, Dispatch, PipelineKey, Tensor, fold_groups, row_pieces};

/// Numbers that share a scale.
const BLOCK: usize = 32;
/// Numbers whose words lie together, and these words: 16 of codes, then of each block its scale and its scale times the sum of
/// its codes.
const NUMBERS: usize = 64;
const WORDS: usize = 20;
/// Blocks of a workgroup.
const GROUP_BLOCKS: usize = 16;

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    rows: u32,
    blocks: u32,
    x_offset: u32,
    x_stride: u32,
    y_offset: u32,
    y_stride: u32,
}

/// A new matrix of words `[M, K / 64 * 20]` with each row of `x` `[M, K]` in blocks of 32 codes of 8 bits. `K` is a multiple of
/// 64.
#[track_caller]
pub fn quantise_rows<'r>(name: &str, x: Tensor<'r>, order: CodeOrder) -> Tensor<'r> {
    let k = x.cols();
    assert!(k.is_multiple_of(NUMBERS), "{name}: rows of {k} numbers are no multiple of {NUMBERS}");
    let recorder = x.recorder();
    let y = recorder.temp(name, x.rows(), k / NUMBERS * WORDS);
    for piece in row_pieces(&[x, y], usize::MAX) {
        let [(x_buffer, x_at), (y_buffer, y_at)] = [piece.at[0], piece.at[1]];
        let params = Params {
            rows: piece.rows as u32,
            blocks: (k / BLOCK) as u32,
            x_offset: quads(x_at),
            x_stride: quads(x.row_stride()),
            y_offset: quads(y_at),
            y_stride: quads(y.row_stride()),
        };
        let interleaved = f64::from(u8::from(order == CodeOrder::Interleaved));
        recorder.dispatch(Dispatch {
            pipeline: PipelineKey {
                shader: "quantise_rows",
                entry: "main",
                roles: vec![],
                overrides: vec![("INTERLEAVED", interleaved)],
            },
            params: bytemuck::bytes_of(&params).to_vec(),
            bindings: vec![read(x_buffer), read_write(y_buffer)],
            groups: fold_groups((piece.rows * (k / BLOCK)).div_ceil(GROUP_BLOCKS)),
            flops: (piece.rows * k) as f64 * 8.0,
            label: name.to_owned(),
        });
    }
    y
}

/// One block: its scale, and its codes as numbers. The largest magnitude becomes 127; a block of numbers below 2^-119 is zeros.
pub fn reference(block: &[f32]) -> (f64, Vec<f64>) {
    let largest = block.iter().fold(0.0f64, |most, v| most.max(f64::from(v.abs())));
    if largest < 2f64.powi(-119) {
        return (0.0, vec![0.0; block.len()]);
    }
    let scale = largest / 127.0;
    (scale, block.iter().map(|v| (f64::from(*v) / scale).round_ties_even()).collect())
}
