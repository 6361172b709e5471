//! Where the time of a run goes, kernel by kernel.

use std::collections::HashMap;
use std::fmt::Write;

use ralu::gpu::{KernelTime, ProgramTimes};
use ralu::pipeline::Event;
use serde::Serialize;

/// Rows of a program's table; the rest is summed up in one more.
const ROWS: usize = 24;

/// Collects what a profiled run tells.
#[derive(Default)]
pub struct Profile {
    /// Programs whose purpose is not known yet.
    pending: usize,
    programs: Vec<ProgramTimes>,
    steps: Vec<Steps>,
}

/// The steps of a stage: their kernels beside their time from beginning to end.
#[derive(Clone, Serialize)]
pub struct Steps {
    stage: usize,
    steps: usize,
    /// Of all steps.
    seconds: f64,
    /// Of all their kernels.
    kernel_seconds: f64,
    /// The second over the first.
    share: f64,
}

/// What is printed.
#[derive(Serialize)]
pub struct Report {
    steps: Vec<Steps>,
    programs: Vec<Program>,
}

/// A program, on average over its runs.
#[derive(Serialize)]
struct Program {
    program: String,
    runs: usize,
    /// Of all kernels of a run.
    kernel_seconds: f64,
    /// By kernel.
    totals: Vec<Row>,
    /// By kernel and place in the network.
    kernels: Vec<Row>,
}

/// Dispatches that belong together, on average over a program's runs.
#[derive(Serialize)]
struct Row {
    /// Shader and entry point.
    kernel: String,
    /// Their labels, with `*` for numbers; absent in totals.
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<String>,
    calls: usize,
    seconds: f64,
    /// Of the program's kernels.
    share: f64,
    gflops_per_second: f64,
    gb_per_second: f64,
}

impl Profile {
    /// Takes note of an event. Programs are told before the event that they ran for.
    pub fn event(&mut self, event: &Event) {
        match event {
            Event::Profile(times) => {
                self.programs.push(times.clone());
                self.pending += 1;
                return;
            }
            Event::Step(step) => {
                let ran = &self.programs[self.programs.len() - self.pending..];
                let kernels: f64 = ran.iter().map(ProgramTimes::kernel_seconds).sum();
                let number = step.stage;
                while self.steps.len() < number {
                    let stage = self.steps.len() + 1;
                    let none =
                        Steps { stage, steps: 0, seconds: 0.0, kernel_seconds: 0.0, share: 0.0 };
                    self.steps.push(none);
                }
                let stage = &mut self.steps[number - 1];
                stage.steps += 1;
                stage.seconds += step.seconds;
                stage.kernel_seconds += kernels;
                stage.share = stage.kernel_seconds / stage.seconds;
            }
            _ => {}
        }
        self.pending = 0;
    }

    /// Averages and sums.
    pub fn report(&self) -> Report {
        let mut order: Vec<&str> = vec![];
        let mut runs: HashMap<&str, Vec<&ProgramTimes>> = HashMap::new();
        for times in &self.programs {
            let runs = runs.entry(&times.program).or_default();
            if runs.is_empty() {
                order.push(&times.program);
            }
            runs.push(times);
        }
        let programs = order.into_iter().map(|name| Program::new(name, &runs[name])).collect();
        Report { steps: self.steps.clone(), programs }
    }
}

impl Program {
    fn new(name: &str, runs: &[&ProgramTimes]) -> Self {
        let kernels = || runs.iter().flat_map(|run| &run.kernels);
        Program {
            program: name.to_owned(),
            runs: runs.len(),
            kernel_seconds: kernels().map(|kernel| kernel.seconds).sum::<f64>() / runs.len() as f64,
            totals: rows(kernels(), runs.len(), |_| None),
            kernels: rows(kernels(), runs.len(), |label| Some(pattern(label))),
        }
    }
}

