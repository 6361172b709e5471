//! `ralu bench`: measurements. A number without the adapter's name is not a result, so that comes with each.

mod ops;
mod quality;

use ralu::gpu::{Gpu, block_on};
use ralu::models::config::ModelConfig;
use ralu::models::source::Source;
use ralu::pipeline::{
    Event, Options, Pipeline, RaluChoice, Request, RunSchedule, Settings, StageKind,
    plan::{baseline_steps, plan},
};
use ralu::sampling::{Preset, PresetFamily, RaluParams};
use serde::Serialize;

use super::args::{BenchArg, BenchArgs, QualityArgs};
use super::error::{Error, Result};
use super::profile::{self, Profile};
use super::request::{self, Asked};
use super::{model, output, signals};

/// What is drawn; its content does not matter.
const PROMPT: &str = "a fox on a purple background";
/// How often runs and steps are measured if the user does not say.
const RUNS: usize = 3;

/// Runs the command.
pub fn run(args: &BenchArgs, quiet: bool) -> Result<()> {
    signals::listen()?;
    if args.what == BenchArg::Quality {
        return quality::run(args, quiet);
    }
    if args.quality != QualityArgs::default() {
        return Err(Error::usage(
            "--prompts, --seeds, --setting, --settings, --reference-steps and --output belong to `ralu bench \
             quality`; leave them out or measure that",
        ));
    }
    if args.what == BenchArg::Ops {
        return ops::run(args, quiet);
    }
    let mut bench = Bench::open(args, quiet)?;
    match args.what {
        BenchArg::Step => bench.step(args),
        _ => bench.run(args),
    }
}

/// An open model and what is measured with it.
struct Bench {
    pipeline: Pipeline,
    config: ModelConfig,
    plain: Request,
    ralu: Request,
    options: Options,
    name: String,
    runs: usize,
    quiet: bool,
}

/// Where something was measured.
#[derive(Serialize)]
struct Place {
    adapter: String,
    backend: &'static str,
    model: String,
    width: usize,
    height: usize,
}

/// What a picture took.
#[derive(Default)]
struct Cost {
    seconds: f64,
    /// Operations of the GPU's programs, by estimate.
    flops: f64,
}

#[derive(Serialize)]
struct Measured {
    /// The preset's name, `custom` or `off`.
    ralu: String,
    steps: usize,
    seconds: Vec<f64>,
    median_seconds: f64,
}

#[derive(Serialize)]
struct RunReport {
    bench: &'static str,
    #[serde(flatten)]
    place: Place,
    plain: Measured,
    ralu: Measured,
    /// Median seconds of the plain runs over those of RALU's.
    measured_speedup: f64,
    /// What `ralu plan` says, attention included.
    predicted_speedup: f64,
    /// Measured over predicted.
    ratio: f64,
}

#[derive(Serialize)]
struct StageReport {
    /// The preset's name, `custom` or `off`.
    ralu: String,
    stage: usize,
    kind: &'static str,
    tokens: usize,
    /// Of one step.
    median_seconds: f64,
    /// Operations of one step over its seconds.
    gflops_per_second: f64,
    measured_steps: usize,
}

#[derive(Serialize)]
struct StepReport {
    bench: &'static str,
    #[serde(flatten)]
    place: Place,
    stages: Vec<StageReport>,
    /// Of each request, in the order of `stages`, if it was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    profiles: Vec<profile::Report>,
}

impl Bench {
    fn open(args: &BenchArgs, quiet: bool) -> Result<Self> {
        let Asked { mut request, model, precision, .. } = request::plain(&args.request)?;
        let model = model::open(model.as_deref())?;
        let config = ModelConfig::load(&model.folder as &dyn Source)?;
        request.prompt = PROMPT.to_owned();
        let steps = request.steps.take().unwrap_or_else(|| baseline_steps(&config));
        let mut plain = request.clone();
        plain.steps = Some(steps);
        plain.ralu = RaluChoice::Off;
        plain.mask = None;
        plain.cache = None;
        plain.rules = Default::default();
        plain.z_policy = None;
        let mut ralu = request;
        match ralu.ralu {
            // A cache on plain sampling, against plain sampling.
            RaluChoice::Off if ralu.cache.is_some() => ralu.steps = Some(steps),
            // A family's fastest preset shows most.
            RaluChoice::Auto if config.preset_family() != PresetFamily::Flux => {
                let fastest = config.preset_family().presets().pop();
                ralu.ralu = fastest.map_or(RaluChoice::Auto, RaluChoice::Preset);
            }
            RaluChoice::Auto => ralu.ralu = RaluChoice::Preset(Preset::X7),
            RaluChoice::Off => {
                return Err(Error::usage(
                    "--ralu off leaves nothing to compare with; expected a preset, custom or a --cache",
                ));
            }
            _ => {}
        }
        // Wrong sizes and schedules are said before the GPU is opened.
        for request in [&plain, &ralu] {
            RunSchedule::new(&Settings::resolve(request, &config)?, &config)?;
        }
        let gpu = pollster::block_on(Gpu::open(&args.adapter.choice()))?;
        let options = Options { precision };
        let pipeline = Pipeline::open(gpu, Box::new(model.folder), options)?;
        let runs = args.runs.unwrap_or(RUNS);
        Ok(Bench { pipeline, config, plain, ralu, options, name: model.name, runs, quiet })
    }

