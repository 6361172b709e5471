//! Whole runs: against their references, with lost devices and full memory, several at once, and planned.

mod budget;
mod caches;
mod checkpoint;
mod concurrent_runs;
mod descriptions;
mod dispatches;
mod executors;
mod f16_quality;
mod f16_range;
mod faults;
mod formats;
mod int8;
mod lora;
mod lora_weights;
mod matrices;
mod plan;
mod plan_run;
mod profile;
mod random_weights;
mod references;
mod reuse;
mod spill;
mod streaming_time;
mod tune;
mod watching;
mod workers;
