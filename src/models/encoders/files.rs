//! Text encoders in files of their own, without a configuration: other names than transformers', and what shapes say.

use serde_json::{Value, json};

use crate::checkpoint::weights::{TensorInfo, WeightError, Weights, not_split};
use crate::models::files::rules::{self, Rule, rule};

/// Numbers per head of CLIP.
const CLIP_HEAD_DIM: usize = 64;
/// Rows of UMT5's token table.
const UMT5_VOCABULARY: usize = 256_384;

/// Whether the tensors are a CLIP text encoder.
pub fn is_clip(tensors: &Weights) -> bool {
    [
        "text_model.encoder.layers.0.mlp.fc1.weight",
        "encoder.layers.0.mlp.fc1.weight",
        "transformer.resblocks.0.mlp.c_fc.weight",
    ]
    .iter()
    .any(|name| tensors.info(name).is_some())
}

/// Width of a CLIP text encoder, under whatever names.
pub fn clip_width(tensors: &Weights) -> Option<usize> {
    let names =
        ["text_model.final_layer_norm.weight", "final_layer_norm.weight", "ln_final.weight"];
    names.iter().find_map(|name| tensors.info(name)?.shape.first().copied())
}

/// OpenCLIP's names.
const OPEN_CLIP: &[Rule] = &[
    rule("token_embedding", &["text_model.embeddings.token_embedding"]),
    rule("positional_embedding", &["text_model.embeddings.position_embedding.weight"]),
    rule("transformer.resblocks.*.ln_1", &["text_model.encoder.layers.*.layer_norm1"]),
    rule("transformer.resblocks.*.ln_2", &["text_model.encoder.layers.*.layer_norm2"]),
    rule(
        "transformer.resblocks.*.attn.in_proj_weight",
        &[
            "text_model.encoder.layers.*.self_attn.q_proj.weight",
            "text_model.encoder.layers.*.self_attn.k_proj.weight",
            "text_model.encoder.layers.*.self_attn.v_proj.weight",
        ],
    ),
    rule(
        "transformer.resblocks.*.attn.in_proj_bias",
        &[
            "text_model.encoder.layers.*.self_attn.q_proj.bias",
            "text_model.encoder.layers.*.self_attn.k_proj.bias",
            "text_model.encoder.layers.*.self_attn.v_proj.bias",
        ],
    ),
    rule(
        "transformer.resblocks.*.attn.out_proj",
        &["text_model.encoder.layers.*.self_attn.out_proj"],
    ),
    rule("transformer.resblocks.*.mlp.c_fc", &["text_model.encoder.layers.*.mlp.fc1"]),
    rule("transformer.resblocks.*.mlp.c_proj", &["text_model.encoder.layers.*.mlp.fc2"]),
    rule("ln_final", &["text_model.final_layer_norm"]),
];

/// A CLIP text encoder under transformers' names.
///
/// A projection is needed where its pooled vector is used with one: the identity stands for one that is not there, as in
/// ComfyUI.
pub fn clip_views(tensors: &Weights) -> Result<Weights, WeightError> {
    let mut views = match tensors.info("transformer.resblocks.0.mlp.c_fc.weight") {
        None => tensors.clone(),
        Some(_) => {
            rules::blocks(tensors, "transformer.resblocks")?;
            let named = rules::views(tensors, OPEN_CLIP, 0)?;
            let of_projection = |info: &TensorInfo| &*info.name == "text_projection";
            let mut views =
                tensors.with_views(named.into_iter().filter(|info| !of_projection(info)));
            // Stored [in, out], and so small that it is turned around here.
            if let Some(stored) = tensors.info("text_projection") {
                let [rows, columns] = stored.shape[..] else {
                    return Err(not_split(stored, "a matrix"));
                };
                let values = tensors.tensor_f32(stored)?;
                let turned: Vec<f32> =
                    (0..rows * columns).map(|i| values[i % rows * columns + i / rows]).collect();
                let shape = [columns, rows];
                views.insert_f32("text_projection.weight", &shape, &turned, &stored.file);
            }
            views
        }
    };
    if views.info("text_projection.weight").is_none()
        && let Some(width) = clip_width(&views)
    {
        let identity: Vec<f32> =
            (0..width * width).map(|i| f32::from(u8::from(i / width == i % width))).collect();
        let place = views.place().to_owned();
        views.insert_f32("text_projection.weight", &[width, width], &identity, &place);
    }
    Ok(views)
}

