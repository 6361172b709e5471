//! Stable Diffusion 3 and 3.5 in files of their own: Stability AI's names (MMDiT), or diffusers', without a configuration.

use serde_json::json;

use super::Sd3Config;
use crate::checkpoint::weights::{WeightError, Weights};
use crate::models::adapters::{AdapterNames, FewSteps, KnownFewSteps};
use crate::models::family::{DenoiserFile, FileConfig, Original, Recognised};
use crate::models::files::originals;
use crate::models::files::rules::{self, How, Rule, rule};

/// Numbers per head, where no norm of queries has as many.
const HEAD_DIM: usize = 64;
/// Latent pixels of the picture that published models' tables of positions are for.
const SAMPLE_SIZE: usize = 128;
/// Blocks of the large model, of which there is a timestep-distilled one with the same shapes.
const LARGE: usize = 38;

/// Whether the tensors are a denoiser of Stable Diffusion 3.
pub fn recognise(tensors: &Weights) -> Recognised {
    let has = |name: &str| tensors.info(name).is_some();
    let is_original = has("joint_blocks.0.context_block.attn.qkv.weight");
    let is_diffusers = has("transformer_blocks.0.attn.add_q_proj.weight")
        && has("pos_embed.proj.weight")
        && !tensors.names().any(|name| name.starts_with("single_transformer_blocks."));
    match is_original || is_diffusers {
        true => Recognised::Own(&DenoiserFile { views, originals, configuration }),
        false => Recognised::Other,
    }
}

const RULES: &[Rule] = &[
    rule("pos_embed", &["pos_embed.pos_embed"]),
    rule("x_embedder.proj", &["pos_embed.proj"]),
    rule("context_embedder", &["context_embedder"]),
    rule("t_embedder.mlp.0", &["time_text_embed.timestep_embedder.linear_1"]),
    rule("t_embedder.mlp.2", &["time_text_embed.timestep_embedder.linear_2"]),
    rule("y_embedder.mlp.0", &["time_text_embed.text_embedder.linear_1"]),
    rule("y_embedder.mlp.2", &["time_text_embed.text_embedder.linear_2"]),
    rule(
        "joint_blocks.*.x_block.attn.qkv",
        &[
            "transformer_blocks.*.attn.to_q",
            "transformer_blocks.*.attn.to_k",
            "transformer_blocks.*.attn.to_v",
        ],
    ),
    rule(
        "joint_blocks.*.context_block.attn.qkv",
        &[
            "transformer_blocks.*.attn.add_q_proj",
            "transformer_blocks.*.attn.add_k_proj",
            "transformer_blocks.*.attn.add_v_proj",
        ],
    ),
    rule("joint_blocks.*.x_block.attn.ln_q", &["transformer_blocks.*.attn.norm_q"]),
    rule("joint_blocks.*.x_block.attn.ln_k", &["transformer_blocks.*.attn.norm_k"]),
    rule("joint_blocks.*.context_block.attn.ln_q", &["transformer_blocks.*.attn.norm_added_q"]),
    rule("joint_blocks.*.context_block.attn.ln_k", &["transformer_blocks.*.attn.norm_added_k"]),
    rule("joint_blocks.*.x_block.attn.proj", &["transformer_blocks.*.attn.to_out.0"]),
    rule("joint_blocks.*.context_block.attn.proj", &["transformer_blocks.*.attn.to_add_out"]),
    rule(
        "joint_blocks.*.x_block.attn2.qkv",
        &[
            "transformer_blocks.*.attn2.to_q",
            "transformer_blocks.*.attn2.to_k",
            "transformer_blocks.*.attn2.to_v",
        ],
    ),
    rule("joint_blocks.*.x_block.attn2.proj", &["transformer_blocks.*.attn2.to_out.0"]),
    rule("joint_blocks.*.x_block.attn2.ln_q", &["transformer_blocks.*.attn2.norm_q"]),
    rule("joint_blocks.*.x_block.attn2.ln_k", &["transformer_blocks.*.attn2.norm_k"]),
    rule("joint_blocks.*.x_block.adaLN_modulation.1", &["transformer_blocks.*.norm1.linear"]),
    // The last block's has only shift and scale, which change places.
    Rule {
        from: "joint_blocks.*.context_block.adaLN_modulation.1",
        to: &["transformer_blocks.*.norm1_context.linear"],
        how: How::SwappedIfTwo,
    },
    rule("joint_blocks.*.x_block.mlp.fc1", &["transformer_blocks.*.ff.net.0.proj"]),
    rule("joint_blocks.*.x_block.mlp.fc2", &["transformer_blocks.*.ff.net.2"]),
    rule("joint_blocks.*.context_block.mlp.fc1", &["transformer_blocks.*.ff_context.net.0.proj"]),
    rule("joint_blocks.*.context_block.mlp.fc2", &["transformer_blocks.*.ff_context.net.2"]),
    rule("final_layer.linear", &["proj_out"]),
    Rule { from: "final_layer.adaLN_modulation.1", to: &["norm_out.linear"], how: How::Swapped },
];

