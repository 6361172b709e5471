//! `ralu bench run`: whole pictures, plain and with RALU.

use std::fmt::Write;

use ralu::models::cost::Flops;
use ralu::pipeline::{Event, Request, RunSchedule, Settings, plan::plan};
use serde::{Deserialize, Serialize};

use super::super::chips::percent;
use super::super::environment::Environment;
use super::super::error::Result;
use super::super::profile::{Profile, Profiles};
use super::chip::{Chip, EstimatedSeconds};
use super::report::{Report, Row};
use super::stopwatch::{Medians, Spent};
use super::{Bench, WarmUp};
use crate::median::median;

#[derive(Serialize, Deserialize)]
pub struct RunReport {
    #[serde(flatten)]
    environment: Environment,
    #[serde(skip_deserializing)]
    chip: Chip,
    plain: Measured,
    ralu: Measured,
    /// Median seconds of the plain runs over those of RALU's.
    measured_speedup: f64,
    /// The same by processor time, where the adapter is a processor.
    #[serde(skip_serializing_if = "Option::is_none")]
    measured_cpu_speedup: Option<f64>,
    /// What `ralu plan` says, attention included.
    predicted_speedup: f64,
    /// Measured over predicted.
    ratio: f64,
    /// Of a run under RALU, choosing regions: decoding the estimate, edges, ranking.
    region_seconds: f64,
    /// Of each request, if they were asked for.
    #[serde(skip_serializing_if = "Option::is_none", skip_deserializing)]
    profiles: Option<Profiles>,
}

#[derive(Serialize, Deserialize)]
struct Measured {
    /// The preset's name, `custom` or `off`.
    ralu: String,
    steps: usize,
    seconds: Vec<f64>,
    #[serde(flatten)]
    took: Medians,
    /// Operations of a picture over its seconds.
    #[serde(default)]
    gflops_per_second: f64,
    /// Of what the chip can do at most, where that is known.
    #[serde(skip_serializing_if = "Option::is_none", skip_deserializing)]
    share_of_peak: Option<f64>,
    /// What its steps should take by arithmetic, where that was done for the chip.
    #[serde(skip_serializing_if = "Option::is_none", skip_deserializing)]
    estimated_seconds_of_steps: Option<EstimatedSeconds>,
}

/// What a picture took.
#[derive(Default)]
struct Cost {
    spent: Vec<Spent>,
    region_seconds: Vec<f64>,
    /// Operations of the GPU's programs, by estimate.
    flops: f64,
}

/// Measures plain runs and RALU's in turn, so that a machine that slows down slows both down.
pub fn measure(bench: &Bench) -> Result<RunReport> {
    let (plain, ralu) = (bench.settings(&bench.plain)?, bench.settings(&bench.ralu)?);
    bench.warm_up(&ralu, WarmUp::Pictures)?;
    let mut costs = [Cost::default(), Cost::default()];
    for i in 0..bench.runs {
        let requests = [("plain", &plain, &bench.plain), ("RALU", &ralu, &bench.ralu)];
        for (cost, (name, settings, request)) in costs.iter_mut().zip(requests) {
            cost.add_run(bench, request)?;
            let seconds = cost.spent[i].seconds;
            let name =
                if name == "RALU" { format!("RALU {}", settings.ralu_name) } else { name.into() };
            bench.say(&format!("run {} of {}: {name} {seconds:.2} s", i + 1, bench.runs));
        }
    }
    let [plain_cost, ralu_cost] = costs;
    let predicted_speedup = predicted(bench, [&plain, &ralu], [plain_cost.flops, ralu_cost.flops])?;
    let region_seconds = median(ralu_cost.region_seconds.clone());
    let chip = Chip::of(bench.pipeline.gpu());
    let plain_runs = Measured::new(bench, "off", &plain, &plain_cost, &chip)?;
    let ralu_runs = Measured::new(bench, &ralu.ralu_name, &ralu, &ralu_cost, &chip)?;
    let measured_speedup = plain_runs.took.median_seconds / ralu_runs.took.median_seconds;
    let cpu = plain_runs.took.median_cpu_seconds.zip(ralu_runs.took.median_cpu_seconds);
    let mut profiles = Profiles::new(chip.peak);
    if bench.profile {
        for (name, request) in [("off", &bench.plain), (ralu.ralu_name.as_str(), &bench.ralu)] {
            bench.say("timing kernels");
            let request = request.clone().with(|request| request.profile = true);
            let mut profile = Profile::default();
            bench.events(&request, |event, _| profile.event(event))?;
            profiles.add(name, profile);
        }
    }
    Ok(RunReport {
        environment: bench.environment(&ralu),
        chip,
        plain: plain_runs,
        ralu: ralu_runs,
        measured_speedup,
        measured_cpu_speedup: cpu.map(|(plain, ralu)| plain / ralu),
        predicted_speedup,
        ratio: measured_speedup / predicted_speedup,
        region_seconds,
        profiles: bench.profile.then_some(profiles),
    })
}

