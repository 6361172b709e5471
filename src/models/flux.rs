//! The FLUX.1 transformer: two-stream blocks, then one-stream blocks.
//!
//! Black Forest Labs' reference code (`flux/modules/layers.py`) has the structure; weights carry diffusers'
//! names (`FluxTransformer2DModel`). Text and image tokens live in one matrix `[T + N, hidden]` from the start,
//! text first, so that joint attention and the one-stream blocks need no concatenation.

use super::config::FluxConfig;
use super::layers::{Loader, MlpEmbedder};
use crate::ops::{
    Activation, Affine, Attention, Epilogue, LinearLayer, NormKind, Write, activate, attention,
    linear, linear_into, norm, qk_norm_rope,
};
use crate::tensor::{Resident, Tensor};

/// Of the layer norms and of the q/k norms.
const EPS: f32 = 1e-6;

/// The whole network.
pub struct Flux {
    config: FluxConfig,
    x_embedder: LinearLayer,
    context_embedder: LinearLayer,
    time_in: MlpEmbedder,
    guidance_in: Option<MlpEmbedder>,
    vector_in: MlpEmbedder,
    double_blocks: Vec<DoubleStreamBlock>,
    single_blocks: Vec<SingleStreamBlock>,
    norm_out: LinearLayer,
    proj_out: LinearLayer,
}

/// What one evaluation depends on beside the image tokens.
#[derive(Clone, Copy)]
pub struct FluxInputs<'r> {
    /// T5's embeddings, `[T, joint_attention_dim]`.
    pub txt: Tensor<'r>,
    /// CLIP's pooled embedding, `[1, pooled_projection_dim]`.
    pub pooled: Tensor<'r>,
    /// Sinusoid of `1000 * sigma`, `[1, 256]`.
    pub time: Tensor<'r>,
    /// Sinusoid of `1000 * guidance`, `[1, 256]`; not read by models without a guidance embedding.
    pub guidance: Tensor<'r>,
    /// Rotations of all tokens, text first, `[T + N, head_dim]` from [`rope_table`].
    pub pe: Tensor<'r>,
}

impl Flux {
    /// Asks for all weights.
    pub fn load(loader: &Loader<'_>, config: &FluxConfig) -> Self {
        let d = config.hidden();
        let embed = loader.pp("time_text_embed");
        Flux {
            x_embedder: loader.linear("x_embedder", d, config.in_channels),
            context_embedder: loader.linear("context_embedder", d, config.joint_attention_dim),
            time_in: MlpEmbedder::load(
                &embed.pp("timestep_embedder"),
                FluxConfig::TIME_CHANNELS,
                d,
            ),
            guidance_in: config.guidance_embeds.then(|| {
                let loader = embed.pp("guidance_embedder");
                MlpEmbedder::load(&loader, FluxConfig::TIME_CHANNELS, d)
            }),
            vector_in: MlpEmbedder::load(
                &embed.pp("text_embedder"),
                config.pooled_projection_dim,
                d,
            ),
            double_blocks: (0..config.num_layers)
                .map(|i| DoubleStreamBlock::load(&loader.pp("transformer_blocks").pp(i), config))
                .collect(),
            single_blocks: (0..config.num_single_layers)
                .map(|i| {
                    SingleStreamBlock::load(&loader.pp("single_transformer_blocks").pp(i), config)
                })
                .collect(),
            norm_out: loader.linear("norm_out.linear", 2 * d, d),
            proj_out: loader.linear("proj_out", config.out_channels, d),
            config: config.clone(),
        }
    }

    /// The velocity of the image tokens `img` `[N, in_channels]`: `[N, out_channels]`.
    pub fn forward<'r>(&self, img: Tensor<'r>, inputs: FluxInputs<'r>) -> Tensor<'r> {
        let recorder = img.recorder();
        let d = self.config.hidden();
        let (t, n) = (inputs.txt.rows(), img.rows());

        // Embeddings.
        let x = recorder.temp("x", t + n, d);
        let stream = Streams { txt: x.row_range(0..t), img: x.row_range(t..t + n), all: x };
        let store = Epilogue::default();
        linear_into("txt_in", inputs.txt, &self.context_embedder, stream.txt, store);
        linear_into("img_in", img, &self.x_embedder, stream.img, store);
        let vec = recorder.temp("vec", 1, d);
        recorder.scope("vec", || {
            self.time_in.forward_into(inputs.time, vec, Write::Store);
            if let Some(guidance_in) = &self.guidance_in {
                guidance_in.forward_into(inputs.guidance, vec, Write::Add);
            }
            self.vector_in.forward_into(inputs.pooled, vec, Write::Add);
        });
        // Every modulation begins with SiLU.
        let vec = activate("vec.silu", vec, Activation::Silu);

        // Blocks.
        for (i, block) in self.double_blocks.iter().enumerate() {
            recorder.scope(format!("double.{i}"), || block.forward(stream, vec, inputs.pe));
        }
        for (i, block) in self.single_blocks.iter().enumerate() {
            recorder.scope(format!("single.{i}"), || block.forward(x, vec, inputs.pe));
        }

        // Velocity. The last modulation has the scale in front of the shift.
        let [scale, shift] =
            linear("norm_out.mod", vec, &self.norm_out, Activation::Identity).chunk_cols();
        let img = norm("norm_out", stream.img, LAYER_NORM, Affine::Modulate { scale, shift });
        linear("velocity", img, &self.proj_out, Activation::Identity)
    }
}

