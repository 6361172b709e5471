//! The T5 v1.1 encoder: text tokens.
//!
//! Transformers' `T5EncoderModel`. Pre-norm blocks with RMS norm, attention with learned relative positions and
//! without scaling of the scores, and a gated GELU. FLUX gives it no padding mask.

use std::borrow::Cow;

use serde_json::Value;

use super::{Output, Shape, TextEncoder, TextEncoderConfig, TokenisedText, embed_rows};
use crate::checkpoint::weights::{TensorInfo, WeightError, Weights};
use crate::models::config::{T5Config, to_json};
use crate::models::layers::Loader;
use crate::ops::{
    Activation, Affine, Attention, Epilogue, LinearLayer, NormKind, Write, attention, linear,
    linear_into, norm, norm_into,
};
use crate::tensor::{Resident, Tensor};
use crate::text::TokenizerKind;

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

    /// The relative positions of a text of `n` tokens as [`Attention::bias`] wants them, padded to a multiple
    /// of 4.
    fn relative_bias(&self, weights: &Weights, n: usize) -> Result<Vec<f32>, WeightError> {
        let table = weights.tensor_f32(&self.relative_bias)?;
        let heads = self.config.num_heads;
        let mut bias = Vec::with_capacity(self.bias_len(n));
        for head in 0..heads {
            for offset in 0..2 * n - 1 {
                let relative = offset as i64 - (n as i64 - 1);
                bias.push(table[self.bucket(relative) * heads + head]);
            }
        }
        bias.resize(self.bias_len(n), 0.0);
        Ok(bias)
    }

    /// Numbers of [`T5::relative_bias`].
    fn bias_len(&self, n: usize) -> usize {
        (self.config.num_heads * (2 * n - 1)).next_multiple_of(4)
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
    fn forward<'r>(&self, x: Tensor<'r>, relative_bias: Tensor<'r>, out: Tensor<'r>) {
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

impl TextEncoder for T5 {
    fn inputs(&self, n: usize) -> Vec<Shape> {
        vec![("t5.x", n, self.config.d_model), ("t5.bias", 1, self.bias_len(n))]
    }

    fn embed(&self, weights: &Weights, text: &TokenisedText) -> Result<Vec<Vec<f32>>, WeightError> {
        let bias = self.relative_bias(weights, text.ids.len())?;
        Ok(vec![embed_rows(weights, &self.embedding, &text.ids)?, bias])
    }

    fn outputs(&self, n: usize, _: bool) -> Vec<(Output, Shape)> {
        vec![(Output::Tokens, ("t5.out", n, self.config.d_model))]
    }

    fn record(&self, _: &TokenisedText, inputs: &[Tensor<'_>], outputs: &[Tensor<'_>]) {
        self.forward(inputs[0], inputs[1], outputs[0]);
    }
}

impl TextEncoderConfig for T5Config {
    fn title(&self) -> &'static str {
        "T5"
    }

    fn ids_name(&self) -> &'static str {
        "t5_ids"
    }

    fn tokenizer(&self) -> TokenizerKind {
        TokenizerKind::T5
    }

    fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    fn token_dim(&self) -> usize {
        self.d_model
    }

    fn token_field(&self) -> Cow<'static, str> {
        "d_model".into()
    }

    fn widths(&self) -> Vec<(&'static str, usize)> {
        vec![("T5's d_model", self.d_model), ("T5's d_kv", self.d_kv), ("T5's d_ff", self.d_ff)]
    }

    fn head_width(&self) -> (&'static str, usize) {
        ("T5's d_kv", self.d_kv)
    }

    fn ignored_weights(&self) -> Vec<Cow<'static, str>> {
        vec!["encoder.embed_tokens.weight".into(), "shared.weight".into()]
    }

    fn load(&self, loader: &Loader<'_>) -> Box<dyn TextEncoder> {
        Box::new(T5::load(loader, self))
    }

    fn to_json(&self) -> Value {
        to_json(self, "kind", "t5")
    }
}
