//! `ralu generate`: pictures from text.

mod drawing;
mod interrupted;
mod jobs;
mod speed;

use std::ffi::OsString;
use std::time::Instant;

use ralu::checkpoint::source::Source;
use ralu::escape::{Escaped, escape};
use ralu::gpu::{Gpu, human_bytes};
use ralu::models::config::ModelConfig;
use ralu::pipeline::saved::Maker;
use ralu::pipeline::tune::TuningEvent;
use ralu::pipeline::{MemoryBudget, Options, Products, Settings};
use ralu_host::events;
use ralu_host::{Device, End, Session, memory, open_pipeline, pipelines, places};
use serde_json::json;

use super::args::GenerateArgs;
use super::environment::Environment;
use super::error::{Error, Result};
use super::preview::Protocol;
use super::profile::{Profile, Profiles, TraceFile};
use super::progress::Progress;
use super::reporter::Reporter;
use super::request::{self, ParsedRequest};
use super::targets::Targets;
use super::tune::{self, TuneTarget};
use super::{chips, model, output, signals};
use drawing::Drawing;
use interrupted::Interrupted;
use jobs::{Job, Jobs};
use speed::Speed;

/// Runs the command of `words`, the arguments from the program's name on. A failure is also the last event, if events are
/// asked for.
pub fn run(args: &GenerateArgs, quiet: bool, words: &[OsString]) -> Result<()> {
    if !args.resume {
        return run_from(args, quiet, words, None);
    }
    let cache = tune::find_cache(args.tuning.cache.cache_dir.as_deref());
    let kept = Interrupted::read(cache.as_ref())?;
    let (cli, words) = kept.arguments(words)?;
    run_from(interrupted::generate_args(&cli)?, cli.quiet, &words, Some(&kept))
}

/// Runs it from the start, or from where an earlier run was.
fn run_from(
    args: &GenerateArgs,
    quiet: bool,
    words: &[OsString],
    kept: Option<&Interrupted>,
) -> Result<()> {
    let mut reporter = Reporter::new(args.events.is_some());
    let result = generate(args, quiet, words, kept, &mut reporter);
    if let Err(error) = &result {
        reporter.emit(&json!({
            "event": "error",
            "message": error.message(),
            "exit_code": error.exit_code(),
        }));
    }
    result.and(reporter.end())
}

