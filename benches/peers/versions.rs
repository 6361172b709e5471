//! Tells the racers which versions they are, from the lock file.

use std::{env, fs, path::Path};

fn main() {
    let lock = Path::new(&env::var("CARGO_MANIFEST_DIR").unwrap_or_default()).join("../Cargo.lock");
    println!("cargo::rerun-if-changed={}", lock.display());
    let lock = fs::read_to_string(lock).unwrap_or_default();
    for name in ["burn", "cubecl", "candle-core", "wgpu"] {
        let entry = format!("name = \"{name}\"\nversion = \"");
        let version = lock.split(&entry).nth(1).and_then(|rest| rest.split('"').next());
        let variable = name.to_uppercase().replace('-', "_");
        println!("cargo::rustc-env=RACE_{variable}={}", version.unwrap_or("of unknown version"));
    }
}
