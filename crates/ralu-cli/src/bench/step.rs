//! `ralu bench step`: single steps, plain and in each stage of RALU.

use std::fmt::Write;

use ralu::pipeline::{Event, Request, RunSchedule, StageKind};
use serde::{Deserialize, Serialize};

use super::super::environment::Environment;
use super::super::error::Result;
use super::super::profile::{Profile, Profiles};
use super::Bench;
use super::report::{Report, Row};
use super::stopwatch::{Medians, Spent};

#[derive(Serialize, Deserialize)]
pub struct StepReport {
    #[serde(flatten)]
    environment: Environment,
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
    measured_steps: usize,
}

/// Measures the steps of a plain run and of one with RALU.
pub fn measure(bench: &Bench, profile: bool) -> Result<StepReport> {
    let ralu = bench.settings(&bench.ralu)?;
    bench.warm_up(&ralu)?;
    // A plain step costs the same at every noise level.
    let few = bench.plain.clone().with(|request| request.steps = Some(bench.runs));
    let repeated = bench.ralu.clone().with(|request| request.count = Some(bench.runs));
    let (mut stages, mut profiles) = (Vec::new(), Profiles::default());
    for request in [few, repeated] {
        stages.extend(measure_stages(bench, &request)?);
        if profile {
            let name = bench.settings(&request)?.ralu_name;
            let request = request.with(|request| {
                request.count = Some(1);
                request.profile = true;
            });
            let mut profile = Profile::default();
            bench.events(&request, |event, _| profile.event(event))?;
            profiles.add(&name, profile.of_steps());
        }
    }
    let profiles = profile.then_some(profiles);
    Ok(StepReport { environment: bench.environment(&ralu), stages, profiles })
}

fn measure_stages(bench: &Bench, request: &Request) -> Result<Vec<StageReport>> {
    let settings = bench.settings(request)?;
    let schedule = RunSchedule::new(&settings, &bench.config)?;
    let mut spent = vec![Vec::new(); schedule.stages.len()];
    bench.events(request, |event, Spent { cpu_seconds, .. }| {
        if let Event::Step(step) = event {
            spent[step.stage - 1].push(Spent { seconds: step.seconds, cpu_seconds });
        }
    })?;
    let text = bench.config.text_tokens(settings.max_sequence_length);
    let evaluations = settings.evaluations_per_step() as f64;
    let report = |(i, (stage, spent)): (usize, (&ralu::pipeline::StageSpec, Vec<Spent>))| {
        let step = bench.config.transformer.step_flops(stage.n_tokens, text);
        let flops = evaluations * step.total();
        let took = Medians::of(&spent);
        StageReport {
            ralu: settings.ralu_name.clone(),
            stage: i + 1,
            kind: kind_name(stage.kind).to_owned(),
            tokens: stage.n_tokens,
            took,
            gflops_per_second: took.rate(flops),
            gflops_per_cpu_second: took.cpu_rate(flops),
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
        let mut text = String::from("RALU    stage    tokens  seconds a step   GFLOP/s");
        text.push_str(if per_cpu { "  per CPU second  (median of)\n" } else { "  (median of)\n" });
        for stage in &self.stages {
            let cpu =
                stage.gflops_per_cpu_second.map_or(String::new(), |rate| format!(" {rate:>15.1}"));
            let _ = writeln!(
                text,
                "{:<7} {} {:<6} {:>6}  {:>14.4} {:>9.1}{cpu}  {}",
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