const LAYER_NORM: NormKind = NormKind::Layer { eps: EPS };

/// The joint sequence and its two parts, all views of one matrix.
#[derive(Clone, Copy)]
struct Streams<'r> {
    txt: Tensor<'r>,
    img: Tensor<'r>,
    all: Tensor<'r>,
}

/// Queries, keys and values of one stream: three layers and two norms.
struct QkvProjection {
    q: LinearLayer,
    k: LinearLayer,
    v: LinearLayer,
    norm_q: Resident,
    norm_k: Resident,
}

impl QkvProjection {
    fn load(loader: &Loader<'_>, config: &FluxConfig, names: [&str; 5]) -> Self {
        let d = config.hidden();
        let [q, k, v, norm_q, norm_k] = names;
        QkvProjection {
            q: loader.linear(q, d, d),
            k: loader.linear(k, d, d),
            v: loader.linear(v, d, d),
            norm_q: loader.vector(norm_q, config.attention_head_dim),
            norm_k: loader.vector(norm_k, config.attention_head_dim),
        }
    }

    /// Queries, keys and values of `x`, written to `q`, `k` and `v`.
    fn forward<'r>(&self, x: Tensor<'r>, [q, k, v]: [Tensor<'r>; 3], pe: Tensor<'r>) {
        let recorder = x.recorder();
        let store = Epilogue::default();
        linear_into("q", x, &self.q, q, store);
        linear_into("k", x, &self.k, k, store);
        linear_into("v", x, &self.v, v, store);
        qk_norm_rope("q.rope", q, recorder.resident(&self.norm_q), pe, EPS);
        qk_norm_rope("k.rope", k, recorder.resident(&self.norm_k), pe, EPS);
    }
}

/// Attention of the whole sequence: `project` fills queries, keys and values, the result goes to `out`.
fn joint_attention<'r>(
    config: &FluxConfig,
    out: Tensor<'r>,
    project: impl FnOnce([Tensor<'r>; 3]),
) {
    let recorder = out.recorder();
    let head_dim = config.attention_head_dim;
    let qkv = ["q", "k", "v"].map(|name| recorder.temp(name, out.rows(), out.cols()));
    project(qkv);
    let scale = 1.0 / (head_dim as f32).sqrt();
    attention("attn", qkv, out, Attention { head_dim, scale, causal: false, bias: None });
}

/// A block with separate weights for text and image, which meet in attention.
struct DoubleStreamBlock {
    config: FluxConfig,
    img: StreamWeights,
    txt: StreamWeights,
}

struct StreamWeights {
    modulation: LinearLayer,
    qkv: QkvProjection,
    proj: LinearLayer,
    mlp_in: LinearLayer,
    mlp_out: LinearLayer,
}

impl StreamWeights {
    fn load(
        loader: &Loader<'_>,
        config: &FluxConfig,
        modulation: &str,
        qkv: [&str; 5],
        proj: &str,
        mlp: &str,
    ) -> Self {
        let d = config.hidden();
        StreamWeights {
            modulation: loader.linear(modulation, 6 * d, d),
            qkv: QkvProjection::load(loader, config, qkv),
            proj: loader.linear(proj, d, d),
            mlp_in: loader.linear(&format!("{mlp}.net.0.proj"), config.mlp(), d),
            mlp_out: loader.linear(&format!("{mlp}.net.2"), d, config.mlp()),
        }
    }

    /// What follows attention: projection, MLP, and their gates. Updates `x` in place.
    fn finish<'r>(&self, x: Tensor<'r>, attn: Tensor<'r>, modulation: [Tensor<'r>; 6]) {
        let [_, _, gate_msa, shift_mlp, scale_mlp, gate_mlp] = modulation;
        let add = |gate| Epilogue { gate: Some(gate), write: Write::Add, ..Default::default() };
        linear_into("proj", attn, &self.proj, x, add(gate_msa));
        let affine = Affine::Modulate { scale: scale_mlp, shift: shift_mlp };
        let h = norm("norm2", x, LAYER_NORM, affine);
        let h = linear("mlp.in", h, &self.mlp_in, Activation::GeluTanh);
        linear_into("mlp.out", h, &self.mlp_out, x, add(gate_mlp));
    }
}

