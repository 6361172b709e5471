//! Choosing kernels by measuring them: in the first run on an adapter, and `ralu tune`.

use std::path::{Path, PathBuf};

use ralu::checkpoint::source::Source;
use ralu::escape::Escaped;
use ralu::gpu::{AdapterChoice, Gpu};
use ralu::models::config::ModelConfig;
use ralu::pipeline::tune::{
    KernelSeconds, Measured, Tuner, TuningEvent, TuningRecord, usual_seconds,
};
use ralu::pipeline::{Options, Settings, check_model};
use ralu_host::{CacheDir, kernels};
use serde_json::{Value, json};

use super::args::{RequestArgs, TuneArgs, TuningArgs};
use super::chips::{self, Peak, percent};
use super::error::{Error, Result};
use super::model::{self, Planned};
use super::progress::Progress;
use super::request::{self, ParsedRequest};
use super::{output, signals, speeds};

/// The folder that `--cache-dir` names, or the user's own.
pub fn find_cache(given: Option<&Path>) -> Option<CacheDir> {
    Some(CacheDir::find(given)?.when_writing(signals::set_writing))
}

/// What is measured for.
pub struct TuneTarget<'a> {
    pub config: &'a ModelConfig,
    /// The model's files, if there are any.
    pub source: Option<&'a dyn Source>,
    pub settings: &'a Settings,
    /// How it is opened.
    pub options: Options,
}

impl TuneTarget<'_> {
    fn tuner<'g>(&self, gpu: &'g Gpu, seconds: f64) -> Result<Tuner<'g>> {
        let TuneTarget { config, source, settings, options } = *self;
        Ok(Tuner::new(gpu, config, source, settings, options, seconds)?)
    }
}

/// A device, and how its kernels were chosen.
pub struct Tuned {
    pub gpu: Gpu,
    /// What was measured just now.
    pub measured: Option<TuningRecord>,
    /// Where that is kept.
    pub file: Option<PathBuf>,
    pub warnings: Vec<String>,
}

/// The device with the kernels that were measured to be best on its adapter. Measures if nothing fitting is kept.
///
/// Never stands in the way of a run: what goes wrong is a warning, and the default kernels run.
pub fn tuned(
    gpu: Gpu,
    choice: &AdapterChoice,
    args: &TuningArgs,
    target: &TuneTarget<'_>,
    watch: &mut dyn FnMut(&TuningEvent),
) -> Result<Tuned> {
    let gpu = gpu.with_caps(|caps| *caps = target.options.precision.limit(*caps));
    let mut tuned = Tuned { gpu, measured: None, file: None, warnings: vec![] };
    // Without a folder every run would measure.
    let cache = find_cache(args.cache.cache_dir.as_deref());
    let (false, Some(cache)) = (args.no_tune, cache) else { return Ok(tuned) };
    let tuner = target.tuner(&tuned.gpu, usual_seconds(&tuned.gpu))?;
    // What is wrong with the model is said before seconds go into measurements for it.
    if let (Some(source), false) = (target.source, kernels::are_kept(&cache, &tuner)) {
        check_model(source)?;
    }
    let chosen = match kernels::choose(&tuned.gpu, tuner, Some(&cache), going, watch) {
        Ok(chosen) => chosen.ok_or(Error::Cancelled)?,
        Err(error) => {
            tuned.warnings.push(format!(
                "kernels cannot be measured on this adapter ({error}); the defaults run, as with --no-tune"
            ));
            // Also that matrices are of no use, where the device was lost in their test.
            tuned.gpu = pollster::block_on(Gpu::open(choice))?.learn_from(&tuned.gpu);
            return Ok(tuned);
        }
    };
    if let Some(error) = chosen.not_kept {
        tuned.warnings.push(format!(
            "could not save the measurements; the next run will repeat them: {error}; choose a folder with --cache-dir, or \
             measure nothing with --no-tune"
        ));
    }
    tuned.file = chosen.file;
    tuned.measured = chosen.measured;
    if let (Some(record), Some(_)) = (&tuned.measured, &tuned.file) {
        note(record, args, &tuned.gpu);
    }
    let tuning = chosen.tuning;
    tuned.gpu = tuned.gpu.with_caps(|caps| caps.tuning = tuning);
    Ok(tuned)
}

/// Whether nobody has pressed Ctrl-C.
fn going() -> bool {
    signals::check().is_ok()
}

