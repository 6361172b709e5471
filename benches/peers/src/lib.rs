//! ralu beside its peers: what the harness (`src/main.rs`) and the racers (`ralu/`, `burn/`, `candle/`, `python/`) share.
//!
//! A racer is a process of its own that speaks [`protocol`] on its standard input and output. So every peer's
//! processor time is its own, and one that crashes or hangs ends only itself.

pub mod case;
pub mod expected;
pub mod numbers;
pub mod protocol;
pub mod usage;