/// Names in files of changes.
pub const ADAPTERS: &AdapterNames = &AdapterNames {
    rules: &[RULES],
    input: "pos_embed.proj",
    marks: &["joint_blocks", ".attn2.to_", "pos_embed"],
    sure_marks: &[],
    few_steps: &[
        known(&["hyper-sd3-4step"], 4, 0.125, Some(3.0)),
        known(&["hyper-sd3-8step"], 8, 0.125, Some(5.0)),
        known(&["hyper-sd3-16step"], 16, 0.125, Some(7.0)),
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
    let views = match tensors.info("x_embedder.proj.weight") {
        None => tensors.iter().cloned().collect(),
        Some(_) => {
            // Gaps are told in the file's own names.
            rules::blocks(tensors, "joint_blocks")?;
            let width = rules::side(tensors, "x_embedder.proj.weight", 4, 0)?;
            rules::views(tensors, RULES, width)?
        }
    };
    // Leading sides of 1 are dropped in GGUF files.
    let whole = views.into_iter().map(|view| match view.shape[..] {
        [places, width] if &*view.name == "pos_embed.pos_embed" => {
            view.reshaped(&[1, places, width]).unwrap_or(view)
        }
        _ => view,
    });
    Ok(tensors.with_views(whole))
}

/// The other way round.
fn originals(denoiser: &Weights) -> Option<Vec<Original>> {
    let width = rules::side(denoiser, "pos_embed.proj.weight", 4, 0).ok()?;
    originals::originals(denoiser, RULES, width)
}

/// The configuration, from shapes and, for what they leave open, the file's name.
fn configuration(denoiser: &Weights, name: &str) -> Result<FileConfig, WeightError> {
    let side = |name: &str, rank, axis| rules::side(denoiser, name, rank, axis);
    let has = |name: &str| denoiser.info(name).is_some();
    let hidden = side("pos_embed.proj.weight", 4, 0)?;
    let norm = "transformer_blocks.0.attn.norm_q.weight";
    let head_dim = if has(norm) { side(norm, 1, 0)? } else { HEAD_DIM };
    if !hidden.is_multiple_of(head_dim) {
        return Err(WeightError::Heads { file: denoiser.place().into(), hidden, head_dim, of: 4 });
    }
    let places = side("pos_embed.pos_embed", 3, 1)?;
    let per_side = places.isqrt();
    let blocks = rules::blocks(denoiser, "transformer_blocks")?;
    let dual: Vec<usize> =
        (0..blocks).filter(|i| has(&format!("transformer_blocks.{i}.attn2.to_q.weight"))).collect();
    let qk_norm = has(norm).then_some("rms_norm");
    let patch = Sd3Config::PATCH * Sd3Config::PATCH;
    let note = (blocks == LARGE && !super::says_turbo(name)).then(|| {
        "the file may be of the large model or of its turbo version, whose shapes are the same; it is opened as the large \
         one, as its name does not say turbo"
            .to_owned()
    });
    Ok(FileConfig {
        transformer: json!({
            "_class_name": "SD3Transformer2DModel",
            "in_channels": side("pos_embed.proj.weight", 4, 1)?,
            "out_channels": side("proj_out.weight", 2, 0)? / patch,
            "num_layers": blocks,
            "attention_head_dim": head_dim,
            "num_attention_heads": hidden / head_dim,
            "caption_projection_dim": hidden,
            "joint_attention_dim": side("context_embedder.weight", 2, 1)?,
            "pooled_projection_dim":
                side("time_text_embed.text_embedder.linear_1.weight", 2, 1)?,
            "pos_embed_max_size": per_side,
            // Small tables have an entry for each token of the picture that they are for.
            "sample_size": SAMPLE_SIZE.min(Sd3Config::PATCH * per_side),
            "qk_norm": qk_norm,
            "dual_attention_layers": dual,
        }),
        scheduler: json!({
            "_class_name": "FlowMatchEulerDiscreteScheduler",
            "num_train_timesteps": 1000,
            "shift": 3.0,
        }),
        vae_scale: 1.5305,
        vae_shift: 0.0609,
        note,
    })
}
