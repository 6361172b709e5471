//! Which kernels an adapter runs fastest: measured in the first run on it, and kept for later ones.

use std::path::PathBuf;

use ralu::escape::Escaped;
use ralu::gpu::{self, Gpu, block_on_while};
use ralu::pipeline::tune::{MatrixTest, Tuner, TuningEvent, TuningRecord};
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
/// If the device was lost in the test of its cooperative matrices, that is kept, so that no later run loses its device to
/// them: the next one measures the other kernels.
///
/// # Errors
///
/// If the device was lost or failed while kernels were measured.
pub fn choose(
    gpu: &Gpu,
    mut tuner: Tuner<'_>,
    cache: Option<&CacheDir>,
    going: impl Fn() -> bool,
    watch: impl FnMut(&TuningEvent),
) -> Result<Option<Chosen>, gpu::Error> {
    if let Some(TuningRecord { tuning, matrices, measured, .. }) =
        cache.and_then(|cache| read(cache, &tuner))
    {
        if matrices.is_some() {
            gpu.trust_matrices();
        }
        match matrices {
            Some(matrices) if measured.is_empty() && is_wrong(&matrices) => {
                tuner.assume_matrices(matrices);
            }
            _ => return Ok(Some(Chosen { tuning, measured: None, file: None, not_kept: None })),
        }
    }
    let record = match measure_all(gpu, &mut tuner, going, watch) {
        Ok(true) => tuner.record(),
        Ok(false) => return Ok(None),
        Err(error) => {
            if let (Some(cache), true) = (cache, tuner.matrices().is_some_and(is_wrong)) {
                let mut record = tuner.record();
                // Half of the measurements are none.
                record.measured.clear();
                let kept = keep(cache, &record);
                let _ = kept.inspect_err(|reason| tracing::warn!("not kept: {reason}"));
            }
            return Err(error);
        }
    };
    let (file, not_kept) = match cache.map(|cache| keep(cache, &record)) {
        None => (None, None),
        Some(Ok(path)) => (Some(path), None),
        Some(Err(error)) => (None, Some(error)),
    };
    Ok(Some(Chosen { tuning: record.tuning, measured: Some(record), file, not_kept }))
}

/// Whether an earlier run measured what [`choose`] would measure.
pub fn are_kept(cache: &CacheDir, tuner: &Tuner<'_>) -> bool {
    read(cache, tuner).is_some()
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
    watch: impl FnMut(&TuningEvent),
) -> Result<Option<TuningRecord>, gpu::Error> {
    Ok(measure_all(gpu, &mut tuner, going, watch)?.then(|| tuner.record()))
}

/// Whether it came to its end, rather than to be stopped.
fn measure_all(
    gpu: &Gpu,
    tuner: &mut Tuner<'_>,
    going: impl Fn() -> bool,
    mut watch: impl FnMut(&TuningEvent),
) -> Result<bool, gpu::Error> {
    loop {
        let next = block_on_while(gpu, tuner.next(), &going);
        // What was measured last may have arrived just before.
        if !going() {
            return Ok(false);
        }
        match next.transpose()?.flatten() {
            Some(event) => watch(&event),
            None => return Ok(true),
        }
    }
}

fn is_wrong(matrices: &MatrixTest) -> bool {
    matrices.complaint().is_some()
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
