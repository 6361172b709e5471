//! The Stable Diffusion 3 and 3.5 transformer (MMDiT): text and image in two streams that meet in attention.
//!
//! SD3 paper (arXiv 2403.03206), figure 2; weights carry diffusers' names (`SD3Transformer2DModel`). SD3.5 adds RMS
//! norms of queries and keys, and its medium size a second, image-only attention in the first blocks.
//!
//! Image tokens are the packed 2 x 2 patches that FLUX has, number `channel * 4 + row * 2 + column`. The patch
//! embedding's convolution reads them in that order as it is; the output layer's rows are put into it at loading, so
//! that stages may hold any list of tokens.

use super::config::Sd3Config;
use crate::models::blocks::{LAYER_NORM, LastLayer, attention_is_in_f16, modulated_images};
use crate::models::config::TransformerConfig;
use crate::models::denoiser::{Denoiser, Inputs, Positions, Replay, Residual, State, Streams};
use crate::models::layers::{LinearGroup, Loader, TIME_CHANNELS};
use crate::models::modulation::{Columns, MlpEmbedder, Modulations};
use crate::models::position_table::PositionTable;
use crate::ops::{
    Activation, Affine, Attention, Epilogue, Input, LinearLayer, Weights, Write, attention_over,
    combine, linear_for, linear_into, norm_for, qk_norm,
};
use crate::tensor::{Resident, Tensor};

/// Epsilon of the norms of queries and keys.
const EPS: f32 = 1e-6;

/// The whole network.
pub struct Sd3 {
    patch_embed: LinearLayer,
    positions: PositionTable,
    context_embedder: LinearLayer,
    modulations: Modulations,
    blocks: Vec<Block>,
    last: LastLayer,
}

impl Sd3 {
    /// Asks for all weights.
    pub fn load(loader: &Loader<'_>, config: &Sd3Config) -> Self {
        let d = config.hidden();
        let embedder =
            |name: &str, width| MlpEmbedder::load(&loader.pp("time_text_embed").pp(name), width, d);
        let mut modulations = Modulations::new(embedder("timestep_embedder", TIME_CHANNELS));
        modulations.pooled_in = Some(embedder("text_embedder", config.pooled_projection_dim));
        let blocks = (0..config.num_layers).map(|i| {
            Block::load(&loader.pp("transformer_blocks").pp(i), config, i, &mut modulations)
        });
        let blocks = blocks.collect();
        let token = 4 * config.out_channels;
        Sd3 {
            patch_embed: loader.patch_embed("pos_embed.proj", d, config.in_channels),
            positions: PositionTable::load(
                loader,
                "pos_embed.pos_embed",
                [config.pos_embed_max_size, d],
                config.sample_size / Sd3Config::PATCH,
            ),
            context_embedder: loader.linear("context_embedder", d, config.joint_attention_dim),
            blocks,
            // The checkpoint has (row, column, channel), tokens have (channel, row, column).
            last: LastLayer {
                modulation: modulations.add(loader.modulation().linear(
                    "norm_out.linear",
                    2 * d,
                    d,
                )),
                proj: loader.linear_with_rows("proj_out", token, d, |i| {
                    i % 4 * config.out_channels + i / 4
                }),
            },
            modulations,
        }
    }
}

impl Denoiser for Sd3 {
    fn position_table(&self) -> Option<&PositionTable> {
        Some(&self.positions)
    }

    fn modulations(&self) -> &Modulations {
        &self.modulations
    }

