//! `--compare FILE`: a result next to an earlier one of the same bench.

use std::fmt;
use std::path::Path;

use ralu::escape::Escaped;
use serde::Serialize;
use serde_json::Value;

use super::super::environment::Environment;
use super::super::error::{Error, Result};
use super::super::output::shown;
use super::report::Report;
use crate::bench::read::read_text;

/// A report that was read from a file.
pub struct Earlier<R> {
    file: String,
    report: R,
}

impl<R: Report> Earlier<R> {
    /// Reads `path`, if there is one.
    pub fn read(path: Option<&Path>) -> Result<Option<Self>> {
        let Some(path) = path else { return Ok(None) };
        let file = shown(path);
        let expected = format!("expected what `ralu bench {} --json` wrote", R::BENCH);
        let wrong = |found: String| Error::failed(format!("--compare {file}: {found}; {expected}"));
        let text = read_text(path).map_err(wrong)?;
        let value: Value =
            serde_json::from_str(&text).map_err(|error| wrong(format!("is not JSON: {error}")))?;
        match value.get("bench").and_then(Value::as_str) {
            Some(bench) if bench == R::BENCH => {}
            Some(bench) => {
                return Err(wrong(format!("is a report of `ralu bench {}`", Escaped(bench))));
            }
            None => return Err(wrong("is JSON, but no report of `ralu bench`".to_owned())),
        }
        let report = serde_json::from_value(value).map_err(|error| {
            wrong(format!("is a damaged report: {}", Escaped(&error.to_string())))
        })?;
        Ok(Some(Earlier { file, report }))
    }

    /// Sets what was measured now next to what was measured then.
    pub fn compare(&self, now: &R) -> Comparison {
        let (then, now_rows) = (self.report.rows(), now.rows());
        let mut missing = vec![];
        let mut rows = vec![];
        for row in &now_rows {
            let Some(before) = then.iter().find(|before| before.name == row.name) else {
                missing.push(format!("{}: not in {}", row.name, self.file));
                continue;
            };
            let cpu = before.took.median_cpu_seconds.zip(row.took.median_cpu_seconds);
            rows.push(Compared {
                row: row.name.clone(),
                then_seconds: before.took.median_seconds,
                now_seconds: row.took.median_seconds,
                speedup: before.took.median_seconds / row.took.median_seconds,
                cpu_speedup: cpu.map(|(before, now)| before / now),
            });
        }
        let gone = then.iter().filter(|before| now_rows.iter().all(|row| row.name != before.name));
        missing.extend(gone.map(|before| format!("{}: only in {}", before.name, self.file)));
        Comparison {
            file: self.file.clone(),
            version: self.report.environment().version.clone(),
            different: self.different(now),
            rows,
            missing,
        }
    }

    fn different(&self, now: &R) -> Vec<String> {
        let all = |report: &R| {
            let Environment {
                version: _,
                adapter,
                backend,
                driver,
                adapter_type,
                model,
                width,
                height,
            } = report.environment().clone();
            let mut all = vec![
                ("adapter", adapter),
                ("backend", backend),
                ("driver", driver),
                ("adapter type", adapter_type),
                ("model", model),
                ("size", format!("{width} x {height}")),
            ];
            all.extend(report.conditions());
            all
        };
        let pairs = all(&self.report).into_iter().zip(all(now));
        pairs
            .filter(|((_, then), (_, now))| then != now)
            .map(|((name, then), (_, now))| format!("{name}: {then} there, {now} here"))
            .collect()
    }
}

/// Two reports, row by row.
#[derive(Serialize)]
pub struct Comparison {
    file: String,
    /// Of the program that made the earlier report.
    version: String,
    /// What else was not the same, so that ratios may mean little.
    different: Vec<String>,
    rows: Vec<Compared>,
    /// Rows that only one of them has.
    missing: Vec<String>,
}

#[derive(Serialize)]
struct Compared {
    row: String,
    then_seconds: f64,
    now_seconds: f64,
    /// How many times as fast as then.
    speedup: f64,
    /// The same by processor time, where both have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_speedup: Option<f64>,
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = Escaped(&self.version);
        writeln!(f, "next to {} (ralu {version}): how many times as fast", self.file)?;
        for difference in &self.different {
            writeln!(f, "not the same: {}", Escaped(difference))?;
        }
        for Compared { row, then_seconds, now_seconds, speedup, cpu_speedup } in &self.rows {
            let cpu =
                cpu_speedup.map_or(String::new(), |ratio| format!("  by CPU time {ratio:.2}"));
            writeln!(
                f,
                "{row:<50} {speedup:>7.2}  {then_seconds:.6} s -> {now_seconds:.6} s{cpu}"
            )?;
        }
        for missing in &self.missing {
            writeln!(f, "{}", Escaped(missing))?;
        }
        Ok(())
    }
}
