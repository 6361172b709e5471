//! `ralu bench`: measurements. A number without the adapter's name is not a result, so that comes with each.

mod chip;
mod compare;
mod device;
mod effects;
mod estimates;
mod limits;
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
use ralu::gpu::{Gpu, block_on};
use ralu::models::config::ModelConfig;
use ralu::pipeline::{
    Event, Options, Pipeline, RaluChoice, Request, RunSchedule, Settings, plan::baseline_steps,
};
use ralu::sampling::{CustomStages, RaluParams};
use ralu_host::open_pipeline;

use super::args::{BenchArg, BenchArgs, QualityArgs};
use super::environment::Environment;
use super::error::{Error, Result};
use super::files::Checks;
use super::model::Planned;
use super::profile::{Profiles, TraceFile};
use super::request::{self, ParsedRequest};
use super::tune::TuneTarget;
use super::{model, output, signals, speeds};
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
        if args.json_file().is_some() {
            return Err(Error::usage(
                "`ralu bench quality` writes results.json to its --output; expected --json without a file name, or another \
                 bench",
            ));
        }
        return quality::run(args, quiet);
    }
    if args.quality != QualityArgs::default() {
        return Err(Error::usage(
            "--prompts, --seeds, --setting, --settings, --reference-steps and --output belong to `ralu bench \
             quality`; leave them out or measure that",
        ));
    }
    effects::warn_of_unused(args);
    match args.what {
        BenchArg::Ops if args.profile.is_some() => Err(Error::usage(
            "--profile belongs to `ralu bench step` and `run`: `ops` measures one kernel at a time as it is",
        )),
        BenchArg::Load => load::run(args, quiet),
        BenchArg::Ops => show(args, quiet, ops::measure, |_| None),
        BenchArg::Step => {
            let measure = |args: &BenchArgs, quiet| {
                let bench = Bench::open(args, quiet)?;
                let report = step::measure(&bench)?;
                if let Some(rate) = report.plain_flops_per_second() {
                    speeds::note(&args.tuning, bench.pipeline.gpu().report(), |speed| {
                        speed.step_flops_per_second = Some(rate);
                    });
                }
                Ok(report)
            };
            show(args, quiet, measure, step::StepReport::profiles)
        }
        BenchArg::Run | BenchArg::Quality => {
            let measure = |args: &BenchArgs, quiet| run::measure(&Bench::open(args, quiet)?);
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
    let mut checks = checks(args);
    trace.check(&mut checks)?;
    if let Some(path) = args.json_file() {
        checks.output(path, "the report")?;
    }
    let report = measure(args, quiet)?;
    if let Some(profiles) = profiles(&report)
        && let Some(path) = trace.write(profiles, report.environment())?
        && !quiet
    {
        output::diagnostic(&format!("trace: {}", output::shown(path)));
    }
    report::show(&report, earlier.as_ref(), args)
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
    if let Ok(model) = model::open(&args.request.model) {
        model.paths.iter().for_each(|path| checks.model(path));
    }
    checks
}

/// An open model and what is measured with it.
#[derive(Clone)]
struct Bench {
    pipeline: Pipeline,
    config: ModelConfig,
    plain: Request,
    ralu: Request,
    options: Options,
    name: String,
    runs: usize,
    /// Whether kernels are timed, too.
    profile: bool,
    quiet: bool,
}

impl Bench {
    fn open(args: &BenchArgs, quiet: bool) -> Result<Self> {
        let ParsedRequest { mut request, model, weights, .. } = request::plain(&args.request)?;
        let options = weights.options()?;
        let planned = model::planned(&model)?;
        let config = planned.config.clone();
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
        let settings_of_ralu = Settings::resolve(&ralu, &config)?;
        effects::warn_of(&[&settings, &settings_of_ralu]);
        let target = TuneTarget {
            config: &config,
            source: planned.files.as_ref().map(|files| files as &dyn Source),
            settings: &settings,
            options,
        };
        let fits = |gpu: &Gpu| {
            limits::check_memory(gpu, &planned, [&settings, &settings_of_ralu], options, quiet)
        };
        let gpu = device::open(&args.adapter.choice(), &args.tuning, &target, quiet, fits)?;
        let profile = args.profile.is_some() || args.json_file().is_some();
        let can_profile = limits::has_clock(&gpu);
        // Who asks for nothing but kernels' times is told by an error that there are none.
        if profile && !can_profile && args.profile.is_none() && !quiet {
            output::diagnostic(
                "this adapter has no timestamps: the report has the times of steps, and none of kernels",
            );
        }
        let profile = args.profile.is_some() || (profile && can_profile);
        let Planned { files, name, .. } = planned;
        let pipeline = match files {
            Some(files) => open_pipeline(gpu, Box::new(files), options)?,
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
        Ok(Bench { pipeline, config, plain, ralu, options, name, runs, profile, quiet })
    }

    /// Runs each program once, or only those of steps, so that no measured run compiles or loads anything. Says what a step
    /// takes, as that is how long one has to wait.
    fn warm_up(&self, ralu: &Settings, what: WarmUp) -> Result<()> {
        self.say("warming up");
        let told = |event: &Event| {
            if let Event::Step(step) = event {
                self.say(&format!(
                    "the first step of stage {} took {:.2} s",
                    step.stage, step.seconds
                ));
            }
        };
        let plain = with_steps(&self.plain, None, 1);
        let ralu = self.short(ralu, 1);
        for request in [plain, ralu] {
            match what {
                WarmUp::Steps => self.steps(&request, |event, _| told(event))?,
                WarmUp::Pictures => self.events(&request, |event, _| told(event))?,
            }
        }
        Ok(())
    }

    /// The request of RALU with so many steps in each stage; as it is where a cache of plain sampling is measured.
    fn short(&self, ralu: &Settings, steps: usize) -> Request {
        match &ralu.ralu {
            None => self.ralu.clone(),
            params => with_steps(&self.ralu, params.as_ref(), steps),
        }
    }

    /// Runs a request. Each event comes with what was spent since the one before it.
    fn events(&self, request: &Request, mut each: impl FnMut(&Event, Spent)) -> Result<()> {
        self.events_while(request, |event, spent| {
            each(event, spent);
            true
        })
    }

    /// Runs a request until `each` gives false.
    fn events_while(
        &self,
        request: &Request,
        mut each: impl FnMut(&Event, Spent) -> bool,
    ) -> Result<()> {
        let gpu = self.pipeline.gpu();
        let on_cpu = stopwatch::on_cpu(gpu.report());
        let mut run = self.pipeline.start(request.clone())?;
        loop {
            let stopwatch = Stopwatch::start(on_cpu);
            let next = block_on(gpu, run.next());
            signals::check()?;
            match next? {
                Some(event) if each(&event, stopwatch.spent()) => {}
                _ => return Ok(()),
            }
        }
    }

    /// The steps of a request, and nothing after its last one: each event with what was spent since the one before it.
    fn steps(&self, request: &Request, mut each: impl FnMut(&Event, Spent)) -> Result<()> {
        let settings = self.settings(request)?;
        let all = settings.count * RunSchedule::new(&settings, &self.config)?.steps();
        let mut done = 0;
        self.events_while(request, |event, spent| {
            each(event, spent);
            done += usize::from(matches!(event, Event::Step(_)));
            done < all
        })
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

/// What is run before anything is measured.
#[derive(Clone, Copy)]
enum WarmUp {
    Steps,
    Pictures,
}

/// The request with so many steps in each of its stages. `ralu` has the stages' parameters, if there are some.
fn with_steps(request: &Request, ralu: Option<&RaluParams>, steps: usize) -> Request {
    request.clone().with(|request| match ralu {
        Some(params) => {
            let stage_steps = vec![steps; params.stage_steps.len()];
            request.ralu = RaluChoice::Custom(CustomStages { stage_steps, ..params.into() });
        }
        None => {
            request.ralu = RaluChoice::Off;
            request.steps = Some(steps);
        }
    })
}