/// `config.json` of a CLIP text encoder, from the shapes of [`clip_views`]; `activation` is what shapes do not say.
pub fn clip_config(views: &Weights, activation: &str) -> Result<Value, WeightError> {
    let root = match views.info("text_model.final_layer_norm.weight") {
        Some(_) => "text_model.",
        None => "",
    };
    let side = |name: &str, axis| rules::side(views, &format!("{root}{name}"), 2, axis);
    let hidden = side("embeddings.token_embedding.weight", 1)?;
    if !hidden.is_multiple_of(CLIP_HEAD_DIM) {
        let (file, of) = (views.place().into(), CLIP_HEAD_DIM);
        return Err(WeightError::Heads { file, hidden, head_dim: CLIP_HEAD_DIM, of });
    }
    Ok(json!({
        "vocab_size": side("embeddings.token_embedding.weight", 0)?,
        "hidden_size": hidden,
        "intermediate_size": side("encoder.layers.0.mlp.fc1.weight", 0)?,
        "num_hidden_layers": rules::blocks(views, &format!("{root}encoder.layers"))?,
        "num_attention_heads": hidden / CLIP_HEAD_DIM,
        "max_position_embeddings": side("embeddings.position_embedding.weight", 0)?,
        "hidden_act": activation,
        "layer_norm_eps": 1e-5,
        // The largest id is the end mark: what transformers makes of this number.
        "eos_token_id": 2,
        "projection_dim": rules::side(views, "text_projection.weight", 2, 0)?,
    }))
}

/// Whether the tensors are an encoder of T5's kind.
pub fn is_t5(tensors: &Weights) -> bool {
    ["encoder.block.0.layer.0.SelfAttention.q.weight", "enc.blk.0.attn_q.weight"]
        .iter()
        .any(|name| tensors.info(name).is_some())
}

/// What an encoder of T5's kind is that is not T5 v1.1, and what to do.
pub fn t5_refusal(tensors: &Weights) -> Option<&'static str> {
    let table = ["shared.weight", "encoder.embed_tokens.weight", "token_embd.weight"];
    let table = table.iter().find_map(|name| tensors.info(name));
    if table.is_some_and(|info| info.shape.first() == Some(&UMT5_VOCABULARY)) {
        return Some(
            "UMT5, a text encoder of other models (256384 tokens), which is not supported here; get T5 v1.1 XXL",
        );
    }
    let gates = ["encoder.block.0.layer.1.DenseReluDense.wi_1.weight", "enc.blk.0.ffn_gate.weight"];
    gates
        .iter()
        .all(|name| tensors.info(name).is_none())
        .then_some("T5 of version 1.0, without gates, which is not supported; get T5 v1.1 XXL")
}

/// llama.cpp's names.
const LLAMA_CPP: &[Rule] = &[
    rule("token_embd", &["shared"]),
    rule("enc.blk.*.attn_norm", &["encoder.block.*.layer.0.layer_norm"]),
    rule("enc.blk.*.attn_q", &["encoder.block.*.layer.0.SelfAttention.q"]),
    rule("enc.blk.*.attn_k", &["encoder.block.*.layer.0.SelfAttention.k"]),
    rule("enc.blk.*.attn_v", &["encoder.block.*.layer.0.SelfAttention.v"]),
    rule("enc.blk.*.attn_o", &["encoder.block.*.layer.0.SelfAttention.o"]),
    rule(
        "enc.blk.*.attn_rel_b",
        &["encoder.block.*.layer.0.SelfAttention.relative_attention_bias"],
    ),
    rule("enc.blk.*.ffn_norm", &["encoder.block.*.layer.1.layer_norm"]),
    rule("enc.blk.*.ffn_gate", &["encoder.block.*.layer.1.DenseReluDense.wi_0"]),
    rule("enc.blk.*.ffn_up", &["encoder.block.*.layer.1.DenseReluDense.wi_1"]),
    rule("enc.blk.*.ffn_down", &["encoder.block.*.layer.1.DenseReluDense.wo"]),
    rule("enc.output_norm", &["encoder.final_layer_norm"]),
];

/// A T5 encoder under transformers' names.
pub fn t5_views(tensors: &Weights) -> Result<Weights, WeightError> {
    for blocks in ["encoder.block", "enc.blk"] {
        rules::blocks(tensors, blocks)?;
    }
    // A decoder has no use here.
    let views = rules::views(tensors, LLAMA_CPP, 0)?;
    let of_decoder = |name: &str| name.starts_with("dec.") || name.starts_with("decoder.");
    Ok(tensors.with_views(views.into_iter().filter(|info| !of_decoder(&info.name))))
}

/// `config.json` of a T5 encoder, from the shapes of [`t5_views`].
pub fn t5_config(views: &Weights) -> Result<Value, WeightError> {
    let side = |name: &str, axis| rules::side(views, name, 2, axis);
    let table = match views.info("shared.weight") {
        Some(_) => "shared.weight",
        None => "encoder.embed_tokens.weight",
    };
    let bias = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight";
    let inner = side("encoder.block.0.layer.0.SelfAttention.q.weight", 0)?;
    let (width, heads) = (side(table, 1)?, side(bias, 1)?);
    if !inner.is_multiple_of(heads) {
        let file = views.place().into();
        return Err(WeightError::Heads { file, hidden: inner, head_dim: heads, of: 1 });
    }
    Ok(json!({
        "vocab_size": side(table, 0)?,
        "d_model": width,
        "d_kv": inner / heads,
        "d_ff": side("encoder.block.0.layer.1.DenseReluDense.wi_0.weight", 0)?,
        "num_heads": heads,
        "num_layers": rules::blocks(views, "encoder.block")?,
        "relative_attention_num_buckets": side(bias, 0)?,
        "relative_attention_max_distance": 128,
        "layer_norm_epsilon": 1e-6,
        "feed_forward_proj": "gated-gelu",
    }))
}