    /// Whole pictures, plain and with RALU in turn, so that a machine that slows down slows both down.
    fn run(&mut self, args: &BenchArgs) -> Result<()> {
        let plain = self.settings(&self.plain)?;
        let ralu = self.settings(&self.ralu)?;
        self.warm_up(&ralu)?;
        let (mut plain_seconds, mut ralu_seconds) = (Vec::new(), Vec::new());
        let mut done = [0.0; 2];
        for i in 0..self.runs {
            let number = format!("run {} of {}", i + 1, self.runs);
            let measured = self.measure(&self.plain)?;
            plain_seconds.push(measured.seconds);
            done[0] = measured.flops;
            self.say(&format!("{number}: plain {:.2} s", plain_seconds[i]));
            let measured = self.measure(&self.ralu)?;
            ralu_seconds.push(measured.seconds);
            done[1] = measured.flops;
            self.say(&format!("{number}: RALU {} {:.2} s", ralu.ralu_name, ralu_seconds[i]));
        }
        // With the family's full number of plain steps, this is what `ralu plan` prints.
        let tflops = |settings: &Settings| {
            let caps = self.pipeline.gpu().caps();
            let plan = plan(&self.config, None, settings, caps, self.options.precision);
            plan.map(|plan| plan.tflops.with_attention)
        };
        let looks_at_values = ralu.cache.as_ref().is_some_and(|cache| cache.probe().is_some());
        let predicted_speedup = match looks_at_values {
            // No plan knows which steps such a cache reuses: what was done counts.
            true => done[0] / done[1],
            false => tflops(&plain)? / tflops(&ralu)?,
        };
        let per_step = |settings: &Settings| RunSchedule::new(settings, &self.config);
        let report = RunReport {
            bench: "run",
            place: self.place(&ralu),
            plain: Measured::new("off", per_step(&plain)?.steps(), plain_seconds),
            ralu: Measured::new(&ralu.ralu_name, per_step(&ralu)?.steps(), ralu_seconds),
            measured_speedup: 0.0,
            predicted_speedup,
            ratio: 0.0,
        };
        let measured = report.plain.median_seconds / report.ralu.median_seconds;
        let ratio = measured / report.predicted_speedup;
        let report = RunReport { measured_speedup: measured, ratio, ..report };
        if args.json {
            return output::json(&report);
        }
        output::line(&report.place)?;
        for (name, one) in [("plain", &report.plain), ("RALU", &report.ralu)] {
            let preset = if one.ralu == "off" { "" } else { &one.ralu };
            output::line(format!(
                "{:<10} {:>3} steps  {:>9.3} s (median of {})",
                format!("{name} {preset}"),
                one.steps,
                one.median_seconds,
                one.seconds.len()
            ))?;
        }
        output::line(format!(
            "speed-up   measured {measured:.2}x, predicted {:.2}x, {:.0} %",
            report.predicted_speedup,
            100.0 * ratio
        ))
    }

