//! Text-to-image with FLUX and Stable Diffusion 3, accelerated by RALU, on any GPU.
//!
//! RALU (Region-Adaptive Latent Upsampling, arXiv 2507.08422) denoises a half-size picture first, then refines the
//! regions that need detail, then the whole: fewer tokens in most steps, no training. This crate runs it through wgpu:
//! Vulkan, Metal, DX12, GL, and WebGPU in a browser.
//!
//! ```
//! use ralu::gpu::{AdapterChoice, Gpu};
//! use ralu::checkpoint::source::Folder;
//! use ralu::pipeline::{Event, Options, Picture, Pipeline, Request};
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
//! # request.ralu = ralu::pipeline::RaluChoice::Off;
//! # assert_eq!(pollster::block_on(draw(request)).unwrap().width, 64);
//! ```
//!
//! Its futures work under any executor: `pollster::block_on(draw(Request::new("a fox on a purple background")))`.
//!
//! - [`pipeline`] is all that a program needs: requests in, events and pictures out.
//! - [`sampling`] holds the algorithms as pure numbers: schedules, regions, noise.
//! - [`checkpoint`] reads models' files, [`text`] turns text into token ids.
//! - [`models`], [`ops`], [`tensor`] and [`gpu`] are the engine, public for tinkerers and not yet stable.
//!
//! The library never blocks, prints, or reads the environment. It has one thread, which polls the device while a future
//! waits for it under an executor that does not.

pub mod advice;
pub mod checkpoint;
pub mod escape;
pub mod gpu;
pub mod models;
pub mod ops;
pub mod pipeline;
pub mod sampling;
pub mod tensor;
pub mod text;
mod turns;
