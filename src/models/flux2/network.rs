//! The FLUX.2 transformer: two-stream blocks, then one-stream blocks, with modulations that all blocks of a kind share.
//!
//! Weights carry diffusers' names (`Flux2Transformer2DModel`); no layer has a bias. Text and image tokens live in one matrix
//! `[T + N, hidden]` from the start, text first.

use super::config::Flux2Config;
use crate::models::blocks::{LAYER_NORM, LastLayer, modulated_images};
use crate::models::config::TransformerConfig;
use crate::models::denoiser::{Denoiser, Inputs, Replay, Residual, State, Streams};
use crate::models::layers::{LinearGroup, Loader, TIME_CHANNELS};
use crate::models::modulation::{Columns, MlpEmbedder, Modulations};
use crate::models::rotary_attention::{QkvProjection, joint_attention, joint_output};
use crate::ops::{Activation, Affine, Epilogue, Input, LinearLayer, Write, linear_into, norm_for};
use crate::tensor::{Recorder, Tensor};

/// The whole network.
pub struct Flux2 {
    x_embedder: LinearLayer,
    context_embedder: LinearLayer,
    modulations: Modulations,
    /// Of the image streams of the two-stream blocks: shift, scale and gate of attention, then of the MLP.
    img_modulation: Columns,
    /// Of their text streams, likewise.
    txt_modulation: Columns,
    /// Of the one-stream blocks: shift, scale and gate.
    single_modulation: Columns,
    double_blocks: Vec<DoubleStreamBlock>,
    single_blocks: Vec<SingleStreamBlock>,
    last: LastLayer,
}

impl Flux2 {
    /// Asks for all weights.
    pub fn load(loader: &Loader<'_>, config: &Flux2Config) -> Self {
        let d = config.hidden();
        let linear = |name, n, k| loader.linear_no_bias(name, n, k);
        let time = loader.pp("time_guidance_embed.timestep_embedder");
        let time_in = MlpEmbedder::load_no_bias(&time, TIME_CHANNELS, d);
        let mut modulations = Modulations::new(time_in);
        let mut modulation = |name, vectors| {
            modulations.add(loader.modulation().linear_no_bias(name, vectors * d, d))
        };
        Flux2 {
            img_modulation: modulation("double_stream_modulation_img.linear", 6),
            txt_modulation: modulation("double_stream_modulation_txt.linear", 6),
            single_modulation: modulation("single_stream_modulation.linear", 3),
            x_embedder: linear("x_embedder", d, config.in_channels),
            context_embedder: linear("context_embedder", d, config.joint_attention_dim),
            double_blocks: (0..config.num_layers)
                .map(|i| DoubleStreamBlock::load(&loader.pp("transformer_blocks").pp(i), config))
                .collect(),
            single_blocks: (0..config.num_single_layers)
                .map(|i| {
                    SingleStreamBlock::load(&loader.pp("single_transformer_blocks").pp(i), config)
                })
                .collect(),
            last: LastLayer {
                modulation: modulation("norm_out.linear", 2),
                proj: linear("proj_out", config.out_channels, d),
            },
            modulations,
        }
    }
}

impl Denoiser for Flux2 {
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
            None => recorder.scope(format!("double.{i}"), || {
                let modulations = [&self.img_modulation, &self.txt_modulation];
                self.double_blocks[i].forward(state, modulations, residual);
            }),
            Some(i) => recorder.scope(format!("single.{i}"), || {
                self.single_blocks[i].forward(state, &self.single_modulation, residual);
            }),
        }
    }

    fn replay<'r>(&self, i: usize, state: &State<'r>, module: Replay<'_, 'r>) {
        for (b, Streams { txt, img, all }) in state.branches().enumerate() {
            if i < self.double_blocks.len() {
                for (x, columns) in [(img, &self.img_modulation), (txt, &self.txt_modulation)] {
                    let [_, _, gate_msa, _, _, gate_mlp] =
                        state.modulation(columns, b).chunk_cols();
                    module(x, gate_msa);
                    module(x, gate_mlp);
                }
            } else {
                let [_, _, gate] = state.modulation(&self.single_modulation, b).chunk_cols();
                module(all, gate);
            }
        }
    }

    fn modulated_input<'r>(&self, state: &State<'r>) -> Vec<Tensor<'r>> {
        let is_single = self.double_blocks.is_empty();
        let first = if is_single { &self.single_modulation } else { &self.img_modulation };
        modulated_images(state, first)
    }

    fn velocity<'r>(&self, state: &State<'r>) -> Vec<Tensor<'r>> {
        self.last.forward(state)
    }
}

