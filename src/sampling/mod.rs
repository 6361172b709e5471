//! The numbers of a run: noise levels, RALU's stages and transitions, noise, edges and regions.
//!
//! Everything here is a pure function of its arguments. There is no GPU, no file, no clock, no
//! thread and no global state, so all of it can be tested on any machine and runs in a browser
//! unchanged. It knows nothing of the rest of the crate but how
//! names are spelled ([`crate::names`]).
//!
//! RALU (Region-Adaptive Latent Upsampling, arXiv 2507.08422) denoises a picture in three stages:
//! a half-size grid of *coarse* tokens, then a mixed list in which the *regions* that matter are
//! already *fine*, then the full grid. Between two stages lies a *transition*: tokens are
//! repeated, and noise is put back so that the next stage starts on the model's own path.
//!
//! The principal types, in the order of a run:
//!
//! - [`FlowMatch`] gives the noise levels of a plain run (as the diffusers scheduler does);
//! - [`Preset`] and [`RaluParams`] name a RALU run, [`RaluSchedule`] is that run in numbers:
//!   sigmas per stage and a [`Jump`] between two stages;
//! - [`Grid`], [`TokenLayout`] and [`Transition`] say which tokens there are, where they lie and
//!   which token of the previous stage each of them is made from;
//! - [`noise`] makes seeded normal numbers, [`torch_rng`] those of PyTorch;
//! - [`edges`] and [`regions`] choose which tokens become fine early;
//! - [`Rules`] collects where one may follow the authors' code, correct it, or go beyond it;
//! - [`cache`] decides which steps may reuse what an earlier one computed.
//!
//! Time is `sigma` everywhere: 1 is pure noise, 0 is the clean picture. The paper counts
//! `t = 1 - sigma`; only the parameters of RALU itself (`stage_ends`) are in paper time, as they
//! are printed there.
//!
//! ```
//! use ralu::models::flux1;
//! use ralu::sampling::{Grid, Preset, TokenLayout, Transition};
//!
//! // 1024 x 1024 pixels: 32 x 32 coarse tokens, 64 x 64 fine ones.
//! let grid = Grid::of_image(1024, 1024)?;
//! let params = flux1::PRESETS.params(Preset::X4, 3.0)?;
//! let schedule = params.resolve(grid.n_tokens())?;
//! assert_eq!(schedule.stages.len(), 3);
//! assert_eq!(schedule.stages[2].sigmas.len(), 7 + 1);
//!
//! // Pretend that the first 307 tokens are the interesting ones.
//! let selected: Vec<u32> = (0..params.region_count(grid.n_tokens()) as u32).collect();
//! let transition = Transition::to_mixed(grid, &selected)?;
//! assert_eq!(transition.entries.len(), 1945);
//! assert_eq!(TokenLayout::mixed(grid, &selected)?.n_tokens(), 1945);
//! # Ok::<(), ralu::sampling::Error>(())
//! ```
//!
//! What is absent: the network, the decoder, and any drawing or reading of pictures. Callers
//! hand in numbers and get numbers.

pub mod schedule;

pub mod presets;

pub mod ralu;

pub mod rules;

pub mod ntdm;

pub mod layout;

pub mod noise;

pub mod torch_rng;

pub mod edges;

pub mod regions;

pub mod cache;

mod error;

pub use cache::{CacheError, CacheRule, CacheSpec};
pub use edges::{EdgeMap, edge_density, edge_map, gradient_sum};
pub use error::Error;
pub use layout::{Entry, Grid, Token, TokenLayout, Transition};
pub use noise::{
    bound_noise, initial_noise, initial_noise_row, jump_noise, jump_noise_of, low_noise, pack,
    pack_planes, unpack, unpack_planes,
};
pub use presets::{DISTILLED_PRESETS, Preset, PresetNoise, PresetRow, PresetTable};
pub use ralu::{CustomStages, Jump, RaluParams, RaluSchedule, StagePlan, check_stages};
pub use regions::{MaskMode, Ranking, latent_gradient, mask_regions, temporal_variance};
pub use rules::{
    GrayMap, JumpNoise, KeptNoise, RegionScore, RopeMode, RuleOverrides, Rules, TieBreak, Upsample,
    Variant, ZPolicy,
};
pub use schedule::{DynamicShift, FlowMatch, ShiftKind, stage_sigmas};
pub use torch_rng::torch_randn;
