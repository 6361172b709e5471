//! `ralu bench`: measurements. A number without the adapter's name is not a result, so that comes with each.

mod compare;
mod device;
mod effects;
mod load;
mod op;
mod ops;
mod quality;
mod read;
mod report;
mod run;
mod step;
mod stopwatch;

use ralu::checkpoint::source::Source;
use ralu::escape::Escaped;
use ralu::gpu::block_on;
use ralu::models::config::ModelConfig;
use ralu::pipeline::{
    Event, Options, Pipeline, RaluChoice, Request, RunSchedule, Settings, plan::baseline_steps,
};
use ralu::sampling::{CustomStages, RaluParams};

use super::args::{BenchArg, BenchArgs, QualityArgs};
use super::environment::Environment;
use super::error::{Error, Result};
use super::files::Checks;
use super::model::Planned;
use super::profile::{Profiles, TraceFile};
use super::request::{self, ParsedRequest};
use super::tune::TuneTarget;
use super::{model, output, signals};
use compare::Earlier;
use report::Report;
use stopwatch::{Spent, Stopwatch};

/// What is drawn; its content does not matter.
const PROMPT: &str = "a fox on a purple background";
/// How often runs and steps are measured if the user does not say.
const RUNS: usize = 3;

/// Runs the command.
pub fn run(args: &BenchArgs, quiet: bool) -> Result<()> {
    signals::listen()?;
    if matches!(args.what, BenchArg::Quality | BenchArg::Load)
        && (args.compare.is_some() || args.profile.is_some())
    {
        return Err(Error::usage(
            "--compare and --profile belong to `ralu bench ops`, `step` and `run`; leave them out or measure \
             one of those",
        ));
    }
    if args.what == BenchArg::Quality {
        return quality::run(args, quiet);
    }
    if args.quality != QualityArgs::default() {
        return Err(Error::usage(
            "--prompts, --seeds, --setting, --settings, --reference-steps and --output belong to `ralu bench \
             quality`; leave them out or measure that",
        ));
    }
    effects::warn_of_unused(args);
    let profile = args.profile.is_some();
    match args.what {
        BenchArg::Ops if profile => Err(Error::usage(
            "--profile belongs to `ralu bench step` and `run`: `ops` measures one kernel at a time as it is",
        )),
        BenchArg::Load => load::run(args, quiet),
        BenchArg::Ops => show(args, quiet, ops::measure, |_| None),
        BenchArg::Step => {
            let measure =
                |args: &BenchArgs, quiet| step::measure(&Bench::open(args, quiet)?, profile);
            show(args, quiet, measure, step::StepReport::profiles)
        }
        BenchArg::Run | BenchArg::Quality => {
            let measure =
                |args: &BenchArgs, quiet| run::measure(&Bench::open(args, quiet)?, profile);
            show(args, quiet, measure, run::RunReport::profiles)
        }
    }
}

/// Measures and shows. Files are read and tried out before anything is measured.
fn show<R: Report>(
    args: &BenchArgs,
    quiet: bool,
    measure: impl Fn(&BenchArgs, bool) -> Result<R>,
    profiles: impl Fn(&R) -> Option<&Profiles>,
) -> Result<()> {
    let earlier = Earlier::read(args.compare.as_deref())?;
    let trace = TraceFile::new(args.profile.as_ref());
    trace.check(&mut checks(args))?;
    let report = measure(args, quiet)?;
    if let Some(profiles) = profiles(&report)
        && let Some(path) = trace.write(profiles, report.environment())?
        && !quiet
    {
        output::diagnostic(&format!("trace: {}", output::shown(path)));
    }
    report::show(&report, earlier.as_ref(), args.json)
}

/// What a bench reads, so that nothing it writes can replace that.
fn checks(args: &BenchArgs) -> Checks {
    let mut checks = Checks::default();
    let read = [
        (&args.compare, "the report of --compare"),
        (&args.request.regions, "the mask of --regions"),
        (&args.quality.prompts, "the prompts"),
        (&args.quality.settings, "the settings"),
    ];
    for (path, what) in read {
        if let Some(path) = path {
            checks.input(path, what);
        }
    }
    // A model that cannot be opened is told of by what opens it.
    if let Ok(model) = model::open(args.request.model.as_deref()) {
        checks.model(&model.path);
    }
    checks
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

impl Bench {
    fn open(args: &BenchArgs, quiet: bool) -> Result<Self> {
        let ParsedRequest { mut request, model, precision, .. } = request::plain(&args.request)?;
        let Planned { config, folder, name } = model::planned(model.as_deref())?;
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
            RaluChoice::Auto => {
                let fastest = config.family().presets(&config).presets().pop();
                ralu.ralu = fastest.map_or(RaluChoice::Auto, RaluChoice::Preset);
            }
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
        let settings = Settings::resolve(&plain, &config)?;
        effects::warn_of(&[&settings, &Settings::resolve(&ralu, &config)?]);
        let target = TuneTarget {
            config: &config,
            source: folder.as_ref().map(|folder| folder as &dyn Source),
            settings: &settings,
            precision,
        };
        let gpu = device::open(&args.adapter.choice(), &args.tuning, &target, quiet)?;
        let options = Options::default().with(|options| options.precision = precision);
        let pipeline = match folder {
            Some(folder) => Pipeline::open(gpu, Box::new(folder), options)?,
            // A model that is not on this machine.
            None => {
                if !quiet {
                    output::diagnostic(&format!(
                        "{}: with random weights, which are made on the GPU, and without text encoders",
                        Escaped(&name)
                    ));
                }
                Pipeline::random(gpu, config.clone(), &name, options)?
            }
        };
        let runs = args.runs.unwrap_or(RUNS);
        Ok(Bench { pipeline, config, plain, ralu, options, name, runs, quiet })
    }

    /// Runs each program once, so that no measured run compiles or loads anything.
    fn warm_up(&self, ralu: &Settings) -> Result<()> {
        self.say("warming up");
        self.events(&self.plain.clone().with(|request| request.steps = Some(1)), |_, _| {})?;
        let choice = match &ralu.ralu {
            Some(params) => one_step_each(params),
            None => RaluChoice::Off,
        };
        self.events(&self.ralu.clone().with(|request| request.ralu = choice), |_, _| {})
    }

    /// Runs a request. Each event comes with what was spent since the one before it.
    fn events(&self, request: &Request, mut each: impl FnMut(&Event, Spent)) -> Result<()> {
        let gpu = self.pipeline.gpu();
        let on_cpu = stopwatch::on_cpu(gpu.report());
        let mut run = self.pipeline.start(request.clone())?;
        loop {
            let stopwatch = Stopwatch::start(on_cpu);
            let next = block_on(gpu, run.next());
            signals::check()?;
            match next? {
                Some(event) => each(&event, stopwatch.spent()),
                None => return Ok(()),
            }
        }
    }

    fn settings(&self, request: &Request) -> Result<Settings> {
        Ok(self.pipeline.settings(request)?)
    }

    fn environment(&self, settings: &Settings) -> Environment {
        Environment::new(self.pipeline.gpu().report(), &self.name, settings)
    }

    fn say(&self, text: &str) {
        if !self.quiet {
            output::diagnostic(text);
        }
    }
}

/// The same stages with one step each.
fn one_step_each(params: &RaluParams) -> RaluChoice {
    let stage_steps = vec![1; params.stage_steps.len()];
    RaluChoice::Custom(CustomStages { stage_steps, ..params.into() })
}
