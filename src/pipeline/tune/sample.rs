//! What is measured: each op at the model's widths, on as many rows as a measurement needs.

use std::fmt;

use strum::VariantArray;

use crate::models::config::ModelConfig;
use crate::ops::{
    Activation, Attention, Conv2d, Conv2dOptions, Epilogue, LinearLayer, attention, conv2d,
    linear_into,
};
use crate::pipeline::{RunSchedule, Settings};
use crate::tensor::{
    AttentionKernel, Caps, Conv2dKernel, MatmulKernel, PackedWeight, Recorder, Recording, Resident,
    ResidentIds, RowClass, Storage, Tuning,
};

/// An op whose kernel can be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Matmul(RowClass),
    Attention,
    Conv2d,
}

impl Op {
    pub fn name(self) -> &'static str {
        match self {
            Op::Matmul(_) => "matmul",
            Op::Attention => "attention",
            Op::Conv2d => "conv2d",
        }
    }

    /// Of the shapes that are chosen for apart.
    pub fn class(self) -> Option<String> {
        match self {
            Op::Matmul(class) => Some(class.to_string()),
            Op::Attention | Op::Conv2d => None,
        }
    }

    /// Every kernel that there is: its name, and how it is asked for. What it cannot do is done by another kernel.
    pub fn kernels(self) -> Vec<(String, Tuning)> {
        match self {
            Op::Matmul(class) => each(|kernel: MatmulKernel| {
                let mut tuning = Tuning::default();
                tuning.matmul[class as usize] = Some(kernel);
                tuning
            }),
            Op::Attention => each(|kernel: AttentionKernel| Tuning {
                attention: Some(kernel),
                ..Tuning::default()
            }),
            Op::Conv2d => {
                each(|kernel: Conv2dKernel| Tuning { conv2d: Some(kernel), ..Tuning::default() })
            }
        }
    }

    /// Sets in `to` what `from` says about this op.
    pub fn take(self, from: &Tuning, to: &mut Tuning) {
        match self {
            Op::Matmul(class) => to.matmul[class as usize] = from.matmul[class as usize],
            Op::Attention => to.attention = from.attention,
            Op::Conv2d => to.conv2d = from.conv2d,
        }
    }
}

/// All kernels of a kind: their names, and what `ask` makes of them.
fn each<K: VariantArray + fmt::Display + Copy>(ask: impl Fn(K) -> Tuning) -> Vec<(String, Tuning)> {
    K::VARIANTS.iter().map(|kernel| (kernel.to_string(), ask(*kernel))).collect()
}

/// One operation of a sample.
#[derive(Clone, Debug)]
enum Work {
    Linear { rows: usize, weight: PackedWeight },
    Attention { rows: usize, keys: usize, heads: usize, head_dim: usize },
    Conv2d { height: usize, width: usize, layer: Conv2d },
}

/// A small piece of the model's work with one op.
pub(super) struct Sample {
    pub op: Op,
    works: Vec<Work>,
    /// So that submitting costs little beside it.
    repeats: usize,
}

/// Operations of a sample's recording: milliseconds on any adapter.
fn enough(caps: &Caps) -> f64 {
    caps.max_dispatch_flops / if caps.is_cpu { 20.0 } else { 2.0 }
}

/// Rows of the smallest sample of a picture's matrix products, still of that class.
const MANY_ROWS: usize = 128;
/// Query rows of the smallest sample of attention.
const QUERIES: usize = 64;
/// Image rows of the smallest sample of a convolution.
const IMAGE_ROWS: usize = 4;
/// Pixels in an image row of a sample; more change nothing.
const IMAGE_WIDTH: usize = 256;
/// More repetitions tell nothing new.
const MAX_REPEATS: usize = 16;

/// The largest power of two that is not above `limit`, at least `least`. Sizes of samples are powers of two, so that
/// pictures of about the same size share their choices.
fn power_below(limit: f64, least: usize) -> usize {
    let mut size = least;
    while (2 * size) as f64 <= limit {
        size *= 2;
    }
    size
}

/// Makes the samples of a model.
struct Sampler<'a> {
    caps: &'a Caps,
    storage: Storage,
    ids: &'a ResidentIds,
}

