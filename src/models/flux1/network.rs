//! The FLUX.1 transformer: two-stream blocks, then one-stream blocks.
//!
//! Black Forest Labs' reference code (`flux/modules/layers.py`) has the structure; weights carry diffusers'
//! names (`FluxTransformer2DModel`). Text and image tokens live in one matrix `[T + N, hidden]` from the start,
//! text first, so that joint attention and the one-stream blocks need no concatenation.

use super::config::FluxConfig;
use crate::models::blocks::{LAYER_NORM, LastLayer, modulated_images};
use crate::models::config::TransformerConfig;
use crate::models::denoiser::{Denoiser, Inputs, Replay, Residual, State, Streams};
use crate::models::layers::{Loader, TIME_CHANNELS};
use crate::models::modulation::{Columns, MlpEmbedder, Modulations};
use crate::models::rotary_attention::{QkvProjection, joint_attention, joint_output};
use crate::ops::{Activation, Affine, Epilogue, LinearLayer, linear_for, linear_into, norm_for};
use crate::tensor::Tensor;

/// The whole network.
pub struct Flux {
    x_embedder: LinearLayer,
    context_embedder: LinearLayer,
    modulations: Modulations,
    double_blocks: Vec<DoubleStreamBlock>,
    single_blocks: Vec<SingleStreamBlock>,
    last: LastLayer,
}

impl Flux {
    /// Asks for all weights.
    pub fn load(loader: &Loader<'_>, config: &FluxConfig) -> Self {
        let d = config.hidden();
        let embedder =
            |name: &str, width| MlpEmbedder::load(&loader.pp("time_text_embed").pp(name), width, d);
        let mut modulations = Modulations::new(embedder("timestep_embedder", TIME_CHANNELS));
        if config.guidance_embeds {
            modulations.guidance_in = Some(embedder("guidance_embedder", TIME_CHANNELS));
        }
        modulations.pooled_in = Some(embedder("text_embedder", config.pooled_projection_dim));
        let double_blocks = (0..config.num_layers).map(|i| {
            let loader = loader.pp("transformer_blocks").pp(i);
            DoubleStreamBlock::load(&loader, config, &mut modulations)
        });
        let double_blocks = double_blocks.collect();
        let single_blocks = (0..config.num_single_layers).map(|i| {
            let loader = loader.pp("single_transformer_blocks").pp(i);
            SingleStreamBlock::load(&loader, config, &mut modulations)
        });
        let single_blocks = single_blocks.collect();
        Flux {
            x_embedder: loader.linear("x_embedder", d, config.in_channels),
            context_embedder: loader.linear("context_embedder", d, config.joint_attention_dim),
            double_blocks,
            single_blocks,
            last: LastLayer {
                modulation: modulations.add(loader.modulation().linear(
                    "norm_out.linear",
                    2 * d,
                    d,
                )),
                proj: loader.linear("proj_out", config.out_channels, d),
            },
            modulations,
        }
    }
}

impl Denoiser for Flux {
    fn modulations(&self) -> &Modulations {
        &self.modulations
    }

    fn embed<'r>(&self, img: Tensor<'r>, inputs: Inputs<'r>, state: State<'r>) {
        let t = state.n_text;
        for (b, streams) in state.branches().enumerate() {
            let txt = inputs.txt.row_range(b * t..(b + 1) * t);
            linear_into("txt_in", txt, &self.context_embedder, streams.txt, Epilogue::default());
            linear_into("img_in", img, &self.x_embedder, streams.img, Epilogue::default());
        }
    }

    fn n_blocks(&self) -> usize {
        self.double_blocks.len() + self.single_blocks.len()
    }

    fn block<'r>(&self, i: usize, state: &State<'r>, residual: &mut dyn Residual<'r>) {
        let recorder = state.x.recorder();
        match i.checked_sub(self.double_blocks.len()) {
            None => recorder
                .scope(format!("double.{i}"), || self.double_blocks[i].forward(state, residual)),
            Some(i) => recorder
                .scope(format!("single.{i}"), || self.single_blocks[i].forward(state, residual)),
        }
    }

    fn replay<'r>(&self, i: usize, state: &State<'r>, module: Replay<'_, 'r>) {
        match i.checked_sub(self.double_blocks.len()) {
            None => self.double_blocks[i].replay(state, module),
            Some(i) => self.single_blocks[i].replay(state, module),
        }
    }

    fn modulated_input<'r>(&self, state: &State<'r>) -> Vec<Tensor<'r>> {
        match (self.double_blocks.first(), self.single_blocks.first()) {
            (Some(block), _) => modulated_images(state, &block.img.modulation),
            (None, Some(block)) => modulated_images(state, &block.modulation),
            (None, None) => state.branches().map(|streams| streams.img).collect(),
        }
    }

    fn velocity<'r>(&self, state: &State<'r>) -> Vec<Tensor<'r>> {
        self.last.forward(state)
    }
}

