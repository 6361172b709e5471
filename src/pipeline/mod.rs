//! From a sentence to a picture: the only place where models, sampling and the GPU meet.
//!
//! [`Pipeline::open`] reads a model folder's configuration and checks all its weights by name and shape before
//! anything is uploaded. [`Pipeline::start`] takes a [`Request`] and gives a [`Run`]; pull [`Event`]s from it with
//! [`Run::next`], and drop it to cancel. [`plan`] says what a run would cost without running it.
//!
//! ```
//! # pollster::block_on(async {
//! use ralu::{AdapterChoice, Event, Folder, Gpu, Options, Pipeline, Request};
//!
//! let gpu = Gpu::open(&AdapterChoice::default()).await?;
//! let folder = Folder::open("models/tiny-flux")?;
//! let pipeline = Pipeline::open(gpu, Box::new(folder), Options::default())?;
//! let mut run = pipeline.start(Request::new("a fox on a purple background").size(128, 128))?;
//! while let Some(event) = run.next().await? {
//!     if let Event::Image { picture, .. } = event {
//!         println!("{} x {} pixels", picture.width, picture.height);
//!     }
//! }
//! # Ok::<(), ralu::Error>(())
//! # }).unwrap();
//! ```

mod encoders;
mod error;
mod event;
mod kept;
mod load;
mod loading;
mod painted;
mod picture;
pub mod plan;
#[cfg(all(feature = "png", not(target_arch = "wasm32")))]
pub mod png_file;
mod preview;
mod programs;
mod prompt;
mod recovery;
pub mod rehearsal;
mod request;
mod run;
#[allow(missing_docs, reason = "fields that have no line of their own are those of `Settings`")]
pub mod saved;
mod schedule;
mod tensors;
pub mod tune;

pub use error::Error;
pub use event::{Event, ImageReport, Part, PictureKind, StageEnd, StageStart, StepDone};
pub use load::check_model;
pub use load::{MemoryUse, Options, Pipeline};
pub use picture::{Picture, draw_edges, draw_regions};

pub use plan::Plan;
pub use preview::LatentColors;
pub use recovery::Recovery;
pub use request::{Mask, RaluChoice, Request, Rng, Settings};
pub use run::{Checkpoint, FirstStage, Run};
pub use saved::Saved;
pub use schedule::{RunSchedule, StageKind, StageSpec};
pub use tensors::{NamedTensor, NamedTensors};
