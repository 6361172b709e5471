//! What the networks of all families have in common: a sequence goes through blocks and becomes a velocity.
//!
//! A network is evaluated piece by piece, [`Denoiser::begin`], [`Denoiser::block`] for each block, and
//! [`Denoiser::velocity`], so that a temporal cache can leave pieces out.
//!
//! Classifier-free guidance is a batch of two **branches**, the wanted text and the unwanted one. They have their
//! own text, image tokens and modulation, and go through a block together, before the next block.

use super::flux::Flux;
use super::layers::Loader;
use super::sd3::Sd3;
use crate::ops::{
    Activation, Affine, Epilogue, LinearLayer, NormKind, Write, linear, linear_into, norm,
};
use crate::tensor::{Recorder, Tensor};

/// A network of a known family.
pub enum Denoiser {
    /// FLUX.1.
    Flux(Flux),
    /// Stable Diffusion 3 and 3.5.
    Sd3(Sd3),
}

/// What one evaluation depends on beside the image tokens. B branches: matrices hold one after the other.
#[derive(Clone, Copy)]
pub struct Inputs<'r> {
    /// Text tokens, `[B * T, text_dim]`.
    pub txt: Tensor<'r>,
    /// Pooled text vectors, `[B, pooled_dim]`.
    pub pooled: Tensor<'r>,
    /// Sinusoid of `1000 * sigma`, the same in each of B rows, `[B, 256]`.
    pub time: Tensor<'r>,
    /// Sinusoid of `1000 * guidance`, `[B, 256]`; not read by models without a guidance input.
    pub guidance: Tensor<'r>,
    /// Where the tokens are.
    pub positions: Positions<'r>,
}

/// How a network is told where its tokens are.
#[derive(Clone, Copy)]
pub enum Positions<'r> {
    /// Rotations of all tokens, text first, `[T + N, head_dim]`: FLUX, from [`super::flux::rope_table`].
    Rotations(Tensor<'r>),
    /// Two tables of rotations, by whose grid counts: see [`PerGrid`].
    PerGrid(PerGrid<'r>),
    /// Vectors that are added to image tokens, `[N, hidden]`: SD3.
    Added(Tensor<'r>),
}

/// Rotations of a mixed-resolution sequence in units of the query's own grid: CRPA, arXiv 2511.19778.
///
/// The image tokens are `n_coarse` coarse ones, then fine ones, four children in a row. Fine queries and text see all
/// tokens at `fine` positions. Coarse queries see text, coarse tokens and the first child of each four at `coarse`
/// positions.
#[derive(Clone, Copy)]
pub struct PerGrid<'r> {
    /// In units of the full grid, `[T + N, head_dim]`.
    pub fine: Tensor<'r>,
    /// In units of the coarse grid, `[T + N, head_dim]`.
    pub coarse: Tensor<'r>,
    /// Coarse image tokens.
    pub n_coarse: usize,
}

/// A sequence on its way through the blocks.
#[derive(Clone, Copy)]
pub struct State<'r> {
    /// `[B * (T + N), hidden]`: the branches one after the other, each with text first.
    pub x: Tensor<'r>,
    /// What modulations are made from, after SiLU, `[B, hidden]`.
    pub vec: Tensor<'r>,
    /// Where the tokens are.
    pub positions: Positions<'r>,
    /// T, text tokens of a branch.
    pub n_text: usize,
}

/// One branch's sequence and its two parts, all views of one matrix.
#[derive(Clone, Copy)]
pub struct Streams<'r> {
    /// `[T, hidden]`.
    pub txt: Tensor<'r>,
    /// `[N, hidden]`.
    pub img: Tensor<'r>,
    /// `[T + N, hidden]`.
    pub all: Tensor<'r>,
}

impl<'r> State<'r> {
    /// Number of branches.
    pub fn n_branches(&self) -> usize {
        self.vec.rows()
    }

    /// The sequence of branch `b`.
    pub fn streams(&self, b: usize) -> Streams<'r> {
        let all = self.x.rows() / self.n_branches();
        let rows = self.x.row_range(b * all..(b + 1) * all);
        Streams {
            txt: rows.row_range(0..self.n_text),
            img: rows.row_range(self.n_text..all),
            all: rows,
        }
    }

    /// The sequences of all branches.
    pub fn branches(&self) -> impl Iterator<Item = Streams<'r>> + '_ {
        (0..self.n_branches()).map(|b| self.streams(b))
    }

    /// Row `b` of a matrix with one row for each branch.
    pub fn row(&self, matrix: Tensor<'r>, b: usize) -> Tensor<'r> {
        matrix.row_range(b..b + 1)
    }
}

/// Where the outputs of attention and MLPs go on their way into the residual stream.
///
/// Temporal caches that keep the output of each module stand here; without one it is [`Direct`].
pub trait Residual<'r> {
    /// `x += gate * layer(input)`. `x` and `input` are `[M, ..]`, `gate` is `[1, hidden]`.
    fn add(&mut self, x: Tensor<'r>, gate: Tensor<'r>, input: Tensor<'r>, layer: &LinearLayer);
}