/// Layers of queries, keys and values and two norms, by name; then a layer of `rest` outputs.
fn load_qkv(
    loader: &Loader<'_>,
    config: &FluxConfig,
    names: [&str; 5],
    rest: Option<(&str, usize)>,
) -> QkvProjection {
    let d = config.hidden();
    let [q, k, v, norm_q, norm_k] = names;
    let parts: Vec<_> = [(q, d), (k, d), (v, d)].into_iter().chain(rest).collect();
    QkvProjection {
        layers: loader.linear_group(&parts, d),
        norm_q: loader.vector(norm_q, config.attention_head_dim),
        norm_k: loader.vector(norm_k, config.attention_head_dim),
    }
}

/// A block with separate weights for text and image, which meet in attention.
struct DoubleStreamBlock {
    head_dim: usize,
    img: StreamWeights,
    txt: StreamWeights,
}

struct StreamWeights {
    /// Shift, scale and gate of attention, then of the MLP.
    modulation: Columns,
    qkv: QkvProjection,
    proj: LinearLayer,
    mlp_in: LinearLayer,
    mlp_out: LinearLayer,
}

impl StreamWeights {
    fn load(
        loader: &Loader<'_>,
        config: &FluxConfig,
        modulation: Columns,
        qkv: [&str; 5],
        proj: &str,
        mlp: &str,
    ) -> Self {
        let d = config.hidden();
        StreamWeights {
            modulation,
            qkv: load_qkv(loader, config, qkv, None),
            proj: loader.linear(proj, d, d),
            mlp_in: loader.linear(&format!("{mlp}.net.0.proj"), config.mlp(), d),
            mlp_out: loader.linear(&format!("{mlp}.net.2"), d, config.mlp()),
        }
    }

    /// What follows attention: projection, MLP, and their gates. Updates `x` in place.
    fn finish<'r>(
        &self,
        x: Tensor<'r>,
        attn: Tensor<'r>,
        modulation: [Tensor<'r>; 6],
        residual: &mut dyn Residual<'r>,
    ) {
        let [_, _, gate_msa, shift_mlp, scale_mlp, gate_mlp] = modulation;
        residual.add(x, gate_msa, attn, &self.proj);
        let affine = Affine::Modulate { scale: scale_mlp, shift: shift_mlp };
        let h = norm_for("norm2", x, LAYER_NORM, affine, &[&self.mlp_in]);
        let h = linear_for("mlp.in", h, &self.mlp_in, Activation::GeluTanh, &self.mlp_out);
        residual.add(x, gate_mlp, h, &self.mlp_out);
    }
}

impl DoubleStreamBlock {
    fn load(loader: &Loader<'_>, config: &FluxConfig, modulations: &mut Modulations) -> Self {
        let d = config.hidden();
        let [img, txt] = ["norm1.linear", "norm1_context.linear"]
            .map(|name| modulations.add(loader.modulation().linear(name, 6 * d, d)));
        let names =
            ["attn.to_q", "attn.to_k", "attn.to_v", "attn.norm_q.weight", "attn.norm_k.weight"];
        let added = [
            "attn.add_q_proj",
            "attn.add_k_proj",
            "attn.add_v_proj",
            "attn.norm_added_q.weight",
            "attn.norm_added_k.weight",
        ];
        DoubleStreamBlock {
            head_dim: config.attention_head_dim,
            img: StreamWeights::load(loader, config, img, names, "attn.to_out.0", "ff"),
            txt: StreamWeights::load(loader, config, txt, added, "attn.to_add_out", "ff_context"),
        }
    }

