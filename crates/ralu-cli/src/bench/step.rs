//! `ralu bench step`: single steps, plain and in each stage of RALU.

use std::fmt::Write;

use ralu::pipeline::{Event, Request, RunSchedule, StageKind};
use ralu::sampling::RegionScore;
use serde::{Deserialize, Serialize};

use super::super::chips::percent;
use super::super::environment::Environment;
use super::super::error::Result;
use super::super::profile::{Profile, Profiles};
use super::chip::{Chip, EstimatedSeconds};
use super::report::{Report, Row};
use super::stopwatch::{Medians, Spent};
use super::{Bench, WarmUp};

#[derive(Serialize, Deserialize)]
pub struct StepReport {
    #[serde(flatten)]
    environment: Environment,
    #[serde(skip_deserializing)]
    chip: Chip,
    stages: Vec<StageReport>,
    /// Of the plain steps and of RALU's, if they were asked for.
    #[serde(skip_serializing_if = "Option::is_none", skip_deserializing)]
    profiles: Option<Profiles>,
}

#[derive(Serialize, Deserialize)]
struct StageReport {
    /// The preset's name, `custom` or `off`.
    ralu: String,
    stage: usize,
    kind: String,
    tokens: usize,
    /// Of one step.
    #[serde(flatten)]
    took: Medians,
    /// Operations of one step over its seconds.
    gflops_per_second: f64,
    /// The same over its processor time, where the adapter is a processor.
    #[serde(skip_serializing_if = "Option::is_none")]
    gflops_per_cpu_second: Option<f64>,
    /// Of what the chip can do at most, where that is known.
    #[serde(skip_serializing_if = "Option::is_none", skip_deserializing)]
    share_of_peak: Option<f64>,
    /// What a step should take by arithmetic, where that was done for the chip.
    #[serde(skip_serializing_if = "Option::is_none", skip_deserializing)]
    estimated_seconds: Option<EstimatedSeconds>,
    measured_steps: usize,
}

/// Measures the steps of a plain run and of one with RALU.
///
/// A step costs the same at every noise level, so stages have no more of them than are measured; and whichever regions are
/// chosen, so nothing is decoded to choose them.
pub fn measure(bench: &Bench) -> Result<StepReport> {
    let ralu = bench.settings(&bench.ralu)?;
    let runs = bench.runs;
    let from_latents = |request: Request| {
        request.with(|request| {
            request.rules.region_score.get_or_insert(RegionScore::LatentGradient);
        })
    };
    let bench = &Bench { ralu: from_latents(bench.ralu.clone()), ..bench.clone() };
    bench.warm_up(&ralu, WarmUp::Steps)?;
    let plain = super::with_steps(&bench.plain, None, runs);
    let staged = match &ralu.cache {
        None => bench.short(&ralu, runs),
        // What it reuses depends on the steps before.
        Some(_) => bench.ralu.clone().with(|request| request.count = Some(runs)),
    };
    let chip = Chip::of(bench.pipeline.gpu());
    let (mut stages, mut profiles) = (Vec::new(), Profiles::new(chip.peak));
    for (name, request) in [("off", plain), (ralu.ralu_name.as_str(), staged)] {
        stages.extend(measure_stages(bench, name, &request, &chip)?);
        if bench.profile {
            bench.say("timing kernels");
            let request = request.with(|request| {
                request.count = Some(1);
                request.profile = true;
            });
            let mut profile = Profile::default();
            bench.steps(&request, |event, _| profile.event(event))?;
            profiles.add(name, profile.of_steps());
        }
    }
    let profiles = bench.profile.then_some(profiles);
    Ok(StepReport { environment: bench.environment(&ralu), chip, stages, profiles })
}

fn measure_stages(
    bench: &Bench,
    name: &str,
    request: &Request,
    chip: &Chip,
) -> Result<Vec<StageReport>> {
    let settings = bench.settings(request)?;
    let schedule = RunSchedule::new(&settings, &bench.config)?;
    let mut spent = vec![Vec::new(); schedule.stages.len()];
    bench.steps(request, |event, Spent { cpu_seconds, .. }| {
        if let Event::Step(step) = event {
            spent[step.stage - 1].push(Spent { seconds: step.seconds, cpu_seconds });
        }
    })?;
    let text = bench.config.text_tokens(settings.max_sequence_length);
    let evaluations = settings.evaluations_per_step() as f64;
    let report = |(i, (stage, spent)): (usize, (&ralu::pipeline::StageSpec, Vec<Spent>))| {
        let step = bench.config.transformer.step_flops(stage.n_tokens, text);
        let flops = step * evaluations;
        let took = Medians::of(&spent);
        StageReport {
            ralu: name.to_owned(),
            stage: i + 1,
            kind: kind_name(stage.kind).to_owned(),
            tokens: stage.n_tokens,
            took,
            gflops_per_second: took.rate(flops.total()),
            gflops_per_cpu_second: took.cpu_rate(flops.total()),
            share_of_peak: chip.share(took.rate(flops.total())),
            estimated_seconds: chip.estimated(flops),
            measured_steps: spent.len(),
        }
    };
    Ok(schedule.stages.iter().zip(spent).enumerate().map(report).collect())
}

fn kind_name(kind: StageKind) -> &'static str {
    match kind {
        StageKind::Low => "low",
        StageKind::Mixed => "mixed",
        StageKind::Full => "full",
    }
}

impl StepReport {
    /// Operations a second of plain steps.
    pub fn plain_flops_per_second(&self) -> Option<f64> {
        let plain = self.stages.iter().find(|stage| stage.ralu == "off")?;
        Some(plain.gflops_per_second * 1e9)
    }

    /// The kernels' times, if they were asked for.
    pub fn profiles(&self) -> Option<&Profiles> {
        self.profiles.as_ref()
    }
}

impl Report for StepReport {
    const BENCH: &'static str = "step";

    fn environment(&self) -> &Environment {
        &self.environment
    }

    fn rows(&self) -> Vec<Row> {
        let row = |stage: &StageReport| Row {
            name: format!("{} stage {} {}", stage.ralu, stage.stage, stage.kind),
            took: stage.took,
        };
        self.stages.iter().map(row).collect()
    }

    fn text(&self) -> String {
        let per_cpu = self.stages.iter().any(|stage| stage.gflops_per_cpu_second.is_some());
        let estimated = self.stages.iter().any(|stage| stage.estimated_seconds.is_some());
        let mut text = format!("{}\n", self.chip.about());
        text.push_str("RALU    stage    tokens  seconds a step   GFLOP/s");
        text.push_str(if per_cpu { "  per CPU second" } else { "  of peak" });
        text.push_str(if estimated { "  estimated, goal" } else { "" });
        text.push_str("  (median of)\n");
        for stage in &self.stages {
            let further = match stage.gflops_per_cpu_second {
                Some(rate) => format!(" {rate:>15.1}"),
                None if per_cpu => format!(" {:>15}", ""),
                None => format!(" {:>8}", percent(stage.share_of_peak)),
            };
            let estimated = stage.estimated_seconds.map_or(String::new(), |seconds| {
                format!(" {:>9.3} {:>6.3}", seconds.built, seconds.goal)
            });
            let _ = writeln!(
                text,
                "{:<7} {} {:<6} {:>6}  {:>14.4} {:>9.1}{further}{estimated}  {}",
                stage.ralu,
                stage.stage,
                stage.kind,
                stage.tokens,
                stage.took.median_seconds,
                stage.gflops_per_second,
                stage.measured_steps
            );
        }
        if let Some(profiles) = &self.profiles {
            let _ = write!(text, "\n{}", profiles.text());
        }
        text
    }
}
