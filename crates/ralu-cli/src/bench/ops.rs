//! `ralu bench ops`: each op on the shapes that the model has at the picture's size.

use std::fmt::Write;

use ralu::checkpoint::source::Source;
use ralu::gpu::{self, Gpu, Program, SlotPool, block_on};
use ralu::pipeline::tune::matrix_storage;
use ralu::pipeline::{RunSchedule, Settings};
use ralu::tensor::{Command, Dispatch, Recorder, Work};
use serde::{Deserialize, Serialize};

use super::super::args::BenchArgs;
use super::super::chips::{Peak, percent};
use super::super::environment::Environment;
use super::super::error::Result;
use super::super::request::{self, ParsedRequest};
use super::super::tune::TuneTarget;
use super::super::{model, output, signals};
use super::chip::Chip;
use super::device;
use super::op::{Operands, cases, record};
use super::report::{Report, Row};
use super::stopwatch::{Medians, Spent, Stopwatch, on_cpu};

/// How often an op is measured if the user does not say.
const RUNS: usize = 10;
/// An op is repeated inside a measurement until it has about this many operations, or bytes to move, so that
/// submitting costs little next to it.
const ENOUGH: f64 = 4e9;
/// More repetitions than this tell nothing new.
const MAX_REPEATS: usize = 16;

#[derive(Serialize, Deserialize)]
pub struct OpsReport {
    #[serde(flatten)]
    environment: Environment,
    #[serde(skip_deserializing)]
    chip: Chip,
    /// How weights are kept on the GPU.
    weights: String,
    runs: usize,
    ops: Vec<OpReport>,
}

/// One line of the result.
#[derive(Serialize, Deserialize)]
struct OpReport {
    op: String,
    shape: String,
    /// The shaders that it ran.
    #[serde(default)]
    kernels: Vec<String>,
    #[serde(flatten)]
    took: Medians,
    /// Absent where operations are not what an op is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    gflops_per_second: Option<f64>,
    /// Operands read once and results written once.
    gb_per_second: f64,
    /// The same over processor time, where the adapter is a processor.
    #[serde(skip_serializing_if = "Option::is_none")]
    gflops_per_cpu_second: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gb_per_cpu_second: Option<f64>,
    /// Of the best GFLOP/s or of the best GB/s that any op here reached, whichever is more; by processor time where
    /// the adapter is a processor.
    #[serde(default)]
    share_of_best: f64,
    /// Of what the chip can do at most, where that is known: of its arithmetic or of its memory, whichever is nearer.
    #[serde(skip_serializing_if = "Option::is_none", skip_deserializing)]
    share_of_peak: Option<f64>,
}

/// Measures each op of the model's shapes.
pub fn measure(args: &BenchArgs, quiet: bool) -> Result<OpsReport> {
    let ParsedRequest { request, model, weights, .. } = request::plain(&args.request)?;
    let options = weights.options()?;
    let planned = model::planned(&model)?;
    let config = &planned.config;
    let settings = Settings::resolve(&request, config)?;
    super::effects::warn_of(&[&settings]);
    let schedule = RunSchedule::new(&settings, config)?;
    let source = planned.files.as_ref().map(|files| files as &dyn Source);
    let storage = matrix_storage(source, options)?;
    let target = TuneTarget { config, source, settings: &settings, options };
    let gpu = device::open(&args.adapter.choice(), &args.tuning, &target, quiet, |_| Ok(()))?;
    let chip = Chip::of(&gpu);
    let runs = args.runs.unwrap_or(RUNS);
    let mut ops = Vec::new();
    let n_text = config.text_tokens(settings.max_sequence_length);
    for op in cases(config, &schedule, n_text, storage) {
        signals::check()?;
        if !quiet {
            output::diagnostic(&format!("{} {op}", op.name()));
        }
        let (kernels, took) = measure_op(&gpu, &op, runs)?;
        ops.push(OpReport::new(&op, kernels, took, &chip));
    }
    rank(&mut ops);
    let environment = Environment::new(gpu.report(), &planned.name, &settings);
    let weights = format!("{storage:?}").to_lowercase();
    Ok(OpsReport { environment, chip, weights, runs, ops })
}

