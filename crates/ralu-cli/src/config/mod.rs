//! The user's configuration: defaults of options, in a file of TOML. It is read before the options, which win over it.

mod file;

use std::ffi::OsString;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, CommandFactory, Parser};
use serde_json::{Map, Value, json};

use super::args::{Cli, ConfigArgs};
use super::error::{Error, Result};
use super::output::{self, shown};
pub use file::Config;
use file::Entry;

/// The commands that have these defaults. Measurements and the viewer do not: they are to be the same anywhere, and it
/// keeps its own.
const COMMANDS: [&str; 3] = ["generate", "plan", "tune"];
/// The command with all options that can be set.
const ALL: &str = "generate";
/// Options that are about one run, and can have no default.
const OF_ONE_RUN: [&str; 17] = [
    "prompt",
    "prompts",
    "resume",
    "from",
    "given",
    "given-names",
    "output",
    "save-tensors",
    "stages",
    "profile",
    "regions",
    "regions-add",
    "size",
    "verbose",
    "no-config",
    "help",
    "events",
];
/// Options that no picture depends on: all that counts where the request is a picture's.
const OF_THE_MACHINE: [&str; 10] = [
    "adapter",
    "backend",
    "cache-dir",
    "host-memory",
    "limits",
    "memory-budget",
    "no-tune",
    "preview",
    "quality",
    "quiet",
];
/// Pairs of which the one that is given as an option silences the other's default.
const OPPOSITE: [(&str, &str); 4] =
    [("size", "width"), ("size", "height"), ("steps", "ralu"), ("ralu", "steps")];

/// The options that can have a default.
fn settable(command: &clap::Command) -> impl Iterator<Item = (&str, &Arg)> {
    let named = command.get_arguments().filter_map(|arg| Some((arg.get_long()?, arg)));
    named.filter(|(name, arg)| !arg.is_hide_set() && !OF_ONE_RUN.contains(name))
}

fn names() -> Vec<String> {
    let mut cli = Cli::command();
    cli.build();
    let all = cli.find_subcommand(ALL).into_iter().flat_map(settable);
    let mut names: Vec<String> = all.map(|(name, _)| name.to_owned()).collect();
    names.sort();
    names
}

/// Arguments with the defaults of the user's configuration, if their command has any.
///
/// # Errors
///
/// If the configuration cannot be read, or is wrong somewhere.
pub fn with_defaults(words: &[OsString]) -> Result<Vec<OsString>> {
    let mut cli = Cli::command();
    cli.build();
    // What is wrong with the arguments is said where they are read.
    let Ok(matches) = cli.clone().try_get_matches_from(words) else { return Ok(words.to_vec()) };
    let Some((name, given)) = matches.subcommand().filter(|(name, _)| COMMANDS.contains(name))
    else {
        return Ok(words.to_vec());
    };
    let has = |id: &str| given.value_source(id) == Some(ValueSource::CommandLine);
    let repeats = |id: &str| name != "tune" && has(id);
    if matches.get_flag("no_config") || repeats("resume") {
        return Ok(words.to_vec());
    }
    let config = Config::read(&names())?;
    let Some(command) = cli.find_subcommand(name) else { return Ok(words.to_vec()) };
    let wanted = config.entries.iter().filter(|entry| {
        let arg = settable(command).find(|(known, _)| *known == entry.name).map(|(_, arg)| arg);
        arg.is_some_and(|arg| !is_silenced(arg, command, given))
            && (!repeats("from") || OF_THE_MACHINE.contains(&entry.name.as_str()))
    });
    let defaults = wanted.flat_map(|entry| entry.words()).map(OsString::from);
    let mut words = words.to_vec();
    let at = words.iter().skip(1).position(|word| *word == *name).map_or(words.len(), |at| at + 2);
    words.splice(at..at, defaults);
    Ok(words)
}

/// Whether the option or one that excludes it is given.
fn is_silenced(arg: &Arg, command: &clap::Command, given: &ArgMatches) -> bool {
    let name = arg.get_long().unwrap_or_default();
    let opposite = |other: &str| OPPOSITE.contains(&(other, name));
    command.get_arguments().any(|other| {
        let is_given = given.try_contains_id(other.get_id().as_str()).is_ok()
            && given.value_source(other.get_id().as_str()) == Some(ValueSource::CommandLine);
        is_given && (other.get_id() == arg.get_id() || other.get_long().is_some_and(opposite))
    })
}

/// Checks that a command takes an option with that value.
fn check(entry: &Entry) -> std::result::Result<(), String> {
    let words = ["ralu", ALL].map(str::to_owned).into_iter().chain(entry.words());
    match Cli::try_parse_from(words) {
        Ok(_) => Ok(()),
        Err(error) => {
            let message = error.render().to_string();
            let first = message.split("\n\n").next().unwrap_or_default();
            Err(first.trim_start_matches("error: ").trim().to_owned())
        }
    }
}

/// `ralu config`. `is_left_out` says that the file is not to be read.
pub fn run(args: &ConfigArgs, is_left_out: bool) -> Result<()> {
    let names = names();
    let config = if is_left_out { Config::unread() } else { Config::read(&names)? };
    let Some(path) = &config.path else {
        return Err(Error::failed(
            "this system names no folder for configurations; there are no defaults",
        ));
    };
    if args.json {
        let values: Map<String, Value> =
            config.entries.iter().map(|entry| (entry.name.clone(), entry.value.clone())).collect();
        return output::json(&json!({
            "file": path,
            "exists": config.exists,
            "settings": values,
            "known": names,
        }));
    }
    let missing =
        if config.exists { "" } else { " (not there: make it to have defaults of your own)" };
    output::line(format!("{}{missing}", shown(path)))?;
    for entry in &config.entries {
        let value = ralu::escape::escape(&entry.value.to_string()).into_owned();
        output::line(format!("  line {:<3} {} = {value}", entry.line, entry.name))?;
    }
    output::line(format!(
        "\nDefaults of `ralu {}`, one a line, as in\n  memory-budget = \"6GiB\"\n  width = 512\nOptions win over them, and \
         --no-config leaves them out. What can be set:\n  {}",
        COMMANDS.join("`, `ralu "),
        names.join(", ")
    ))
}