    fn embed<'r>(&self, img: Tensor<'r>, inputs: Inputs<'r>, state: State<'r>) {
        let Positions::Added(positions) = inputs.positions else {
            unreachable!("SD3 adds positions to its tokens")
        };
        let t = state.n_text;
        for (b, streams) in state.branches().enumerate() {
            let txt = inputs.txt.row_range(b * t..(b + 1) * t);
            linear_into("txt_in", txt, &self.context_embedder, streams.txt, Epilogue::default());
            linear_into("img_in", img, &self.patch_embed, streams.img, Epilogue::default());
            let once = Weights::Constant([1.0, 0.0, 0.0]);
            combine("positions", &[positions], once, None, Write::Add, streams.img);
        }
    }

    fn n_blocks(&self) -> usize {
        self.blocks.len()
    }

    fn block<'r>(&self, i: usize, state: &State<'r>, residual: &mut dyn Residual<'r>) {
        let recorder = state.x.recorder();
        recorder.scope(format!("block.{i}"), || self.blocks[i].forward(state, residual));
    }

    fn replay<'r>(&self, i: usize, state: &State<'r>, module: Replay<'_, 'r>) {
        self.blocks[i].replay(state, module);
    }

    fn modulated_input<'r>(&self, state: &State<'r>) -> Vec<Tensor<'r>> {
        match self.blocks.first() {
            Some(block) => modulated_images(state, &block.img_modulation),
            None => state.branches().map(|streams| streams.img).collect(),
        }
    }

    fn velocity<'r>(&self, state: &State<'r>) -> Vec<Tensor<'r>> {
        self.last.forward(state)
    }
}

/// Queries, keys and values of one stream; the norms are SD3.5's.
struct QkvProjection {
    layers: LinearGroup,
    has_queries: bool,
    norms: Option<[Resident; 2]>,
}

impl QkvProjection {
    /// Without queries where nobody would attend with them.
    fn load(
        loader: &Loader<'_>,
        config: &Sd3Config,
        names: [&str; 3],
        norms: [&str; 2],
        has_queries: bool,
    ) -> Self {
        let d = config.hidden();
        let parts = names.map(|name| (name, d));
        if !has_queries {
            // They are in the checkpoint all the same.
            loader.linear(names[0], d, d);
        }
        QkvProjection {
            layers: loader.linear_group(&parts[usize::from(!has_queries)..], d),
            has_queries,
            norms: config
                .qk_norm
                .then(|| norms.map(|name| loader.vector(name, config.attention_head_dim))),
        }
    }

    /// Queries, keys and values of `x`, written side by side to `qkv` `[M, 3 * hidden]`.
    fn forward<'r>(&self, x: Input<'r>, qkv: Tensor<'r>) {
        let recorder = qkv.recorder();
        let [q, k, _] = qkv.chunk_cols();
        let wanted = qkv.cols() - self.layers.n()..qkv.cols();
        self.layers.forward_into("qkv", x, qkv.col_range(wanted));
        if let Some([norm_q, norm_k]) = &self.norms {
            if self.has_queries {
                qk_norm("q.norm", q, recorder.resident(norm_q), EPS);
            }
            qk_norm("k.norm", k, recorder.resident(norm_k), EPS);
        }
    }
}

/// Two layers with GELU between them.
struct Mlp {
    fc1: LinearLayer,
    fc2: LinearLayer,
}

impl Mlp {
    fn load(loader: &Loader<'_>, config: &Sd3Config) -> Self {
        let (d, mlp) = (config.hidden(), config.mlp());
        Mlp { fc1: loader.linear("net.0.proj", mlp, d), fc2: loader.linear("net.2", d, mlp) }
    }

    /// `x += gate * mlp(norm(x))`.
    fn forward<'r>(
        &self,
        x: Tensor<'r>,
        [shift, scale, gate]: [Tensor<'r>; 3],
        residual: &mut dyn Residual<'r>,
    ) {
        let affine = Affine::Modulate { scale, shift };
        let h = norm_for("norm2", x, LAYER_NORM, affine, &[&self.fc1]);
        let h = linear_for("mlp.in", h, &self.fc1, Activation::GeluTanh, &self.fc2);
        residual.add(x, gate, h, &self.fc2);
    }
}

