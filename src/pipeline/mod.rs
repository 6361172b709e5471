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

mod arrivals;
mod conditioning;
mod context;
mod decoder_memory;
mod device;
mod encoders;
mod error;
mod event;
mod familiar;
mod memory_budget;
mod model;
mod modulation;
mod packing;
mod painted;
mod picture;
#[allow(clippy::module_inception, reason = "the front of all that is here")]
mod pipeline;
mod placement;
pub mod plan;
#[cfg(all(feature = "png", not(target_arch = "wasm32")))]
pub mod png_file;
mod predict;
mod preview;
mod products;
mod programs;
mod random_weights;
mod recorded;
mod recovery;
pub mod rehearsal;
mod request;
mod residency;
pub(crate) mod run;
mod run_cache;
#[allow(missing_docs, reason = "fields that have no line of their own are those of `Settings`")]
pub mod saved;
mod schedule;
mod speed;
mod streaming;
mod tensors;
mod text_cache;
pub mod tune;

pub use error::Error;
pub use event::{Event, ImageReport, Part, PictureKind, StageEnd, StageStart, StepDone};
pub use familiar::unfamiliar;
pub use memory_budget::{MemoryBudget, MemoryBudgetError, usable_memory};
pub use model::{Model, Options, check_model};
pub use picture::{Picture, draw_edges, draw_regions};
pub use pipeline::{MemoryUse, Pipeline};
pub use plan::Plan;
pub use predict::{AdapterSpeed, PredictedStep, RunSpeed};
pub use preview::LatentColors;
pub use products::Products;
pub use recovery::Recovery;
pub use request::{Mask, RaluChoice, Request, Rng, Settings};
pub use run::{Checkpoint, FirstStage};
pub use saved::Saved;
pub use schedule::{RunSchedule, StageKind, StageSpec};
pub use tensors::{NamedTensor, NamedTensors};

/// [`ralu::Run`](crate::Run), for programs that name a run by the lifetime that it once had.
pub type Run<'p> = run::Run;
