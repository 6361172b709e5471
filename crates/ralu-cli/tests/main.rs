//! The program from outside, in one test program, which is linked once. `input_memory` and `picture_memory` are separate
//! ones.

mod bench;
mod bench_files;
mod bench_quality;
mod events;
mod faces;
mod from_picture;
mod masks;
mod model_is_kept;
mod outputs;
mod streams;
mod terminal;
mod tune;
mod usage;

#[path = "common/command.rs"]
mod command;
#[path = "common/picture.rs"]
mod picture;
