//! What is measured: each op at the model's widths, on as many rows as a measurement needs.

use std::fmt;

use strum::VariantArray;

use crate::models::config::ModelConfig;
use crate::models::cost;
use crate::ops::{
    Activation, Attention, Conv2d, Conv2dOptions, Epilogue, LinearLayer, attention, conv2d,
    linear_into,
};
use crate::pipeline::{RunSchedule, Settings};
use crate::tensor::{
    AttentionKernel, Caps, Conv2dKernel, MatmulKernel, PackedWeight, Recorder, Recording, Resident,
    ResidentIds, RowClass, Storage, Tuning, Work,
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

    /// The name of its class of shapes, where each class has a choice of its own.
    pub fn class(self) -> Option<String> {
        match self {
            Op::Matmul(class) => Some(class.to_string()),
            Op::Attention | Op::Conv2d => None,
        }
    }

    /// All kernels: the name, and how to ask for it. Another kernel does what it cannot do.
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
enum Piece {
    Linear { rows: usize, weight: PackedWeight },
    Attention { rows: usize, keys: usize, heads: usize, head_dim: usize },
    Conv2d { height: usize, width: usize, layer: Conv2d },
}

/// A small piece of the model's work with one op.
pub(super) struct Sample {
    pub op: Op,
    pieces: Vec<Piece>,
    /// How often the pieces are recorded, so that the cost of a submission hardly counts.
    repeats: usize,
}

/// Operations of a sample's recording, at most where that is possible: tens of milliseconds.
fn enough(caps: &Caps) -> f64 {
    if caps.is_cpu { 0.5e9 } else { 40e9 }
}

/// Rows of the smallest sample of a picture's matrix products: on a graphics chip, enough to fill one with workgroups, as
/// those of a picture do.
fn many_rows(caps: &Caps) -> usize {
    if caps.is_cpu { 128 } else { 1024 }
}

/// Query rows of the smallest sample of attention, likewise.
fn least_queries(caps: &Caps) -> usize {
    if caps.is_cpu { 64 } else { 1024 }
}

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
    /// In the storage of the model, where that holds it: convolutions are in no blocks.
    fn weight(&self, n: usize, k: usize) -> PackedWeight {
        let storage = if self.storage.holds_rows_of(k) { self.storage } else { Storage::F32 };
        PackedWeight::new(self.ids, "weight", n, k, storage, self.caps.max_binding_bytes)
    }

    fn convolution(&self, n: usize, c: usize) -> PackedWeight {
        let storage = if self.storage.is_packed() { Storage::F32 } else { self.storage };
        PackedWeight::new(self.ids, "weight", n, 9 * c, storage, self.caps.max_binding_bytes)
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
            .map(|[k, n]| Piece::Linear { rows, weight: self.weight(n, k) })
            .collect();
        self.sample(Op::Matmul(RowClass::of(rows)), works)
    }

    fn attention(&self, tokens: usize, heads: usize, head_dim: usize) -> Sample {
        let enough = enough(self.caps);
        let score = 4.0 * (heads * head_dim) as f64;
        let most_keys = tokens.next_power_of_two() as f64;
        let least = least_queries(self.caps);
        let keys = power_below((enough / (score * least as f64)).min(most_keys), least);
        let rows = power_below((enough / (score * keys as f64)).min(keys as f64), least);
        self.sample(Op::Attention, vec![Piece::Attention { rows, keys, heads, head_dim }])
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
            .map(|picture @ [width, channels]| Piece::Conv2d {
                height: power_below((share / row(picture)).min(*width as f64), IMAGE_ROWS),
                width: *width,
                layer: Conv2d {
                    weight: self.convolution(*channels, *channels),
                    bias: self.ids.matrix("bias", 1, channels.next_multiple_of(4), u64::MAX),
                },
            })
            .collect();
        self.sample(Op::Conv2d, works)
    }

    fn sample(&self, op: Op, pieces: Vec<Piece>) -> Sample {
        // A byte takes about as long as several operations.
        let work: f64 =
            pieces.iter().map(|work| work.flops().max(16.0 * work.weight_bytes())).sum();
        let repeats = ((enough(self.caps) / work) as usize).clamp(1, MAX_REPEATS);
        Sample { op, pieces, repeats }
    }
}

/// Layers of a sample of matrix products.
const LAYERS: usize = 3;
/// Pictures of a sample of convolutions.
const PICTURES: usize = 2;

