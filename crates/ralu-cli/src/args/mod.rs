//! What can be asked for.

mod adapter;
#[cfg(feature = "bench")]
mod bench;
mod hub;
mod model;
mod other_programs;
mod parse;
mod request;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use ralu::models::layers::Precision;
use ralu::models::quantise::{Quantise, QuantiseChoice};
use ralu::pipeline::MemoryBudget;

pub use adapter::{AdapterArgs, CacheDirArgs, TuningArgs};
#[cfg(feature = "bench")]
pub use bench::{BenchArg, BenchArgs, QualityArgs};
pub use hub::{ListArgs, PullArgs, RmArgs};
pub use model::{ModelArgs, PartArgs};
use other_programs::OtherPrograms;
use parse::{choice, named, seconds, whole};
pub use request::{CacheArg, RaluArg, RequestArgs};

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
    /// Leaves the user's configuration out (`ralu config` shows it).
    #[arg(hide_short_help = true, long, global = true)]
    pub no_config: bool,
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
    /// Says what a model folder or file holds, what is missing and what is not supported; or how a picture was made.
    Inspect(InspectArgs),
    /// Writes a model's weights to one file, quantised on the way.
    Convert(ConvertArgs),
    /// Measures ops, steps or whole runs.
    #[cfg(feature = "bench")]
    Bench(Box<BenchArgs>),
    /// Re-measures which kernels are fastest on an adapter, and keeps the result for later runs.
    Tune(TuneArgs),
    /// Downloads a model from the Hugging Face hub, by its name.
    Pull(PullArgs),
    /// Lists the models that were downloaded, and those that are known by name.
    List(ListArgs),
    /// Removes a downloaded model.
    Rm(RmArgs),
    /// Opens a window in which the stages can be watched, and regions painted (needs the viewer, `ralu-viewer`, which is built first in ralu's sources).
    View(ViewArgs),
    /// Shows the user's configuration: where its file is, which defaults of options it sets, and which it can set.
    Config(ConfigArgs),
    /// Prints what completes this command line in a shell.
    Completions(CompletionsArgs),
    /// Writes manual pages, one for each command.
    Man(ManArgs),
}

/// `ralu config`.
#[derive(Clone, Debug, Args)]
pub struct ConfigArgs {
    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

/// `ralu completions`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
For bash: ralu completions bash > ~/.local/share/bash-completion/completions/ralu
For zsh:  ralu completions zsh > a folder of $fpath, as _ralu
For fish: ralu completions fish > ~/.config/fish/completions/ralu.fish")]
pub struct CompletionsArgs {
    /// The shell.
    pub shell: clap_complete::Shell,
}

/// `ralu man`.
#[derive(Clone, Debug, Args)]
pub struct ManArgs {
    /// The folder that they are written to, such as ~/.local/share/man/man1.
    pub folder: PathBuf,
}

/// `ralu generate`.
#[derive(Clone, Debug, Args)]
pub struct GenerateArgs {
    /// The text, with quotes or without; `-` reads stdin.
    #[arg(value_name = "PROMPT", allow_hyphen_values = false)]
    pub words: Vec<String>,
    /// The text, as an option.
    #[arg(
        short,
        long,
        value_name = "TEXT",
        conflicts_with = "words",
        allow_hyphen_values = true,
        help_heading = "Request"
    )]
    pub prompt: Option<String>,
    /// Draws one picture after the other, with the model loaded once: a prompt a line, or on a line of its own an object of
    /// JSON with any fields of a request, as in {"prompt": "a fox", "seed": 7, "width": 512}. Lines that do not say it have the
    /// options' settings, and the seeds S, S + 1, …. `-` reads stdin.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["words", "prompt"], help_heading = "Request")]
    pub prompts: Option<PathBuf>,
    /// Goes on with the run that was interrupted last, by Ctrl-C or a failure, with its options: to the same pictures.
    #[arg(long, conflicts_with_all = ["words", "prompt", "prompts", "from"], help_heading = "Request")]
    pub resume: bool,
    #[command(flatten)]
    pub request: RequestArgs,
    #[command(flatten)]
    pub adapter: AdapterArgs,
    #[command(flatten)]
    pub tuning: TuningArgs,
    /// Where the picture goes, as PNG, JPEG or WebP (without loss) by the ending of its name; with several pictures
    /// FILE-0.png, FILE-1.png, …; `-` is stdout, as PNG. [default: ralu-SEED.png]
    #[arg(short, long, value_name = "FILE.png|jpg|webp", alias = "out", help_heading = "Output")]
    pub output: Option<PathBuf>,
    /// Shows finished pictures in the terminal. `auto`: in those that are known to be able to, by their own protocol, unless what
    /// is told is piped. [default: auto]
    #[arg(hide_short_help = true, long, value_name = "PROTOCOL", help_heading = "Output")]
    pub preview: Option<PreviewArg>,
    /// Quality of JPEGs, from 1 to 100. [default: 92]
    #[arg(hide_short_help = true, long, value_name = "Q", value_parser = clap::value_parser!(u8).range(1..=100), help_heading = "Output")]
    pub quality: Option<u8>,
    /// Leaves out of pictures how they were made: --from cannot repeat them.
    #[arg(hide_short_help = true, long, help_heading = "Output")]
    pub no_metadata: bool,
    /// Writes what the run made (embeddings, noise, latents, picture) in float32.
    #[arg(hide_short_help = true, long, value_name = "FILE.safetensors", help_heading = "Output")]
    pub save_tensors: Option<PathBuf>,
    /// Writes each stage's clean estimate, the edge map, and the chosen regions drawn over it.
    #[arg(hide_short_help = true, long, value_name = "DIR", help_heading = "Output")]
    pub stages: Option<PathBuf>,
    /// Reports everything that happens on stdout, one JSON object a line.
    #[arg(hide_short_help = true, long, value_name = "FORMAT", help_heading = "Output")]
    pub events: Option<EventFormat>,
    /// Times every kernel by the GPU's clock and shows the times at the end, on stderr. With a file name,
    /// writes a trace that Perfetto and chrome://tracing show.
    #[arg(hide_short_help = true, long, value_name = "TRACE.json", num_args = 0..=1, require_equals = true, help_heading = "Output")]
    pub profile: Option<Option<PathBuf>>,
    /// Repeats the request that a picture of this program carries; other options win over it.
    #[arg(long, value_name = "PICTURE", help_heading = "Request")]
    pub from: Option<PathBuf>,
    /// Tensors that replace what the engine would draw or compute: without --given-names the noises.
    #[arg(hide_short_help = true, long, value_name = "FILE.safetensors", help_heading = "Request")]
    pub given: Option<PathBuf>,
    /// Which tensors to take from --given.
    #[arg(
        hide_short_help = true,
        long,
        value_name = "NAMES",
        value_delimiter = ',',
        help_heading = "Request"
    )]
    pub given_names: Option<Vec<String>>,
    #[command(flatten)]
    pub other_programs: OtherPrograms,
}

