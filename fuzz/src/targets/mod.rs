//! The targets: functions from bytes to nothing that panic where the library breaks a promise.
//!
//! Shared by the fuzzers (`fuzz/fuzz_targets`) and by `tests/fuzz_corpus.rs`, which runs them on the corpus without a
//! fuzzer. Hence no `crate::` in here.

mod check;
mod config;
mod edits;
mod files;
mod given;
mod limits;
mod lora;
mod model;
mod png;
mod saved;
mod settings;
mod tokenizers;
mod weights;

/// A target.
pub struct Target {
    /// Of its program and its folder in `fuzz/corpus`.
    pub name: &'static str,
    check: fn(&[u8]),
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "config", check: config::check },
    Target { name: "files", check: files::check },
    Target { name: "given", check: given::check },
    Target { name: "lora", check: lora::check },
    Target { name: "model", check: model::check },
    Target { name: "png", check: png::check },
    Target { name: "saved", check: saved::check },
    Target { name: "settings", check: settings::check },
    Target { name: "tokenizers", check: tokenizers::check },
    Target { name: "weights", check: weights::check },
];

/// Runs the target `name` on `input`; panics where it finds a fault, and aborts where memory has no bounds.
pub fn run(name: &str, input: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("a name of TARGETS");
    (target.check)(input);
}