impl DoubleStreamBlock {
    fn load(loader: &Loader<'_>, config: &FluxConfig) -> Self {
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
            config: config.clone(),
            img: StreamWeights::load(loader, config, "norm1.linear", names, "attn.to_out.0", "ff"),
            txt: StreamWeights::load(
                loader,
                config,
                "norm1_context.linear",
                added,
                "attn.to_add_out",
                "ff_context",
            ),
        }
    }

    fn forward<'r>(&self, x: Streams<'r>, vec: Tensor<'r>, pe: Tensor<'r>) {
        let recorder = vec.recorder();
        let (t, all) = (x.txt.rows(), x.all.rows());

        let modulate = |name: &str, weights: &StreamWeights, x: Tensor<'r>| {
            recorder.scope(name, || {
                let modulation: [Tensor<'r>; 6] =
                    linear("mod", vec, &weights.modulation, Activation::Identity).chunk_cols();
                let [shift, scale, ..] = modulation;
                (modulation, norm("norm1", x, LAYER_NORM, Affine::Modulate { scale, shift }))
            })
        };
        let (img_mod, img) = modulate("img", &self.img, x.img);
        let (txt_mod, txt) = modulate("txt", &self.txt, x.txt);

        let attn = recorder.temp("attn", all, self.config.hidden());
        joint_attention(&self.config, attn, |qkv| {
            let rows = |range: std::ops::Range<usize>| qkv.map(|m| m.row_range(range.clone()));
            recorder.scope("txt", || {
                self.txt.qkv.forward(txt, rows(0..t), pe.row_range(0..t));
            });
            recorder.scope("img", || {
                self.img.qkv.forward(img, rows(t..all), pe.row_range(t..all));
            });
        });

        recorder.scope("img", || self.img.finish(x.img, attn.row_range(t..all), img_mod));
        recorder.scope("txt", || self.txt.finish(x.txt, attn.row_range(0..t), txt_mod));
    }
}

/// A block with one set of weights for text and image, attention and MLP side by side.
struct SingleStreamBlock {
    config: FluxConfig,
    modulation: LinearLayer,
    qkv: QkvProjection,
    mlp_in: LinearLayer,
    proj_out: LinearLayer,
}

impl SingleStreamBlock {
    fn load(loader: &Loader<'_>, config: &FluxConfig) -> Self {
        let (d, mlp) = (config.hidden(), config.mlp());
        let names =
            ["attn.to_q", "attn.to_k", "attn.to_v", "attn.norm_q.weight", "attn.norm_k.weight"];
        SingleStreamBlock {
            config: config.clone(),
            modulation: loader.linear("norm.linear", 3 * d, d),
            qkv: QkvProjection::load(loader, config, names),
            mlp_in: loader.linear("proj_mlp", mlp, d),
            proj_out: loader.linear("proj_out", d, d + mlp),
        }
    }

    fn forward<'r>(&self, x: Tensor<'r>, vec: Tensor<'r>, pe: Tensor<'r>) {
        let (d, rows) = (self.config.hidden(), x.rows());
        let [shift, scale, gate] =
            linear("mod", vec, &self.modulation, Activation::Identity).chunk_cols();
        let h = norm("norm", x, LAYER_NORM, Affine::Modulate { scale, shift });

        // Attention and MLP write side by side what proj_out reads as one row.
        let both = x.recorder().temp("attn_mlp", rows, d + self.config.mlp());
        joint_attention(&self.config, both.col_range(0..d), |qkv| self.qkv.forward(h, qkv, pe));
        let gelu = Epilogue { activation: Activation::GeluTanh, ..Default::default() };
        linear_into("mlp.in", h, &self.mlp_in, both.col_range(d..both.cols()), gelu);
        let add = Epilogue { gate: Some(gate), write: Write::Add, ..Default::default() };
        linear_into("proj_out", both, &self.proj_out, x, add);
    }
}

/// Base of the rotary frequencies.
const ROPE_THETA: f64 = 10_000.0;

/// The rotations of text tokens (all at the origin) followed by image tokens at `positions` (row, column),
/// `[T + N, head_dim]`: cos and sin for each pair of numbers.
///
/// Axes `(0, row, column)` with widths `axes`; frequency `theta^(-2 i / width)`. Positions may be any real
/// number. Angles are f64, as in the reference.
pub fn rope_table(axes: &[usize], n_text: usize, positions: &[[f32; 2]]) -> Vec<f32> {
    let width: usize = axes.iter().sum();
    let mut table = Vec::with_capacity((n_text + positions.len()) * width);
    for _ in 0..n_text * width / 2 {
        table.extend([1.0, 0.0]);
    }
    for &[row, column] in positions {
        let coordinates = [0.0, f64::from(row), f64::from(column)];
        for (axis, &dim) in axes.iter().enumerate() {
            let position = coordinates.get(axis).copied().unwrap_or(0.0);
            for i in 0..dim / 2 {
                let angle = position * libm::pow(ROPE_THETA, -2.0 * i as f64 / dim as f64);
                table.extend([libm::cos(angle) as f32, libm::sin(angle) as f32]);
            }
        }
    }
    table
}
