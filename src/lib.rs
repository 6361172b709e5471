//! Text-to-image with FLUX and Stable Diffusion 3, accelerated by RALU, on any GPU.
//!
//! RALU (Region-Adaptive Latent Upsampling, arXiv 2507.08422) denoises a half-size picture first, then refines the
//! regions that need detail, then the whole: fewer tokens in most steps, no training. This crate runs it through wgpu:
//! Vulkan, Metal, DX12, GL, and WebGPU in a browser.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use ralu::gpu::{AdapterChoice, Gpu};
//! use ralu::models::source::Folder;
//! use ralu::pipeline::{Event, Options, Pipeline, RaluChoice, Request};
//! use ralu::sampling::Preset;
//!
//! let gpu = Gpu::open(&AdapterChoice::default()).await?;
//! let model = Folder::open("models/tiny-flux")?;
//! let pipeline = Pipeline::open(gpu, Box::new(model), Options::default())?;
//! let request = Request::new("a fox on a purple background")
//!     .size(256, 256)
//!     .ralu(RaluChoice::Preset(Preset::X4));
//! let mut run = pipeline.start(request)?;
//! while let Some(event) = run.next().await? {
//!     match event {
//!         Event::Step(step) => println!("stage {}, step {} of {}", step.stage, step.step, step.of),
//!         Event::Image { picture, .. } => println!("{} x {}", picture.width, picture.height),
//!         _ => {}
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! - [`pipeline`] is all that a program needs: requests in, events and pictures out.
//! - [`sampling`] holds the algorithms as pure numbers: schedules, regions, noise.
//! - [`models`], [`ops`], [`tensor`] and [`gpu`] are the engine, public for tinkerers and not yet stable.
//!
//! The library never blocks, spawns threads, prints, or reads the environment.

pub mod escape;
pub mod gpu;
pub mod models;
pub mod ops;
pub mod pipeline;
pub mod sampling;
pub mod tensor;
