//! What measurements tell of an adapter's speed, kept for `ralu plan`.

use std::path::Path;

use ralu::gpu::AdapterReport;
use ralu::pipeline::AdapterSpeed;
use ralu_host::speeds;

use super::args::TuningArgs;
use super::{output, tune};

/// Adds to what is known of an adapter, in the folder that `--cache-dir` names or the user's own, unless `--no-tune` asks for
/// nothing to be kept. That it cannot be kept is a warning.
pub fn note(args: &TuningArgs, report: &AdapterReport, change: impl FnOnce(&mut AdapterSpeed)) {
    let cache = tune::find_cache(args.cache.cache_dir.as_deref());
    let Some(cache) = cache.filter(|_| !args.no_tune) else { return };
    if let Err(error) = speeds::note(&cache, AdapterSpeed::new(report), change) {
        output::diagnostic(&format!("warning: `ralu plan` will not know of this speed: {error}"));
    }
}

/// What is known of the adapter `here`, or else of the one that was measured last, of those with `name` in theirs.
pub fn of(
    cache_dir: Option<&Path>,
    here: Option<&AdapterReport>,
    name: Option<&str>,
) -> Option<AdapterSpeed> {
    let known = speeds::known(&tune::find_cache(cache_dir)?);
    if let Some(here) = here.map(AdapterSpeed::new)
        && let Some(speed) = known.iter().find(|speed| speed.is_of_same_adapter(&here))
    {
        return Some(speed.clone());
    }
    let name = name.unwrap_or_default().to_lowercase();
    known.into_iter().rfind(|speed| speed.adapter.to_lowercase().contains(&name))
}
