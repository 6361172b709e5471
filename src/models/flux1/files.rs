//! FLUX.1 in files of its own: Black Forest Labs' names, or diffusers', without a configuration.

use serde_json::json;

use crate::checkpoint::weights::{WeightError, Weights};
use crate::models::adapters::{AdapterNames, FewSteps, KnownFewSteps};
use crate::models::family::{DenoiserFile, FileConfig, Original, Recognised};
use crate::models::files::originals;
use crate::models::files::rules::{self, How, Rule, rule};

const KEY_NORM: [&str; 2] = [
    "double_blocks.0.img_attn.norm.key_norm.scale",
    "double_blocks.0.img_attn.norm.key_norm.weight",
];

/// Whether the tensors are a denoiser of FLUX.1.
pub fn recognise(tensors: &Weights) -> Recognised {
    let has = |name: &str| tensors.info(name).is_some();
    let starts = |prefix: &str| tensors.names().any(|name| name.starts_with(prefix));
    let is_original = KEY_NORM.into_iter().any(has) && has("img_in.weight");
    let is_diffusers = has("transformer_blocks.0.attn.norm_added_k.weight")
        && has("x_embedder.weight")
        && starts("single_transformer_blocks.0.");
    if starts("redux_up.") && starts("redux_down.") {
        return Recognised::Refused(
            "FLUX.1 Redux, which turns pictures into prompts and is no model of its own, is not supported; get FLUX.1-dev \
             or FLUX.1-schnell",
        );
    }
    if starts("distilled_guidance_layer.") && (is_original || starts("double_blocks.")) {
        return Recognised::Refused(
            "Chroma, which has modulations of its own, is not supported; get FLUX.1-dev or FLUX.1-schnell",
        );
    }
    if !is_original && !is_diffusers {
        return Recognised::Other;
    }
    // Its shapes are those of FLUX.1-dev.
    let file = tensors.place().rsplit(['/', '\\']).next().unwrap_or_default();
    if file.to_ascii_lowercase().contains("kontext") {
        return Recognised::Refused(
            "FLUX.1 Kontext (by the file's name), which changes pictures, is not supported; get FLUX.1-dev or \
             FLUX.1-schnell",
        );
    }
    let input =
        ["img_in.weight", "x_embedder.weight"].into_iter().find_map(|name| tensors.info(name));
    match input.and_then(|info| info.shape.get(1)) {
        Some(128) => Recognised::Refused(
            "FLUX.1 Canny or Depth (128 input channels), which draws along a picture, is not supported; get FLUX.1-dev or \
             FLUX.1-schnell",
        ),
        Some(384) => Recognised::Refused(
            "FLUX.1 Fill (384 input channels), which fills a mask, is not supported; get FLUX.1-dev or FLUX.1-schnell",
        ),
        _ => Recognised::Own(&DenoiserFile { views, originals, configuration }),
    }
}

