//! `ralu inspect`: what a model holds.

use super::args::InspectArgs;
use super::error::Result;

/// Runs the command.
pub fn run(_args: &InspectArgs) -> Result<()> {
    Ok(())
}
