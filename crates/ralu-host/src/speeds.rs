//! How fast adapters were found to be, kept for plans.

use ralu::pipeline::AdapterSpeed;

use crate::cache_dir::CacheDir;
use crate::error::Error;

/// The file in the folder of kept files.
const FILE: &str = "speeds.json";
/// Adapters that are kept.
const MOST: usize = 16;

/// What is known, of the adapter that was measured last at the end. Nothing, if the file is damaged.
pub fn known(cache: &CacheDir) -> Vec<AdapterSpeed> {
    let bytes = cache.read(FILE).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

/// Adds to what is known of the adapter of `unknown`, of which nothing is known.
///
/// # Errors
///
/// If the file cannot be written.
pub fn note(
    cache: &CacheDir,
    unknown: AdapterSpeed,
    change: impl FnOnce(&mut AdapterSpeed),
) -> Result<(), Error> {
    let mut speeds = known(cache);
    let at = speeds.iter().position(|speed| speed.is_of_same_adapter(&unknown));
    let mut speed = at.map_or(unknown, |at| speeds.remove(at));
    change(&mut speed);
    speeds.push(speed);
    speeds.drain(..speeds.len().saturating_sub(MOST));
    cache.write(FILE, &serde_json::to_vec_pretty(&speeds)?).map(|_| ())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn unknown(name: &str) -> AdapterSpeed {
        let speed = json!({ "adapter": name, "backend": "Vulkan", "driver": "1", "is_cpu": false });
        serde_json::from_value(speed).expect("a speed")
    }

    #[test]
    fn what_is_found_one_by_one_is_kept_together() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = CacheDir::find(Some(folder.path())).expect("a folder");
        assert_eq!(known(&cache), []);
        let add = |name: &str, change: &dyn Fn(&mut AdapterSpeed)| {
            note(&cache, unknown(name), change).expect("written");
        };
        add("a card", &|speed| speed.copy_bytes_per_second = Some(1e10));
        add("another", &|speed| speed.load_bytes_per_second = Some(1e9));
        add("a card", &|speed| speed.step_flops_per_second = Some(1e12));
        let speeds = known(&cache);
        let names: Vec<&str> = speeds.iter().map(|speed| speed.adapter.as_str()).collect();
        assert_eq!(names, ["another", "a card"]);
        assert_eq!(speeds[1].copy_bytes_per_second, Some(1e10));
        assert_eq!(speeds[1].step_flops_per_second, Some(1e12));
        for i in 0..20 {
            add(&format!("card {i}"), &|_| {});
        }
        assert_eq!(known(&cache).len(), MOST);
        std::fs::write(cache.path(FILE), "[{").expect("written");
        assert_eq!(known(&cache), []);
    }
}
