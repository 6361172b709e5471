//! Compiled pipelines, kept in the cache folder from one start to the next. They only save time: whatever goes wrong
//! with them is a trace, no error.

use ralu::gpu::{AdapterChoice, Gpu};
use tracing::debug;

use super::cache_dir::CacheDir;
use super::error::Result;

/// Where pipelines compiled on this adapter lie.
fn file_name(gpu: &Gpu) -> String {
    format!("{}.pipelines", gpu.report().cache_key())
}

/// Opens an adapter, with the pipelines that earlier runs have compiled.
pub fn open_gpu(choice: &AdapterChoice, cache: Option<&CacheDir>) -> Result<Gpu> {
    let gpu = pollster::block_on(Gpu::open(choice))?;
    let Some(cache) = cache else { return Ok(gpu) };
    let name = file_name(&gpu);
    let kept = cache.read(&name);
    let used = pollster::block_on(gpu.use_pipeline_data(kept.as_deref()))?;
    if kept.is_some() && !used {
        debug!("{name}: not used; damaged, or this adapter caches no pipelines");
    }
    Ok(gpu)
}

/// Keeps what was compiled for the next run.
pub fn keep(gpu: &Gpu, cache: Option<&CacheDir>) {
    let (Some(cache), Some(data)) = (cache, gpu.pipeline_data()) else { return };
    let name = file_name(gpu);
    if cache.read(&name).is_some_and(|kept| kept == data) {
        return;
    }
    if let Err(error) = cache.write(&name, &data) {
        debug!("{}", error.message());
    }
}
