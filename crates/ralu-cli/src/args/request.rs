//! Options that the picture depends on.

use std::path::PathBuf;

use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};
use ralu::models::layers::Precision;
use ralu::models::quantise::QuantiseChoice;
use ralu::names;
use ralu::pipeline::{MemoryBudget, Rng};
use ralu::sampling::{
    CacheSpec, JumpNoise, Preset, RegionScore, RopeMode, Upsample, Variant, ZPolicy,
};

use super::ModelArgs;
use super::parse::{
    PerStage, cache, choice, named, number, numbers_per_stage, seed, size, steps_per_stage, whole,
    width_and_height,
};

/// What the picture depends on.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Request")]
pub struct RequestArgs {
    /// Pixels. [default: the model's own, in proportion to --height]
    #[arg(short = 'W', long, value_name = "W", value_parser = whole, allow_negative_numbers = true)]
    pub width: Option<usize>,
    /// Pixels. [default: the model's own, in proportion to --width]
    #[arg(short = 'H', long, value_name = "H", value_parser = whole, allow_negative_numbers = true)]
    pub height: Option<usize>,
    /// Both at once.
    #[arg(long, value_name = "WxH", value_parser = width_and_height, conflicts_with_all = ["width", "height"])]
    pub size: Option<(usize, usize)>,
    /// Steps of plain sampling; turns RALU off unless --ralu is given too. [default: the model's own]
    #[arg(short, long, value_name = "N", value_parser = whole, allow_negative_numbers = true,
        aliases = ["num-inference-steps", "sampling-steps"])]
    pub steps: Option<usize>,
    /// FLUX.1: distilled guidance; others: scale of classifier-free guidance. [default: the model's own]
    #[arg(long, value_name = "G", value_parser = number, allow_negative_numbers = true, alias = "guidance-scale")]
    pub guidance: Option<f64>,
    /// What classifier-free guidance steers away from.
    #[arg(short, long, value_name = "TEXT", allow_hyphen_values = true)]
    pub negative_prompt: Option<String>,
    /// Scale of true classifier-free guidance; 1 is off. [default: the model's own]
    #[arg(hide_short_help = true, long, value_name = "G", value_parser = number, allow_negative_numbers = true)]
    pub true_cfg: Option<f64>,
    /// Text tokens, where the model lets them be chosen. [default: the model's own]
    #[arg(hide_short_help = true, long, value_name = "N", value_parser = whole, allow_negative_numbers = true)]
    pub max_sequence_length: Option<usize>,
    /// Seed of the first picture. [default: random, printed]
    #[arg(long, value_name = "S", value_parser = seed, allow_negative_numbers = true)]
    pub seed: Option<u64>,
    /// How many pictures; number i (from 0) uses seed S + i. [default: 1]
    #[arg(long, value_name = "N", value_parser = whole, allow_negative_numbers = true, aliases = ["batch-count", "num-images"])]
    pub count: Option<usize>,
    /// Where the initial noise comes from; `torch` is what PyTorch's CPU generator draws.
    /// [default: philox]
    #[arg(hide_short_help = true, long, value_parser = named::<Rng>())]
    pub rng: Option<Rng>,
    /// Acceleration. [default: the model's best-tested preset]
    #[arg(long, value_name = "PRESET", help_heading = "RALU")]
    pub ralu: Option<RaluArg>,
    /// With `custom`: steps of each stage, for example 5,6,7.
    #[arg(hide_short_help = true, long, value_name = "N,N,N", value_parser = steps_per_stage, help_heading = "Research", allow_hyphen_values = true)]
    pub stage_steps: Option<PerStage<usize>>,
    /// With `custom`: when each stage ends, from 0 (noise) to 1 (picture), for example 0.3,0.45,1.
    #[arg(hide_short_help = true, long, value_name = "T,T,T", value_parser = numbers_per_stage, help_heading = "Research", allow_hyphen_values = true)]
    pub stage_ends: Option<PerStage<f64>>,
    /// With `custom`: share of tokens that are refined early, for example 0.3.
    #[arg(hide_short_help = true, long, value_name = "R", value_parser = number, help_heading = "Research", allow_negative_numbers = true)]
    pub up_ratio: Option<f64>,
    /// With `custom`: time shift of each stage. [default: solved]
    #[arg(hide_short_help = true, long, value_name = "H,H,H", value_parser = numbers_per_stage, help_heading = "Research", allow_hyphen_values = true)]
    pub stage_shifts: Option<PerStage<f64>>,
    /// With `custom`: strength of the noise between stages. [default: solved]
    #[arg(hide_short_help = true, long, value_name = "Z", value_parser = number, help_heading = "Research", allow_negative_numbers = true)]
    pub stage_z: Option<f64>,
    /// `official` reproduces every quirk of the authors' code. [default: exact]
    #[arg(hide_short_help = true, long, value_name = "VARIANT", value_parser = named::<Variant>(), help_heading = "Research")]
    pub ralu_variant: Option<Variant>,
    /// How a coarse token becomes four: `token` repeats it, `latent` repeats its pixels.
    /// [default: the variant's]
    #[arg(hide_short_help = true, long, value_name = "RULE", value_parser = choice::<Upsample>, help_heading = "Research")]
    pub upsample: Option<Upsample>,
    /// How positions of two grids meet in stage 2: `official`, or `crpa` in units of the query's own
    /// grid. [default: the variant's]
    #[arg(hide_short_help = true, long, value_name = "MODE", value_parser = choice::<RopeMode>, help_heading = "Research")]
    pub rope_mode: Option<RopeMode>,
    /// What regions are chosen by: `edges` of a decoded picture, or `latent-gradient` or `variance` of
    /// the latents, which decode nothing. [default: the variant's]
    #[arg(hide_short_help = true, long, value_name = "SCORE", value_parser = choice::<RegionScore>, help_heading = "Research")]
    pub region_score: Option<RegionScore>,
    /// Noise between stages: `fresh` onto the noisy latents, or `bound` to coordinates, onto the clean
    /// estimate. [default: the variant's]
    #[arg(hide_short_help = true, long, value_name = "NOISE", value_parser = choice::<JumpNoise>, help_heading = "Research")]
    pub jump_noise: Option<JumpNoise>,
    /// Strength of the noise between stages: `published`, `min-noise` (the least that still fits the
    /// model's schedule), or `fixed=Z`. [default: published]
    #[arg(hide_short_help = true, long, value_name = "POLICY", value_parser = choice::<ZPolicy>, help_heading = "Research")]
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
    #[arg(hide_short_help = true, long, requires = "regions", help_heading = "RALU")]
    pub regions_add: bool,
    /// The most GPU memory that a run may take: a size such as 6GiB or 800MiB. Weights that do not fit come and go while it
    /// draws: the picture is the same. `auto`: as much as it takes, less if the adapter says that less is free (with Vulkan, and
    /// where it computes on the processor), and less when the memory is full; `off`: never less. [default: auto]
    #[arg(long, value_name = "SIZE", value_parser = choice::<MemoryBudget>, alias = "max-vram", help_heading = "Adapter")]
    pub memory_budget: Option<MemoryBudget>,
    /// Memory of this machine for copies of weights that come and go: with enough of it they are read and packed once. [default:
    /// half of what is free, next to a GPU]
    #[arg(hide_short_help = true, long, value_name = "SIZE", value_parser = size, help_heading = "Adapter")]
    pub host_memory: Option<u64>,
    /// `auto`: weights as they are stored in the checkpoint, factors of products rounded to 16 bits on GPUs with units for
    /// that. `f16`: 32-bit weights rounded to 16 bits, too. `f32`: weights as they are stored, nothing rounded. `int8`: as
    /// `auto`, but what meets weights in blocks of 4, 5 and 8 bits is rounded to 8 bits, on GPUs that multiply such bytes and have
    /// no units for more: faster, and pictures change a little. Sums are always 32 bits wide. [default: auto]
    #[arg(long, value_parser = named::<Precision>(), help_heading = "Adapter")]
    pub precision: Option<Precision>,
    /// Quantises large matrices that are stored in 16 or 32 bits while they are loaded: q8_0, q6_k, q5_k, q5_0, q4_k, q4_0,
    /// q3_k, q2_k, fp8 or nf4; `auto`: the first of q8_0, q6_k and q4_k that fits into the memory, if that is known and the
    /// weights do not fit as they are; `off`: nothing. PARTS are of denoiser, clip, t5, qwen3, text-encoders, all, with commas
    /// between. [default: off; parts: denoiser]
    #[arg(long, value_name = "TYPE[:PARTS]", value_parser = choice::<QuantiseChoice>, help_heading = "Adapter")]
    pub quantize: Option<QuantiseChoice>,
    // The last, as its heading would be that of what follows.
    #[command(flatten)]
    pub model: ModelArgs,
}