/// Groups kernels, the slowest group first.
fn rows<'a>(
    kernels: impl Iterator<Item = &'a KernelTime>,
    runs: usize,
    place: impl Fn(&str) -> Option<String>,
) -> Vec<Row> {
    #[derive(Default)]
    struct Sum {
        calls: usize,
        seconds: f64,
        flops: f64,
        bytes: f64,
    }
    let mut sums: HashMap<(&str, Option<String>), Sum> = HashMap::new();
    for kernel in kernels {
        let sum = sums.entry((&kernel.kernel, place(&kernel.label))).or_default();
        sum.calls += 1;
        sum.seconds += kernel.seconds;
        sum.flops += kernel.flops;
        sum.bytes += kernel.bytes;
    }
    let all: f64 = sums.values().map(|sum| sum.seconds).sum();
    let rate = |amount: f64, seconds: f64| if seconds > 0.0 { amount / seconds / 1e9 } else { 0.0 };
    let mut rows: Vec<Row> = sums
        .into_iter()
        .map(|((kernel, label), sum)| Row {
            kernel: kernel.to_owned(),
            label,
            calls: sum.calls / runs,
            seconds: sum.seconds / runs as f64,
            share: if all > 0.0 { sum.seconds / all } else { 0.0 },
            gflops_per_second: rate(sum.flops, sum.seconds),
            gb_per_second: rate(sum.bytes, sum.seconds),
        })
        .collect();
    let key = |row: &Row| (row.kernel.clone(), row.label.clone());
    rows.sort_by(|a, b| b.seconds.total_cmp(&a.seconds).then_with(|| key(a).cmp(&key(b))));
    rows
}

/// `double.3.attn` → `double.*.attn`: blocks of a kind are one row.
fn pattern(label: &str) -> String {
    let part = |part: &str| match part.bytes().all(|byte| byte.is_ascii_digit()) {
        true => "*".to_owned(),
        false => part.to_owned(),
    };
    label.split('.').map(part).collect::<Vec<_>>().join(".")
}

impl Report {
    /// For people.
    pub fn table(&self) -> String {
        let mut text = String::new();
        for stage in &self.steps {
            let n = stage.steps as f64;
            let _ = writeln!(
                text,
                "stage {}: {} steps of {:.4} s; kernels {:.4} s, {:.1} %",
                stage.stage,
                stage.steps,
                stage.seconds / n,
                stage.kernel_seconds / n,
                100.0 * stage.share
            );
        }
        for program in &self.programs {
            let _ = writeln!(
                text,
                "\n{}: kernels {:.3} ms, {} runs\n{:>10} {:>7} {:>6} {:>9} {:>8}  kernel",
                program.program,
                1e3 * program.kernel_seconds,
                program.runs,
                "ms",
                "share",
                "calls",
                "GFLOP/s",
                "GB/s"
            );
            for row in &program.totals {
                row.write(&mut text);
            }
            text.push('\n');
            for row in program.kernels.iter().take(ROWS) {
                row.write(&mut text);
            }
            let rest = program.kernels.get(ROWS..).unwrap_or_default();
            if !rest.is_empty() {
                let sum = |of: fn(&Row) -> f64| rest.iter().map(of).sum::<f64>();
                let _ = writeln!(
                    text,
                    "{:>10.3} {:>5.1} % {:>6}  in {} more rows (all of them in --json)",
                    1e3 * sum(|row| row.seconds),
                    100.0 * sum(|row| row.share),
                    rest.iter().map(|row| row.calls).sum::<usize>(),
                    rest.len()
                );
            }
        }
        text
    }
}

impl Row {
    fn write(&self, text: &mut String) {
        let _ = writeln!(
            text,
            "{:>10.3} {:>5.1} % {:>6} {:>9.1} {:>8.2}  {:<24} {}",
            1e3 * self.seconds,
            100.0 * self.share,
            self.calls,
            self.gflops_per_second,
            self.gb_per_second,
            self.kernel,
            self.label.as_deref().unwrap_or("")
        );
    }
}
