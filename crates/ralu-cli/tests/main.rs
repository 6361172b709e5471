//! The program from outside, in one test program, which is linked once. `input_memory` and `picture_memory` are separate
//! ones.

mod bench;
mod bench_files;
mod bench_quality;
mod config;
mod convert;
mod events;
mod faces;
mod familiar;
mod from_picture;
mod habits;
mod hub;
mod lora;
mod masks;
mod memory_budget;
mod model_files;
mod model_is_kept;
mod outputs;
mod picture_formats;
mod places;
mod plan;
mod preview;
mod prompts;
mod quantize;
mod resume;
mod streams;
mod terminal;
mod tune;
mod usage;
mod view;

#[path = "common/command.rs"]
mod command;
#[path = "../../ralu-hub/tests/server.rs"]
mod hub_server;
#[path = "common/picture.rs"]
mod picture;