impl Sampler<'_> {
    fn weight(&self, n: usize, k: usize) -> PackedWeight {
        PackedWeight::new(self.ids, "weight", n, k, self.storage, self.caps.max_binding_bytes)
    }

    /// Layers `[K, N]`, of which the last are left out where all would be too much.
    fn linear(&self, rows: usize, most_rows: usize, mut layers: Vec<[usize; 2]>) -> Sample {
        let enough = enough(self.caps);
        let row = |layers: &[[usize; 2]]| -> f64 {
            layers.iter().map(|[k, n]| 2.0 * *k as f64 * *n as f64).sum()
        };
        while layers.len() > 1 && row(&layers) * rows as f64 > enough {
            layers.pop();
        }
        let rows = power_below((enough / row(&layers)).min(most_rows as f64), rows);
        let works = layers
            .into_iter()
            .map(|[k, n]| Work::Linear { rows, weight: self.weight(n, k) })
            .collect();
        self.sample(Op::Matmul(RowClass::of(rows)), works)
    }

    fn attention(&self, tokens: usize, heads: usize, head_dim: usize) -> Sample {
        let enough = enough(self.caps);
        let score = 4.0 * (heads * head_dim) as f64;
        let most_keys = tokens.next_power_of_two() as f64;
        let keys = power_below((enough / (score * QUERIES as f64)).min(most_keys), QUERIES);
        let rows = power_below((enough / (score * keys as f64)).min(keys as f64), QUERIES);
        self.sample(Op::Attention, vec![Work::Attention { rows, keys, heads, head_dim }])
    }

    /// Pictures `[width, channels]`, of which the last are left out where all would be too much.
    fn conv2d(&self, mut pictures: Vec<[usize; 2]>) -> Sample {
        let enough = enough(self.caps);
        let row = |[width, channels]: &[usize; 2]| 18.0 * (width * channels * channels) as f64;
        while pictures.len() > 1
            && pictures.iter().map(row).sum::<f64>() * IMAGE_ROWS as f64 > enough
        {
            pictures.pop();
        }
        let share = enough / pictures.len() as f64;
        let works = pictures
            .iter()
            .map(|picture @ [width, channels]| Work::Conv2d {
                height: power_below((share / row(picture)).min(*width as f64), IMAGE_ROWS),
                width: *width,
                layer: Conv2d {
                    weight: self.weight(*channels, 9 * channels),
                    bias: self.ids.matrix("bias", 1, channels.next_multiple_of(4), u64::MAX),
                },
            })
            .collect();
        self.sample(Op::Conv2d, works)
    }

    fn sample(&self, op: Op, works: Vec<Work>) -> Sample {
        // A byte takes about as long as several operations.
        let work: f64 = works.iter().map(|work| work.flops().max(16.0 * work.weight_bytes())).sum();
        let repeats = ((enough(self.caps) / work) as usize).clamp(1, MAX_REPEATS);
        Sample { op, works, repeats }
    }
}

/// The samples of a model at a picture's size, those that matter most first.
pub(super) fn samples(
    caps: &Caps,
    config: &ModelConfig,
    settings: &Settings,
    schedule: &RunSchedule,
    storage: Storage,
) -> Vec<Sample> {
    let ids = ResidentIds::default();
    let sampler = Sampler { caps, storage, ids: &ids };
    let network = &config.transformer;
    let (d, mlp, head_dim) = (network.hidden(), network.mlp(), network.head_dim());
    let text = config.text_tokens(settings.max_sequence_length);
    let tokens = schedule.rows * schedule.cols + text;
    let vae = &config.vae.block_out_channels;
    let latent_width = (2 * schedule.cols).next_power_of_two();
    let levels = vae.len().saturating_sub(1);
    let picture = |level: usize| [IMAGE_WIDTH.min(latent_width << (levels - level)), vae[level]];

    let mut samples = Vec::new();
    if RowClass::of(tokens) == RowClass::Many {
        samples.push(sampler.linear(MANY_ROWS, tokens, vec![[d, d], [d, mlp], [mlp, d]]));
    }
    samples.push(sampler.attention(tokens, d / head_dim, head_dim));
    if !vae.is_empty() {
        let first_and_last = if levels > 0 { vec![0, levels] } else { vec![0] };
        samples.push(sampler.conv2d(first_and_last.into_iter().map(picture).collect()));
    }
    // Text: the transformer's if it is short, else CLIP's.
    if RowClass::of(text) == RowClass::Some {
        samples.push(sampler.linear(text, text, vec![[d, d], [d, mlp]]));
    } else if let Some((rows, layers)) = config.text_encoders.iter().find_map(|encoder| {
        let rows = encoder.length(settings.max_sequence_length);
        (RowClass::of(rows) == RowClass::Some).then(|| (rows, encoder.config.layers()))
    }) {
        samples.push(sampler.linear(rows, rows, layers));
    }
    // Modulation.
    samples.push(sampler.linear(1, 1, vec![[d, 6 * d]]));
    samples
}

