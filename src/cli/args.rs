//! What can be asked for.

use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand, ValueEnum};
use ralu::gpu::{AdapterChoice, LimitsPolicy};
use ralu::models::layers::Precision;
use ralu::pipeline::Rng;
use ralu::sampling::{
    CacheSpec, JumpNoise, Preset, RegionScore, RopeMode, Upsample, Variant, ZPolicy,
};

/// Pictures from text with FLUX and Stable Diffusion 3, sped up by Region-Adaptive Latent Upsampling, on any GPU.
#[derive(Debug, Parser)]
#[command(name = "ralu", version, max_term_width = 110, args_override_self = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Shows what the engine logs; twice and thrice show more.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// No progress on stderr; warnings and errors stay.
    #[arg(short, long, global = true)]
    pub quiet: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Makes a picture (or several) from text.
    Generate(Box<GenerateArgs>),
    /// Lists adapters: name, backend, driver, type, features, limits, and whether they can be used.
    Devices(DevicesArgs),
    /// Says what a run would do, before it does it: stages, tokens, steps, FLOPs, memory, speed-up.
    Plan(Box<PlanArgs>),
    /// Says what a model folder or file holds, what is missing and what is not supported.
    Inspect(InspectArgs),
    /// Measures ops, steps or whole runs.
    Bench(Box<BenchArgs>),
    /// Measures anew which kernels are fastest on an adapter, and keeps the result for later runs.
    Tune(TuneArgs),
}

/// `ralu generate`.
#[derive(Clone, Debug, Args)]
pub struct GenerateArgs {
    /// The text; `-` reads stdin.
    #[arg(allow_hyphen_values = false)]
    pub prompt: Option<String>,
    #[command(flatten)]
    pub request: RequestArgs,
    #[command(flatten)]
    pub adapter: AdapterArgs,
    #[command(flatten)]
    pub tuning: TuningArgs,
    /// Where the picture goes; with --count above 1, FILE-0.png, FILE-1.png, … [default: ralu-SEED.png]
    #[arg(short, long, value_name = "FILE.png", help_heading = "Output")]
    pub output: Option<PathBuf>,
    /// Writes what the run made (embeddings, noise, latents, picture) in float32.
    #[arg(long, value_name = "FILE.safetensors", help_heading = "Output")]
    pub save_tensors: Option<PathBuf>,
    /// Writes each stage's clean estimate, the edge map, and the chosen regions drawn over it.
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    pub stages: Option<PathBuf>,
    /// Reports everything that happens on stdout, one JSON object a line.
    #[arg(long, value_name = "FORMAT", help_heading = "Output")]
    pub events: Option<EventFormat>,
    /// Times every kernel by the GPU's clock and shows the times at the end, on stderr. With a file name,
    /// writes a trace that Perfetto and chrome://tracing show.
    #[arg(long, value_name = "TRACE.json", num_args = 0..=1, require_equals = true, help_heading = "Output")]
    pub profile: Option<Option<PathBuf>>,
    /// Repeats the request that a picture of this program carries; other options win over it.
    #[arg(long, value_name = "PICTURE.png", help_heading = "Request")]
    pub from: Option<PathBuf>,
    /// Tensors that replace what the engine would draw or compute: without --given-names the noises.
    #[arg(long, value_name = "FILE.safetensors", help_heading = "Request")]
    pub given: Option<PathBuf>,
    /// Which tensors to take from --given.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', help_heading = "Request")]
    pub given_names: Option<Vec<String>>,
}

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
    /// FLUX: distilled guidance; SD3: scale of classifier-free guidance. [default: the model's own]
    #[arg(long, value_name = "G", value_parser = number, allow_negative_numbers = true)]
    pub guidance: Option<f64>,
    /// What classifier-free guidance steers away from.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub negative_prompt: Option<String>,
    /// Scale of true classifier-free guidance; 1 is off. [default: the model's own]
    #[arg(long, value_name = "G", value_parser = number, allow_negative_numbers = true)]
    pub true_cfg: Option<f64>,
    /// T5 tokens. [default: the model's own]
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
    /// Regions of your own instead of the found ones: a picture of any size, white where detail matters.
    #[arg(long, value_name = "MASK.png", help_heading = "RALU")]
    pub regions: Option<PathBuf>,
    /// Adds the regions of --regions to the found ones.
    #[arg(long, requires = "regions", help_heading = "RALU")]
    pub regions_add: bool,
    /// How weights are kept on the GPU; sums are always 32 bits wide. [default: auto]
    #[arg(long, help_heading = "Adapter")]
    pub precision: Option<PrecisionArg>,
}

