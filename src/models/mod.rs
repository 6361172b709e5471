//! The networks, and how they are read from a diffusers folder.
//!
//! A model's file has its struct, a `load` that asks a [`layers::Loader`] for every weight by its name in the
//! checkpoint (noting what is missing or misshapen rather than failing), and a `forward` that records the
//! network's ops. Models never see a device: loading gives handles and a list of [`layers::Upload`]s, which
//! the pipeline carries out.

pub mod adapters;
pub mod blocks;
pub mod builtin;
pub mod config;
pub mod cost;
pub mod denoiser;
pub mod encoders;
pub mod family;
pub mod files;
pub mod flux1;
pub mod flux2;
pub mod layers;
pub mod modulation;
pub mod position_table;
pub mod quantise;
pub mod rope;
mod rotary_attention;
pub mod sd3;
mod uploads;
pub mod vae;
mod vae_files;

/// Where a model's files are: [`crate::checkpoint::source`].
pub use crate::checkpoint::source;