/// `ralu tune`.
pub fn run(args: &TuneArgs, quiet: bool) -> Result<()> {
    signals::listen()?;
    let ParsedRequest { request, model, weights, .. } = request::plain(&RequestArgs {
        model: args.model.clone(),
        width: args.width,
        height: args.height,
        max_sequence_length: args.max_sequence_length,
        precision: args.precision,
        quantize: args.quantize,
        ..Default::default()
    })?;
    let Planned { config, files, name } = model::planned(&model)?;
    let source = files.as_ref().map(|files| files as &dyn Source);
    let settings = Settings::resolve(&request, &config)?;
    let cache = find_cache(args.cache.cache_dir.as_deref())
        .ok_or_else(|| Error::failed("no cache directory found; pass one with --cache-dir DIR"))?;
    let gpu = pollster::block_on(Gpu::open(&args.adapter.choice()))?;
    let target =
        TuneTarget { config: &config, source, settings: &settings, options: weights.options()? };
    let tuner = target.tuner(&gpu, args.seconds)?;
    let mut progress = Progress::new(quiet, 1);
    let record = kernels::measure(&gpu, tuner, going, |event| progress.tuning(event));
    progress.clear();
    let record = record?.ok_or(Error::Cancelled)?;
    let path = kernels::keep(&cache, &record)?;
    note(&record, &TuningArgs { no_tune: false, cache: args.cache.clone() }, &gpu);
    let report = gpu.report();
    let peak = chips::peak(&report.name);
    if args.json {
        let choices = choices(&record, peak.as_ref());
        return output::json(
            &json!({ "file": path, "peak": peak, "choices": choices, "record": record }),
        );
    }
    let Settings { width, height, .. } = settings;
    output::line(format!(
        "{} ({}), {}, {width} x {height}",
        Escaped(&report.name),
        report.backend,
        Escaped(&name)
    ))?;
    output::line(chips::about(peak.as_ref()))?;
    output::line(table(&record, peak.as_ref()))?;
    output::line(format!("measured in {:.1} s, kept in {}", record.seconds, output::shown(&path)))
}

/// Keeps for `ralu plan` how fast the chosen kernels are.
fn note(record: &TuningRecord, args: &TuningArgs, gpu: &Gpu) {
    if let Some(rate) = record.flops_per_second() {
        let rate = Some(rate);
        speeds::note(args, gpu.report(), |speed| speed.kernel_flops_per_second = rate);
    }
}

/// GFLOP/s of a kernel, if it was measured.
fn rate(measured: &Measured, kernel: &KernelSeconds) -> Option<f64> {
    let seconds = kernel.seconds.filter(|seconds| *seconds > 0.0 && measured.flops > 0.0)?;
    Some(measured.flops / seconds / 1e9)
}

/// The share of its peak that a chip reaches in a kernel.
fn share(measured: &Measured, kernel: &KernelSeconds, peak: Option<&Peak>) -> Option<f64> {
    peak?.share(&kernel.shaders, rate(measured, kernel)?)
}

/// The chosen kernels, with their rates and shares of the peak.
fn choices(record: &TuningRecord, peak: Option<&Peak>) -> Vec<Value> {
    let of = |measured: &Measured| {
        let chosen = measured.kernels.iter().find(|kernel| kernel.chosen)?;
        Some(json!({
            "op": measured.op,
            "rows": measured.class,
            "kernel": chosen.kernel,
            "shaders": chosen.shaders,
            "gflops_per_second": rate(measured, chosen),
            "share_of_peak": share(measured, chosen, peak),
        }))
    };
    record.measured.iter().filter_map(of).collect()
}

/// A line for each kernel of each op that has a choice.
fn table(record: &TuningRecord, peak: Option<&Peak>) -> String {
    let row = |[op, rows, kernel, shaders, ms, gflops, of_peak, note]: [&str; 8]| {
        format!(
            "{op:<10} {rows:<5} {kernel:<12} {shaders:<20} {ms:>10} {gflops:>9} {of_peak:>7}  {note}"
        )
        .trim_end()
        .to_owned()
    };
    let head = ["op", "rows", "kernel", "shaders", "ms", "GFLOP/s", "of peak", ""];
    let mut lines = vec![row(head)];
    if record.measured.is_empty() {
        lines.push("no op has more than one kernel here".to_owned());
    }
    for measured in &record.measured {
        let class = measured.class.as_deref().unwrap_or("");
        for one in &measured.kernels {
            let KernelSeconds { kernel, shaders, seconds, failure, chosen, .. } = one;
            let gflops = rate(measured, one).map_or("-".to_owned(), |rate| format!("{rate:.1}"));
            let of_peak = percent(share(measured, one, peak));
            let ms = seconds.map_or("-".to_owned(), |seconds| format!("{:.3}", 1e3 * seconds));
            let note = match failure {
                Some(reason) => reason,
                None if *chosen => "chosen",
                None => "",
            };
            let cells = [&measured.op, class, kernel, shaders, &ms, &gflops, &of_peak, note];
            lines.push(row(cells));
        }
    }
    lines.join("\n")
}

/// What a run says about it.
pub fn summary(record: &TuningRecord) -> String {
    let changed = record.measured.iter().filter_map(|measured| {
        let chosen = measured.kernels.iter().skip(1).find(|kernel| kernel.chosen)?;
        let rows = measured.class.as_ref().map_or(String::new(), |rows| format!(" of {rows} rows"));
        Some(format!("{}{rows}: {}", measured.op, chosen.kernel))
    });
    let changed: Vec<String> = changed.collect();
    let changed = match changed.len() {
        0 => "the defaults are fastest".to_owned(),
        _ => changed.join(", "),
    };
    format!("kernels measured in {:.1} s: {changed}", record.seconds)
}
