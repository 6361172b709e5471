//! Qwen3, a language model, as a text encoder: hidden states between its layers.
//!
//! Transformers' `Qwen3Model`, run once over a whole text. Pre-norm layers with RMS norm, grouped-query attention with an
//! RMS norm of each head of queries and keys, rotary positions, and a gated SiLU. FLUX.2 \[klein\] and Z-Image read it.
//!
//! Qwen3 rotates numbers `i` and `i + D / 2` of a head together; [`qk_norm_rope`] rotates `2 i` and `2 i + 1`. As scores are
//! sums over a head, the order of its numbers is free if queries and keys have the same, so the rows of the projections
//! and the weights of the norms are brought into that order when they are loaded.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::Value;

use super::{Output, Shape, TextEncoder, TextEncoderConfig, TokenisedText, embed_rows};
use crate::checkpoint::source::Source;
use crate::checkpoint::weights::{TensorInfo, WeightError, Weights};
use crate::models::config::{Qwen3Config, Result, to_json};
use crate::models::layers::Loader;
use crate::models::rope::{Rope, TextPositions};
use crate::ops::{
    Activation, Affine, Attention, Epilogue, LinearLayer, NormKind, Weights as Shares, Write,
    attention, combine, linear, linear_into, norm, norm_into, qk_norm_rope,
};
use crate::tensor::{Resident, Tensor};
use crate::text::TokenizerKind;

/// The encoder.
pub struct Qwen3 {
    config: Qwen3Config,
    embedding: TensorInfo,
    layers: Vec<Layer>,
    /// Present if the last layer of the language model is.
    final_norm: Option<Resident>,
}

struct Layer {
    attention_norm: Resident,
    q: LinearLayer,
    k: LinearLayer,
    v: LinearLayer,
    q_norm: Resident,
    k_norm: Resident,
    o: LinearLayer,
    mlp_norm: Resident,
    gate: LinearLayer,
    up: LinearLayer,
    down: LinearLayer,
}

impl Layer {
    fn load(loader: &Loader<'_>, config: &Qwen3Config) -> Self {
        let (d, mlp, head) = (config.hidden_size, config.intermediate_size, config.head_dim);
        let (queries, keys) = (config.query_width(), config.key_width());
        let row = |i| row_of_pair(head, i);
        let attention = loader.pp("self_attn");
        Layer {
            attention_norm: loader.vector("input_layernorm.weight", d),
            q: attention.linear_no_bias_with_rows("q_proj", queries, d, row),
            k: attention.linear_no_bias_with_rows("k_proj", keys, d, row),
            v: attention.linear_no_bias("v_proj", keys, d),
            q_norm: attention.vector_with_rows("q_norm.weight", head, row),
            k_norm: attention.vector_with_rows("k_norm.weight", head, row),
            o: attention.linear_no_bias("o_proj", d, queries),
            mlp_norm: loader.vector("post_attention_layernorm.weight", d),
            gate: loader.linear_no_bias("mlp.gate_proj", mlp, d),
            up: loader.linear_no_bias("mlp.up_proj", mlp, d),
            down: loader.linear_no_bias("mlp.down_proj", d, mlp),
        }
    }
}

/// The row of the checkpoint that is number `i` of heads of `head_dim` whose rotated pairs are neighbours.
fn row_of_pair(head_dim: usize, i: usize) -> usize {
    let (head, number) = (i / head_dim, i % head_dim);
    head * head_dim + number / 2 + number % 2 * (head_dim / 2)
}

/// Names in a checkpoint that an encoder of `n_layers` layers leaves out on purpose, as
/// [`Manifest::finish`](crate::checkpoint::weights::Manifest::finish) wants them: the head, and what follows those layers.
pub fn unread_weights(config: &Qwen3Config, n_layers: usize) -> Vec<String> {
    let layers = (n_layers..config.num_hidden_layers).map(|i| format!("layers.{i}."));
    let norm = (n_layers < config.num_hidden_layers).then(|| "norm.".to_owned());
    let inner: Vec<String> = layers.chain(norm).collect();
    let outer = inner.iter().map(|name| format!("model.{name}"));
    ["lm_head.".to_owned()].into_iter().chain(outer).chain(inner.iter().cloned()).collect()
}