impl GenerateArgs {
    /// The text, if there is one.
    pub fn prompt(&self) -> Option<String> {
        let words = || (!self.words.is_empty()).then(|| self.words.join(" "));
        self.prompt.clone().or_else(words)
    }
}

/// `ralu tune`.
#[derive(Clone, Debug, Args)]
pub struct TuneArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// Pixels. [default: the model's own]
    #[arg(long, value_name = "W", value_parser = whole, allow_negative_numbers = true)]
    pub width: Option<usize>,
    /// Pixels. [default: the model's own]
    #[arg(long, value_name = "H", value_parser = whole, allow_negative_numbers = true)]
    pub height: Option<usize>,
    /// Text tokens, where the model lets them be chosen. [default: the model's own]
    #[arg(long, value_name = "N", value_parser = whole, allow_negative_numbers = true)]
    pub max_sequence_length: Option<usize>,
    /// How weights are kept on the GPU, and whether factors of products may be rounded to 16 or 8 bits, as for `generate`.
    /// [default: auto]
    #[arg(long, value_parser = named::<Precision>())]
    pub precision: Option<Precision>,
    /// What is quantised while weights are loaded, as for `generate`. [default: off]
    #[arg(long, value_name = "TYPE[:PARTS]", value_parser = choice::<QuantiseChoice>)]
    pub quantize: Option<QuantiseChoice>,
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

/// `ralu view`.
#[derive(Clone, Debug, Args)]
pub struct ViewArgs {
    /// The text to begin with.
    pub prompt: Option<String>,
    /// A diffusers model folder, or a model's file. [default: the one that was open last]
    #[arg(short, long, value_name = "PATH")]
    pub model: Option<PathBuf>,
    #[command(flatten)]
    pub parts: PartArgs,
    /// The most GPU memory that runs may take, as for `generate`. [default: as the last time]
    #[arg(long, value_name = "SIZE", value_parser = choice::<MemoryBudget>, alias = "max-vram")]
    pub memory_budget: Option<MemoryBudget>,
    /// What is quantised while the model is loaded, as for `generate`. [default: as last time]
    #[arg(long, value_name = "TYPE[:PARTS]", value_parser = choice::<QuantiseChoice>)]
    pub quantize: Option<QuantiseChoice>,
    /// Opens the request that a picture of this program carries.
    #[arg(long, value_name = "PICTURE.png")]
    pub from: Option<PathBuf>,
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
    /// A diffusers model folder, any safetensors or GGUF file of a model or of one of its parts, the name of a published
    /// model, such as flux.1-dev (an unknown name is answered with all that are known), or a picture of this program.
    pub model: String,
    /// The model's other files, as for `generate`.
    #[command(flatten)]
    pub files: PartArgs,
    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

/// `ralu convert`.
#[derive(Clone, Debug, Args)]
pub struct ConvertArgs {
    /// A diffusers model folder, of which the denoiser is taken, the folder of one part, or a safetensors or GGUF file.
    #[arg(value_name = "IN")]
    pub input: PathBuf,
    /// The file that is written: .safetensors for fp8 and nf4, .gguf for all other formats.
    #[arg(value_name = "OUT")]
    pub output: PathBuf,
    /// The format of large matrices (q8_0, q6_k, q5_k, q5_0, q4_k, q4_0, q3_k, q2_k, fp8 or nf4), with PARTS for files that
    /// hold several: of denoiser, clip, t5, text-encoders, all, with commas between [default: denoiser]. Without it, numbers
    /// stay in the type they have.
    #[arg(long, value_name = "TYPE[:PARTS]", value_parser = choice::<Quantise>)]
    pub quantize: Option<Quantise>,
}

/// `--preview`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum PreviewArg {
    #[default]
    Auto,
    Off,
    Kitty,
    Iterm,
    Sixel,
}

/// How events are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EventFormat {
    /// One object a line.
    Json,
}
