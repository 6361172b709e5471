//! What a FLUX.2 transformer costs: operations and parameters, from its configuration alone.

use super::config::Flux2Config;
use crate::models::config::TransformerConfig;
use crate::models::cost::Flops;
use crate::models::layers::TIME_CHANNELS;

/// One evaluation: `img` image tokens, `txt` text tokens, batch 1.
pub(super) fn step(config: &Flux2Config, img: usize, txt: usize) -> Flops {
    let (d, n) = (config.hidden(), img + txt);
    // Per token: q, k, v and the output (4 d^2), gate, up and down of the feed-forward layer (3 d mlp). A single block
    // fuses them into two products, at the same cost.
    let block = Flops::dense(n, d, 4 * d + 3 * config.mlp) + Flops::attention(n, d);
    ends(config, img, txt) + block * (config.num_layers + config.num_single_layers) as f64
}

/// All but the blocks: embeddings, the 15 modulation vectors that all blocks share, and the last layer with its 2.
pub(super) fn ends(config: &Flux2Config, img: usize, txt: usize) -> Flops {
    let d = config.hidden();
    Flops::dense(img, config.in_channels, d)
        + Flops::dense(txt, config.joint_attention_dim, d)
        + Flops::dense(1, TIME_CHANNELS, d)
        + Flops::dense(1, d, d)
        + Flops::dense(1, d, 15 * d)
        + Flops::dense(1, d, 2 * d)
        + Flops::dense(img, d, config.out_channels)
}

/// Number of parameters. There are no biases.
pub(super) fn parameters(config: &Flux2Config) -> u64 {
    let [d, mlp, head, tokens_in, tokens_out, text, time, double, single] = [
        config.hidden(),
        config.mlp,
        config.attention_head_dim,
        config.in_channels,
        config.out_channels,
        config.joint_attention_dim,
        TIME_CHANNELS,
        config.num_layers,
        config.num_single_layers,
    ]
    .map(|n| n as u64);
    let stream = 4 * d * d + 3 * d * mlp + 2 * head;
    d * (tokens_in + text + time + tokens_out)
        + (1 + 15 + 2) * d * d
        + stream * (2 * double + single)
}
