//! Small files that only save time, in the user's cache folder. Whatever goes wrong with them is a trace, no error: the
//! program works without them.

use std::path::PathBuf;

use etcetera::BaseStrategy;
use ralu::gpu::{AdapterChoice, Gpu};
use tracing::debug;

use super::error::Result;
use super::files;

/// Where a file of that name lies or would lie.
fn path(name: &str) -> Option<PathBuf> {
    let strategy = etcetera::choose_base_strategy().inspect_err(|error| debug!("{error}")).ok()?;
    Some(strategy.cache_dir().join("ralu").join(name))
}

/// The file of that name, if there is one.
pub fn read(name: &str) -> Option<Vec<u8>> {
    let path = path(name)?;
    let bytes = std::fs::read(&path);
    bytes.inspect_err(|error| debug!("{}: {error}", path.display())).ok()
}

/// Replaces the file of that name.
pub fn write(name: &str, bytes: &[u8]) {
    let Some(path) = path(name) else { return };
    let folder = path.parent().map_or(Ok(()), std::fs::create_dir_all);
    if let Err(error) = folder {
        return debug!("the folder of {} cannot be made: {error}", path.display());
    }
    if let Err(error) = files::write(&path, bytes) {
        debug!("{}", error.message());
    }
}

/// Where pipelines compiled on this adapter lie.
fn pipelines_of(gpu: &Gpu) -> String {
    format!("{}.pipelines", gpu.report().cache_key())
}

/// Opens an adapter, with the pipelines that earlier runs have compiled.
pub fn open_gpu(choice: &AdapterChoice) -> Result<Gpu> {
    let gpu = pollster::block_on(Gpu::open(choice))?;
    let name = pipelines_of(&gpu);
    let kept = read(&name);
    let used = pollster::block_on(gpu.use_pipeline_data(kept.as_deref()))?;
    if kept.is_some() && !used {
        debug!("{name}: not used; damaged, or this adapter caches no pipelines");
    }
    Ok(gpu)
}

/// Keeps what was compiled for the next run.
pub fn keep_pipelines(gpu: &Gpu) {
    let name = pipelines_of(gpu);
    if let Some(data) = gpu.pipeline_data()
        && read(&name).is_none_or(|kept| kept != data)
    {
        write(&name, &data);
    }
}
