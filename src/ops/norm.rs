//! Layer norm and RMS norm, with AdaLN modulation as an epilogue, and perhaps the narrow product of the layer that follows.

use super::{Input, LANES, LinearLayer, LowRank, all_read_f16, quads, read, read_write};
use crate::tensor::{Dispatch, PipelineKey, Tensor, Work, fold_groups, row_pieces_of_any};

/// Which statistics a row is divided by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum NormKind {
    /// `(x - mean) / sqrt(var + eps)`.
    Layer {
        /// Added to the variance.
        eps: f32,
    },
    /// `x / sqrt(mean(x²) + eps)`.
    Rms {
        /// Added to the mean square.
        eps: f32,
    },
}

/// What follows the normalisation; all operands are `[1, C]`.
#[derive(Clone, Copy)]
pub enum Affine<'r> {
    /// Nothing.
    None,
    /// `norm(x) * (1 + scale) + shift`: AdaLN.
    Modulate {
        /// AdaLN scale.
        scale: Tensor<'r>,
        /// AdaLN shift.
        shift: Tensor<'r>,
    },
    /// `norm(x) * weight + bias`.
    WeightBias(Tensor<'r>, Tensor<'r>),
    /// `norm(x) * weight`.
    Weight(Tensor<'r>),
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
    scale_offset: u32,
    shift_offset: u32,
    eps: f32,
    rank4: u32,
    narrow_offset: u32,
    narrow_stride: u32,
    f16_flag: u32,
}

/// Ranks up to which a norm makes a narrow product: it reads its rows again for every sixteen.
const MAX_RANK: usize = 64;
/// Rows of a workgroup of graphics chips that makes one.
const NARROW_ROWS: usize = 4;

/// A new matrix with every row of `x` `[M, C]` normalised.
#[track_caller]
pub fn norm<'r>(name: &str, x: Tensor<'r>, kind: NormKind, affine: Affine<'r>) -> Tensor<'r> {
    let y = x.recorder().temp(name, x.rows(), x.cols());
    norm_into(name, x, kind, affine, y);
    y
}

/// [`norm`] for layers that alone read the result. Where the first of them has a low-rank change, with its narrow product, which
/// then is no dispatch of its own; else in f16, if all their products round to that.
#[track_caller]
pub fn norm_for<'r>(
    name: &str,
    x: Tensor<'r>,
    kind: NormKind,
    affine: Affine<'r>,
    readers: &[&LinearLayer],
) -> Input<'r> {
    let recorder = x.recorder();
    let fits = |change: &&LowRank| change.down.n <= MAX_RANK && change.down.shards.len() == 1;
    let change = readers.first().and_then(|first| first.low_rank.as_deref()).filter(fits);
    let Some(change) = change else {
        let in_f16 = all_read_f16(recorder, readers.iter().map(|reader| (*reader, x.rows())));
        let y = recorder.temp_as(name, [x.rows(), x.cols()], in_f16);
        norm_into(name, x, kind, affine, y);
        return y.into();
    };
    let y = recorder.temp(name, x.rows(), x.cols());
    let narrow = recorder.temp(&format!("{name}.down"), x.rows(), change.down.n);
    record(name, x, kind, affine, y, Some((change, narrow)));
    Input::with_narrow(y, change, narrow)
}

/// Writes the normalised rows of `x` into `y`, another matrix of the same shape, in f32 or f16.
#[track_caller]
pub fn norm_into<'r>(name: &str, x: Tensor<'r>, kind: NormKind, affine: Affine<'r>, y: Tensor<'r>) {
    record(name, x, kind, affine, y, None);
}