impl Sample {
    /// Its recording on an adapter.
    pub fn record(&self, caps: Caps) -> Recording {
        let recorder = Recorder::new(caps);
        let name = self.op.name();
        for work in &self.works {
            match work {
                Work::Linear { rows, weight } => {
                    let layer = LinearLayer { weight: weight.clone(), bias: None };
                    let x = recorder.temp("x", *rows, weight.k);
                    let y = recorder.temp("y", *rows, weight.n);
                    let epilogue =
                        Epilogue { activation: Activation::Identity, ..Default::default() };
                    for _ in 0..self.repeats {
                        linear_into(name, x, &layer, y, epilogue);
                    }
                }
                Work::Attention { rows, keys, heads, head_dim } => {
                    let [q, y] =
                        ["q", "y"].map(|name| recorder.temp(name, *rows, heads * head_dim));
                    let [k, v] =
                        ["k", "v"].map(|name| recorder.temp(name, *keys, heads * head_dim));
                    let scale = 1.0 / (*head_dim as f32).sqrt();
                    let options =
                        Attention { head_dim: *head_dim, scale, causal: false, bias: None };
                    for _ in 0..self.repeats {
                        attention(name, [q, k, v], y, options);
                    }
                }
                Work::Conv2d { height, width, layer } => {
                    let channels = layer.weight.n;
                    let [x, y] =
                        ["x", "y"].map(|name| recorder.image(name, *height, *width, channels));
                    // After a group norm, as most of a decoder's are.
                    let prologue = Some(recorder.temp("affine", 2, channels));
                    let options = Conv2dOptions { prologue, ..Default::default() };
                    for _ in 0..self.repeats {
                        conv2d(name, x, *width, layer, y, options);
                    }
                }
            }
        }
        recorder.finish(name)
    }

    /// What must be on the GPU before it runs; zeros will do.
    pub fn weights(&self) -> impl Iterator<Item = &PackedWeight> {
        self.works.iter().filter_map(Work::weight)
    }

    /// The same.
    pub fn vectors(&self) -> impl Iterator<Item = &Resident> {
        self.works.iter().filter_map(|work| match work {
            Work::Conv2d { layer, .. } => Some(&layer.bias),
            Work::Linear { .. } | Work::Attention { .. } => None,
        })
    }

    /// What is measured, in words.
    pub fn shapes(&self) -> Vec<String> {
        self.works.iter().map(|work| format!("{work} x {}", self.repeats)).collect()
    }
}

impl Work {
    fn flops(&self) -> f64 {
        let sizes: &[usize] = match self {
            Work::Linear { rows, weight } => &[2, *rows, weight.n, weight.k],
            Work::Attention { rows, keys, heads, head_dim } => {
                &[4, *rows, *keys, *heads, *head_dim]
            }
            Work::Conv2d { height, width, layer } => {
                &[2, *height, *width, layer.weight.n, layer.weight.k]
            }
        };
        sizes.iter().map(|size| *size as f64).product()
    }

    fn weight(&self) -> Option<&PackedWeight> {
        match self {
            Work::Linear { weight, .. } => Some(weight),
            Work::Conv2d { layer, .. } => Some(&layer.weight),
            Work::Attention { .. } => None,
        }
    }

    fn weight_bytes(&self) -> f64 {
        self.weight().map_or(0, |weight| weight.shard_bytes().sum()) as f64
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let storage = |weight: &PackedWeight| format!("{:?}", weight.storage).to_lowercase();
        match self {
            Work::Linear { rows, weight } => write!(
                f,
                "linear [{rows}, {}] by [{}, {}] {}",
                weight.k,
                weight.n,
                weight.k,
                storage(weight)
            ),
            Work::Attention { rows, keys, heads, head_dim } => {
                write!(f, "attention [{rows}, {heads} of {head_dim}] to {keys} keys")
            }
            Work::Conv2d { height, width, layer } => {
                let (n, kind) = (layer.weight.n, storage(&layer.weight));
                write!(f, "conv2d [{height}, {width}, {}] to {n} {kind}", layer.weight.k / 9)
            }
        }
    }
}