    fn forward<'r>(&self, state: &State<'r>, residual: &mut dyn Residual<'r>) {
        let recorder = state.x.recorder();
        for (b, Streams { txt, img, all }) in state.branches().enumerate() {
            let [img_mod, txt_mod]: [[Tensor<'r>; 6]; 2] = [&self.img, &self.txt]
                .map(|stream| state.modulation(&stream.modulation, b).chunk_cols());
            let norm1 =
                |name: &str, x: Tensor<'r>, stream: &StreamWeights, modulation: [Tensor<'r>; 6]| {
                    let [shift, scale, ..] = modulation;
                    let affine = Affine::Modulate { scale, shift };
                    let readers = stream.qkv.layers.layers();
                    recorder.scope(name, || norm_for("norm1", x, LAYER_NORM, affine, &readers))
                };
            let img_in = norm1("img", img, &self.img, img_mod);
            let txt_in = norm1("txt", txt, &self.txt, txt_mod);

            let (t, n) = (txt.rows(), all.rows());
            let readers = [(&self.txt.proj, t), (&self.img.proj, n - t)];
            let shape = [n, all.cols(), all.cols()];
            let attn = joint_output("attn", state, self.head_dim, shape, true, readers);
            joint_attention(self.head_dim, attn, state, |qkv| {
                recorder.scope("txt", || self.txt.qkv.forward(txt_in, qkv, 0..t, state));
                recorder.scope("img", || self.img.qkv.forward(img_in, qkv, t..n, state));
            });

            let (img_attn, txt_attn) = (attn.row_range(t..n), attn.row_range(0..t));
            recorder.scope("img", || self.img.finish(img, img_attn, img_mod, residual));
            recorder.scope("txt", || self.txt.finish(txt, txt_attn, txt_mod, residual));
        }
    }

    fn replay<'r>(&self, state: &State<'r>, module: Replay<'_, 'r>) {
        for (b, Streams { txt, img, .. }) in state.branches().enumerate() {
            for (x, stream) in [(img, &self.img), (txt, &self.txt)] {
                let [_, _, gate_msa, _, _, gate_mlp] =
                    state.modulation(&stream.modulation, b).chunk_cols();
                module(x, gate_msa);
                module(x, gate_mlp);
            }
        }
    }
}

/// A block with one set of weights for text and image, attention and MLP side by side.
struct SingleStreamBlock {
    head_dim: usize,
    mlp: usize,
    /// Shift, scale and gate.
    modulation: Columns,
    /// With the first layer of the MLP.
    qkv_mlp: QkvProjection,
    proj_out: LinearLayer,
}

impl SingleStreamBlock {
    fn load(loader: &Loader<'_>, config: &FluxConfig, modulations: &mut Modulations) -> Self {
        let (d, mlp) = (config.hidden(), config.mlp());
        let names =
            ["attn.to_q", "attn.to_k", "attn.to_v", "attn.norm_q.weight", "attn.norm_k.weight"];
        SingleStreamBlock {
            head_dim: config.attention_head_dim,
            mlp,
            modulation: modulations.add(loader.modulation().linear("norm.linear", 3 * d, d)),
            qkv_mlp: load_qkv(loader, config, names, Some(("proj_mlp", mlp))),
            proj_out: loader.linear("proj_out", d, d + mlp),
        }
    }

    fn forward<'r>(&self, state: &State<'r>, residual: &mut dyn Residual<'r>) {
        for (b, Streams { all: x, .. }) in state.branches().enumerate() {
            let (d, rows) = (x.cols(), x.rows());
            let [shift, scale, gate] = state.modulation(&self.modulation, b).chunk_cols();
            let (affine, layers) = (Affine::Modulate { scale, shift }, &self.qkv_mlp.layers);
            let h = norm_for("norm", x, LAYER_NORM, affine, &layers.layers());

            // Attention and MLP write side by side what proj_out reads as one row.
            let mlp_in_f16 = layers.writes_f16(x.recorder(), rows);
            let shape = [rows, d, d + self.mlp];
            let readers = [(&self.proj_out, rows)];
            let both = joint_output("attn_mlp", state, self.head_dim, shape, mlp_in_f16, readers);
            joint_attention(self.head_dim, both.col_range(0..d), state, |qkv| {
                let mlp = both.col_range(d..both.cols());
                self.qkv_mlp.forward_with_rest(h, qkv, mlp, Activation::GeluTanh, state);
            });
            residual.add(x, gate, both, &self.proj_out);
        }
    }

    fn replay<'r>(&self, state: &State<'r>, module: Replay<'_, 'r>) {
        for (b, streams) in state.branches().enumerate() {
            let [_, _, gate] = state.modulation(&self.modulation, b).chunk_cols();
            module(streams.all, gate);
        }
    }
}
