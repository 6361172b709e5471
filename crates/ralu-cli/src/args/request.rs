//! Options that the picture depends on.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use ralu::models::layers::Precision;
use ralu::pipeline::Rng;
use ralu::sampling::{
    CacheSpec, JumpNoise, Preset, RegionScore, RopeMode, Upsample, Variant, ZPolicy,
};

use super::parse::{cache, choice, number, seed, three_numbers, three_whole, whole};

/// What the picture depends on.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Request")]
pub struct RequestArgs {
    /// A diffusers model folder. [default: the bundled tiny-flux]
    #[arg(short, long, value_name = "PATH")]
    pub model: Option<String>,
    /// Pixels. [default: the model's own]
    #[arg(long, value_name = "W", value_parser = whole, allow_negative_numbers = true)]
    pub width: Option<usize>,
    /// Pixels. [default: the model's own]
    #[arg(long, value_name = "H", value_parser = whole, allow_negative_numbers = true)]
    pub height: Option<usize>,
    /// Steps of plain sampling; turns RALU off unless --ralu is given too. [default: the model's own]
    #[arg(long, value_name = "N", value_parser = whole, allow_negative_numbers = true)]
    pub steps: Option<usize>,
    /// FLUX.1: distilled guidance; others: scale of classifier-free guidance. [default: the model's own]
    #[arg(long, value_name = "G", value_parser = number, allow_negative_numbers = true)]
    pub guidance: Option<f64>,
    /// What classifier-free guidance steers away from.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub negative_prompt: Option<String>,
    /// Scale of true classifier-free guidance; 1 is off. [default: the model's own]
    #[arg(long, value_name = "G", value_parser = number, allow_negative_numbers = true)]
    pub true_cfg: Option<f64>,
    /// Text tokens, where the model lets them be chosen. [default: the model's own]
    #[arg(long, value_name = "N", value_parser = whole, allow_negative_numbers = true)]
    pub max_sequence_length: Option<usize>,
    /// Seed of the first picture. [default: random, printed]
    #[arg(long, value_name = "S", value_parser = seed, allow_negative_numbers = true)]
    pub seed: Option<u64>,
    /// How many pictures; number i (from 0) uses seed S + i. [default: 1]
    #[arg(long, value_name = "N", value_parser = whole, allow_negative_numbers = true)]
    pub count: Option<usize>,
    /// Where the initial noise comes from; `torch` is what PyTorch's CPU generator draws.
    /// [default: philox]
    #[arg(long)]
    pub rng: Option<RngArg>,
    /// Acceleration. [default: the model's best-tested preset]
    #[arg(long, value_name = "PRESET", help_heading = "RALU")]
    pub ralu: Option<RaluArg>,
    /// With `custom`: steps of each stage, for example 5,6,7.
    #[arg(long, value_name = "N,N,N", value_parser = three_whole, help_heading = "RALU", allow_hyphen_values = true)]
    pub stage_steps: Option<[usize; 3]>,
    /// With `custom`: when each stage ends, from 0 (noise) to 1 (picture), for example 0.3,0.45,1.
    #[arg(long, value_name = "T,T,T", value_parser = three_numbers, help_heading = "RALU", allow_hyphen_values = true)]
    pub stage_ends: Option<[f64; 3]>,
    /// With `custom`: share of tokens that are refined early, for example 0.3.
    #[arg(long, value_name = "R", value_parser = number, help_heading = "RALU", allow_negative_numbers = true)]
    pub up_ratio: Option<f64>,
    /// With `custom`: time shift of each stage. [default: solved]
    #[arg(long, value_name = "H,H,H", value_parser = three_numbers, help_heading = "RALU", allow_hyphen_values = true)]
    pub stage_shifts: Option<[f64; 3]>,
    /// With `custom`: strength of the noise between stages. [default: solved]
    #[arg(long, value_name = "Z", value_parser = number, help_heading = "RALU", allow_negative_numbers = true)]
    pub stage_z: Option<f64>,
    /// `official` reproduces every quirk of the authors' code. [default: exact]
    #[arg(long, value_name = "VARIANT", help_heading = "RALU")]
    pub ralu_variant: Option<VariantArg>,
    /// How a coarse token becomes four: `token` repeats it, `latent` repeats its pixels.
    /// [default: the variant's]
    #[arg(long, value_name = "RULE", value_parser = choice::<Upsample>, help_heading = "RALU")]
    pub upsample: Option<Upsample>,
    /// How positions of two grids meet in stage 2: `official`, or `crpa` in units of the query's own
    /// grid. [default: the variant's]
    #[arg(long, value_name = "MODE", value_parser = choice::<RopeMode>, help_heading = "RALU")]
    pub rope_mode: Option<RopeMode>,
    /// What regions are chosen by: `edges` of a decoded picture, or `latent-gradient` or `variance` of
    /// the latents, which decode nothing. [default: the variant's]
    #[arg(long, value_name = "SCORE", value_parser = choice::<RegionScore>, help_heading = "RALU")]
    pub region_score: Option<RegionScore>,
    /// Noise between stages: `fresh` onto the noisy latents, or `bound` to coordinates, onto the clean
    /// estimate. [default: the variant's]
    #[arg(long, value_name = "NOISE", value_parser = choice::<JumpNoise>, help_heading = "RALU")]
    pub jump_noise: Option<JumpNoise>,
    /// Strength of the noise between stages: `published`, `min-noise` (the least that still fits the
    /// model's schedule), or `fixed=Z`. [default: published]
    #[arg(long, value_name = "POLICY", value_parser = choice::<ZPolicy>, help_heading = "RALU")]
    pub z_policy: Option<ZPolicy>,
    /// Reuses work of earlier steps: fbc, teacache, taylorseer, fora or magcache, with parameters as in
    /// `taylorseer:order=1,interval=3`, or off. [default: off]
    #[arg(long, value_name = "NAME[:KEY=VALUE,…]", value_parser = cache, help_heading = "RALU")]
    pub cache: Option<CacheArg>,
    /// Regions of your own instead of the found ones: a picture of any size, white where detail matters. What is
    /// transparent in it counts as black.
    #[arg(long, value_name = "MASK.png", help_heading = "RALU")]
    pub regions: Option<PathBuf>,
    /// Adds the regions of --regions to the found ones.
    #[arg(long, requires = "regions", help_heading = "RALU")]
    pub regions_add: bool,
    /// How weights are kept on the GPU; sums are always 32 bits wide. [default: auto]
    #[arg(long, help_heading = "Adapter")]
    pub precision: Option<PrecisionArg>,
}

