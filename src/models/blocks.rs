//! What the blocks of several networks have in common.

use super::denoiser::State;
use crate::ops::{Activation, Affine, LinearLayer, NormKind, linear, norm};
use crate::tensor::Tensor;

/// The layer norm of diffusion transformers: no weights of its own, epsilon 1e-6.
pub(super) const LAYER_NORM: NormKind = NormKind::Layer { eps: 1e-6 };

/// The image streams as the first block's attention reads them, `[N, hidden]` for each branch. `modulation` is that
/// block's, with the shift and the scale in front.
pub(super) fn modulated_by<'r>(state: &State<'r>, modulation: &LinearLayer) -> Vec<Tensor<'r>> {
    modulated_images(state, linear("mod", state.vec, modulation, Activation::Identity))
}

/// [`modulated_by`] the vectors `rows` `[B, 2 * hidden or more]`, a shift and a scale in front.
pub(super) fn modulated_images<'r>(state: &State<'r>, rows: Tensor<'r>) -> Vec<Tensor<'r>> {
    let d = state.x.cols();
    (state.branches().enumerate())
        .map(|(b, streams)| {
            let row = state.row(rows, b);
            let (shift, scale) = (row.col_range(0..d), row.col_range(d..2 * d));
            norm("modulated", streams.img, LAYER_NORM, Affine::Modulate { scale, shift })
        })
        .collect()
}

/// The last layer: norm, modulation, projection.
pub(super) struct LastLayer {
    /// From `[B, hidden]` to a scale and a shift, `[B, 2 * hidden]`.
    pub modulation: LinearLayer,
    /// The output layer.
    pub proj: LinearLayer,
}

impl LastLayer {
    /// The velocity of the image tokens of each branch. `vec` `[B, hidden]` is what its modulation is made from.
    pub(super) fn forward<'r>(&self, state: &State<'r>, vec: Tensor<'r>) -> Vec<Tensor<'r>> {
        // This modulation has the scale in front of the shift.
        let rows = linear("norm_out.mod", vec, &self.modulation, Activation::Identity);
        (state.branches().enumerate())
            .map(|(b, streams)| {
                let [scale, shift] = state.row(rows, b).chunk_cols();
                let affine = Affine::Modulate { scale, shift };
                let img = norm("norm_out", streams.img, LAYER_NORM, affine);
                linear("velocity", img, &self.proj, Activation::Identity)
            })
            .collect()
    }
}
