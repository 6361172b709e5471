//! Modulations: the shifts, scales and gates of a network's blocks.
//!
//! They depend on time, guidance and the prompt's pooled vector, and on no token, so those of all steps are known before the
//! first one. Their layers are a quarter to a third of a diffusion transformer's weights (3.2 of FLUX.1's 11.8 billion):
//! they are read once a run, and need not be on the GPU during its steps.

use std::ops::Range;

use super::layers::Loader;
use crate::ops::{Activation, Epilogue, LinearLayer, Write, activate, linear, linear_into};
use crate::tensor::Tensor;

/// What modulations are made from, a row for each step and branch of guidance: R rows.
#[derive(Clone, Copy)]
pub struct Conditions<'r> {
    /// Sinusoids of `1000 * sigma`, `[R, 256]`.
    pub time: Tensor<'r>,
    /// Sinusoids of `1000 * guidance`, `[R, 256]`; not read by models without a guidance input.
    pub guidance: Tensor<'r>,
    /// Pooled text vectors, `[R, pooled_dim]`, for networks with that input.
    pub pooled: Option<Tensor<'r>>,
}

/// Two linear layers with SiLU between them: FLUX's `MLPEmbedder`, diffusers' `TimestepEmbedding`.
pub(super) struct MlpEmbedder {
    linear_1: LinearLayer,
    linear_2: LinearLayer,
}

impl MlpEmbedder {
    /// `linear_1` `[hidden, input]`, `linear_2` `[hidden, hidden]`.
    pub fn load(loader: &Loader<'_>, input: usize, hidden: usize) -> Self {
        let loader = loader.modulation();
        MlpEmbedder {
            linear_1: loader.linear("linear_1", hidden, input),
            linear_2: loader.linear("linear_2", hidden, hidden),
        }
    }

    /// [`MlpEmbedder::load`] of layers without biases.
    pub fn load_no_bias(loader: &Loader<'_>, input: usize, hidden: usize) -> Self {
        let loader = loader.modulation();
        MlpEmbedder {
            linear_1: loader.linear_no_bias("linear_1", hidden, input),
            linear_2: loader.linear_no_bias("linear_2", hidden, hidden),
        }
    }

    /// Writes or adds the embedding of `x` `[R, input]` to `y` `[R, hidden]`.
    fn forward_into<'r>(&self, x: Tensor<'r>, y: Tensor<'r>, write: Write) {
        let h = linear("linear_1", x, &self.linear_1, Activation::Silu);
        linear_into("linear_2", h, &self.linear_2, y, Epilogue { write, ..Default::default() });
    }
}

/// The layers that make all modulations of a network.
pub struct Modulations {
    pub(super) time_in: MlpEmbedder,
    pub(super) guidance_in: Option<MlpEmbedder>,
    pub(super) pooled_in: Option<MlpEmbedder>,
    layers: Vec<(LinearLayer, Columns)>,
}

/// The numbers of a row of modulations that one layer makes.
pub(super) type Columns = Range<usize>;

impl Modulations {
    /// Those of a network whose blocks have not asked for any yet.
    pub(super) fn new(time_in: MlpEmbedder) -> Self {
        Modulations { time_in, guidance_in: None, pooled_in: None, layers: vec![] }
    }

    /// Adds a layer, which [`Loader::modulation`] has loaded. Gives its numbers' place in a row.
    pub(super) fn add(&mut self, layer: LinearLayer) -> Columns {
        let first = self.width();
        let columns = first..first + layer.weight.n;
        self.layers.push((layer, columns.clone()));
        columns
    }

    /// Numbers in a row: all modulations of one branch in one step.
    pub fn width(&self) -> usize {
        self.layers.last().map_or(0, |(_, columns)| columns.end)
    }

    /// Writes all modulations to `rows` `[R, width]`.
    pub fn record<'r>(&self, conditions: Conditions<'r>, rows: Tensor<'r>) {
        let recorder = rows.recorder();
        let vec = recorder.temp("vec", rows.rows(), self.time_in.linear_2.weight.n);
        let embed = |name: &str, embedder: &MlpEmbedder, x: Tensor<'r>, write: Write| {
            recorder.scope(name, || embedder.forward_into(x, vec, write));
        };
        embed("time", &self.time_in, conditions.time, Write::Store);
        if let Some(guidance_in) = &self.guidance_in {
            embed("guidance", guidance_in, conditions.guidance, Write::Add);
        }
        if let (Some(pooled_in), Some(pooled)) = (&self.pooled_in, conditions.pooled) {
            embed("pooled", pooled_in, pooled, Write::Add);
        }
        // Every modulation begins with SiLU.
        let vec = activate("silu", vec, Activation::Silu);
        for (layer, columns) in &self.layers {
            linear_into("mod", vec, layer, rows.col_range(columns.clone()), Epilogue::default());
        }
    }
}
