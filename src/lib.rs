//! Text-to-image with FLUX and Stable Diffusion 3, accelerated by RALU, on any GPU.
//!
//! RALU (Region-Adaptive Latent Upsampling, arXiv 2507.08422) denoises a half-size picture first, then refines the
//! regions that need detail, then the whole: fewer tokens in most steps, no training. This crate runs it through wgpu:
//! Vulkan, Metal, DX12, GL, and WebGPU in a browser.
//!
//! ```
//! use ralu::{AdapterChoice, Event, Folder, Gpu, Options, Picture, Pipeline, Request};
//!
//! pub async fn draw(request: Request) -> Result<Picture, Box<dyn std::error::Error>> {
//!     let gpu = Gpu::open(&AdapterChoice::default()).await?;
//!     let model = Folder::open("models/tiny-flux")?;
//!     let pipeline = Pipeline::open(gpu, Box::new(model), Options::default())?;
//!     let mut run = pipeline.start(request)?;
//!     while let Some(event) = run.next().await? {
//!         match event {
//!             Event::Step(step) => println!("stage {}: {} of {}", step.stage, step.step, step.of),
//!             Event::Image { picture, .. } => return Ok(picture),
//!             _ => {}
//!         }
//!     }
//!     Err("the run ended without a picture".into())
//! }
//! # let mut request = Request::new("a fox on a purple background").size(64, 64);
//! # request.steps = Some(1);
//! # request.ralu = ralu::RaluChoice::Off;
//! # assert_eq!(pollster::block_on(draw(request)).unwrap().width, 64);
//! ```
//!
//! Its futures work under any executor: `pollster::block_on(draw(Request::new("a fox on a purple background")))`. Natively
//! they are [`Send`]. A [`Pipeline`] is a handle that can be cloned and sent to other threads; its runs take turns, and each
//! draws what it draws alone.
//!
//! What a program needs is here at the root. The modules hold the rest:
//!
//! - [`pipeline`]: requests in, events and pictures out.
//! - [`sampling`] holds the algorithms as pure numbers: schedules, regions, noise.
//! - [`checkpoint`] reads models' files, [`text`] turns text into token ids.
//! - [`models`], [`ops`], [`tensor`] and [`gpu`] are the engine, public for tinkerers and not yet stable.
//!
//! The library never blocks, prints, or reads the environment. It has one thread, which polls the device while a future
//! waits for it under an executor that does not; a host lends it others to pack weights with ([`Workers`]).

#![warn(missing_docs)]

pub mod advice;
pub mod checkpoint;
pub mod escape;
pub mod gpu;
pub mod models;
pub mod names;
pub mod ops;
pub mod pipeline;
pub mod sampling;
mod sync;
pub mod tensor;
pub mod text;
mod turns;
mod workers;

#[cfg(not(target_arch = "wasm32"))]
pub use checkpoint::source::Folder;
pub use checkpoint::source::Source;
pub use gpu::{AdapterChoice, AdapterReport, Gpu};
#[cfg(not(target_arch = "wasm32"))]
pub use gpu::{block_on, block_on_while};
pub use models::layers::Precision;
pub use pipeline::run::Run;
pub use pipeline::{
    Checkpoint, Error, Event, Options, Picture, Pipeline, Plan, RaluChoice, Recovery, Request,
    Settings,
};
pub use sampling::CustomStages;
pub use sync::{MaybeSend, MaybeSync};
/// The version of wgpu whose types [`gpu`] takes and gives.
pub use wgpu;
pub use workers::{Task, Workers};