/// Which adapter to run on.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Adapter")]
pub struct AdapterArgs {
    /// A number from `ralu devices`, or a part of a name. [default: the best one]
    #[arg(long, value_name = "INDEX|NAME-PART")]
    pub adapter: Option<String>,
    /// Only adapters of this backend.
    #[arg(long)]
    pub backend: Option<BackendArg>,
    /// Use what the adapter offers, or no more than WebGPU guarantees everywhere.
    #[arg(long, value_name = "POLICY", default_value = "adapter")]
    pub limits: LimitsArg,
}

impl AdapterArgs {
    /// As the library wants it.
    pub fn choice(&self) -> AdapterChoice {
        AdapterChoice {
            adapter: self.adapter.clone(),
            backend: self.backend.map(|backend| backend.name().to_owned()),
            limits: match self.limits {
                LimitsArg::Adapter => LimitsPolicy::Adapter,
                LimitsArg::Webgpu => LimitsPolicy::WebGpuDefaults,
            },
            ..Default::default()
        }
    }
}

/// Whether kernels are chosen by measuring.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Adapter")]
pub struct TuningArgs {
    /// Neither measures kernels, as the first run on an adapter does, nor uses what was measured: the same
    /// kernels on all adapters of a kind. Whichever run, pictures are the same up to rounding.
    #[arg(long)]
    pub no_tune: bool,
    #[command(flatten)]
    pub cache: CacheDirArgs,
}

/// Where things are kept for later runs.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Adapter")]
pub struct CacheDirArgs {
    /// Where measurements of kernels are kept. [default: the user's cache folder]
    #[arg(long, value_name = "DIR")]
    pub cache_dir: Option<PathBuf>,
}

/// `ralu tune`.
#[derive(Clone, Debug, Args)]
pub struct TuneArgs {
    /// A diffusers model folder: its shapes are measured. [default: the bundled tiny-flux]
    #[arg(short, long, value_name = "PATH")]
    pub model: Option<String>,
    /// Pixels. [default: the model's own]
    #[arg(long, value_name = "W", value_parser = whole, allow_negative_numbers = true)]
    pub width: Option<usize>,
    /// Pixels. [default: the model's own]
    #[arg(long, value_name = "H", value_parser = whole, allow_negative_numbers = true)]
    pub height: Option<usize>,
    /// T5 tokens. [default: the model's own]
    #[arg(long, value_name = "N", value_parser = whole, allow_negative_numbers = true)]
    pub max_sequence_length: Option<usize>,
    /// How weights are kept on the GPU. [default: auto]
    #[arg(long)]
    pub precision: Option<PrecisionArg>,
    #[command(flatten)]
    pub adapter: AdapterArgs,
    #[command(flatten)]
    pub cache: CacheDirArgs,
    /// How long measuring may take; what is not decided by then keeps the usual kernel.
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "20", allow_negative_numbers = true)]
    pub seconds: f64,
    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

