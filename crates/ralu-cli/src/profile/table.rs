//! Kernels that belong together, summed up.

use std::collections::HashMap;
use std::fmt;

use ralu::gpu::{KernelTime, ProgramTimes};
use serde::Serialize;

use crate::chips::{Peak, percent};
use crate::median::median;

/// Rows of a program's table; the rest is summed up in one more.
const ROWS: usize = 24;

/// A program: of each dispatch the median of its runs, as a run that something else disturbed tells little.
#[derive(Serialize)]
pub struct Table {
    program: String,
    runs: usize,
    /// Of all kernels of a run.
    kernel_seconds: f64,
    /// By kernel, the slowest first.
    totals: Vec<Row>,
    /// By kernel and place in the network, the slowest first.
    kernels: Vec<Row>,
}

/// Dispatches of a run that belong together.
#[derive(Serialize)]
struct Row {
    /// Shader and entry point.
    kernel: String,
    /// Their labels, with `*` for numbers; absent in totals.
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<String>,
    calls: usize,
    /// Of all calls.
    seconds: f64,
    /// Of the program's kernels.
    share: f64,
    gflops_per_second: f64,
    /// Buffers that are bound, each counted once.
    gb_per_second: f64,
    /// Of what the chip can do at most, where that is known: of its arithmetic or of its memory, whichever is nearer.
    #[serde(skip_serializing_if = "Option::is_none")]
    share_of_peak: Option<f64>,
}

/// A table for each program, in the order in which they ran first.
pub fn tables(times: &[ProgramTimes], peak: Option<&Peak>) -> Vec<Table> {
    let mut programs: Vec<Vec<&ProgramTimes>> = vec![];
    for times in times {
        // A program that was planned again, for other regions, has the same name and other dispatches.
        let same = |runs: &Vec<&ProgramTimes>| {
            runs[0].program == times.program && runs[0].kernels.len() == times.kernels.len()
        };
        match programs.iter_mut().find(|runs| same(runs)) {
            Some(runs) => runs.push(times),
            None => programs.push(vec![times]),
        }
    }
    programs.iter().map(|runs| Table::new(runs, peak)).collect()
}

impl Table {
    fn new(runs: &[&ProgramTimes], peak: Option<&Peak>) -> Self {
        let ProgramTimes { program, kernels } = runs[0];
        let medians = |(i, kernel): (usize, &KernelTime)| {
            let seconds = median(runs.iter().map(|run| run.kernels[i].seconds).collect());
            KernelTime { seconds, ..kernel.clone() }
        };
        let kernels: Vec<KernelTime> = kernels.iter().enumerate().map(medians).collect();
        Table {
            program: program.clone(),
            runs: runs.len(),
            kernel_seconds: kernels.iter().map(|kernel| kernel.seconds).sum(),
            totals: rows(&kernels, peak, |_| None),
            kernels: rows(&kernels, peak, |label| Some(pattern(label))),
        }
    }
}

#[derive(Default)]
struct Sum {
    calls: usize,
    seconds: f64,
    flops: f64,
    bytes: f64,
}

fn rows(
    kernels: &[KernelTime],
    peak: Option<&Peak>,
    place: impl Fn(&str) -> Option<String>,
) -> Vec<Row> {
    let mut sums: HashMap<(&str, Option<String>), Sum> = HashMap::new();
    for kernel in kernels {
        let sum = sums.entry((&kernel.kernel, place(&kernel.label))).or_default();
        sum.calls += 1;
        sum.seconds += kernel.seconds;
        sum.flops += kernel.flops;
        sum.bytes += kernel.bytes;
    }
    let all: f64 = sums.values().map(|sum| sum.seconds).sum();
    // A clock that is too coarse may see no time at all.
    let over = |amount: f64, by: f64| if by > 0.0 { amount / by } else { 0.0 };
    let row = |((kernel, label), sum): ((&str, Option<String>), Sum)| {
        let gflops_per_second = over(sum.flops, sum.seconds) / 1e9;
        let gb_per_second = over(sum.bytes, sum.seconds) / 1e9;
        let shader = kernel.split('.').next().unwrap_or(kernel);
        let share = |peak: &Peak| peak.share_of_nearer(shader, gflops_per_second, gb_per_second);
        Row {
            kernel: kernel.to_owned(),
            label,
            calls: sum.calls,
            seconds: sum.seconds,
            share: over(sum.seconds, all),
            gflops_per_second,
            gb_per_second,
            share_of_peak: peak.map(share),
        }
    };
    let mut rows: Vec<Row> = sums.into_iter().map(row).collect();
    rows.sort_by(|a, b| {
        let by_name = || (&a.kernel, &a.label).cmp(&(&b.kernel, &b.label));
        b.seconds.total_cmp(&a.seconds).then_with(by_name)
    });
    rows
}

/// `double.3.attn` → `double.*.attn`: blocks of a kind are one row.
fn pattern(label: &str) -> String {
    let is_number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let parts = label.split('.').map(|part| if is_number(part) { "*" } else { part });
    parts.collect::<Vec<_>>().join(".")
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Table { program, runs, kernel_seconds, totals, kernels } = self;
        writeln!(f, "{program}: kernels {:.3} ms (median of {runs})", 1e3 * kernel_seconds)?;
        writeln!(f, "        ms   share  calls   GFLOP/s     GB/s of peak  kernel")?;
        for row in totals {
            writeln!(f, "{row}")?;
        }
        writeln!(f, "by place in the network")?;
        for row in kernels.iter().take(ROWS) {
            writeln!(f, "{row}")?;
        }
        let rest = kernels.get(ROWS..).unwrap_or_default();
        if rest.is_empty() {
            return Ok(());
        }
        let sum = |of: fn(&Row) -> f64| rest.iter().map(of).sum::<f64>();
        writeln!(
            f,
            "{:>10.3} {:>5.1} % {:>6}{:>28}{} more rows, all in --json",
            1e3 * sum(|row| row.seconds),
            100.0 * sum(|row| row.share),
            rest.iter().map(|row| row.calls).sum::<usize>(),
            "",
            rest.len()
        )
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Row {
            kernel,
            label,
            calls,
            seconds,
            share,
            gflops_per_second,
            gb_per_second,
            share_of_peak,
        } = self;
        let of_peak = percent(*share_of_peak);
        let (ms, percent) = (1e3 * seconds, 100.0 * share);
        write!(
            f,
            "{ms:>10.3} {percent:>5.1} % {calls:>6} {gflops_per_second:>9.1} {gb_per_second:>8.2} {of_peak:>7}  "
        )?;
        match label {
            None => write!(f, "{kernel}"),
            Some(label) => write!(f, "{kernel:<24} {label}"),
        }
    }
}