fn generate(
    args: &GenerateArgs,
    quiet: bool,
    words: &[OsString],
    kept: Option<&Interrupted>,
    reporter: &mut Reporter,
) -> Result<()> {
    let asked = request::from_args(args, true, kept.and_then(|kept| kept.stdin.as_deref()))?;
    signals::listen()?;
    let ParsedRequest { request, lines, stdin, model, made_with, weights, products, mut warnings } =
        asked;

    // Everything that can be wrong is checked before anything is loaded.
    let mut model = model::open(&model)?;
    let hash = places::hash(&model.files);
    match made_with {
        // It may have been renamed since.
        Some(made_with) if Some(&made_with.hash) == hash.as_ref() => model.name = made_with.name,
        Some(_) => warnings.push(format!(
            "the picture of --from was made with other files of a model than those of {}: the result will differ",
            Escaped(&model.name)
        )),
        None => {}
    }
    if let Some(kept) = kept {
        kept.check_model(&model.name, hash.as_ref())?;
    }
    let config = ModelConfig::load(&model.files as &dyn Source)?;
    let is_series = lines.is_some();
    let given = request.given.0.keys().cloned().collect();
    let seed = request.seed;
    let jobs = Jobs::new(request, lines, &config)?;
    let first = jobs.job(0, 0, &config)?;
    let (begun, mut drawn) = kept.map_or((0, 0), |kept| (kept.request, kept.drawn));
    let mut next = jobs.job(begun, drawn, &config)?;
    if let Some(kept) = kept {
        kept.give_checkpoint(&mut next, &config)?;
    }
    let Job { settings, .. } = jobs.job(jobs.largest, 0, &config)?;
    let targets = Targets::new(args, first.settings.seed, jobs.count, jobs.most_stages)?;
    let trace = TraceFile::new(args.profile.as_ref());
    targets.check(args, &model.paths, &trace)?;
    warnings.extend(request::without_effect(args, &first.request, &first.settings));
    if !is_series {
        warnings.extend(first.warnings(&config));
    }
    signals::check()?;

    let mut progress = Progress::new(quiet, jobs.count);
    let cache = tune::find_cache(args.tuning.cache.cache_dir.as_deref());
    let mut device = Device::adapter(args.adapter.choice(), cache.clone());
    let mut gpu = device.open()?;
    if products == Some(Products::F32) {
        // Session and pipelines keep it so on devices after this one.
        gpu = gpu.with_caps(|caps| (caps.f16, caps.int8_dot) = (false, false));
    }
    signals::check()?;
    let adapter = gpu.report().name.clone();
    progress.say(&format!("adapter: {} ({})", Escaped(&adapter), gpu.report().backend));
    for note in model.files.notes() {
        progress.say(&escape(note));
    }
    let (options, fitting) = weights.options_on(&gpu, &config, &model.files, &settings)?;
    match (fitting, options.quantise) {
        (Some(fitting), _) => progress.say(&fitting),
        (None, Some(quantise)) => {
            progress.say(&format!("weights are quantised to {quantise} while they are loaded"));
        }
        (None, None) => {}
    }
    match is_series {
        false => progress.say(&first.describe(&model.name)),
        true => progress.say(&format!("{} requests, {} pictures", jobs.len(), jobs.count)),
    }
    reporter.emit(&json!({
        "event": "start",
        "version": env!("CARGO_PKG_VERSION"),
        "model": model.name,
        "adapter": adapter,
        "backend": gpu.report().backend,
        "width": first.settings.width,
        "height": first.settings.height,
        "ralu": first.settings.ralu_name,
        "stages": first.schedule.stages.len(),
        "steps": first.schedule.steps(),
        "seed": first.settings.seed,
        "count": jobs.count,
    }));
    for report in model.files.adapters() {
        reporter.emit(&events::lora_value(report));
    }
    for warning in warnings {
        progress.warn(&warning);
        reporter.emit(&json!({ "event": "warning", "message": warning }));
    }

    let name = model.name.clone();
    let maker = Maker {
        model: &name,
        model_hash: hash.as_deref(),
        model_parts: model.parts(),
        adapter: &adapter,
        has_guidance: config.transformer.has_guidance_input(),
        precision: options.precision,
        quantise: options.quantise,
        given,
    };
    let options = options.with(|options| {
        options.host_memory = weights.host_memory.unwrap_or_else(|| memory::host_memory(&gpu));
    });
    check_memory(&gpu, &config, &model.files, &settings, options)?;
    let source: &dyn Source = &model.files;
    let target = TuneTarget { config: &config, source: Some(source), settings: &settings, options };
    let gpu = tuned(gpu, args, &target, &mut progress, reporter)?;
    let mut session = Session::new(open_pipeline(gpu, Box::new(model.files), options)?);
    if let (Some(cache), Some(hash), false) = (&cache, &hash, args.no_metadata) {
        places::remember(cache, hash, &model.opened);
    }
    let started = Instant::now();
    let mut drawing = Drawing {
        targets: &targets,
        options: Targets::options(args),
        maker: &maker,
        products,
        preview: Protocol::of(args, quiet),
        progress,
        reporter,
        profile: Profile::default(),
        speed: Speed::default(),
    };
    if let Some(kept) = kept {
        drawing.progress.say(&format!("the interrupted run goes on {}", kept.place));
    }
    let run = interrupted::Run { words, seed, stdin, model: &name, model_hash: hash.clone() };
    for number in begun..jobs.len() {
        let job = match number == begun {
            true => &next,
            false => &jobs.job(number, drawn, &config)?,
        };
        if is_series {
            drawing.begin(job, &name, &config);
        }
        // There is nothing to do but to wait and to write, and a file that cannot be written ends the run: no use for
        // `ralu_host::engine` and its thread.
        let going = || signals::check().is_ok();
        let outcome = session.draw(&mut device, &job.request, going, |pipeline, event| {
            drawing.event(job, pipeline, event)
        });
        let error = match outcome.end {
            End::Finished => {
                drawn += job.settings.count;
                continue;
            }
            End::Cancelled => Error::Cancelled,
            End::Failed(error) => error,
        };
        drawing.progress.clear();
        let at = outcome.checkpoint.as_deref();
        if let Some(said) = interrupted::keep(cache.as_ref(), &run, number, job, at) {
            drawing.progress.say(&said);
        }
        return Err(error);
    }
    if kept.is_some() {
        interrupted::forget(cache.as_ref());
    }
    let Drawing { progress, profile, speed, .. } = drawing;
    progress.clear();
    let pipeline = session.pipeline()?;
    speed.note(args, pipeline);
    if let Some(cache) = &cache {
        pipelines::keep(pipeline.gpu(), cache);
    }
    if args.profile.is_some() {
        let mut profiles = Profiles::new(chips::peak(&pipeline.gpu().report().name));
        profiles.add(&settings.ralu_name, profile);
        output::diagnostic(profiles.text().trim_end());
        let environment =
            Environment::new(pipeline.gpu().report(), &pipeline.model_name(), &settings);
        if let Some(path) = trace.write(&profiles, &environment)? {
            progress.say(&format!("trace: {}", output::shown(path)));
        }
    }
    let (seconds, peak) = (started.elapsed().as_secs_f64(), pipeline.gpu().counters().bytes_peak);
    progress.say(&format!("done in {seconds:.1} s, {} GPU memory", human_bytes(peak)));
    reporter.emit(&json!({
        "event": "done",
        "images": jobs.count,
        "seconds": seconds,
        "gpu_peak_bytes": peak,
    }));
    Ok(())
}