#[track_caller]
fn record<'r>(
    name: &str,
    x: Tensor<'r>,
    kind: NormKind,
    affine: Affine<'r>,
    y: Tensor<'r>,
    narrow: Option<(&LowRank, Tensor<'r>)>,
) {
    assert_eq!(x.cols(), y.cols(), "{name}: x has {} columns, y {}", x.cols(), y.cols());
    assert!(!x.is_f16(), "{name}: x is in f16");
    let recorder = x.recorder();
    recorder.note(Work::Norm { rows: x.rows(), width: x.cols() });
    let (code, scale, shift) = match affine {
        Affine::None => (0, None, None),
        Affine::Modulate { scale, shift } => (1, Some(scale), Some(shift)),
        Affine::WeightBias(weight, bias) => (2, Some(weight), Some(bias)),
        Affine::Weight(weight) => (3, Some(weight), None),
    };
    for operand in [scale, shift].into_iter().flatten() {
        assert_eq!(operand.cols(), x.cols(), "{name}: scale or shift has the wrong width");
    }
    let scale = scale.map(|t| t.expect_single("scale"));
    let shift = shift.map(|t| t.expect_single("shift"));
    let (rms, eps) = match kind {
        NormKind::Layer { eps } => (0.0, eps),
        NormKind::Rms { eps } => (1.0, eps),
    };
    if let Some((LowRank { down, .. }, _)) = narrow {
        let (rows, n, k, storage) = (x.rows(), down.n, down.k, down.storage);
        recorder.note(Work::Linear { rows, n, k, storage });
    }
    let per_invocation = recorder.caps().is_cpu;
    let (entry, rows_of_group) = match (per_invocation, narrow) {
        (true, _) => ("row_per_invocation", LANES),
        (false, None) => ("row_per_workgroup", 1),
        (false, Some(_)) => ("rows_per_workgroup", NARROW_ROWS),
    };
    let rank = narrow.map_or(0, |(change, _)| change.down.n);
    let f16_flag = y.is_f16().then(|| recorder.f16_flag());
    let roles = if y.is_f16() { vec![("norm_y", "norm_y_f16")] } else { vec![] };
    let operands: Vec<Tensor<'r>> =
        [x, y].into_iter().chain(narrow.map(|(_, narrow)| narrow)).collect();
    for piece in row_pieces_of_any(&operands, usize::MAX) {
        let [(x_buffer, x_at), (y_buffer, y_at)] = [piece.at[0], piece.at[1]];
        let params = Params {
            rows: piece.rows as u32,
            c4: quads(x.cols()),
            x_offset: quads(x_at),
            x_stride: quads(x.row_stride()),
            y_offset: quads(y_at),
            y_stride: quads(y.row_stride()),
            scale_offset: scale.map_or(0, |(_, at)| quads(at)),
            shift_offset: shift.map_or(0, |(_, at)| quads(at)),
            eps,
            rank4: narrow.map_or(0, |(change, _)| quads(change.down.n)),
            narrow_offset: piece.at.get(2).map_or(0, |(_, at)| quads(*at)),
            narrow_stride: narrow.map_or(0, |(_, narrow)| quads(narrow.row_stride())),
            f16_flag: f16_flag.map_or(0, |(_, flag)| flag as u32),
        };
        let mut overrides = vec![("RMS", rms), ("AFFINE", f64::from(code))];
        let mut bindings = vec![
            read(x_buffer),
            read(scale.map_or(x_buffer, |(buffer, _)| buffer)),
            read(shift.map_or(x_buffer, |(buffer, _)| buffer)),
            read_write(y_buffer),
        ];
        if let (Some((change, _)), Some((narrow_buffer, _))) = (narrow, piece.at.get(2)) {
            overrides.push(("DOWN_LANES", (change.down.tile / 4) as f64));
            bindings.extend([
                read(recorder.shard(&change.down, 0)),
                read(recorder.resident(&change.scales).expect_single("scales").0),
                read_write(*narrow_buffer),
            ]);
        }
        if let Some((buffer, _)) = f16_flag {
            overrides.extend(recorder.f16_scale());
            bindings.push(read_write(buffer));
        }
        recorder.dispatch(Dispatch {
            pipeline: PipelineKey {
                shader: if narrow.is_some() { "norm_narrow" } else { "norm" },
                entry,
                roles: roles.clone(),
                overrides,
            },
            params: bytemuck::bytes_of(&params).to_vec(),
            bindings,
            groups: fold_groups(piece.rows.div_ceil(rows_of_group)),
            flops: (piece.rows * x.cols()) as f64 * (8 + 2 * rank) as f64,
            label: name.to_owned(),
        });
    }
}

/// One row. `scale` and `shift` multiply and add after the division (give `1 + scale` for AdaLN).
pub fn reference(
    x: &[f32],
    kind: NormKind,
    scale: Option<&[f64]>,
    shift: Option<&[f64]>,
) -> Vec<f64> {
    let n = x.len() as f64;
    let (mean, eps) = match kind {
        NormKind::Layer { eps } => (x.iter().map(|v| f64::from(*v)).sum::<f64>() / n, eps),
        NormKind::Rms { eps } => (0.0, eps),
    };
    let square = x.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / n;
    let factor = 1.0 / (square + f64::from(eps)).sqrt();
    x.iter()
        .enumerate()
        .map(|(i, v)| {
            (f64::from(*v) - mean) * factor * scale.map_or(1.0, |s| s[i])
                + shift.map_or(0.0, |s| s[i])
        })
        .collect()
}
