//! What the results of all benches have in common, and how they are shown.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::super::args::BenchArgs;
use super::super::environment::Environment;
use super::super::error::Result;
use super::super::output;
use super::compare::{Comparison, Earlier};
use super::stopwatch::Medians;

/// One thing that was measured, as comparisons see it.
pub struct Row {
    /// The same in every report about the same thing.
    pub name: String,
    pub took: Medians,
}

/// A result of one of the benches.
pub trait Report: Serialize + DeserializeOwned {
    /// Which: `ops`, `step`, `run`.
    const BENCH: &'static str;

    /// Where it was measured.
    fn environment(&self) -> &Environment;

    /// Anything else that should be the same where two reports are compared: names and values.
    fn conditions(&self) -> Vec<(&'static str, String)> {
        vec![]
    }

    /// What was measured.
    fn rows(&self) -> Vec<Row>;

    /// The table for people, without its environment.
    fn text(&self) -> String;
}

#[derive(Serialize)]
struct Document<'a, R> {
    bench: &'static str,
    #[serde(flatten)]
    report: &'a R,
    #[serde(skip_serializing_if = "Option::is_none")]
    compared: Option<&'a Comparison>,
}

/// Writes a report to stdout and to the file of `--json`, with an earlier one next to it if there is one.
pub fn show<R: Report>(report: &R, earlier: Option<&Earlier<R>>, args: &BenchArgs) -> Result<()> {
    let compared = earlier.map(|earlier| earlier.compare(report));
    let compared = compared.as_ref();
    let document = Document { bench: R::BENCH, report, compared };
    if args.prints_json() {
        return output::json(&document);
    }
    if let Some(path) = args.json_file() {
        output::json_file(path, &document)?;
    }
    output::line(report.environment())?;
    output::line(report.text().trim_end())?;
    match compared {
        Some(compared) => output::line(format!("\n{compared}").trim_end()),
        None => Ok(()),
    }
}