impl Qwen3 {
    /// Asks for the weights of the first `n_layers` layers, at most [`Qwen3Config::num_hidden_layers`]. Names may start
    /// with `model.` (a language model with its head, which is not read) or not.
    #[track_caller]
    pub fn load(loader: &Loader<'_>, config: &Qwen3Config, n_layers: usize) -> Self {
        let all = config.num_hidden_layers;
        assert!(n_layers <= all, "{n_layers} layers of {all}");
        let loader = loader.pp_if_present("model");
        let (d, layers) = (config.hidden_size, loader.pp("layers"));
        Qwen3 {
            embedding: loader.path().require("embed_tokens.weight", &[config.vocab_size, d]),
            layers: (0..n_layers).map(|i| Layer::load(&layers.pp(i), config)).collect(),
            final_norm: (n_layers == all).then(|| loader.vector("norm.weight", d)),
            config: config.clone(),
        }
    }

    /// The rows of the token table, `[T, hidden_size]`. Read on the host: the table of Qwen3-4B has 778 MB, more than a
    /// storage binding holds on many adapters.
    pub fn embed(
        &self,
        weights: &Weights,
        ids: &[u32],
    ) -> std::result::Result<Vec<f32>, WeightError> {
        embed_rows(weights, &self.embedding, ids)
    }

    /// The rotations of positions 0 to `n - 1` as [`qk_norm_rope`] wants them, `[n, head_dim]`: cos and sin of the angle
    /// `position * theta^(-2 i / head_dim)` for each pair `i`.
    pub fn rotations(&self, n: usize) -> Vec<f32> {
        let (axes, theta) = (vec![self.config.head_dim], self.config.rope_theta);
        Rope { axes, theta, text: TextPositions::Counted { axis: 0 } }.text_table(n)
    }

    /// Writes hidden states of the embeddings `x` `[T, hidden_size]`, which are overwritten.
    ///
    /// `rotations` `[T, head_dim]` are those of [`Qwen3::rotations`]. The first `real` tokens are text, the others padding,
    /// which no token attends to but which attends to the text before it. Each of `outputs` is a number `k` of layers, in
    /// ascending order, and a matrix `[T, hidden_size]`, which may be a part of a wider one: transformers'
    /// `hidden_states[k]`, what the first `k` layers give. Of all layers it is normalised.
    #[track_caller]
    pub fn forward<'r>(
        &self,
        x: Tensor<'r>,
        rotations: Tensor<'r>,
        real: usize,
        outputs: &[(usize, Tensor<'r>)],
    ) {
        assert!((1..=x.rows()).contains(&real), "{real} of {} tokens are text", x.rows());
        assert!(outputs.is_sorted_by_key(|(k, _)| k), "outputs are not in order");
        let deepest = outputs.last().map_or(0, |(k, _)| *k);
        assert!(deepest <= self.layers.len(), "{deepest} of {} layers", self.layers.len());
        let recorder = x.recorder();
        for k in 0..=deepest {
            if let Some(i) = k.checked_sub(1) {
                recorder.scope(format!("qwen3.{i}"), || {
                    self.layer(&self.layers[i], x, rotations, real);
                });
            }
            for (_, out) in outputs.iter().filter(|(at, _)| *at == k) {
                self.write_out(x, k, *out);
            }
        }
    }

    /// Adds what a layer gives to `x`.
    fn layer<'r>(&self, layer: &Layer, x: Tensor<'r>, rotations: Tensor<'r>, real: usize) {
        let recorder = x.recorder();
        let eps = self.config.rms_norm_eps as f32;
        let rms = NormKind::Rms { eps };
        let add = Epilogue { write: Write::Add, ..Default::default() };
        let weight = recorder.resident(&layer.attention_norm);
        let h = norm("norm", x, rms, Affine::Weight(weight));
        let [q, k, v] = [("q", &layer.q), ("k", &layer.k), ("v", &layer.v)]
            .map(|(name, layer)| linear(name, h, layer, Activation::Identity));
        qk_norm_rope("q.norm", q, recorder.resident(&layer.q_norm), rotations, eps);
        qk_norm_rope("k.norm", k, recorder.resident(&layer.k_norm), rotations, eps);
        let attn = recorder.temp("attn", x.rows(), self.config.query_width());
        let head_dim = self.config.head_dim;
        let options =
            Attention { head_dim, scale: 1.0 / (head_dim as f32).sqrt(), causal: true, bias: None };
        // Keys that are padding are left out.
        let [k, v] = [k, v].map(|keys| keys.row_range(0..real));
        attention("attn", [q, k, v], attn, options);
        linear_into("o", attn, &layer.o, x, add);

        let weight = recorder.resident(&layer.mlp_norm);
        let h = norm("mlp.norm", x, rms, Affine::Weight(weight));
        let gated = linear("mlp.gate", h, &layer.gate, Activation::Silu);
        let multiply = Epilogue { write: Write::Multiply, ..Default::default() };
        linear_into("mlp.up", h, &layer.up, gated, multiply);
        linear_into("mlp.down", gated, &layer.down, x, add);
    }