/// Refuses a run that a software adapter cannot hold, and tells the device what it can.
pub fn check_memory(
    gpu: &Gpu,
    config: &ModelConfig,
    source: &dyn Source,
    settings: &Settings,
    options: Options,
) -> Result<()> {
    memory::tell(gpu);
    let shortage = memory::shortage(gpu, config, source, settings, options)?;
    let Some(shortage) = shortage else { return Ok(()) };
    let quantised: Vec<&str> = shortage.quantised.iter().map(|(format, _)| format.name()).collect();
    let quantise = match quantised.len() {
        0 => String::new(),
        _ => format!(
            " quantise the denoiser while it is loaded (--quantize {}),",
            quantised.join("|")
        ),
    };
    let stream = match options.memory_budget {
        MemoryBudget::Auto => "",
        _ => " let more weights come and go (--memory-budget),",
    };
    Err(Error::failed(format!(
        "{shortage}. Make the picture smaller (--width, --height),{quantise} store weights of 32 bits in 16 (--precision \
         f16),{stream} or use a GPU; `ralu plan` says what needs how much"
    )))
}

/// The device with the kernels that are best for this run: see [`tune::tuned`].
fn tuned(
    gpu: Gpu,
    args: &GenerateArgs,
    target: &TuneTarget<'_>,
    progress: &mut Progress,
    reporter: &mut Reporter,
) -> Result<Gpu> {
    let mut watch = |event: &TuningEvent| {
        progress.tuning(event);
        if let Some(line) = events::tuning_value(event) {
            reporter.emit(&line);
        }
    };
    let tuned = tune::tuned(gpu, &args.adapter.choice(), &args.tuning, target, &mut watch);
    let tuned = tuned.inspect_err(|_| progress.clear())?;
    for warning in &tuned.warnings {
        progress.warn(warning);
        reporter.emit(&json!({ "event": "warning", "message": warning }));
    }
    if let Some(record) = &tuned.measured {
        progress.say(&tune::summary(record));
        reporter.emit(&events::tuned_value(record, tuned.file.as_deref()));
    }
    Ok(tuned.gpu)
}