/// `--ralu`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RaluArg {
    Off,
    Preset(Preset),
    /// The numbers of --stage-steps and its like.
    Custom,
    Auto,
}

impl ValueEnum for RaluArg {
    fn value_variants<'a>() -> &'a [Self] {
        const PRESETS: usize = Preset::ALL.len();
        const ALL: [RaluArg; PRESETS + 3] = {
            let mut all = [RaluArg::Off; PRESETS + 3];
            let mut i = 0;
            while i < PRESETS {
                all[1 + i] = RaluArg::Preset(Preset::ALL[i]);
                i += 1;
            }
            all[PRESETS + 1] = RaluArg::Custom;
            all[PRESETS + 2] = RaluArg::Auto;
            all
        };
        &ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            RaluArg::Off => PossibleValue::new("off"),
            RaluArg::Preset(preset) => {
                let value = PossibleValue::new(names::of_values::<Preset>()[*preset as usize]);
                match preset {
                    Preset::Distilled => value.help(
                        "For models with about four steps, such as FLUX.1-schnell and SD3.5-large-turbo",
                    ),
                    _ => value,
                }
            }
            RaluArg::Custom => PossibleValue::new("custom")
                .help("Your own --stage-steps, --stage-ends and --up-ratio"),
            RaluArg::Auto => PossibleValue::new("auto").help("The model's best-tested preset"),
        })
    }
}

/// `--cache`: a cache, or `off`.
#[derive(Clone, Debug, PartialEq)]
pub struct CacheArg(pub Option<CacheSpec>);
