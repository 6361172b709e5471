//! `ralu bench load`: how fast weights get from disk to the GPU, next to a plain read of the same files.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use ralu::escape::Escaped;
use ralu::gpu::{Gpu, Uploads, block_on};
use ralu::pipeline::{MemoryBudget, Part};
use ralu_host::open_pipeline;
use serde::Serialize;

use super::super::args::BenchArgs;
use super::super::error::{Error, Result};
use super::super::output::shown;
use super::super::request::{self, ParsedRequest};
use super::super::{model, output, signals, speeds};
use super::RUNS;
use super::stopwatch::{Spent, Stopwatch};
use crate::median::median;

/// A plain read goes through a buffer of this size, which stays in a processor's cache.
const READ_BYTES: usize = 1 << 20;

#[derive(Serialize)]
struct Speed {
    bytes: u64,
    median_seconds: f64,
    best_seconds: f64,
    /// By the best run.
    gb_per_second: f64,
    /// Per second of processor time, by the best run; where the system says so (Linux).
    gb_per_cpu_second: Option<f64>,
}

#[derive(Serialize)]
struct Report {
    bench: &'static str,
    adapter: String,
    backend: &'static str,
    driver: String,
    model: String,
    /// Of all weight files, from the system's cache, through a small buffer.
    read: Speed,
    /// The same into memory that is new, as a GPU that shares the machine's memory needs it.
    keep: Speed,
    /// Of all weights that the model needs: text encoders, denoiser and decoder.
    load: Speed,
    /// GB/s of bytes that the host has ready, as copies of streamed weights get to the GPU.
    copy_gb_per_second: f64,
    /// Speed of loading over that of reading.
    ratio: f64,
    /// The same per second of processor time.
    cpu_ratio: Option<f64>,
    /// Speed of loading over that of reading into new memory.
    keep_ratio: f64,
    /// The same per second of processor time.
    keep_cpu_ratio: Option<f64>,
}

/// Runs the benchmark.
pub fn run(args: &BenchArgs, quiet: bool) -> Result<()> {
    let ParsedRequest { model: given, weights, .. } = request::plain(&args.request)?;
    // All weights are loaded: within a budget nothing is before there is a run.
    let options =
        weights.options()?.with(|options| options.memory_budget = MemoryBudget::default());
    let files = model::open(&given)?.weight_files()?;
    if let Some(path) = args.json_file() {
        super::checks(args).output(path, "the report")?;
    }
    let runs = args.runs.unwrap_or(RUNS);
    let (mut reads, mut keeps, mut loads) = (Vec::new(), Vec::new(), Vec::new());
    let (mut read_bytes, mut load_bytes) = (0, 0);
    let (mut place, mut copy_rate) = (None, 0.0f64);
    // The first pass brings the files into the system's cache.
    for i in 0..=runs {
        let read = timed(|| {
            read_bytes = files.iter().map(|file| read(file)).sum::<Result<u64>>()?;
            Ok(())
        })?;
        let keep = timed(|| {
            let kept: Result<Vec<Vec<u8>>> = files.iter().map(|file| keep(file)).collect();
            kept.map(drop)
        })?;
        let model = model::open(&given)?;
        let gpu = pollster::block_on(Gpu::open(&args.adapter.choice()))?;
        let pipeline = open_pipeline(gpu, Box::new(model.files), options)?;
        let gpu = pipeline.gpu();
        let load = timed(|| {
            for part in Part::ALL {
                block_on(gpu, pipeline.load(part, |_| {}))?;
            }
            Ok(())
        })?;
        signals::check()?;
        load_bytes = gpu.counters().uploaded_bytes;
        copy_rate = copy_rate.max(block_on(gpu, Uploads::bytes_per_second(gpu))?);
        place = Some((gpu.report().clone(), model.name));
        if i > 0 {
            if !quiet {
                let (read, load) = (read.seconds, load.seconds);
                output::diagnostic(&format!(
                    "run {i} of {runs}: read {read:.2} s, load {load:.2} s"
                ));
            }
            reads.push(read);
            keeps.push(keep);
            loads.push(load);
        }
    }
    let Some((adapter, model)) = place else { return Ok(()) };
    let (read, keep) = (Speed::new(read_bytes, &reads), Speed::new(read_bytes, &keeps));
    let load = Speed::new(load_bytes, &loads);
    let (ratio, cpu_ratio) = load.over(&read);
    let (keep_ratio, keep_cpu_ratio) = load.over(&keep);
    speeds::note(&args.tuning, &adapter, |speed| {
        speed.copy_bytes_per_second = Some(copy_rate);
        speed.load_bytes_per_second = Some(load.gb_per_second * 1e9);
    });
    let report = Report {
        bench: "load",
        adapter: adapter.name,
        backend: adapter.backend,
        driver: adapter.driver,
        model,
        copy_gb_per_second: copy_rate / 1e9,
        ratio,
        cpu_ratio,
        keep_ratio,
        keep_cpu_ratio,
        read,
        keep,
        load,
    };
    if args.prints_json() {
        return output::json(&report);
    }
    if let Some(path) = args.json_file() {
        output::json_file(path, &report)?;
    }
    let (adapter, model) = (Escaped(&report.adapter), Escaped(&report.model));
    output::line(format!("{adapter} ({}), {model}", report.backend))?;
    for (name, speed) in [("read", &report.read), ("keep", &report.keep), ("load", &report.load)] {
        let cpu = speed
            .gb_per_cpu_second
            .map_or(String::new(), |gb| format!(", {gb:.2} GB per second of processor time"));
        output::line(format!(
            "{name}  {:>7.3} GB  {:>7.3} s (median {:.3})  {:>6.2} GB/s{cpu}",
            speed.bytes as f64 / 1e9,
            speed.best_seconds,
            speed.median_seconds,
            speed.gb_per_second
        ))?;
    }
    output::line(format!(
        "copy  {:>43.2} GB/s, of bytes that are ready in memory",
        report.copy_gb_per_second
    ))?;
    let per_cent = |(ratio, cpu): (f64, Option<f64>)| {
        let cpu = cpu.map_or(String::new(), |cpu| {
            format!(" ({:.0} % per second of processor time)", 100.0 * cpu)
        });
        format!("{:.0} %{cpu}", 100.0 * ratio)
    };
    output::line(format!(
        "loading reaches {} of a plain read, {} of a read into new memory",
        per_cent((report.ratio, report.cpu_ratio)),
        per_cent((report.keep_ratio, report.keep_cpu_ratio))
    ))
}