/// `ralu devices`.
#[derive(Clone, Debug, Args)]
pub struct DevicesArgs {
    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

/// `ralu plan`.
#[derive(Clone, Debug, Args)]
pub struct PlanArgs {
    #[command(flatten)]
    pub generate: GenerateArgs,
    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

/// `ralu inspect`.
#[derive(Clone, Debug, Args)]
pub struct InspectArgs {
    /// A diffusers model folder, a safetensors file, or the name of a published model (flux.1-dev,
    /// flux.1-schnell, sd3-medium, sd3.5-medium, sd3.5-large, sd3.5-large-turbo).
    pub model: String,
    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

/// `ralu bench`.
#[derive(Clone, Debug, Args)]
pub struct BenchArgs {
    /// What to measure.
    #[arg(default_value = "run")]
    pub what: BenchArg,
    #[command(flatten)]
    pub request: RequestArgs,
    #[command(flatten)]
    pub adapter: AdapterArgs,
    #[command(flatten)]
    pub tuning: TuningArgs,
    #[command(flatten)]
    pub quality: QualityArgs,
    /// How often to measure; medians are shown. [default: 3, ops: 10]
    #[arg(long, value_name = "N", value_parser = positive)]
    pub runs: Option<usize>,
    /// The JSON report of an earlier run of the same bench, to print ratios to it.
    #[arg(long, value_name = "FILE")]
    pub compare: Option<PathBuf>,
    /// Also times every kernel by the GPU's clock (step and run). With a file name, writes a trace that
    /// Perfetto and chrome://tracing show.
    #[arg(long, value_name = "TRACE.json", num_args = 0..=1, require_equals = true)]
    pub profile: Option<Option<PathBuf>>,
    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

/// What `ralu bench` measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BenchArg {
    /// GFLOP/s and GB/s of each op on the model's shapes.
    Ops,
    /// Seconds of a step, plain and in each stage.
    Step,
    /// Seconds of 50 plain steps and of RALU, beside what `ralu plan` predicts.
    Run,
    /// GB/s from disk to the GPU, beside a plain read of the same files.
    Load,
    /// How far each of several settings is from the model's own plain picture, and how much faster.
    Quality,
}

/// What `ralu bench quality` compares, beside the request that all settings share.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "Quality")]
pub struct QualityArgs {
    /// Prompts, one a line; blank lines and lines that begin with # are ignored.
    #[arg(long, value_name = "FILE")]
    pub prompts: Option<PathBuf>,
    /// Seeds of each prompt's pictures. [default: 7]
    #[arg(long, value_name = "S,S,…", value_delimiter = ',', value_parser = seed)]
    pub seeds: Option<Vec<u64>>,
    /// A setting to compare, as options of `ralu generate`, for example "7x late: --ralu 7x"; they win
    /// over the bench's own. [default: 50, 28, 10 and 7 plain steps; RALU 4x, 5x and 7x]
    #[arg(long, value_name = "NAME: OPTIONS", allow_hyphen_values = true)]
    pub setting: Vec<String>,
    /// More settings, one a line; blank lines and lines that begin with # are ignored.
    #[arg(long, value_name = "FILE")]
    pub settings: Option<PathBuf>,
    /// Plain steps of the picture that all settings are compared with. [default: 50]
    #[arg(long, value_name = "N", value_parser = positive)]
    pub reference_steps: Option<usize>,
    /// Where pictures, results.json, table.md and contact.png go; a run that was stopped is continued.
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
}

/// How events are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EventFormat {
    /// One object a line.
    Json,
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

/// `--backend`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BackendArg {
    Vulkan,
    Metal,
    Dx12,
    Gl,
}

impl BackendArg {
    fn name(self) -> &'static str {
        match self {
            BackendArg::Vulkan => "vulkan",
            BackendArg::Metal => "metal",
            BackendArg::Dx12 => "dx12",
            BackendArg::Gl => "gl",
        }
    }
}

/// `--limits`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LimitsArg {
    Adapter,
    Webgpu,
}

/// `--cache`: a cache, or `off`.
#[derive(Clone, Debug, PartialEq)]
pub struct CacheArg(pub Option<CacheSpec>);

fn cache(text: &str) -> Result<CacheArg, String> {
    CacheSpec::parse_option(text).map(CacheArg).map_err(|error| error.to_string())
}

fn choice<T: FromStr<Err: Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| error.to_string())
}

fn whole(text: &str) -> Result<usize, String> {
    text.trim().parse().map_err(|_| "expected a whole number, for example 512".to_owned())
}

fn positive(text: &str) -> Result<usize, String> {
    match whole(text)? {
        0 => Err("expected at least 1".to_owned()),
        number => Ok(number),
    }
}

fn seed(text: &str) -> Result<u64, String> {
    text.trim().parse().map_err(|_| format!("expected a whole number from 0 to {}", u64::MAX))
}

fn number(text: &str) -> Result<f64, String> {
    let expected = || "expected a number, for example 3.5".to_owned();
    text.trim().parse().ok().filter(|number: &f64| number.is_finite()).ok_or_else(expected)
}

fn seconds(text: &str) -> Result<f64, String> {
    match number(text)? {
        seconds if (0.0..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("expected a number of seconds from 0 to 3600".to_owned()),
    }
}

fn three<T>(
    text: &str,
    parse: fn(&str) -> Result<T, String>,
    example: &str,
) -> Result<[T; 3], String> {
    let parts = text.split(',').map(parse).collect::<Result<Vec<T>, String>>();
    parts
        .ok()
        .and_then(|parts| parts.try_into().ok())
        .ok_or_else(|| format!("expected three numbers with commas, for example {example}"))
}

fn three_whole(text: &str) -> Result<[usize; 3], String> {
    three(text, whole, "5,6,7")
}

fn three_numbers(text: &str) -> Result<[f64; 3], String> {
    three(text, number, "0.3,0.45,1")
}