/// `--rng`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RngArg {
    Torch,
    Philox,
}

impl From<RngArg> for Rng {
    fn from(rng: RngArg) -> Self {
        match rng {
            RngArg::Torch => Rng::Torch,
            RngArg::Philox => Rng::Philox,
        }
    }
}

/// `--ralu`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RaluArg {
    Off,
    #[value(name = "2x")]
    X2,
    #[value(name = "3x")]
    X3,
    #[value(name = "4x")]
    X4,
    #[value(name = "5x")]
    X5,
    #[value(name = "7x")]
    X7,
    /// For models with about four steps, such as FLUX.1-schnell and SD3.5-large-turbo
    Distilled,
    /// Your own --stage-steps, --stage-ends and --up-ratio
    Custom,
    /// The model's best-tested preset
    Auto,
}

impl RaluArg {
    /// The preset it names, if it does.
    pub fn preset(self) -> Option<Preset> {
        match self {
            RaluArg::X2 => Some(Preset::X2),
            RaluArg::X3 => Some(Preset::X3),
            RaluArg::X4 => Some(Preset::X4),
            RaluArg::X5 => Some(Preset::X5),
            RaluArg::X7 => Some(Preset::X7),
            RaluArg::Distilled => Some(Preset::Distilled),
            RaluArg::Off | RaluArg::Custom | RaluArg::Auto => None,
        }
    }
}

/// `--ralu-variant`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum VariantArg {
    Official,
    Exact,
}

impl From<VariantArg> for Variant {
    fn from(variant: VariantArg) -> Self {
        match variant {
            VariantArg::Official => Variant::Official,
            VariantArg::Exact => Variant::Exact,
        }
    }
}

/// `--precision`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PrecisionArg {
    /// As they are stored in the checkpoint
    Auto,
    F32,
    F16,
}

impl From<PrecisionArg> for Precision {
    fn from(precision: PrecisionArg) -> Self {
        match precision {
            PrecisionArg::Auto => Precision::Auto,
            PrecisionArg::F32 => Precision::F32,
            PrecisionArg::F16 => Precision::F16,
        }
    }
}

/// `--cache`: a cache, or `off`.
#[derive(Clone, Debug, PartialEq)]
pub struct CacheArg(pub Option<CacheSpec>);
