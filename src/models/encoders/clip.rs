//! The CLIP text encoder: pooled text embeddings, and in SD3 text tokens.
//!
//! Transformers' `CLIPTextModel` and `CLIPTextModelWithProjection`. Pre-norm blocks with causal attention; the pooled
//! vector is the final layer norm at the end-of-text token, projected if the model has a projection. SD3's text tokens
//! are what the last layer but one gives, without the final norm.

use std::borrow::Cow;

use serde_json::Value;

use super::{Output, Shape, TextEncoder, TextEncoderConfig, TokenisedText, embed_rows};
use crate::checkpoint::weights::{TensorInfo, WeightError, Weights};
use crate::models::config::{ClipAct, ClipConfig, to_json};
use crate::models::layers::Loader;
use crate::ops::{
    Activation, Affine, Attention, Epilogue, LinearLayer, NormKind, Weights as Shares, Write,
    attention, combine, linear, linear_into, norm, norm_into,
};
use crate::tensor::{Resident, Tensor};
use crate::text::TokenizerKind;

/// The encoder.
pub struct Clip {
    config: ClipConfig,
    token_embedding: TensorInfo,
    position_embedding: TensorInfo,
    layers: Vec<Layer>,
    final_norm: LayerNorm,
    projection: Option<LinearLayer>,
}

struct LayerNorm {
    weight: Resident,
    bias: Resident,
}

impl LayerNorm {
    fn load(loader: &Loader<'_>, name: &str, n: usize) -> Self {
        LayerNorm {
            weight: loader.vector(&format!("{name}.weight"), n),
            bias: loader.vector(&format!("{name}.bias"), n),
        }
    }

    fn affine<'r>(&self, x: Tensor<'r>) -> Affine<'r> {
        let recorder = x.recorder();
        Affine::WeightBias(recorder.resident(&self.weight), recorder.resident(&self.bias))
    }
}

struct Layer {
    norm1: LayerNorm,
    q: LinearLayer,
    k: LinearLayer,
    v: LinearLayer,
    out: LinearLayer,
    norm2: LayerNorm,
    fc1: LinearLayer,
    fc2: LinearLayer,
}

impl Clip {
    /// Asks for all weights; names may start with `text_model.` (original repositories) or not (newer savers).
    pub fn load(loader: &Loader<'_>, config: &ClipConfig) -> Self {
        let projection = (config.projection_dim)
            .map(|n| loader.linear_no_bias("text_projection", n, config.hidden_size));
        let loader = loader.pp_if_present("text_model");
        let (d, mlp) = (config.hidden_size, config.intermediate_size);
        let layers = (0..config.num_hidden_layers)
            .map(|i| {
                let layer = loader.pp("encoder.layers").pp(i);
                Layer {
                    norm1: LayerNorm::load(&layer, "layer_norm1", d),
                    q: layer.linear("self_attn.q_proj", d, d),
                    k: layer.linear("self_attn.k_proj", d, d),
                    v: layer.linear("self_attn.v_proj", d, d),
                    out: layer.linear("self_attn.out_proj", d, d),
                    norm2: LayerNorm::load(&layer, "layer_norm2", d),
                    fc1: layer.linear("mlp.fc1", mlp, d),
                    fc2: layer.linear("mlp.fc2", d, mlp),
                }
            })
            .collect();
        let embeddings = loader.pp("embeddings");
        Clip {
            token_embedding: embeddings
                .path()
                .require("token_embedding.weight", &[config.vocab_size, d]),
            position_embedding: embeddings
                .path()
                .require("position_embedding.weight", &[config.max_position_embeddings, d]),
            layers,
            final_norm: LayerNorm::load(&loader, "final_layer_norm", d),
            projection,
            config: config.clone(),
        }
    }

    /// Token plus position embeddings, `[T, hidden]`.
    fn embeddings(&self, weights: &Weights, ids: &[u32]) -> Result<Vec<f32>, WeightError> {
        let mut x = embed_rows(weights, &self.token_embedding, ids)?;
        let positions = weights.rows_f32(&self.position_embedding, 0..ids.len())?;
        x.iter_mut().zip(positions).for_each(|(x, position)| *x += position);
        Ok(x)
    }

