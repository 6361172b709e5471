//! `ralu completions` and `ralu man`: this command line for shells and for `man`.

use clap::CommandFactory;

use super::args::{Cli, CompletionsArgs, ManArgs};
use super::error::{Error, Result};
use super::{files, output};

/// `ralu completions`.
pub fn run(args: &CompletionsArgs) -> Result<()> {
    let mut script = vec![];
    clap_complete::generate(args.shell, &mut Cli::command(), "ralu", &mut script);
    output::bytes(&script)
}

/// `ralu man`.
pub fn write_manual(args: &ManArgs) -> Result<()> {
    let mut cli = Cli::command();
    // Gives subcommands their whole names.
    cli.build();
    files::make_folder(&args.folder, "the manual pages")?;
    write_pages(&cli, args)
}

fn write_pages(command: &clap::Command, args: &ManArgs) -> Result<()> {
    let mut text = vec![];
    clap_mangen::Man::new(command.clone())
        .render(&mut text)
        .map_err(|error| Error::failed(error.to_string()))?;
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    files::write(&args.folder.join(format!("{name}.1")), &text)?;
    let shown = |part: &&clap::Command| !part.is_hide_set() && part.get_name() != "help";
    command.get_subcommands().filter(shown).try_for_each(|part| write_pages(part, args))
}
