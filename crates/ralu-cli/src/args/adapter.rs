//! Options about the adapter, and what is kept about it.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use ralu::gpu::{AdapterChoice, LimitsPolicy};

/// Which adapter to run on.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Adapter")]
pub struct AdapterArgs {
    /// A number from `ralu devices`, or a part of a name. [default: the best one]
    #[arg(long, value_name = "INDEX|NAME-PART")]
    pub adapter: Option<String>,
    /// Only adapters of this backend.
    #[arg(hide_short_help = true, long)]
    pub backend: Option<BackendArg>,
    /// Use what the adapter offers, or no more than WebGPU guarantees everywhere.
    #[arg(hide_short_help = true, long, value_name = "POLICY", default_value = "adapter")]
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
    #[arg(hide_short_help = true, long)]
    pub no_tune: bool,
    #[command(flatten)]
    pub cache: CacheDirArgs,
}

/// Where things are kept for later runs.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Adapter")]
pub struct CacheDirArgs {
    /// Where measurements of kernels and adapters are kept. [default: the user's cache folder]
    #[arg(hide_short_help = true, long, value_name = "DIR")]
    pub cache_dir: Option<PathBuf>,
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
