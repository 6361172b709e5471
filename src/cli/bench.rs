//! `ralu bench`: measurements.

use super::args::BenchArgs;
use super::error::Result;

/// Runs the command.
pub fn run(_args: &BenchArgs, _quiet: bool) -> Result<()> {
    Ok(())
}
