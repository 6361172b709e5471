//! What the blocks of several networks have in common.

use super::denoiser::State;
use super::layers::Loader;
use crate::ops::{Activation, Affine, LinearLayer, NormKind, linear, norm};
use crate::tensor::Tensor;

/// The layer norm of diffusion transformers: no weights of its own, epsilon 1e-6.
pub(super) const LAYER_NORM: NormKind = NormKind::Layer { eps: 1e-6 };

/// The image streams as the first block's attention reads them, `[N, hidden]` for each branch. `modulation` is that
/// block's, with the shift and the scale in front.
pub(super) fn modulated_images<'r>(state: &State<'r>, modulation: &LinearLayer) -> Vec<Tensor<'r>> {
    let rows = linear("mod", state.vec, modulation, Activation::Identity);
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
    modulation: LinearLayer,
    proj: LinearLayer,
}

impl LastLayer {
    /// `norm_out.linear`, for a network of width `d`, and the output layer.
    pub(super) fn load(loader: &Loader<'_>, d: usize, proj: LinearLayer) -> Self {
        LastLayer { modulation: loader.linear("norm_out.linear", 2 * d, d), proj }
    }

    /// The velocity of the image tokens of each branch.
    pub(super) fn forward<'r>(&self, state: &State<'r>) -> Vec<Tensor<'r>> {
        // This modulation has the scale in front of the shift.
        let rows = linear("norm_out.mod", state.vec, &self.modulation, Activation::Identity);
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
