//! `ralu bench ops`: each op on the shapes that the model has at the picture's size.

use std::time::Instant;

use ralu::gpu::{self, Gpu, Program, SlotPool, Store, block_on};
use ralu::models::config::{ModelConfig, stem};
use ralu::models::source::Source;
use ralu::models::weights::{StoredDType, Weights};
use ralu::ops::{
    Activation, Affine, Attention, Conv2d, Conv2dOptions, LinearLayer, NormKind, attention, conv2d,
    group_norm, linear, norm, qk_norm_rope,
};
use ralu::pipeline::{RunSchedule, Settings};
use ralu::tensor::{PackedWeight, Recorder, Resident, ResidentIds, Storage};
use serde::Serialize;

use super::super::args::BenchArgs;
use super::super::error::Result;
use super::super::request::{self, Asked};
use super::super::{model, output, signals};
use super::{Place, median};

/// How often an op is measured if the user does not say.
const RUNS: usize = 10;
/// An op is repeated inside a measurement until it has about this many operations, or bytes to move, so that
/// submitting costs little beside it.
const ENOUGH: f64 = 4e9;
/// More repetitions than this tell nothing new.
const MAX_REPEATS: usize = 16;

/// One line of the result.
#[derive(Serialize)]
struct OpReport {
    op: String,
    shape: String,
    median_seconds: f64,
    /// Absent where operations are not what an op is about.
    gflops_per_second: Option<f64>,
    /// Operands read once and results written once.
    gb_per_second: f64,
}

#[derive(Serialize)]
struct OpsReport {
    bench: &'static str,
    #[serde(flatten)]
    place: Place,
    /// How weights are kept on the GPU.
    weights: String,
    runs: usize,
    ops: Vec<OpReport>,
}

/// What is measured.
enum Op {
    Linear { m: usize, n: usize, k: usize },
    Attention { n: usize, heads: usize, head_dim: usize },
    Norm { n: usize, width: usize },
    QkNormRope { n: usize, heads: usize, head_dim: usize },
    Conv { height: usize, width: usize, input: usize, output: usize },
    GroupNorm { height: usize, width: usize, channels: usize, groups: usize },
}

/// Runs the command.
pub fn run(args: &BenchArgs, quiet: bool) -> Result<()> {
    let Asked { request, model, precision, .. } = request::plain(&args.request)?;
    let planned = model::planned(model.as_deref())?;
    let config = &planned.config;
    let settings = Settings::resolve(&request, config)?;
    let schedule = RunSchedule::new(&settings, config)?;
    let dtype = match &planned.folder {
        None => StoredDType::BF16,
        Some(folder) => {
            let source: &dyn Source = folder;
            let weights = Weights::open(source, config.folders().transformer, stem::DIFFUSERS)?;
            let first = weights.iter().find(|info| info.shape.len() == 2);
            first.map_or(StoredDType::F32, |info| info.dtype.clone())
        }
    };
    let storage = match (dtype, precision) {
        (StoredDType::F16, _) => Storage::F16,
        (StoredDType::BF16, _) => Storage::Bf16,
        (_, ralu::models::layers::Precision::F16) => Storage::F16,
        _ => Storage::F32,
    };
    let gpu = pollster::block_on(Gpu::open(&args.adapter.choice()))?;
    let runs = args.runs.unwrap_or(RUNS);
    let place = Place {
        adapter: gpu.report().name.clone(),
        backend: gpu.report().backend,
        model: planned.name,
        width: settings.width,
        height: settings.height,
    };
    if !args.json {
        output::line(&place)?;
        output::line(format!(
            "{:<14} {:<34} {:>12} {:>10} {:>8}",
            "op", "shape", "seconds", "GFLOP/s", "GB/s"
        ))?;
    }
    let mut ops = Vec::new();
    let n_text = config.text_tokens(settings.max_sequence_length);
    for op in cases(config, &schedule, n_text) {
        signals::check()?;
        if args.json && !quiet {
            output::diagnostic(&format!("{} {}", op.name(), op.shape()));
        }
        let seconds = measure(&gpu, &op, storage, runs)?;
        let flops = op.flops();
        let report = OpReport {
            op: op.name().to_owned(),
            shape: op.shape(),
            median_seconds: seconds,
            gflops_per_second: (flops > 0.0).then_some(flops / seconds / 1e9),
            gb_per_second: op.bytes(storage) / seconds / 1e9,
        };
        if !args.json {
            output::line(format!(
                "{:<14} {:<34} {:>12.6} {:>10} {:>8.2}",
                report.op,
                report.shape,
                report.median_seconds,
                report.gflops_per_second.map_or("-".into(), |rate| format!("{rate:.1}")),
                report.gb_per_second
            ))?;
        }
        ops.push(report);
    }
    if args.json {
        let weights = format!("{storage:?}").to_lowercase();
        output::json(&OpsReport { bench: "ops", place, weights, runs, ops })?;
    }
    Ok(())
}

