//! Compiled pipelines, kept in the cache folder from one start to the next. They only save time: whatever goes wrong
//! with their file is a trace, no error.

use ralu::gpu::{Error, Gpu, block_on};
use tracing::debug;

use crate::cache_dir::CacheDir;

/// The name of the file for an adapter.
fn file_name(gpu: &Gpu) -> String {
    format!("{}.pipelines", gpu.report().cache_key())
}

/// Takes over the pipelines that earlier runs have compiled. Damaged ones are compiled again.
///
/// # Errors
///
/// If the device is lost.
pub fn restore(gpu: &Gpu, cache: &CacheDir) -> Result<(), Error> {
    let name = file_name(gpu);
    let kept = cache.read(&name);
    let used = block_on(gpu, gpu.use_pipeline_data(kept.as_deref()))?;
    if kept.is_some() && !used {
        debug!("{name}: not used; damaged, or this adapter caches no pipelines");
    }
    Ok(())
}

/// Keeps what was compiled for the next start.
pub fn keep(gpu: &Gpu, cache: &CacheDir) {
    let Some(data) = gpu.pipeline_data() else { return };
    let name = file_name(gpu);
    if cache.read(&name).is_some_and(|kept| kept == data) {
        return;
    }
    if let Err(error) = cache.write(&name, &data) {
        debug!("{error}");
    }
}
