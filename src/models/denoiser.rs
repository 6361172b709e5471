//! What the networks of all families have in common: a sequence goes through blocks and becomes a velocity.
//!
//! A network is evaluated piece by piece, [`Denoiser::embed`], [`Denoiser::block`] for each block, and
//! [`Denoiser::velocity`], so that a temporal cache can leave pieces out.
//!
//! Classifier-free guidance is a batch of two **branches**, the wanted text and the unwanted one. They have their
//! own text, image tokens and modulation, and go through a block together, before the next block.

use super::config::TransformerConfig;
use super::modulation::{Columns, Modulations};
use super::position_table::PositionTable;
use crate::ops::{Epilogue, LinearLayer, Write, linear_into};
use crate::sync::{MaybeSend, MaybeSync};
use crate::tensor::{Recorder, Tensor};

/// The network of a family.
pub trait Denoiser: MaybeSend + MaybeSync {
    /// The layers that make the modulations.
    fn modulations(&self) -> &Modulations;

    /// Embeds the image tokens `img` `[N, token_channels]`, once for each branch, and the texts, and fills `state.x`.
    fn embed<'r>(&self, img: Tensor<'r>, inputs: Inputs<'r>, state: State<'r>);

    /// Number of blocks.
    fn n_blocks(&self) -> usize;

    /// Runs block `i`, which changes `state.x` in place.
    fn block<'r>(&self, i: usize, state: &State<'r>, residual: &mut dyn Residual<'r>);

    /// Of block `i`, only calls `module` for each [`Residual::add`] of [`Denoiser::block`],
    /// in the same order.
    fn replay<'r>(&self, i: usize, state: &State<'r>, module: Replay<'_, 'r>);

    /// The image stream as the first block's attention reads it, `[N, hidden]` for each branch: what TeaCache
    /// compares.
    fn modulated_input<'r>(&self, state: &State<'r>) -> Vec<Tensor<'r>>;

    /// The velocity of the image tokens, `[N, token_channels]` for each branch.
    fn velocity<'r>(&self, state: &State<'r>) -> Vec<Tensor<'r>>;

    /// The table of positions that are added to image tokens; `None` for a network with rotary positions.
    fn position_table(&self) -> Option<&PositionTable> {
        None
    }
}

/// What one evaluation depends on besides the image tokens. B branches: matrices hold one after the other.
#[derive(Clone, Copy)]
pub struct Inputs<'r> {
    /// B.
    pub branches: usize,
    /// Text tokens, `[B * T, text_dim]`.
    pub txt: Tensor<'r>,
    /// All modulations of this step, `[B, width]`: see [`Modulations`].
    pub modulations: Tensor<'r>,
    /// Where the tokens are.
    pub positions: Positions<'r>,
}

/// How a network is told where its tokens are.
#[derive(Clone, Copy)]
pub enum Positions<'r> {
    /// Rotations of all tokens, text first, `[T + N, head_dim]`: see [`super::rope::Rope`].
    Rotations(Tensor<'r>),
    /// Two tables of rotations, by whose grid counts: see [`PerGrid`].
    PerGrid(PerGrid<'r>),
    /// Vectors that are added to image tokens, `[N, hidden]`: see [`PositionTable`].
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
    /// All modulations, `[B, width]`.
    pub modulations: Tensor<'r>,
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
        self.modulations.rows()
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

    /// The modulations of branch `b` that one layer made, `[1, columns]`.
    pub(super) fn modulation(&self, columns: &Columns, b: usize) -> Tensor<'r> {
        self.modulations.row_range(b..b + 1).col_range(columns.clone())
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

impl dyn Denoiser + '_ {
    /// The sequence before the first block. `x` `[B * (T + N), hidden]` is memory for it.
    pub fn begin<'r>(&self, img: Tensor<'r>, inputs: Inputs<'r>, x: Tensor<'r>) -> State<'r> {
        let n_text = inputs.txt.rows() / inputs.branches;
        let Inputs { modulations, positions, .. } = inputs;
        let state = State { x, modulations, positions, n_text };
        self.embed(img, inputs, state);
        state
    }

    /// All of it, without a cache.
    pub fn forward<'r>(
        &self,
        img: Tensor<'r>,
        inputs: Inputs<'r>,
        config: &dyn TransformerConfig,
    ) -> Vec<Tensor<'r>> {
        let rows = inputs.txt.rows() + inputs.branches * img.rows();
        let x = img.recorder().temp("x", rows, config.hidden());
        let state = self.begin(img, inputs, x);
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
        config: &dyn TransformerConfig,
    ) -> Vec<usize> {
        // Replayed into a recorder that is thrown away: shapes then cannot differ from what is recorded.
        let recorder = Recorder::new(Default::default());
        let x = recorder.temp("x", branches * (n_text + n_image), config.hidden());
        let modulations = recorder.temp("modulations", branches, self.modulations().width());
        let state = State { x, modulations, positions: Positions::Added(x), n_text };
        let mut rows = Vec::new();
        for i in 0..self.n_blocks() {
            self.replay(i, &state, &mut |x, _| rows.push(x.rows()));
        }
        rows
    }
}