/// The speed-up by `ralu plan`'s operations. With the family's full number of plain steps, this is what it prints.
fn predicted(bench: &Bench, settings: [&Settings; 2], done: [f64; 2]) -> Result<f64> {
    // No plan knows which steps a cache reuses that looks at values: what was done counts.
    if settings[1].cache.as_ref().is_some_and(|cache| cache.probe().is_some()) {
        return Ok(done[0] / done[1]);
    }
    let tflops = |settings: &Settings| {
        let caps = bench.pipeline.gpu().caps();
        let plan = plan(&bench.config, None, settings, caps, bench.options);
        plan.map(|plan| plan.tflops.with_attention)
    };
    Ok(tflops(settings[0])? / tflops(settings[1])?)
}

impl Cost {
    fn add_run(&mut self, bench: &Bench, request: &Request) -> Result<()> {
        let (mut cpu, mut regions) = (None, 0.0);
        bench.events(request, |event, spent| match event {
            // The picture begins: what loaded and compiled before does not count.
            Event::Stage(stage) if stage.stage == 1 => cpu = spent.cpu_seconds.map(|_| 0.0),
            Event::Image { seconds, report, .. } => {
                let cpu_seconds = cpu.zip(spent.cpu_seconds).map(|(before, last)| before + last);
                self.spent.push(Spent { seconds: *seconds, cpu_seconds });
                self.flops = report.flops;
            }
            event => {
                if let Event::Regions { seconds, .. } = event {
                    regions += seconds;
                }
                cpu = cpu.zip(spent.cpu_seconds).map(|(before, more)| before + more);
            }
        })?;
        self.region_seconds.push(regions);
        Ok(())
    }
}

impl Measured {
    fn new(
        bench: &Bench,
        ralu: &str,
        settings: &Settings,
        Cost { spent, flops, .. }: &Cost,
        chip: &Chip,
    ) -> Result<Self> {
        let schedule = RunSchedule::new(settings, &bench.config)?;
        let text = bench.config.text_tokens(settings.max_sequence_length);
        let of_steps = schedule.stages.iter().fold(Flops::default(), |sum, stage| {
            let step = bench.config.transformer.step_flops(stage.n_tokens, text);
            sum + step * (settings.evaluations_per_step() * stage.steps()) as f64
        });
        let took = Medians::of(spent);
        let rate = took.rate(*flops);
        Ok(Measured {
            ralu: ralu.to_owned(),
            steps: schedule.steps(),
            seconds: spent.iter().map(|spent| spent.seconds).collect(),
            took,
            gflops_per_second: rate,
            share_of_peak: chip.share(rate),
            // A cache leaves some of them out.
            estimated_seconds_of_steps: match settings.cache {
                None => chip.estimated(of_steps),
                Some(_) => None,
            },
        })
    }
}

impl RunReport {
    /// The kernels' times, if they were asked for.
    pub fn profiles(&self) -> Option<&Profiles> {
        self.profiles.as_ref()
    }
}

impl Report for RunReport {
    const BENCH: &'static str = "run";

    fn environment(&self) -> &Environment {
        &self.environment
    }

    fn conditions(&self) -> Vec<(&'static str, String)> {
        let steps = |measured: &Measured| format!("{} ({} steps)", measured.ralu, measured.steps);
        vec![("plain", steps(&self.plain)), ("RALU", steps(&self.ralu))]
    }

    fn rows(&self) -> Vec<Row> {
        [("plain", &self.plain), ("RALU", &self.ralu)]
            .map(|(name, measured)| Row { name: name.to_owned(), took: measured.took })
            .into()
    }

    fn text(&self) -> String {
        let mut text = format!("{}\n", self.chip.about());
        for (name, one) in [("plain", &self.plain), ("RALU", &self.ralu)] {
            let preset = if one.ralu == "off" { "" } else { &one.ralu };
            let cpu = one.took.median_cpu_seconds;
            let cpu = cpu.map_or(String::new(), |seconds| format!(", {seconds:.3} s of CPU time"));
            let share = one
                .share_of_peak
                .map_or(String::new(), |share| format!(", {} of its peak", percent(Some(share))));
            let estimated = one.estimated_seconds_of_steps.map_or(String::new(), |seconds| {
                format!(", steps estimated {:.2} s, goal {:.2} s", seconds.built, seconds.goal)
            });
            let _ = writeln!(
                text,
                "{:<10} {:>3} steps  {:>9.3} s{cpu} (median of {}){share}{estimated}",
                format!("{name} {preset}"),
                one.steps,
                one.took.median_seconds,
                one.seconds.len()
            );
        }
        let cpu = self.measured_cpu_speedup;
        let cpu = cpu.map_or(String::new(), |ratio| format!(" ({ratio:.2}x by CPU time)"));
        let _ = writeln!(
            text,
            "speed-up   measured {:.2}x{cpu}, predicted {:.2}x, {:.0} %",
            self.measured_speedup,
            self.predicted_speedup,
            100.0 * self.ratio
        );
        if self.region_seconds > 0.0 {
            let share = 100.0 * self.region_seconds / self.ralu.took.median_seconds;
            let _ = writeln!(
                text,
                "regions    {:.3} s to choose them, {share:.1} % of RALU's run",
                self.region_seconds
            );
        }
        if let Some(profiles) = &self.profiles {
            let _ = write!(text, "\n{}", profiles.text());
        }
        text
    }
}