/// The shaders that an op runs, and what one execution takes.
fn measure_op(gpu: &Gpu, op: &Work, runs: usize) -> Result<(Vec<String>, Medians)> {
    let operands = Operands::new(gpu);
    // A byte takes about as long as several operations.
    let work = op.flops().total().max(16.0 * op.bytes());
    let repeats = ((ENOUGH / work) as usize).clamp(1, MAX_REPEATS);
    let recorder = Recorder::new(gpu.caps());
    record(&operands, &recorder, op, repeats)?;
    let recording = recorder.finish(op.name());
    let mut kernels: Vec<String> = Vec::new();
    for command in &recording.commands {
        if let Command::Dispatch(Dispatch { pipeline, .. }) = command
            && !kernels.iter().any(|kernel| kernel == pipeline.shader)
        {
            kernels.push(pipeline.shader.to_owned());
        }
    }
    let pool = SlotPool::default();
    let program = block_on(gpu, Program::compile(gpu, &operands.store, &pool, &recording))?;
    let once = || -> std::result::Result<Spent, gpu::Error> {
        let stopwatch = Stopwatch::start(on_cpu(gpu.report()));
        // Ends when the GPU has finished.
        block_on(gpu, program.run(gpu))?;
        Ok(stopwatch.spent().over(repeats))
    };
    // The driver's own first-time work.
    once()?;
    let mut spent = Vec::new();
    for _ in 0..runs {
        signals::check()?;
        spent.push(once()?);
    }
    Ok((kernels, Medians::of(&spent)))
}

impl OpReport {
    fn new(op: &Work, kernels: Vec<String>, took: Medians, chip: &Chip) -> Self {
        let (flops, bytes) = (op.flops().total(), op.bytes());
        let counts = flops > 0.0;
        let shader = kernels.first().map_or("", String::as_str);
        let share = |peak: Peak| peak.share_of_nearer(shader, took.rate(flops), took.rate(bytes));
        OpReport {
            op: op.name().to_owned(),
            shape: op.to_string(),
            share_of_peak: chip.peak.map(share),
            kernels,
            took,
            gflops_per_second: counts.then(|| took.rate(flops)),
            gb_per_second: took.rate(bytes),
            gflops_per_cpu_second: if counts { took.cpu_rate(flops) } else { None },
            gb_per_cpu_second: took.cpu_rate(bytes),
            share_of_best: 0.0,
        }
    }

    /// Operations and bytes per time, by the better clock.
    fn rates(&self) -> [f64; 2] {
        match self.gb_per_cpu_second {
            Some(bytes) => [self.gflops_per_cpu_second.unwrap_or(0.0), bytes],
            None => [self.gflops_per_second.unwrap_or(0.0), self.gb_per_second],
        }
    }
}

/// Fills in the shares. An op is bound by arithmetic or by memory: what counts is how near it comes to the better of
/// the two roofs (Williams et al., "Roofline", 2009), each as high as any op here has shown it to be.
fn rank(ops: &mut [OpReport]) {
    let best = |i: usize| ops.iter().map(|op| op.rates()[i]).fold(0.0, f64::max);
    let roofs = [best(0), best(1)];
    for op in ops {
        let shares = op.rates().into_iter().zip(roofs);
        op.share_of_best = shares
            .map(|(rate, roof)| if roof > 0.0 { rate / roof } else { 0.0 })
            .fold(0.0, f64::max);
    }
}

impl Report for OpsReport {
    const BENCH: &'static str = "ops";

    fn environment(&self) -> &Environment {
        &self.environment
    }

    fn conditions(&self) -> Vec<(&'static str, String)> {
        vec![("weights", self.weights.clone())]
    }

    fn rows(&self) -> Vec<Row> {
        let row = |op: &OpReport| Row { name: format!("{} {}", op.op, op.shape), took: op.took };
        self.ops.iter().map(row).collect()
    }

    fn text(&self) -> String {
        let per_cpu = self.ops.iter().any(|op| op.gb_per_cpu_second.is_some());
        let mut text = format!("{}\n", self.chip.about());
        if per_cpu {
            let _ = writeln!(text, "{:>72}{:>26}", "", "per second of CPU time");
        }
        let cpu = if per_cpu { format!("{:>10} {:>8}", "GFLOP/s", "GB/s") } else { String::new() };
        let _ = writeln!(
            text,
            "{:<14} {:<34} {:>12} {:>10} {:>8} {cpu} {:>8} {:>8}",
            "op", "shape", "seconds", "GFLOP/s", "GB/s", "of best", "of peak"
        );
        let number = |rate: Option<f64>| rate.map_or("-".to_owned(), |rate| format!("{rate:.1}"));
        for op in &self.ops {
            let cpu = match op.gb_per_cpu_second {
                Some(bytes) => format!("{:>10} {bytes:>8.2}", number(op.gflops_per_cpu_second)),
                None => String::new(),
            };
            let _ = writeln!(
                text,
                "{:<14} {:<34} {:>12.6} {:>10} {:>8.2} {cpu} {:>6.0} % {:>8}",
                op.op,
                op.shape,
                op.took.median_seconds,
                number(op.gflops_per_second),
                op.gb_per_second,
                100.0 * op.share_of_best,
                percent(op.share_of_peak)
            );
        }
        text
    }
}
