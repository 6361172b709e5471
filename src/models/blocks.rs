//! What the blocks of several networks have in common.

use super::denoiser::State;
use super::modulation::Columns;
use crate::ops::{
    Activation, Affine, LinearLayer, NormKind, all_read_f16, attention_writes_f16, linear, norm,
    norm_for,
};
use crate::tensor::{Recorder, Tensor};

/// The layer norm of diffusion transformers: no weights of its own, epsilon 1e-6.
pub(super) const LAYER_NORM: NormKind = NormKind::Layer { eps: 1e-6 };

/// The image streams as the first block's attention reads them, `[N, hidden]` for each branch. `modulation` is that
/// block's, with the shift and the scale in front.
pub(super) fn modulated_images<'r>(state: &State<'r>, modulation: &Columns) -> Vec<Tensor<'r>> {
    let d = state.x.cols();
    (state.branches().enumerate())
        .map(|(b, streams)| {
            let row = state.modulation(modulation, b);
            let (shift, scale) = (row.col_range(0..d), row.col_range(d..2 * d));
            norm("modulated", streams.img, LAYER_NORM, Affine::Modulate { scale, shift })
        })
        .collect()
}

/// Whether the output of attention to `keys` rows of queries, keys and values side by side, of heads of `head_dim` numbers and
/// `width` in all, can be in f16: `readers` alone read it, each so many rows.
pub(super) fn attention_is_in_f16<'l>(
    recorder: &Recorder,
    head_dim: usize,
    [keys, width]: [usize; 2],
    readers: impl IntoIterator<Item = (&'l LinearLayer, usize)>,
) -> bool {
    attention_writes_f16(recorder, head_dim)
        && recorder.is_one_buffer(keys, 3 * width)
        && all_read_f16(recorder, readers)
}

/// The last layer: norm, modulation, projection.
pub(super) struct LastLayer {
    /// A scale and a shift.
    pub modulation: Columns,
    /// The output layer.
    pub proj: LinearLayer,
}

impl LastLayer {
    /// The velocity of the image tokens of each branch.
    pub(super) fn forward<'r>(&self, state: &State<'r>) -> Vec<Tensor<'r>> {
        (state.branches().enumerate())
            .map(|(b, streams)| {
                // This modulation has the scale in front of the shift.
                let [scale, shift] = state.modulation(&self.modulation, b).chunk_cols();
                let affine = Affine::Modulate { scale, shift };
                let img = norm_for("norm_out", streams.img, LAYER_NORM, affine, &[&self.proj]);
                linear("velocity", img, &self.proj, Activation::Identity)
            })
            .collect()
    }
}
