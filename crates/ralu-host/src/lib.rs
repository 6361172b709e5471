//! What native programs around the library share. A program that draws pictures with [`ralu`] on someone's machine wants
//! the same things, whatever face it has:
//!
//! - [`CacheDir`]: a folder of small files that are kept from one run to the next;
//! - [`config_file`]: where the user's configuration lies;
//! - [`kernels`] and [`pipelines`]: which kernels an adapter runs fastest, and pipelines that were compiled before, kept in
//!   that folder;
//! - [`Session`]: a run that goes on with another device if its own is lost ([`Device`]);
//! - [`engine`]: all of that on a thread of its own, with commands in and events out;
//! - [`models`]: where the bundled model lies;
//! - [`speeds`]: how fast adapters were found to be, kept there, too;
//! - [`loras`]: hashes of files of changes to a model, and where those of a picture lie;
//! - [`places`]: where models lie that pictures name, and what stands for their files;
//! - [`fit`]: what a run needs next to what an adapter has;
//! - [`open_pipeline`]: an open model, with threads to pack its weights;
//! - [`memory`]: whether the machine can hold a run;
//! - [`pictures`]: pictures with their request, what the files of a run are called, and reading a request again;
//! - [`files`]: files that are written whole or not at all;
//! - [`events`]: what a run tells, as JSON lines.
//!
//! It reads and writes files and waits for the GPU. It prints nothing, starts no programs, and listens for no signals:
//! these are the face's. It starts the thread of [`engine::Engine`], and rayon's to pack weights.

#![warn(missing_docs)]

mod cache_dir;
mod config_file;
mod destination;
mod device;
pub mod engine;
mod error;
pub mod events;
pub mod files;
pub mod fit;
pub mod kernels;
pub mod loras;
pub mod memory;
pub mod models;
mod picture_format;
pub mod pictures;
pub mod pipelines;
pub mod places;
mod session;
pub mod speeds;
mod threads;

pub use cache_dir::CacheDir;
pub use config_file::config_file;
pub use device::Device;
pub use error::Error;
pub use session::{End, Outcome, Session};
pub use threads::open_pipeline;
