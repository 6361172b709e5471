//! `ralu bench`.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::parse::{positive, seed};
use super::{AdapterArgs, RequestArgs, TuningArgs};

/// `ralu bench`.
#[derive(Clone, Debug, Args)]
pub struct BenchArgs {
    /// What to measure.
    #[arg(default_value = "run")]
    pub what: BenchArg,
    #[command(flatten)]
    pub request: RequestArgs,
    #[command(flatten)]
    pub adapter: AdapterArgs,
    #[command(flatten)]
    pub tuning: TuningArgs,
    #[command(flatten)]
    pub quality: QualityArgs,
    /// How often to measure; medians are shown. [default: 3, ops: 10]
    #[arg(long, value_name = "N", value_parser = positive)]
    pub runs: Option<usize>,
    /// The JSON report of an earlier run of the same bench, to print ratios to it.
    #[arg(long, value_name = "FILE")]
    pub compare: Option<PathBuf>,
    /// Also times every kernel by the GPU's clock (step and run). With a file name, writes a trace that
    /// Perfetto and chrome://tracing show.
    #[arg(long, value_name = "TRACE.json", num_args = 0..=1, require_equals = true)]
    pub profile: Option<Option<PathBuf>>,
    /// As JSON. With a file name, writes it there and prints the table; `step` and `run` then also time every kernel, if
    /// the adapter has a clock.
    #[arg(long, value_name = "REPORT.json", num_args = 0..=1, require_equals = true)]
    pub json: Option<Option<PathBuf>>,
}

impl BenchArgs {
    /// Whether the result on stdout is JSON.
    pub fn prints_json(&self) -> bool {
        matches!(self.json, Some(None))
    }

    /// The file that the result goes to as JSON.
    pub fn json_file(&self) -> Option<&Path> {
        self.json.as_ref()?.as_deref()
    }
}

/// What `ralu bench` measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BenchArg {
    /// GFLOP/s and GB/s of each op on the model's shapes.
    Ops,
    /// Seconds of a step, plain and in each stage.
    Step,
    /// Seconds of 50 plain steps and of RALU, next to what `ralu plan` predicts.
    Run,
    /// GB/s from disk to the GPU, next to a plain read of the same files.
    Load,
    /// How far each of several settings is from the model's own plain picture, and how much faster.
    Quality,
}

/// What `ralu bench quality` compares, besides the request that all settings share.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "Quality")]
pub struct QualityArgs {
    /// Prompts, one a line; blank lines and lines that begin with # are ignored.
    #[arg(long, value_name = "FILE")]
    pub prompts: Option<PathBuf>,
    /// Seeds of each prompt's pictures. [default: 7]
    #[arg(long, value_name = "S,S,…", value_delimiter = ',', value_parser = seed)]
    pub seeds: Option<Vec<u64>>,
    /// A setting to compare, as options of `ralu generate`, for example "7x late: --ralu 7x"; they win
    /// over the bench's own. [default: 50, 28, 10 and 7 plain steps; RALU 4x, 5x and 7x]
    #[arg(long, value_name = "NAME: OPTIONS", allow_hyphen_values = true)]
    pub setting: Vec<String>,
    /// More settings, one a line; blank lines and lines that begin with # are ignored.
    #[arg(long, value_name = "FILE")]
    pub settings: Option<PathBuf>,
    /// Plain steps of the picture that all settings are compared with. [default: 50]
    #[arg(long, value_name = "N", value_parser = positive)]
    pub reference_steps: Option<usize>,
    /// Where pictures, results.json, table.md and contact.png go; a run that was stopped is continued.
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
}
