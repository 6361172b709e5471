//! What the programs in `fuzz_targets` run; see `README.md`.

pub mod targets;