/// The samples of a model at a picture's size, those that matter most first. The shapes are those of what a run records that
/// take the most time by estimate: of the text encoders, a step and the decoder.
pub(super) fn samples(
    caps: &Caps,
    config: &ModelConfig,
    settings: &Settings,
    schedule: &RunSchedule,
    storage: Storage,
) -> Vec<Sample> {
    let ids = ResidentIds::default();
    let sampler = Sampler { caps, storage, ids: &ids };
    let text_length = settings.max_sequence_length;
    let step = config
        .transformer
        .step_works(schedule.rows * schedule.cols, config.text_tokens(text_length));
    let encoders = config.text_encoders.iter();
    let texts: Vec<Work> =
        encoders.flat_map(|encoder| encoder.config.works(encoder.length(text_length))).collect();
    let decode = cost::decode_works(&config.vae, 2 * schedule.rows, 2 * schedule.cols);

    // A run has many steps and encodes its texts once.
    let products = [&step[..], &texts].map(|works| {
        let linear = works.iter().filter(|work| matches!(work, Work::Linear { .. }));
        cost::rank(linear)
    });
    let linear = |class: RowClass| -> Option<Sample> {
        let of_class = |(work, _): &(Work, f64)| match *work {
            Work::Linear { rows, n, k, .. } => {
                (RowClass::of(rows) == class).then_some((rows, [k, n]))
            }
            _ => None,
        };
        let found: Vec<_> = products
            .iter()
            .map(|works| works.iter().filter_map(of_class).collect::<Vec<_>>())
            .find(|layers| !layers.is_empty())?;
        let most_rows = found[0].0;
        let mut layers: Vec<[usize; 2]> = Vec::new();
        for (rows, layer) in found {
            if rows == most_rows && layers.len() < LAYERS && !layers.contains(&layer) {
                layers.push(layer);
            }
        }
        // The last are left out where all would be too much.
        layers.sort_by_key(|[k, n]| k * n);
        let rows = if class == RowClass::Many { many_rows(caps) } else { most_rows };
        Some(sampler.linear(rows, most_rows, layers))
    };

    let attention = cost::rank(step.iter().filter(|work| matches!(work, Work::Attention { .. })));
    let attention = attention.first().and_then(|(work, _)| match *work {
        Work::Attention { keys, heads, head_dim, .. } => {
            Some(sampler.attention(keys, heads, head_dim))
        }
        _ => None,
    });
    let convolutions = cost::rank(&decode).into_iter().filter_map(|(work, _)| match work {
        Work::Conv2d { width, input, output, upsample: false, .. } if input == output => {
            Some([IMAGE_WIDTH.min(width.next_power_of_two()), output])
        }
        _ => None,
    });
    let mut pictures: Vec<[usize; 2]> = convolutions.take(PICTURES).collect();
    pictures.sort_by_key(|[width, channels]| width * channels * channels);
    let conv2d = (!pictures.is_empty()).then(|| sampler.conv2d(pictures));

    [linear(RowClass::Many), attention, conv2d, linear(RowClass::Some), linear(RowClass::Few)]
        .into_iter()
        .flatten()
        .collect()
}

impl Sample {
    /// Its recording on an adapter.
    pub fn record(&self, caps: Caps) -> Recording {
        let recorder = Recorder::new(caps);
        let name = self.op.name();
        for work in &self.pieces {
            match work {
                Piece::Linear { rows, weight } => {
                    let layer = LinearLayer { weight: weight.clone(), bias: None, low_rank: None };
                    let x = recorder.temp("x", *rows, weight.k);
                    let y = recorder.temp("y", *rows, weight.n);
                    let epilogue =
                        Epilogue { activation: Activation::Identity, ..Default::default() };
                    for _ in 0..self.repeats {
                        linear_into(name, x, &layer, y, epilogue);
                    }
                }
                Piece::Attention { rows, keys, heads, head_dim } => {
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
                Piece::Conv2d { height, width, layer } => {
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

    /// The weights that must be on the GPU before it runs; zeros will do.
    pub fn weights(&self) -> impl Iterator<Item = &PackedWeight> {
        self.pieces.iter().filter_map(Piece::weight)
    }

    /// The vectors that must be on the GPU before it runs; zeros will do.
    pub fn vectors(&self) -> impl Iterator<Item = &Resident> {
        self.pieces.iter().filter_map(|work| match work {
            Piece::Conv2d { layer, .. } => Some(&layer.bias),
            Piece::Linear { .. } | Piece::Attention { .. } => None,
        })
    }

    /// Operations of its recording.
    pub fn flops(&self) -> f64 {
        self.repeats as f64 * self.pieces.iter().map(Piece::flops).sum::<f64>()
    }

    /// What is measured, in words.
    pub fn shapes(&self) -> Vec<String> {
        self.pieces.iter().map(|work| format!("{work} x {}", self.repeats)).collect()
    }
}

impl Piece {
    fn flops(&self) -> f64 {
        let sizes: &[usize] = match self {
            Piece::Linear { rows, weight } => &[2, *rows, weight.n, weight.k],
            Piece::Attention { rows, keys, heads, head_dim } => {
                &[4, *rows, *keys, *heads, *head_dim]
            }
            Piece::Conv2d { height, width, layer } => {
                &[2, *height, *width, layer.weight.n, layer.weight.k]
            }
        };
        sizes.iter().map(|size| *size as f64).product()
    }

    fn weight(&self) -> Option<&PackedWeight> {
        match self {
            Piece::Linear { weight, .. } => Some(weight),
            Piece::Conv2d { layer, .. } => Some(&layer.weight),
            Piece::Attention { .. } => None,
        }
    }

    fn weight_bytes(&self) -> f64 {
        self.weight().map_or(0, |weight| weight.shard_bytes().sum()) as f64
    }
}

impl fmt::Display for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let storage = |weight: &PackedWeight| format!("{:?}", weight.storage).to_lowercase();
        match self {
            Piece::Linear { rows, weight } => write!(
                f,
                "linear [{rows}, {}] by [{}, {}] {}",
                weight.k,
                weight.n,
                weight.k,
                storage(weight)
            ),
            Piece::Attention { rows, keys, heads, head_dim } => {
                write!(f, "attention [{rows}, {heads} of {head_dim}] to {keys} keys")
            }
            Piece::Conv2d { height, width, layer } => {
                let (n, kind) = (layer.weight.n, storage(&layer.weight));
                write!(f, "conv2d [{height}, {width}, {}] to {n} {kind}", layer.weight.k / 9)
            }
        }
    }
}
