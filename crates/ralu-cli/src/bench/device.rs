//! The device of a measurement.

use ralu::gpu::{AdapterChoice, Gpu};

use crate::args::TuningArgs;
use crate::error::Result;
use crate::progress::Progress;
use crate::tune::{self, TuneTarget, Tuned};

/// [`tune::tuned`] for measurements: opens the adapter, and tells about it on stderr. `fits` may refuse it before anything
/// runs.
pub fn open(
    choice: &AdapterChoice,
    args: &TuningArgs,
    target: &TuneTarget<'_>,
    quiet: bool,
    fits: impl FnOnce(&Gpu) -> Result<()>,
) -> Result<Gpu> {
    let gpu = pollster::block_on(Gpu::open(choice))?;
    fits(&gpu)?;
    let mut progress = Progress::new(quiet, 1);
    let tuned = tune::tuned(gpu, choice, args, target, &mut |event| progress.tuning(event));
    progress.clear();
    let Tuned { gpu, measured, warnings, .. } = tuned?;
    for warning in &warnings {
        progress.warn(warning);
    }
    if let Some(record) = &measured {
        progress.say(&tune::summary(record));
    }
    Ok(gpu)
}