/// No cache: the layer's epilogue adds.
pub struct Direct;

impl<'r> Residual<'r> for Direct {
    fn add(&mut self, x: Tensor<'r>, gate: Tensor<'r>, input: Tensor<'r>, layer: &LinearLayer) {
        let epilogue = Epilogue { gate: Some(gate), write: Write::Add, ..Default::default() };
        linear_into("residual", input, layer, x, epilogue);
    }
}

/// What a replayed block asks for in place of each [`Residual::add`]: `x += gate * (what the module would give)`.
pub type Replay<'a, 'r> = &'a mut dyn FnMut(Tensor<'r>, Tensor<'r>);

impl Denoiser {
    /// Embeds the image tokens `img` `[N, token_channels]`, once for each branch, and the texts. `x` and `vec` are
    /// memory for [`State`].
    pub fn begin<'r>(
        &self,
        img: Tensor<'r>,
        inputs: Inputs<'r>,
        x: Tensor<'r>,
        vec: Tensor<'r>,
    ) -> State<'r> {
        let n_text = inputs.txt.rows() / inputs.pooled.rows();
        let state = State { x, vec, positions: inputs.positions, n_text };
        match self {
            Denoiser::Flux(flux) => flux.begin(img, inputs, state),
            Denoiser::Sd3(sd3) => sd3.begin(img, inputs, state),
        }
        state
    }

    /// Number of blocks.
    pub fn n_blocks(&self) -> usize {
        match self {
            Denoiser::Flux(flux) => flux.n_blocks(),
            Denoiser::Sd3(sd3) => sd3.n_blocks(),
        }
    }

    /// Runs block `i`, which changes `state.x` in place.
    pub fn block<'r>(&self, i: usize, state: &State<'r>, residual: &mut dyn Residual<'r>) {
        match self {
            Denoiser::Flux(flux) => flux.block(i, state, residual),
            Denoiser::Sd3(sd3) => sd3.block(i, state, residual),
        }
    }

    /// Does of block `i` only the modulation, and calls `module` for each [`Residual::add`] of [`Denoiser::block`],
    /// in the same order.
    pub fn replay<'r>(&self, i: usize, state: &State<'r>, module: Replay<'_, 'r>) {
        match self {
            Denoiser::Flux(flux) => flux.replay(i, state, module),
            Denoiser::Sd3(sd3) => sd3.replay(i, state, module),
        }
    }

    /// The image stream as the first block's attention reads it, `[N, hidden]` for each branch: what TeaCache
    /// compares.
    pub fn modulated_input<'r>(&self, state: &State<'r>) -> Vec<Tensor<'r>> {
        match self {
            Denoiser::Flux(flux) => flux.modulated_input(state),
            Denoiser::Sd3(sd3) => sd3.modulated_input(state),
        }
    }

    /// The velocity of the image tokens, `[N, token_channels]` for each branch.
    pub fn velocity<'r>(&self, state: &State<'r>) -> Vec<Tensor<'r>> {
        match self {
            Denoiser::Flux(flux) => flux.velocity(state),
            Denoiser::Sd3(sd3) => sd3.velocity(state),
        }
    }

    /// All of it, without a cache.
    pub fn forward<'r>(
        &self,
        img: Tensor<'r>,
        inputs: Inputs<'r>,
        hidden: usize,
    ) -> Vec<Tensor<'r>> {
        let recorder = img.recorder();
        let branches = inputs.pooled.rows();
        let x = recorder.temp("x", inputs.txt.rows() + branches * img.rows(), hidden);
        let vec = recorder.temp("vec", branches, hidden);
        let state = self.begin(img, inputs, x, vec);
        for i in 0..self.n_blocks() {
            self.block(i, &state, &mut Direct);
        }
        self.velocity(&state)
    }

    /// Rows of each module that [`Denoiser::replay`] asks for, block after block, for `branches` of `n_text` text
    /// tokens and `n_image` image tokens.
    pub fn module_rows(
        &self,
        branches: usize,
        n_text: usize,
        n_image: usize,
        hidden: usize,
    ) -> Vec<usize> {
        // Replayed into a recorder that is thrown away: shapes then cannot differ from what is recorded.
        let recorder = Recorder::new(Default::default());
        let x = recorder.temp("x", branches * (n_text + n_image), hidden);
        let vec = recorder.temp("vec", branches, hidden);
        let positions = Positions::Added(x);
        let state = State { x, vec, positions, n_text };
        let mut rows = Vec::new();
        for i in 0..self.n_blocks() {
            self.replay(i, &state, &mut |x, _| rows.push(x.rows()));
        }
        rows
    }
}

/// Of the layer norms in both families.
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

/// The last layer, the same in both families.
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