/// The shapes of the last stage: a step of the transformer, then the decoder.
fn cases(config: &ModelConfig, schedule: &RunSchedule, n_text: usize) -> Vec<Op> {
    let network = &config.transformer;
    let (d, head_dim) = (network.hidden(), network.head_dim());
    let (mlp, heads) = (4 * d, d / head_dim);
    let img = schedule.rows * schedule.cols;
    let n = img + n_text;
    let mut cases = vec![
        Op::Linear { m: n, n: d, k: d },
        Op::Linear { m: n, n: mlp, k: d },
        Op::Linear { m: n, n: d, k: mlp },
        Op::Linear { m: n, n: d, k: d + mlp },
        Op::Linear { m: n_text, n: d, k: d },
        Op::Linear { m: 1, n: 6 * d, k: d },
        Op::Attention { n, heads, head_dim },
        Op::Norm { n, width: d },
        Op::QkNormRope { n, heads, head_dim },
    ];
    let vae = &config.vae;
    let levels = vae.block_out_channels.len();
    let (mut height, mut width) = (2 * schedule.rows, 2 * schedule.cols);
    for level in (0..levels).rev() {
        let channels = vae.block_out_channels[level];
        cases.push(Op::Conv { height, width, input: channels, output: channels });
        cases.push(Op::GroupNorm { height, width, channels, groups: vae.norm_num_groups });
        if level > 0 {
            (height, width) = (2 * height, 2 * width);
        }
    }
    cases
}

impl Op {
    fn name(&self) -> &'static str {
        match self {
            Op::Linear { .. } => "linear",
            Op::Attention { .. } => "attention",
            Op::Norm { .. } => "norm",
            Op::QkNormRope { .. } => "qk_norm_rope",
            Op::Conv { .. } => "conv2d",
            Op::GroupNorm { .. } => "group_norm",
        }
    }

    fn shape(&self) -> String {
        match *self {
            Op::Linear { m, n, k } => format!("[{m}, {k}] x [{n}, {k}]"),
            Op::Attention { n, heads, head_dim } | Op::QkNormRope { n, heads, head_dim } => {
                format!("[{n}, {heads} x {head_dim}]")
            }
            Op::Norm { n, width } => format!("[{n}, {width}]"),
            Op::Conv { height, width, input, output } => {
                format!("[{height}, {width}, {input}] to {output}")
            }
            Op::GroupNorm { height, width, channels, groups } => {
                format!("[{height}, {width}, {channels}] in {groups}")
            }
        }
    }

    /// Multiplications and additions of products; 0 where moving bytes is the work.
    fn flops(&self) -> f64 {
        let product = |sizes: &[usize]| sizes.iter().map(|size| *size as f64).product::<f64>();
        match *self {
            Op::Linear { m, n, k } => 2.0 * product(&[m, n, k]),
            Op::Attention { n, heads, head_dim } => 4.0 * product(&[n, n, heads, head_dim]),
            Op::Conv { height, width, input, output } => {
                18.0 * product(&[height, width, input, output])
            }
            Op::Norm { .. } | Op::QkNormRope { .. } | Op::GroupNorm { .. } => 0.0,
        }
    }

    /// Bytes of operands and results.
    fn bytes(&self, storage: Storage) -> f64 {
        let weight = storage.bytes() as usize;
        let bytes = match *self {
            Op::Linear { m, n, k } => 4 * (m * k + m * n) + weight * n * k,
            Op::Attention { n, heads, head_dim } => 4 * 4 * n * heads * head_dim,
            Op::Norm { n, width } => 4 * 2 * n * width,
            Op::QkNormRope { n, heads, head_dim } => 4 * n * head_dim * (2 * heads + 1),
            Op::Conv { height, width, input, output } => {
                4 * height * width * (input + output) + weight * 9 * input * output
            }
            Op::GroupNorm { height, width, channels, .. } => 4 * 2 * height * width * channels,
        };
        bytes as f64
    }
}

/// Residents of one measurement.
struct Bench<'g> {
    gpu: &'g Gpu,
    ids: ResidentIds,
    store: Store,
    storage: Storage,
}

