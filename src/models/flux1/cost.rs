//! What a FLUX.1 transformer costs: operations and parameters, from its configuration alone.

use super::config::FluxConfig;
use crate::models::config::TransformerConfig;
use crate::models::cost::{Flops, linear};
use crate::models::layers::TIME_CHANNELS;

/// One evaluation of a FLUX transformer: `img` image tokens, `txt` text tokens, batch 1.
pub(super) fn step(config: &FluxConfig, img: usize, txt: usize) -> Flops {
    let (d, mlp, n) = (config.hidden(), config.mlp(), img + txt);
    // Per token: q, k, v and the output (4 d^2), the feed-forward pair (2 d mlp). A single block fuses the output
    // and the second feed-forward layer, at the same cost.
    let block = Flops::dense(n, d, 4 * d + 2 * mlp) + Flops::attention(n, d);
    ends(config, img, txt)
        + modulations(config)
        + block * (config.num_layers + config.num_single_layers) as f64
}

/// What is left of [`step`] when a temporal cache stands in for all blocks: embeddings and the last layer; with
/// `modulated` also the blocks' modulations.
pub(super) fn reused_step(config: &FluxConfig, img: usize, txt: usize, modulated: bool) -> Flops {
    let ends = ends(config, img, txt);
    if modulated { ends + modulations(config) } else { ends }
}

/// Per picture: 6 modulation vectors for each stream of a double block, 3 for a single block.
fn modulations(config: &FluxConfig) -> Flops {
    let d = config.hidden();
    Flops::dense(1, d, 12 * d) * config.num_layers as f64
        + Flops::dense(1, d, 3 * d) * config.num_single_layers as f64
}

/// Embeddings, and the last layer with its 2 modulation vectors.
fn ends(config: &FluxConfig, img: usize, txt: usize) -> Flops {
    let d = config.hidden();
    let embedder = |channels| Flops::dense(1, channels, d) + Flops::dense(1, d, d);
    let n_time = if config.guidance_embeds { 2.0 } else { 1.0 };
    Flops::dense(img, config.in_channels, d)
        + Flops::dense(txt, config.joint_attention_dim, d)
        + embedder(TIME_CHANNELS) * n_time
        + embedder(config.pooled_projection_dim)
        + Flops::dense(1, d, 2 * d)
        + Flops::dense(img, d, config.out_channels)
}

/// Parameters of a FLUX transformer.
pub(super) fn parameters(config: &FluxConfig) -> u64 {
    let d = config.hidden();
    let mlp = config.mlp();
    let embedder = |channels| linear(channels, d) + linear(d, d);
    let n_time = if config.guidance_embeds { 2 } else { 1 };
    let qk_norm = 2 * config.attention_head_dim as u64;
    let stream = linear(d, 6 * d) + 4 * linear(d, d) + qk_norm + linear(d, mlp) + linear(mlp, d);
    let single =
        linear(d, 3 * d) + 3 * linear(d, d) + qk_norm + linear(d, mlp) + linear(d + mlp, d);
    linear(config.in_channels, d)
        + linear(config.joint_attention_dim, d)
        + embedder(TIME_CHANNELS) * n_time
        + embedder(config.pooled_projection_dim)
        + 2 * stream * config.num_layers as u64
        + single * config.num_single_layers as u64
        + linear(d, 2 * d)
        + linear(d, config.out_channels)
}