    /// Writes the pooled embedding of the embeddings `x` `[T, hidden]` to `pooled` `[1, pooled_dim]`, and the text
    /// tokens to `tokens` `[T, hidden]` if they are wanted; `x` is overwritten. `pooled_at` is the row of the
    /// end-of-text token.
    fn forward<'r>(
        &self,
        x: Tensor<'r>,
        pooled_at: usize,
        pooled: Tensor<'r>,
        tokens: Option<Tensor<'r>>,
    ) {
        let recorder = x.recorder();
        let kind = NormKind::Layer { eps: self.config.layer_norm_eps as f32 };
        let add = Epilogue { write: Write::Add, ..Default::default() };
        let activation = match self.config.hidden_act {
            ClipAct::QuickGelu => Activation::QuickGelu,
            ClipAct::Gelu => Activation::GeluErf,
        };
        let head_dim = self.config.head_dim();
        for (i, layer) in self.layers.iter().enumerate() {
            if let (Some(tokens), true) = (tokens, i + 1 == self.layers.len()) {
                let once = Shares::Constant([1.0, 0.0, 0.0]);
                combine("clip.tokens", &[x], once, None, Write::Store, tokens);
            }
            recorder.scope(format!("clip.{i}"), || {
                let h = norm("norm1", x, kind, layer.norm1.affine(x));
                let qkv = [("q", &layer.q), ("k", &layer.k), ("v", &layer.v)]
                    .map(|(name, layer)| linear(name, h, layer, Activation::Identity));
                let attn = recorder.temp("attn", x.rows(), x.cols());
                let options = Attention {
                    head_dim,
                    scale: 1.0 / (head_dim as f32).sqrt(),
                    causal: true,
                    bias: None,
                };
                attention("attn", qkv, attn, options);
                linear_into("out", attn, &layer.out, x, add);
                let h = norm("norm2", x, kind, layer.norm2.affine(x));
                let h = linear("fc1", h, &layer.fc1, activation);
                linear_into("fc2", h, &layer.fc2, x, add);
            });
        }
        let row = x.row_range(pooled_at..pooled_at + 1);
        match &self.projection {
            None => norm_into("clip.pooled", row, kind, self.final_norm.affine(x), pooled),
            Some(projection) => {
                let row = norm("clip.norm", row, kind, self.final_norm.affine(x));
                linear_into("clip.pooled", row, projection, pooled, Epilogue::default());
            }
        }
    }
}

impl TextEncoder for Clip {
    fn inputs(&self, n: usize) -> Vec<Shape> {
        vec![("clip.x", n, self.config.hidden_size)]
    }

    fn embed(&self, weights: &Weights, text: &TokenisedText) -> Result<Vec<Vec<f32>>, WeightError> {
        Ok(vec![self.embeddings(weights, &text.ids)?])
    }

    fn outputs(&self, n: usize, wants_tokens: bool) -> Vec<(Output, Shape)> {
        let mut outputs = vec![(Output::Pooled, ("clip.pooled", 1, self.config.pooled_dim()))];
        if wants_tokens {
            outputs.push((Output::Tokens, ("clip.tokens", n, self.config.hidden_size)));
        }
        outputs
    }

    fn record(&self, text: &TokenisedText, inputs: &[Tensor<'_>], outputs: &[Tensor<'_>]) {
        let pooled_at = self.config.pooled_position(&text.ids);
        self.forward(inputs[0], pooled_at, outputs[0], outputs.get(1).copied());
    }
}

impl TextEncoderConfig for ClipConfig {
    fn title(&self) -> &'static str {
        "CLIP"
    }

    fn ids_name(&self) -> &'static str {
        "clip_ids"
    }

    fn tokenizer(&self) -> TokenizerKind {
        TokenizerKind::Clip
    }

    fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    fn max_positions(&self) -> Option<usize> {
        Some(self.max_position_embeddings)
    }

    fn token_dim(&self) -> usize {
        self.hidden_size
    }

    fn token_field(&self) -> Cow<'static, str> {
        "hidden_size".into()
    }

    fn pooled_dim(&self) -> Option<usize> {
        Some(self.pooled_dim())
    }

    fn pooled_field(&self) -> &'static str {
        if self.projection_dim.is_some() { "projection_dim" } else { "hidden_size" }
    }

    fn widths(&self) -> Vec<(&'static str, usize)> {
        vec![
            ("CLIP's hidden_size", self.hidden_size),
            ("CLIP's intermediate_size", self.intermediate_size),
            ("CLIP's head width", self.head_dim()),
            ("CLIP's projection_dim", self.pooled_dim()),
        ]
    }

    fn head_width(&self) -> (&'static str, usize) {
        ("CLIP's head width", self.head_dim())
    }

    fn ignored_weights(&self) -> Vec<Cow<'static, str>> {
        vec!["position_ids".into(), "text_projection.weight".into()]
    }

    fn load(&self, loader: &Loader<'_>) -> Box<dyn TextEncoder> {
        Box::new(Clip::load(loader, self))
    }

    fn to_json(&self) -> Value {
        to_json(self, "kind", "clip")
    }
}