/// A feed-forward layer with a gate: of twice its width going in, the first half goes through SiLU and multiplies the other.
struct GatedMlp {
    gate: LinearLayer,
    up: LinearLayer,
}

impl GatedMlp {
    /// The gate is the first half of the outputs of the layer `name` `[2 * mlp, d]`.
    fn load(loader: &Loader<'_>, name: &str, d: usize, mlp: usize) -> Self {
        let part = |from| loader.linear_no_bias_part(name, [2 * mlp, d], from..from + mlp);
        GatedMlp { gate: part(0), up: part(mlp) }
    }

    /// Whether what it makes of `rows` rows can be written in f16.
    fn writes_f16(&self, recorder: &Recorder, rows: usize) -> bool {
        [&self.gate, &self.up].into_iter().all(|layer| layer.writes_f16(recorder, rows))
    }

    /// Writes `silu(gate x) * (up x)` to `y` `[M, mlp]`.
    fn forward_into<'r>(&self, x: Input<'r>, y: Tensor<'r>) {
        let silu = Epilogue { activation: Activation::Silu, ..Default::default() };
        linear_into("mlp.gate", x, &self.gate, y, silu);
        multiply_up(x, &self.up, y);
    }
}

/// Multiplies the gate, which `y` `[M, mlp]` holds, by `up x`.
fn multiply_up<'r>(x: Input<'r>, up: &LinearLayer, y: Tensor<'r>) {
    let multiply = Epilogue { write: Write::Multiply, ..Default::default() };
    linear_into("mlp.up", x, up, y, multiply);
}

/// A block with separate weights for text and image, which meet in attention.
struct DoubleStreamBlock {
    head_dim: usize,
    img: StreamWeights,
    txt: StreamWeights,
}

struct StreamWeights {
    qkv: QkvProjection,
    proj: LinearLayer,
    mlp: GatedMlp,
    mlp_out: LinearLayer,
}

impl StreamWeights {
    fn load(
        loader: &Loader<'_>,
        config: &Flux2Config,
        qkv: [&str; 5],
        proj: &str,
        mlp: &str,
    ) -> Self {
        let (d, width) = (config.hidden(), config.mlp);
        let [q, k, v, norm_q, norm_k] = qkv;
        let mlp = loader.pp(mlp);
        StreamWeights {
            qkv: QkvProjection {
                layers: loader.linear_group_no_bias(&[(q, d), (k, d), (v, d)], d),
                norm_q: loader.vector(norm_q, config.attention_head_dim),
                norm_k: loader.vector(norm_k, config.attention_head_dim),
            },
            proj: loader.linear_no_bias(proj, d, d),
            mlp: GatedMlp::load(&mlp, "linear_in", d, width),
            mlp_out: mlp.linear_no_bias("linear_out", d, width),
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
        let h = norm_for("norm2", x, LAYER_NORM, affine, &[&self.mlp.gate, &self.mlp.up]);
        let (recorder, rows) = (x.recorder(), x.rows());
        let in_f16 = self.mlp.writes_f16(recorder, rows) && self.mlp_out.reads_f16(recorder, rows);
        let gated = recorder.temp_as("mlp", [rows, self.mlp.gate.weight.n], in_f16);
        self.mlp.forward_into(h, gated);
        residual.add(x, gate_mlp, gated, &self.mlp_out);
    }
}

impl DoubleStreamBlock {
    fn load(loader: &Loader<'_>, config: &Flux2Config) -> Self {
        let names =
            ["attn.to_q", "attn.to_k", "attn.to_v", "attn.norm_q.weight", "attn.norm_k.weight"];
        let added = [
            "attn.add_q_proj",
            "attn.add_k_proj",
            "attn.add_v_proj",
            "attn.norm_added_q.weight",
            "attn.norm_added_k.weight",
        ];
        let stream = |names, proj, mlp| StreamWeights::load(loader, config, names, proj, mlp);
        DoubleStreamBlock {
            head_dim: config.attention_head_dim,
            img: stream(names, "attn.to_out.0", "ff"),
            txt: stream(added, "attn.to_add_out", "ff_context"),
        }
    }