    /// Writes `x`, which `k` layers gave, to `out`.
    fn write_out<'r>(&self, x: Tensor<'r>, k: usize, out: Tensor<'r>) {
        let last = self.final_norm.as_ref().filter(|_| k == self.layers.len());
        match last {
            Some(weight) => {
                let rms = NormKind::Rms { eps: self.config.rms_norm_eps as f32 };
                let weight = x.recorder().resident(weight);
                norm_into("qwen3.norm", x, rms, Affine::Weight(weight), out);
            }
            None => {
                let once = Shares::Constant([1.0, 0.0, 0.0]);
                combine("qwen3.out", &[x], once, None, Write::Store, out);
            }
        }
    }
}

/// Qwen3 as a text encoder whose text tokens are some of its hidden states, next to each other.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Qwen3Encoder {
    /// The language model.
    #[serde(flatten)]
    pub config: Qwen3Config,
    /// After how many layers each hidden state is taken, ascending and not empty.
    pub taken: Vec<usize>,
}

impl Qwen3Encoder {
    /// Reads the `config.json` of a language model that has the layers of `taken`.
    pub fn load(source: &dyn Source, path: &str, taken: &[usize]) -> Result<Self> {
        let depth = taken.last().copied().unwrap_or(0);
        Ok(Qwen3Encoder { config: Qwen3Config::load(source, path, depth)?, taken: taken.into() })
    }

    /// Layers that are evaluated.
    fn depth(&self) -> usize {
        self.taken.last().copied().unwrap_or(0)
    }
}

impl TextEncoderConfig for Qwen3Encoder {
    fn title(&self) -> &'static str {
        "Qwen3"
    }

    fn ids_name(&self) -> &'static str {
        "llm_ids"
    }

    fn tokenizer(&self) -> TokenizerKind {
        TokenizerKind::ByteLevel
    }

    fn vocab_size(&self) -> usize {
        self.config.vocab_size
    }

    fn token_dim(&self) -> usize {
        self.taken.len() * self.config.hidden_size
    }

    fn token_field(&self) -> Cow<'static, str> {
        match self.taken.len() {
            1 => "hidden_size".into(),
            n => format!("hidden_size x {n}").into(),
        }
    }

    fn widths(&self) -> Vec<(&'static str, usize)> {
        vec![
            ("Qwen3's hidden_size", self.config.hidden_size),
            ("Qwen3's intermediate_size", self.config.intermediate_size),
            ("Qwen3's head_dim", self.config.head_dim),
        ]
    }

    fn head_width(&self) -> (&'static str, usize) {
        ("Qwen3's head_dim", self.config.head_dim)
    }

    fn ignored_weights(&self) -> Vec<Cow<'static, str>> {
        unread_weights(&self.config, self.depth()).into_iter().map(Cow::Owned).collect()
    }

    fn load(&self, loader: &Loader<'_>) -> Box<dyn TextEncoder> {
        let model = Qwen3::load(loader, &self.config, self.depth());
        Box::new(HiddenStates { model, taken: self.taken.clone() })
    }

    fn to_json(&self) -> Value {
        to_json(self, "kind", "qwen3")
    }
}

/// The text encoder with its weights.
struct HiddenStates {
    model: Qwen3,
    taken: Vec<usize>,
}

impl TextEncoder for HiddenStates {
    fn inputs(&self, n: usize) -> Vec<Shape> {
        let config = &self.model.config;
        vec![("qwen3.x", n, config.hidden_size), ("qwen3.pe", n, config.head_dim)]
    }

    fn embed(
        &self,
        weights: &Weights,
        text: &TokenisedText,
    ) -> std::result::Result<Vec<Vec<f32>>, WeightError> {
        let embedded = self.model.embed(weights, &text.ids)?;
        Ok(vec![embedded, self.model.rotations(text.ids.len())])
    }

    fn outputs(&self, n: usize, _: bool) -> Vec<(Output, Shape)> {
        let width = self.taken.len() * self.model.config.hidden_size;
        vec![(Output::Tokens, ("qwen3.out", n, width))]
    }

    fn record(&self, text: &TokenisedText, inputs: &[Tensor<'_>], outputs: &[Tensor<'_>]) {
        let d = self.model.config.hidden_size;
        let part = |(i, k): (usize, &usize)| (*k, outputs[0].col_range(i * d..(i + 1) * d));
        let states: Vec<_> = self.taken.iter().enumerate().map(part).collect();
        self.model.forward(inputs[0], inputs[1], text.n_real, &states);
    }
}