const RULES: &[Rule] = &[
    rule("img_in", &["x_embedder"]),
    rule("txt_in", &["context_embedder"]),
    rule("time_in.in_layer", &["time_text_embed.timestep_embedder.linear_1"]),
    rule("time_in.out_layer", &["time_text_embed.timestep_embedder.linear_2"]),
    rule("vector_in.in_layer", &["time_text_embed.text_embedder.linear_1"]),
    rule("vector_in.out_layer", &["time_text_embed.text_embedder.linear_2"]),
    rule("guidance_in.in_layer", &["time_text_embed.guidance_embedder.linear_1"]),
    rule("guidance_in.out_layer", &["time_text_embed.guidance_embedder.linear_2"]),
    rule("double_blocks.*.img_mod.lin", &["transformer_blocks.*.norm1.linear"]),
    rule("double_blocks.*.txt_mod.lin", &["transformer_blocks.*.norm1_context.linear"]),
    rule(
        "double_blocks.*.img_attn.qkv",
        &[
            "transformer_blocks.*.attn.to_q",
            "transformer_blocks.*.attn.to_k",
            "transformer_blocks.*.attn.to_v",
        ],
    ),
    rule(
        "double_blocks.*.txt_attn.qkv",
        &[
            "transformer_blocks.*.attn.add_q_proj",
            "transformer_blocks.*.attn.add_k_proj",
            "transformer_blocks.*.attn.add_v_proj",
        ],
    ),
    rule("double_blocks.*.img_attn.norm.query_norm", &["transformer_blocks.*.attn.norm_q"]),
    rule("double_blocks.*.img_attn.norm.key_norm", &["transformer_blocks.*.attn.norm_k"]),
    rule("double_blocks.*.txt_attn.norm.query_norm", &["transformer_blocks.*.attn.norm_added_q"]),
    rule("double_blocks.*.txt_attn.norm.key_norm", &["transformer_blocks.*.attn.norm_added_k"]),
    rule("double_blocks.*.img_attn.proj", &["transformer_blocks.*.attn.to_out.0"]),
    rule("double_blocks.*.txt_attn.proj", &["transformer_blocks.*.attn.to_add_out"]),
    rule("double_blocks.*.img_mlp.0", &["transformer_blocks.*.ff.net.0.proj"]),
    rule("double_blocks.*.img_mlp.2", &["transformer_blocks.*.ff.net.2"]),
    rule("double_blocks.*.txt_mlp.0", &["transformer_blocks.*.ff_context.net.0.proj"]),
    rule("double_blocks.*.txt_mlp.2", &["transformer_blocks.*.ff_context.net.2"]),
    rule("single_blocks.*.modulation.lin", &["single_transformer_blocks.*.norm.linear"]),
    Rule {
        from: "single_blocks.*.linear1",
        to: &[
            "single_transformer_blocks.*.attn.to_q",
            "single_transformer_blocks.*.attn.to_k",
            "single_transformer_blocks.*.attn.to_v",
            "single_transformer_blocks.*.proj_mlp",
        ],
        how: How::WidthsAndRest,
    },
    rule("single_blocks.*.linear2", &["single_transformer_blocks.*.proj_out"]),
    rule("single_blocks.*.norm.query_norm", &["single_transformer_blocks.*.attn.norm_q"]),
    rule("single_blocks.*.norm.key_norm", &["single_transformer_blocks.*.attn.norm_k"]),
    rule("final_layer.linear", &["proj_out"]),
    // The file has shift, then scale.
    Rule { from: "final_layer.adaLN_modulation.1", to: &["norm_out.linear"], how: How::Swapped },
];

/// What only files of changes have: XLabs' names of attention's layers.
const ADAPTER_RULES: &[Rule] = &[
    rule(
        "double_blocks.*.processor.qkv_lora1",
        &[
            "transformer_blocks.*.attn.to_q",
            "transformer_blocks.*.attn.to_k",
            "transformer_blocks.*.attn.to_v",
        ],
    ),
    rule(
        "double_blocks.*.processor.qkv_lora2",
        &[
            "transformer_blocks.*.attn.add_q_proj",
            "transformer_blocks.*.attn.add_k_proj",
            "transformer_blocks.*.attn.add_v_proj",
        ],
    ),
    rule("double_blocks.*.processor.proj_lora1", &["transformer_blocks.*.attn.to_out.0"]),
    rule("double_blocks.*.processor.proj_lora2", &["transformer_blocks.*.attn.to_add_out"]),
    rule("single_blocks.*.processor.qkv_lora", SINGLE_QKV),
    rule("single_blocks.*.linear1_qkv", SINGLE_QKV),
    rule("single_blocks.*.processor.proj_lora", &["single_transformer_blocks.*.proj_out"]),
];

const SINGLE_QKV: &[&str] = &[
    "single_transformer_blocks.*.attn.to_q",
    "single_transformer_blocks.*.attn.to_k",
    "single_transformer_blocks.*.attn.to_v",
];