/// A block with separate weights for text and image, which meet in attention.
struct Block {
    head_dim: usize,
    img_modulation: Columns,
    img_qkv: QkvProjection,
    img_proj: LinearLayer,
    img_mlp: Mlp,
    /// The image-only attention of SD3.5-medium: its projection, and its output layer.
    dual: Option<(QkvProjection, LinearLayer)>,
    txt_modulation: Columns,
    txt_qkv: QkvProjection,
    /// What the text does after attention. The last block drops it: nobody would read it.
    txt_out: Option<(LinearLayer, Mlp)>,
}

/// Modulations of a branch.
struct Modulation<'r> {
    img: [Tensor<'r>; 6],
    dual: Option<[Tensor<'r>; 3]>,
    /// Shift and scale before attention.
    txt_in: [Tensor<'r>; 2],
    /// Gate of attention, then shift, scale and gate of the MLP.
    txt_out: Option<[Tensor<'r>; 4]>,
}

impl Block {
    fn load(
        loader: &Loader<'_>,
        config: &Sd3Config,
        i: usize,
        modulations: &mut Modulations,
    ) -> Self {
        let d = config.hidden();
        let is_last = i + 1 == config.num_layers;
        let has_dual = config.dual_attention_layers.contains(&i);
        let mut modulation =
            |name, vectors| modulations.add(loader.modulation().linear(name, vectors * d, d));
        let attn = loader.pp("attn");
        let names = ["to_q", "to_k", "to_v"];
        let norms = ["norm_q.weight", "norm_k.weight"];
        let added = ["add_q_proj", "add_k_proj", "add_v_proj"];
        let added_norms = ["norm_added_q.weight", "norm_added_k.weight"];
        Block {
            head_dim: config.attention_head_dim,
            img_modulation: modulation("norm1.linear", if has_dual { 9 } else { 6 }),
            img_qkv: QkvProjection::load(&attn, config, names, norms, true),
            img_proj: attn.linear("to_out.0", d, d),
            img_mlp: Mlp::load(&loader.pp("ff"), config),
            dual: has_dual.then(|| {
                let attn = loader.pp("attn2");
                let qkv = QkvProjection::load(&attn, config, names, norms, true);
                (qkv, attn.linear("to_out.0", d, d))
            }),
            txt_modulation: modulation("norm1_context.linear", if is_last { 2 } else { 6 }),
            txt_qkv: QkvProjection::load(&attn, config, added, added_norms, !is_last),
            txt_out: (!is_last).then(|| {
                (attn.linear("to_add_out", d, d), Mlp::load(&loader.pp("ff_context"), config))
            }),
        }
    }

    /// Modulations of all branches.
    fn modulate<'r>(&self, state: &State<'r>) -> Vec<Modulation<'r>> {
        let d = state.x.cols();
        (0..state.n_branches())
            .map(|b| {
                let [img, txt] = [&self.img_modulation, &self.txt_modulation]
                    .map(|columns| state.modulation(columns, b));
                Modulation {
                    img: img.col_range(0..6 * d).chunk_cols(),
                    dual: self.dual.as_ref().map(|_| img.col_range(6 * d..9 * d).chunk_cols()),
                    txt_in: match &self.txt_out {
                        Some(_) => txt.col_range(0..2 * d).chunk_cols(),
                        // The last block's has the scale in front of the shift.
                        None => [txt.col_range(d..2 * d), txt.col_range(0..d)],
                    },
                    txt_out: (self.txt_out.as_ref())
                        .map(|_| txt.col_range(2 * d..6 * d).chunk_cols()),
                }
            })
            .collect()
    }

    fn forward<'r>(&self, state: &State<'r>, residual: &mut dyn Residual<'r>) {
        let recorder = state.x.recorder();
        let modulations = self.modulate(state);
        for (Streams { txt, img, all }, modulation) in state.branches().zip(modulations) {
            let (t, rows, d) = (txt.rows(), all.rows(), all.cols());
            let norm1 = |name: &str,
                         x: Tensor<'r>,
                         [shift, scale]: [Tensor<'r>; 2],
                         qkv: &QkvProjection| {
                let affine = Affine::Modulate { scale, shift };
                norm_for(name, x, LAYER_NORM, affine, &qkv.layers.layers())
            };
            let [shift_msa, scale_msa, gate_msa, shift_mlp, scale_mlp, gate_mlp] = modulation.img;
            let img_in = norm1("img.norm1", img, [shift_msa, scale_msa], &self.img_qkv);
            let txt_in = norm1("txt.norm1", txt, modulation.txt_in, &self.txt_qkv);
            // Before the first attention is added: both read the same tokens.
            let dual_in = self.dual.as_ref().zip(modulation.dual);
            let dual_in = dual_in.map(|((qkv, proj), [shift, scale, gate])| {
                (qkv, proj, norm1("dual.norm1", img, [shift, scale], qkv), gate)
            });

            // The last block asks for the image alone.
            let first_query = if self.txt_out.is_some() { 0 } else { t };
            let qkv = recorder.temp("qkv", rows, 3 * d);
            recorder.scope("txt", || self.txt_qkv.forward(txt_in, qkv.row_range(0..t)));
            recorder.scope("img", || self.img_qkv.forward(img_in, qkv.row_range(t..rows)));
            let txt_proj = self.txt_out.as_ref().map(|(proj, _)| (proj, t));
            let readers = [(&self.img_proj, img.rows())].into_iter().chain(txt_proj);
            let in_f16 = attention_is_in_f16(recorder, self.head_dim, [rows, d], readers);
            let attn = recorder.temp_as("attn", [rows - first_query, d], in_f16);
            self.attention("attn", qkv, attn);

            let img_attn = attn.row_range(t - first_query..attn.rows());
            recorder.scope("img", || residual.add(img, gate_msa, img_attn, &self.img_proj));
            if let Some((qkv, proj, x, gate)) = dual_in {
                recorder.scope("dual", || {
                    let dual = recorder.temp("qkv", img.rows(), 3 * d);
                    qkv.forward(x, dual);
                    let (shape, readers) = ([img.rows(), d], [(proj, img.rows())]);
                    let in_f16 = attention_is_in_f16(recorder, self.head_dim, shape, readers);
                    let attn = recorder.temp_as("attn", shape, in_f16);
                    self.attention("attn", dual, attn);
                    residual.add(img, gate, attn, proj);
                });
            }
            recorder.scope("img", || {
                self.img_mlp.forward(img, [shift_mlp, scale_mlp, gate_mlp], residual);
            });
            if let (Some((proj, mlp)), Some([gate_msa, shift, scale, gate])) =
                (&self.txt_out, modulation.txt_out)
            {
                recorder.scope("txt", || {
                    residual.add(txt, gate_msa, attn.row_range(0..t), proj);
                    mlp.forward(txt, [shift, scale, gate], residual);
                });
            }
        }
    }

    /// Of the last rows of `qkv`, as many as `out` has.
    fn attention<'r>(&self, name: &str, qkv: Tensor<'r>, out: Tensor<'r>) {
        let [q, k, v] = qkv.chunk_cols();
        let q = q.row_range(q.rows() - out.rows()..q.rows());
        let scale = 1.0 / (self.head_dim as f32).sqrt();
        let options = Attention { head_dim: self.head_dim, scale, causal: false, bias: None };
        attention_over(name, q, &[(k, v)], out, options);
    }

    fn replay<'r>(&self, state: &State<'r>, module: Replay<'_, 'r>) {
        let modulations = self.modulate(state);
        for (Streams { txt, img, .. }, modulation) in state.branches().zip(modulations) {
            let [_, _, gate_msa, _, _, gate_mlp] = modulation.img;
            module(img, gate_msa);
            if let Some([_, _, gate]) = modulation.dual {
                module(img, gate);
            }
            module(img, gate_mlp);
            if let Some([gate_msa, _, _, gate_mlp]) = modulation.txt_out {
                module(txt, gate_msa);
                module(txt, gate_mlp);
            }
        }
    }
}