impl Bench<'_> {
    fn vector(&self, n: usize) -> Result<Resident> {
        let n = n.next_multiple_of(4);
        let vector = self.ids.matrix("vector", 1, n, u64::MAX);
        block_on(self.gpu, async {
            self.store.create(self.gpu, &vector).await?;
            self.store.write(self.gpu, &vector, &vec![0.5; n]).await
        })?;
        Ok(vector)
    }

    /// Zeros: the kernels do not look.
    fn weight(&self, n: usize, k: usize) -> Result<PackedWeight> {
        let limit = self.gpu.caps().max_binding_bytes;
        let weight = PackedWeight::new(&self.ids, "weight", n, k, self.storage, limit);
        block_on(self.gpu, self.store.create_packed(self.gpu, &weight))?;
        Ok(weight)
    }

    fn layer(&self, n: usize, k: usize) -> Result<LinearLayer> {
        Ok(LinearLayer { weight: self.weight(n, k)?, bias: Some(self.vector(n)?) })
    }
}

/// Median seconds of one execution.
fn measure(gpu: &Gpu, op: &Op, storage: Storage, runs: usize) -> Result<f64> {
    let bench = Bench { gpu, ids: ResidentIds::default(), store: Store::default(), storage };
    // A byte takes about as long as several operations.
    let work = op.flops().max(16.0 * op.bytes(storage));
    let repeats = ((ENOUGH / work) as usize).clamp(1, MAX_REPEATS);
    let recorder = Recorder::new(gpu.caps());
    record(&bench, &recorder, op, repeats)?;
    let recording = recorder.finish(op.name());
    let pool = SlotPool::default();
    let program = block_on(gpu, Program::compile(gpu, &bench.store, &pool, &recording))?;
    let once = || -> std::result::Result<f64, gpu::Error> {
        let started = Instant::now();
        // Ends when the GPU has finished.
        block_on(gpu, program.run(gpu))?;
        Ok(started.elapsed().as_secs_f64() / repeats as f64)
    };
    // The driver's own first-time work.
    once()?;
    let mut seconds = Vec::new();
    for _ in 0..runs {
        signals::check()?;
        seconds.push(once()?);
    }
    Ok(median(seconds))
}

fn record(bench: &Bench<'_>, recorder: &Recorder, op: &Op, repeats: usize) -> Result<()> {
    match *op {
        Op::Linear { m, n, k } => {
            let layer = bench.layer(n, k)?;
            let x = recorder.temp("x", m, k);
            for _ in 0..repeats {
                linear("linear", x, &layer, Activation::default());
            }
        }
        Op::Attention { n, heads, head_dim } => {
            let [q, k, v, y] =
                ["q", "k", "v", "y"].map(|name| recorder.temp(name, n, heads * head_dim));
            let scale = 1.0 / (head_dim as f32).sqrt();
            for _ in 0..repeats {
                let options = Attention { head_dim, scale, causal: false, bias: None };
                attention("attention", [q, k, v], y, options);
            }
        }
        Op::Norm { n, width } => {
            let (scale, shift) = (bench.vector(width)?, bench.vector(width)?);
            let x = recorder.temp("x", n, width);
            let (scale, shift) = (recorder.resident(&scale), recorder.resident(&shift));
            for _ in 0..repeats {
                let affine = Affine::Modulate { scale, shift };
                norm("norm", x, NormKind::Layer { eps: 1e-6 }, affine);
            }
        }
        Op::QkNormRope { n, heads, head_dim } => {
            let weight = bench.vector(head_dim)?;
            let x = recorder.temp("x", n, heads * head_dim);
            let table = recorder.temp("table", n, head_dim);
            for _ in 0..repeats {
                qk_norm_rope("qk_norm_rope", x, recorder.resident(&weight), table, 1e-6);
            }
        }
        Op::Conv { height, width, input, output } => {
            let layer =
                Conv2d { weight: bench.weight(output, 9 * input)?, bias: bench.vector(output)? };
            let x = recorder.image("x", height, width, input);
            let y = recorder.image("y", height, width, output.next_multiple_of(4));
            for _ in 0..repeats {
                conv2d("conv2d", x, width, &layer, y, Conv2dOptions::default());
            }
        }
        Op::GroupNorm { height, width, channels, groups } => {
            let (weight, bias) = (bench.vector(channels)?, bench.vector(channels)?);
            let x = recorder.image("x", height, width, channels);
            let y = recorder.image("y", height, width, channels);
            for _ in 0..repeats {
                let (weight, bias) = (recorder.resident(&weight), recorder.resident(&bias));
                group_norm("group_norm", x, groups, 1e-6, weight, bias, true, y);
            }
        }
    }
    Ok(())
}