    /// Single steps.
    fn step(&mut self, args: &BenchArgs) -> Result<()> {
        let ralu = self.settings(&self.ralu)?;
        self.warm_up(&ralu)?;
        // A plain step costs the same at every noise level.
        let few = Request { steps: Some(self.runs), ..self.plain.clone() };
        let repeated = Request { count: Some(self.runs), ..self.ralu.clone() };
        let (mut stages, mut profiles) = (Vec::new(), Vec::new());
        for request in [few, repeated] {
            let settings = self.settings(&request)?;
            let schedule = RunSchedule::new(&settings, &self.config)?;
            let mut seconds = vec![Vec::new(); schedule.stages.len()];
            self.events(&request, |event| {
                if let Event::Step(step) = event {
                    seconds[step.stage - 1].push(step.seconds);
                }
            })?;
            let evaluations = settings.evaluations_per_step() as f64;
            for (i, (stage, seconds)) in schedule.stages.iter().zip(seconds).enumerate() {
                let text = self.config.text_tokens(settings.max_sequence_length);
                let flops = ralu::models::cost::step(&self.config, stage.n_tokens, text).total();
                let (measured_steps, median_seconds) = (seconds.len(), median(seconds));
                stages.push(StageReport {
                    ralu: settings.ralu_name.clone(),
                    stage: i + 1,
                    kind: match stage.kind {
                        StageKind::Low => "low",
                        StageKind::Mixed => "mixed",
                        StageKind::Full => "full",
                    },
                    tokens: stage.n_tokens,
                    median_seconds,
                    gflops_per_second: flops * evaluations / median_seconds / 1e9,
                    measured_steps,
                });
            }
            if args.profile {
                let mut profile = Profile::default();
                let request = Request { profile: true, ..request };
                self.events(&request, |event| profile.event(event))?;
                profiles.push(profile.report());
            }
        }
        let report = StepReport { bench: "step", place: self.place(&ralu), stages, profiles };
        if args.json {
            return output::json(&report);
        }
        output::line(&report.place)?;
        output::line("RALU    stage    tokens  seconds a step   GFLOP/s  (median of)")?;
        for stage in &report.stages {
            output::line(format!(
                "{:<7} {} {:<6} {:>6}  {:>14.4} {:>9.1}  {}",
                stage.ralu,
                stage.stage,
                stage.kind,
                stage.tokens,
                stage.median_seconds,
                stage.gflops_per_second,
                stage.measured_steps
            ))?;
        }
        for profile in &report.profiles {
            output::line(format!("\n{}", profile.table()))?;
        }
        Ok(())
    }

    /// Runs each program once, so that no measured run compiles or loads anything.
    fn warm_up(&self, ralu: &Settings) -> Result<()> {
        self.say("warming up");
        self.measure(&Request { steps: Some(1), ..self.plain.clone() })?;
        let choice = match &ralu.ralu {
            Some(params) => one_step_each(params),
            None => RaluChoice::Off,
        };
        self.measure(&Request { ralu: choice, ..self.ralu.clone() })?;
        Ok(())
    }

    fn measure(&self, request: &Request) -> Result<Cost> {
        let mut total = Cost::default();
        self.events(request, |event| {
            if let Event::Image { seconds, report, .. } = event {
                total.seconds += seconds;
                total.flops += report.flops;
            }
        })?;
        Ok(total)
    }

    fn events(&self, request: &Request, mut each: impl FnMut(&Event)) -> Result<()> {
        let gpu = self.pipeline.gpu();
        let mut run = self.pipeline.start(request.clone())?;
        loop {
            let next = block_on(gpu, run.next());
            signals::check()?;
            match next? {
                Some(event) => each(&event),
                None => return Ok(()),
            }
        }
    }

    fn settings(&self, request: &Request) -> Result<Settings> {
        Ok(self.pipeline.settings(request)?)
    }

    fn place(&self, settings: &Settings) -> Place {
        let report = self.pipeline.gpu().report();
        Place {
            adapter: report.name.clone(),
            backend: report.backend,
            model: self.name.clone(),
            width: settings.width,
            height: settings.height,
        }
    }

    fn say(&self, text: &str) {
        if !self.quiet {
            output::diagnostic(text);
        }
    }
}

impl Measured {
    fn new(ralu: &str, steps: usize, seconds: Vec<f64>) -> Self {
        let median_seconds = median(seconds.clone());
        Measured { ralu: ralu.to_owned(), steps, seconds, median_seconds }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} ({}), {}, {} x {}",
            self.adapter, self.backend, self.model, self.width, self.height
        )
    }
}

/// The same stages with one step each.
fn one_step_each(params: &RaluParams) -> RaluChoice {
    RaluChoice::Custom {
        stage_steps: [1, 1, 1],
        stage_ends: params.stage_ends,
        up_ratio: params.up_ratio,
        shifts: Some(params.shifts),
        z: Some(params.z),
    }
}

/// The middle one; 0 of none.
fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    let n = numbers.len();
    match n {
        0 => 0.0,
        _ if n % 2 == 1 => numbers[n / 2],
        _ => (numbers[n / 2 - 1] + numbers[n / 2]) / 2.0,
    }
}
