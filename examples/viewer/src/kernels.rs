//! What the command line keeps in the user's cache folder, for the viewer too: which kernels an adapter runs fastest, and
//! pipelines that were compiled before. They only save time, so whatever goes wrong with a file is no error.

use std::io::Write;
use std::path::PathBuf;

use etcetera::BaseStrategy;
use ralu::checkpoint::source::Source;
use ralu::gpu::{Error, Gpu, block_on, block_on_while};
use ralu::models::config::ModelConfig;
use ralu::models::layers::Precision;
use ralu::pipeline::Settings;
use ralu::pipeline::tune::{Tuner, TuningEvent, TuningRecord, usual_seconds};
use ralu::tensor::Tuning;

/// A file in the folder that `ralu` uses without `--cache-dir`.
fn file(name: &str) -> Option<PathBuf> {
    let folders = etcetera::base_strategy::choose_native_strategy().ok()?;
    Some(folders.cache_dir().join("ralu").join(name))
}

fn read(name: &str) -> Option<Vec<u8>> {
    std::fs::read(file(name)?).ok()
}

/// Keeps a file, whole or not at all.
fn keep(name: &str, bytes: &[u8]) -> Option<()> {
    let file = file(name)?;
    let folder = file.parent()?;
    std::fs::create_dir_all(folder).ok()?;
    let mut temporary = tempfile::NamedTempFile::new_in(folder).ok()?;
    temporary.write_all(bytes).ok()?;
    temporary.persist(file).ok().map(drop)
}

/// The kernels for a run: as they are kept, or else measured now, which takes seconds. `None` if it was to stop.
pub fn choose(
    gpu: &Gpu,
    config: &ModelConfig,
    source: &dyn Source,
    settings: &Settings,
    going: impl Fn() -> bool,
    tell: impl Fn(usize, usize),
) -> Result<Option<Tuning>, String> {
    let precision = Precision::default();
    let mut tuner = Tuner::new(gpu, config, Some(source), settings, precision, usual_seconds(gpu))
        .map_err(|error| error.to_string())?;
    let name = tuner.key().file_name();
    let kept = read(&name).and_then(|bytes| TuningRecord::read(&bytes, tuner.key()).ok());
    if let Some(record) = kept {
        return Ok(Some(record.tuning));
    }
    loop {
        match block_on_while(gpu, tuner.next(), &going) {
            None => return Ok(None),
            Some(Err(error @ Error::Lost { .. })) => return Err(error.to_string()),
            Some(Err(error)) => return Err(format!("kernels cannot be measured: {error}")),
            Some(Ok(Some(TuningEvent::Measured { done, of, .. }))) => tell(done, of),
            Some(Ok(Some(_))) => {}
            Some(Ok(None)) => break,
        }
    }
    let record = tuner.record();
    if let Ok(json) = record.to_json() {
        keep(&name, json.as_bytes());
    }
    Ok(Some(record.tuning))
}

fn pipelines(gpu: &Gpu) -> String {
    format!("{}.pipelines", gpu.report().cache_key())
}

/// Takes over the pipelines that earlier runs have compiled.
pub fn use_pipelines(gpu: &Gpu) {
    let kept = read(&pipelines(gpu));
    // Damaged ones are compiled again.
    let _ = block_on(gpu, gpu.use_pipeline_data(kept.as_deref()));
}

/// Keeps what was compiled for the next start.
pub fn keep_pipelines(gpu: &Gpu) {
    let (name, Some(data)) = (pipelines(gpu), gpu.pipeline_data()) else { return };
    if read(&name).is_none_or(|kept| kept != data) {
        keep(&name, &data);
    }
}
