//! The T5 v1.1 encoder: text tokens.
//!
//! Transformers' `T5EncoderModel`. Pre-norm blocks with RMS norm, attention with learned relative positions and
//! without scaling of the scores, and a gated GELU. FLUX gives it no padding mask.

use super::config::T5Config;
use super::layers::Loader;
use crate::checkpoint::weights::{TensorInfo, WeightError, Weights};
use crate::ops::{
    Activation, Affine, Attention, Epilogue, LinearLayer, NormKind, Write, attention, linear,
    linear_into, norm, norm_into,
};
use crate::tensor::{Resident, Tensor};

/// The encoder.
pub struct T5 {
    config: T5Config,
    embedding: TensorInfo,
    relative_bias: TensorInfo,
    blocks: Vec<Block>,
    final_norm: Resident,
}

struct Block {
    attention_norm: Resident,
    q: LinearLayer,
    k: LinearLayer,
    v: LinearLayer,
    o: LinearLayer,
    mlp_norm: Resident,
    wi_0: LinearLayer,
    wi_1: LinearLayer,
    wo: LinearLayer,
}

impl T5 {
    /// Asks for all weights.
    pub fn load(loader: &Loader<'_>, config: &T5Config) -> Self {
        let (d, inner, ff) = (config.d_model, config.inner(), config.d_ff);
        let encoder = loader.pp("encoder");
        let blocks = (0..config.num_layers)
            .map(|i| {
                let block = encoder.pp("block").pp(i);
                let attention = block.pp("layer.0");
                let mlp = block.pp("layer.1");
                Block {
                    attention_norm: attention.vector("layer_norm.weight", d),
                    q: attention.linear_no_bias("SelfAttention.q", inner, d),
                    k: attention.linear_no_bias("SelfAttention.k", inner, d),
                    v: attention.linear_no_bias("SelfAttention.v", inner, d),
                    o: attention.linear_no_bias("SelfAttention.o", d, inner),
                    mlp_norm: mlp.vector("layer_norm.weight", d),
                    wi_0: mlp.linear_no_bias("DenseReluDense.wi_0", ff, d),
                    wi_1: mlp.linear_no_bias("DenseReluDense.wi_1", ff, d),
                    wo: mlp.linear_no_bias("DenseReluDense.wo", d, ff),
                }
            })
            .collect();
        T5 {
            embedding: loader.path().require_any(
                &["shared.weight", "encoder.embed_tokens.weight"],
                &[config.vocab_size, d],
            ),
            relative_bias: encoder.path().require(
                "block.0.layer.0.SelfAttention.relative_attention_bias.weight",
                &[config.relative_attention_num_buckets, config.num_heads],
            ),
            blocks,
            final_norm: encoder.vector("final_layer_norm.weight", d),
            config: config.clone(),
        }
    }

    /// The rows of the token table, `[T, d_model]`. Read on the host: the table of T5-XXL exceeds a storage
    /// binding, and one gather is not worth a kernel.
    pub fn embed(&self, weights: &Weights, ids: &[u32]) -> Result<Vec<f32>, WeightError> {
        embed_rows(weights, &self.embedding, ids)
    }

    /// The relative positions of a text of `n` tokens as [`Attention::bias`] wants them, padded to a multiple
    /// of 4.
    pub fn relative_bias(&self, weights: &Weights, n: usize) -> Result<Vec<f32>, WeightError> {
        let table = weights.tensor_f32(&self.relative_bias)?;
        let heads = self.config.num_heads;
        let mut bias = Vec::with_capacity((heads * (2 * n - 1)).next_multiple_of(4));
        for head in 0..heads {
            for offset in 0..2 * n - 1 {
                let relative = offset as i64 - (n as i64 - 1);
                bias.push(table[self.bucket(relative) * heads + head]);
            }
        }
        bias.resize(bias.len().next_multiple_of(4), 0.0);
        Ok(bias)
    }

    /// The bucket of `key position - query position`: exact for small distances, logarithmic beyond.
    /// Transformers' `_relative_position_bucket`, bidirectional.
    fn bucket(&self, relative: i64) -> usize {
        let half = self.config.relative_attention_num_buckets / 2;
        let max_distance = self.config.relative_attention_max_distance;
        let side = if relative > 0 { half } else { 0 };
        let distance = relative.unsigned_abs() as usize;
        let exact = half / 2;
        if distance < exact {
            return side + distance;
        }
        // The reference computes this in f32.
        let log = libm::logf(distance as f32 / exact as f32)
            / libm::log(max_distance as f64 / exact as f64) as f32;
        let bucket = exact + (log * (half - exact) as f32) as usize;
        side + bucket.min(half - 1)
    }

    /// Writes the encodings of the embeddings `x` `[T, d_model]` to `out` of the same shape; `x` is overwritten.
    pub fn forward<'r>(&self, x: Tensor<'r>, relative_bias: Tensor<'r>, out: Tensor<'r>) {
        let recorder = x.recorder();
        let rms = NormKind::Rms { eps: self.config.layer_norm_epsilon as f32 };
        let add = Epilogue { write: Write::Add, ..Default::default() };
        for (i, block) in self.blocks.iter().enumerate() {
            recorder.scope(format!("t5.{i}"), || {
                let weight = recorder.resident(&block.attention_norm);
                let h = norm("norm", x, rms, Affine::Weight(weight));
                let qkv = [("q", &block.q), ("k", &block.k), ("v", &block.v)]
                    .map(|(name, layer)| linear(name, h, layer, Activation::Identity));
                let attn = recorder.temp("attn", x.rows(), self.config.inner());
                let options = Attention {
                    head_dim: self.config.d_kv,
                    scale: 1.0,
                    causal: false,
                    bias: Some(relative_bias),
                };
                attention("attn", qkv, attn, options);
                linear_into("o", attn, &block.o, x, add);

                let weight = recorder.resident(&block.mlp_norm);
                let h = norm("mlp.norm", x, rms, Affine::Weight(weight));
                let gated = linear("mlp.wi_0", h, &block.wi_0, Activation::GeluTanh);
                let multiply = Epilogue { write: Write::Multiply, ..Default::default() };
                linear_into("mlp.wi_1", h, &block.wi_1, gated, multiply);
                linear_into("mlp.wo", gated, &block.wo, x, add);
            });
        }
        norm_into("t5.norm", x, rms, Affine::Weight(recorder.resident(&self.final_norm)), out);
    }
}

/// Rows `ids` of an embedding table, one after the other.
pub(super) fn embed_rows(
    weights: &Weights,
    table: &TensorInfo,
    ids: &[u32],
) -> Result<Vec<f32>, WeightError> {
    let mut rows = Vec::with_capacity(ids.len() * table.shape[1]);
    for &id in ids {
        rows.extend(weights.rows_f32(table, id as usize..id as usize + 1)?);
    }
    Ok(rows)
}