    /// `modulations` are the image stream's and the text stream's.
    fn forward<'r>(
        &self,
        state: &State<'r>,
        modulations: [&Columns; 2],
        residual: &mut dyn Residual<'r>,
    ) {
        let recorder = state.x.recorder();
        for (b, Streams { txt, img, all }) in state.branches().enumerate() {
            let [img_mod, txt_mod]: [[Tensor<'r>; 6]; 2] =
                modulations.map(|columns| state.modulation(columns, b).chunk_cols());
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
}

/// A block with one set of weights for text and image, attention and MLP side by side. Its first layer holds the rows of
/// queries, keys, values, gate and up, one after the other.
struct SingleStreamBlock {
    head_dim: usize,
    /// With the gate of the MLP.
    qkv_gate: QkvProjection,
    up: LinearLayer,
    proj_out: LinearLayer,
}

impl SingleStreamBlock {
    fn load(loader: &Loader<'_>, config: &Flux2Config) -> Self {
        let (d, mlp) = (config.hidden(), config.mlp);
        let loader = loader.pp("attn");
        let (name, shape) = ("to_qkv_mlp_proj", [3 * d + 2 * mlp, d]);
        let part = |rows| loader.linear_no_bias_part(name, shape, rows);
        let norm = |name| loader.vector(name, config.attention_head_dim);
        SingleStreamBlock {
            head_dim: config.attention_head_dim,
            qkv_gate: QkvProjection {
                layers: LinearGroup::of(part(0..3 * d + mlp)),
                norm_q: norm("norm_q.weight"),
                norm_k: norm("norm_k.weight"),
            },
            up: part(3 * d + mlp..shape[0]),
            proj_out: loader.linear_no_bias("to_out", d, d + mlp),
        }
    }

    fn forward<'r>(
        &self,
        state: &State<'r>,
        modulation: &Columns,
        residual: &mut dyn Residual<'r>,
    ) {
        for (b, Streams { all: x, .. }) in state.branches().enumerate() {
            let (d, rows) = (x.cols(), x.rows());
            let [shift, scale, gate] = state.modulation(modulation, b).chunk_cols();
            let (affine, layers) = (Affine::Modulate { scale, shift }, &self.qkv_gate.layers);
            let readers = [layers.layers(), vec![&self.up]].concat();
            let h = norm_for("norm", x, LAYER_NORM, affine, &readers);

            // Attention and MLP write side by side what proj_out reads as one row.
            let recorder = x.recorder();
            let mlp_in_f16 =
                layers.writes_f16(recorder, rows) && self.up.writes_f16(recorder, rows);
            let shape = [rows, d, d + self.up.weight.n];
            let readers = [(&self.proj_out, rows)];
            let both = joint_output("attn_mlp", state, self.head_dim, shape, mlp_in_f16, readers);
            let mlp = both.col_range(d..both.cols());
            joint_attention(self.head_dim, both.col_range(0..d), state, |qkv| {
                self.qkv_gate.forward_with_rest(h, qkv, mlp, Activation::Silu, state);
            });
            multiply_up(h, &self.up, mlp);
            residual.add(x, gate, both, &self.proj_out);
        }
    }
}
