//! Arguments of the commands for models by name.

use clap::Args;

/// `ralu pull`.
#[derive(Clone, Debug, Args)]
pub struct PullArgs {
    /// A known name (`ralu list` has them), owner/repo on the Hugging Face hub, or owner/repo:FILE.
    pub name: String,
    /// Does not ask before a large download.
    #[arg(short, long)]
    pub yes: bool,
}

/// `ralu list`.
#[derive(Clone, Debug, Args)]
pub struct ListArgs {
    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

/// `ralu rm`.
#[derive(Clone, Debug, Args)]
pub struct RmArgs {
    /// The name, as for `ralu pull`.
    pub name: String,
    /// Does not ask.
    #[arg(short, long)]
    pub yes: bool,
}