impl Speed {
    /// By how much this is faster: by the clock, and per second of processor time.
    fn over(&self, other: &Speed) -> (f64, Option<f64>) {
        let cpu = self.gb_per_cpu_second.zip(other.gb_per_cpu_second);
        (self.gb_per_second / other.gb_per_second, cpu.map(|(this, other)| this / other))
    }

    fn new(bytes: u64, runs: &[Spent]) -> Speed {
        let least =
            |of: &dyn Fn(&Spent) -> Option<f64>| runs.iter().filter_map(of).min_by(f64::total_cmp);
        let best_seconds = least(&|took| Some(took.seconds)).unwrap_or(f64::NAN);
        let per_second = |seconds: f64| bytes as f64 / 1e9 / seconds;
        Speed {
            bytes,
            median_seconds: median(runs.iter().map(|took| took.seconds).collect()),
            best_seconds,
            gb_per_second: per_second(best_seconds),
            gb_per_cpu_second: least(&|took| took.cpu_seconds).map(per_second),
        }
    }
}

fn timed(body: impl FnOnce() -> Result<()>) -> Result<Spent> {
    let stopwatch = Stopwatch::start(true);
    body()?;
    Ok(stopwatch.spent())
}

/// Reads a file into memory of its own.
fn keep(path: &Path) -> Result<Vec<u8>> {
    fs::read(path)
        .map_err(|error| Error::failed(format!("{}: cannot be read: {error}", shown(path))))
}

/// Reads a file and forgets it.
fn read(path: &Path) -> Result<u64> {
    let failed = |error| Error::failed(format!("{}: cannot be read: {error}", shown(path)));
    let mut file = File::open(path).map_err(failed)?;
    let mut buffer = vec![0; READ_BYTES];
    let mut bytes = 0;
    loop {
        match file.read(&mut buffer).map_err(failed)? {
            0 => return Ok(bytes),
            n => bytes += n as u64,
        }
    }
}
