//! What `ralu devices --json` says about the adapter that a lane runs on.

use std::path::Path;

use serde_json::Value;

use crate::Result;

fn adapters(path: &Path) -> Result<Vec<Value>> {
    let report: Value = serde_json::from_slice(&std::fs::read(path)?)?;
    Ok(report["adapters"].as_array().cloned().unwrap_or_default())
}

/// Name and driver of an adapter, by its number; or of the first one of a backend, which is used where the backend is
/// all that is asked for.
pub fn about(which: &str, path: &Path) -> Result<()> {
    let adapters = adapters(path)?;
    let wanted = |adapter: &&Value| match which.parse::<u64>() {
        Ok(index) => adapter["index"] == index,
        Err(_) => adapter["backend"] == which && adapter["usable"] == true,
    };
    let adapter = adapters.iter().find(wanted).ok_or_else(|| format!("no usable {which}"))?;
    for (key, name) in [("adapter", "name"), ("driver", "driver")] {
        println!("{key}\t{}", adapter[name].as_str().unwrap_or(""));
    }
    Ok(())
}

/// Prints the number of the first Vulkan adapter that is a GPU.
pub fn gpu(path: &Path) -> Result<()> {
    let adapters = adapters(path)?;
    let is_gpu = |adapter: &&Value| {
        let kind = adapter["type"].as_str().unwrap_or("");
        adapter["backend"] == "vulkan" && adapter["usable"] == true && kind.ends_with("GPU")
    };
    println!("{}", adapters.iter().find(is_gpu).ok_or("no GPU")?["index"]);
    Ok(())
}