/// Names in files of changes.
pub const ADAPTERS: &AdapterNames = &AdapterNames {
    rules: &[RULES, ADAPTER_RULES],
    input: "x_embedder",
    marks: &["single_transformer_blocks", "single_blocks", "double_blocks"],
    sure_marks: &[],
    few_steps: &[
        known(&["turbo-alpha"], 8, 1.0, Some(3.5)),
        known(&["turbo_alpha"], 8, 1.0, Some(3.5)),
        known(&["hyper", "8step"], 8, 0.125, Some(3.5)),
        known(&["hyper", "16step"], 16, 0.125, Some(3.5)),
    ],
};

/// As the cards of these files say.
const fn known(
    words: &'static [&'static str],
    steps: usize,
    weight: f64,
    guidance: Option<f64>,
) -> KnownFewSteps {
    KnownFewSteps { words, settings: FewSteps { steps, weight: Some(weight), guidance } }
}

/// The denoiser under diffusers' names.
fn views(tensors: &Weights) -> Result<Weights, WeightError> {
    if tensors.info("img_in.weight").is_none() {
        return Ok(tensors.clone());
    }
    // Gaps are told in the file's own names.
    for prefix in ["double_blocks", "single_blocks"] {
        rules::blocks(tensors, prefix)?;
    }
    let width = rules::side(tensors, "img_in.weight", 2, 0)?;
    Ok(tensors.with_views(rules::views(tensors, RULES, width)?))
}

/// The other way round.
fn originals(denoiser: &Weights) -> Option<Vec<Original>> {
    let width = rules::side(denoiser, "x_embedder.weight", 2, 0).ok()?;
    originals::originals(denoiser, RULES, width)
}

/// The configuration, from shapes.
fn configuration(denoiser: &Weights, _: &str) -> Result<FileConfig, WeightError> {
    let side = |name: &str, rank, axis| rules::side(denoiser, name, rank, axis);
    let hidden = side("x_embedder.weight", 2, 0)?;
    let head_dim = side("transformer_blocks.0.attn.norm_q.weight", 1, 0)?;
    if !hidden.is_multiple_of(head_dim) || !head_dim.is_multiple_of(32) {
        return Err(WeightError::Heads { file: denoiser.place().into(), hidden, head_dim, of: 32 });
    }
    let guided = denoiser.info("time_text_embed.guidance_embedder.linear_1.weight").is_some();
    Ok(FileConfig {
        transformer: json!({
            "_class_name": "FluxTransformer2DModel",
            "in_channels": side("x_embedder.weight", 2, 1)?,
            "out_channels": side("proj_out.weight", 2, 0)?,
            "num_layers": rules::blocks(denoiser, "transformer_blocks")?,
            "num_single_layers": rules::blocks(denoiser, "single_transformer_blocks")?,
            "attention_head_dim": head_dim,
            "num_attention_heads": hidden / head_dim,
            "joint_attention_dim": side("context_embedder.weight", 2, 1)?,
            "pooled_projection_dim":
                side("time_text_embed.text_embedder.linear_1.weight", 2, 1)?,
            "guidance_embeds": guided,
            // As many numbers for rows as for columns: (16, 56, 56) of 128.
            "axes_dims_rope": [head_dim / 8, head_dim * 7 / 16, head_dim * 7 / 16],
        }),
        // The published files of FLUX.1-dev and FLUX.1-schnell.
        scheduler: json!({
            "_class_name": "FlowMatchEulerDiscreteScheduler",
            "num_train_timesteps": 1000,
            "shift": if guided { 3.0 } else { 1.0 },
            "use_dynamic_shifting": guided,
            "base_shift": 0.5,
            "max_shift": 1.15,
            "base_image_seq_len": 256,
            "max_image_seq_len": 4096,
        }),
        vae_scale: 0.3611,
        vae_shift: 0.1159,
        note: None,
    })
}
