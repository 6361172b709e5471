//! Which kernels an adapter runs fastest: measured in the first run on it, and kept for later ones.

use std::path::PathBuf;

use ralu::escape::Escaped;
use ralu::gpu::{self, Gpu, block_on_while};
use ralu::pipeline::tune::{Tuner, TuningEvent, TuningRecord};
use ralu::tensor::Tuning;

use crate::cache_dir::CacheDir;
use crate::error::Error;

/// The kernels for a run, and where they come from.
#[non_exhaustive]
pub struct Chosen {
    /// For [`ralu::tensor::Caps::tuning`].
    pub tuning: Tuning,
    /// What was measured just now; `None` if it was kept from an earlier run.
    pub measured: Option<TuningRecord>,
    /// Where it is kept from now on; `None` if nothing was measured, there is no folder, or it could not be written.
    pub file: Option<PathBuf>,
    /// Why it could not be written.
    pub not_kept: Option<Error>,
}

/// The kernels for a run: as they are kept, or else measured now, which takes seconds. `None` if `going` said that it was
/// to stop. That measurements cannot be kept is no error.
///
/// # Errors
///
/// If the device was lost or failed while kernels were measured.
pub fn choose(
    gpu: &Gpu,
    tuner: Tuner<'_>,
    cache: Option<&CacheDir>,
    going: impl Fn() -> bool,
    watch: impl FnMut(&TuningEvent),
) -> Result<Option<Chosen>, gpu::Error> {
    if let Some(record) = cache.and_then(|cache| read(cache, &tuner)) {
        let tuning = record.tuning;
        return Ok(Some(Chosen { tuning, measured: None, file: None, not_kept: None }));
    }
    let Some(record) = measure(gpu, tuner, going, watch)? else { return Ok(None) };
    let (file, not_kept) = match cache.map(|cache| keep(cache, &record)) {
        None => (None, None),
        Some(Ok(path)) => (Some(path), None),
        Some(Err(error)) => (None, Some(error)),
    };
    Ok(Some(Chosen { tuning: record.tuning, measured: Some(record), file, not_kept }))
}

/// Measures to the end, whatever is kept. `None` if `going` said that it was to stop.
///
/// # Errors
///
/// If the device was lost or failed.
pub fn measure(
    gpu: &Gpu,
    mut tuner: Tuner<'_>,
    going: impl Fn() -> bool,
    mut watch: impl FnMut(&TuningEvent),
) -> Result<Option<TuningRecord>, gpu::Error> {
    loop {
        let next = block_on_while(gpu, tuner.next(), &going);
        // What was measured last may have arrived just before.
        if !going() {
            return Ok(None);
        }
        match next.transpose()?.flatten() {
            Some(event) => watch(&event),
            None => return Ok(Some(tuner.record())),
        }
    }
}

/// Keeps what was measured. Gives the file's path.
///
/// # Errors
///
/// If the file cannot be written.
pub fn keep(cache: &CacheDir, record: &TuningRecord) -> Result<PathBuf, Error> {
    cache.write(&record.key.file_name(), record.to_json()?.as_bytes())
}

/// A kept record that fits.
fn read(cache: &CacheDir, tuner: &Tuner<'_>) -> Option<TuningRecord> {
    let name = tuner.key().file_name();
    let path = cache.path(&name);
    let shown = path.to_string_lossy();
    TuningRecord::read(&cache.read(&name)?, tuner.key())
        .inspect(|_| tracing::debug!("kernels as {} has them", Escaped(&shown)))
        .inspect_err(|reason| tracing::debug!("{} is not used: {reason}", Escaped(&shown)))
        .ok()
}
