//! What a Stable Diffusion 3 transformer costs: operations and parameters, from its configuration alone.

use super::config::Sd3Config;
use crate::models::config::TransformerConfig;
use crate::models::cost::{Flops, linear};
use crate::models::layers::TIME_CHANNELS;

/// One evaluation of an SD3 transformer: `img` image tokens, `txt` text tokens, batch 1.
pub(super) fn step(config: &Sd3Config, img: usize, txt: usize) -> Flops {
    let (d, mlp, n) = (config.hidden(), config.mlp(), img + txt);
    let layers = config.num_layers as f64;
    // Per token: q, k, v and the output (4 d^2), the feed-forward pair (2 d mlp). The last block drops its text
    // after q, k and v. The paper's profiler counts its queries; we count as it does, and do not compute them.
    let dropped = Flops::dense(txt, d, d + 2 * mlp);
    let block = Flops::dense(n, d, 4 * d + 2 * mlp) + Flops::attention(n, d);
    let dual = Flops::dense(img, d, 4 * d) + Flops::attention(img, d);
    let mut sum = ends(config, img, txt)
        + modulations(config)
        + block * layers
        + dual * config.dual_attention_layers.len() as f64;
    sum.linear -= dropped.linear;
    sum
}

/// What is left of [`step`] when a temporal cache stands in for all blocks: embeddings and the last layer; with
/// `modulated` also the blocks' modulations.
pub(super) fn reused_step(config: &Sd3Config, img: usize, txt: usize, modulated: bool) -> Flops {
    let ends = ends(config, img, txt);
    if modulated { ends + modulations(config) } else { ends }
}

/// Per picture: 6 modulation vectors for each stream of a block, 3 more with dual attention, 2 for the last text.
fn modulations(config: &Sd3Config) -> Flops {
    let vectors = 12 * config.num_layers - 4 + 3 * config.dual_attention_layers.len();
    Flops::dense(1, config.hidden(), config.hidden()) * vectors as f64
}

/// Embeddings, and the last layer with its 2 modulation vectors.
fn ends(config: &Sd3Config, img: usize, txt: usize) -> Flops {
    let d = config.hidden();
    let embedder = |channels| Flops::dense(1, channels, d) + Flops::dense(1, d, d);
    Flops::dense(img, 4 * config.in_channels, d)
        + Flops::dense(txt, config.joint_attention_dim, d)
        + embedder(TIME_CHANNELS)
        + embedder(config.pooled_projection_dim)
        + Flops::dense(1, d, 2 * d)
        + Flops::dense(img, d, 4 * config.out_channels)
}

/// Parameters of an SD3 transformer. Its table of positions is in the checkpoint but is no parameter: it is computed,
/// not learned.
pub(super) fn parameters(config: &Sd3Config) -> u64 {
    let (d, mlp) = (config.hidden(), config.mlp());
    let embedder = |channels| linear(channels, d) + linear(d, d);
    let qk_norm = if config.qk_norm { 2 * config.attention_head_dim as u64 } else { 0 };
    let feed_forward = linear(d, mlp) + linear(mlp, d);
    let attention = 4 * linear(d, d) + qk_norm;
    let stream = linear(d, 6 * d) + attention + feed_forward;
    // The last block's text: 2 modulation vectors in place of 6, no output, no feed-forward.
    let dropped = 4 * linear(d, d) + linear(d, d) + feed_forward;
    let dual = attention + linear(d, 9 * d) - linear(d, 6 * d);
    linear(4 * config.in_channels, d)
        + linear(config.joint_attention_dim, d)
        + embedder(TIME_CHANNELS)
        + embedder(config.pooled_projection_dim)
        + 2 * stream * config.num_layers as u64
        - dropped
        + dual * config.dual_attention_layers.len() as u64
        + linear(d, 2 * d)
        + linear(d, 4 * config.out_channels)
}
