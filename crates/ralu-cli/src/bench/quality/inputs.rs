//! What is compared: prompts from a file, settings from the command line and from a file.

use std::ffi::OsString;
use std::path::Path;

use clap::Parser;

use crate::args::{BenchArgs, Cli, Command, ModelArgs, RequestArgs};
use crate::bench::read::read_text;
use crate::error::{Error, Result};
use crate::output::shown;

/// A setting as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedOptions {
    /// What it is called.
    pub name: String,
    /// Options of `ralu generate`, as they were written.
    pub options: String,
}

impl NamedOptions {
    /// Reads `NAME: OPTIONS`. Without a name the options are the name.
    pub fn parse(text: &str) -> Result<Self> {
        let text = text.trim();
        let (name, options) = match text.split_once(':') {
            // A colon inside of options is none of ours.
            Some((name, options)) if !text.starts_with('-') => (name.trim(), options.trim()),
            _ => (text, text),
        };
        if name.is_empty() {
            return Err(Error::usage(format!(
                "the setting {text:?} has no name; expected NAME: OPTIONS, for example \
                 \"7x exact: --ralu 7x\""
            )));
        }
        Ok(NamedOptions { name: name.to_owned(), options: options.to_owned() })
    }

    /// The request options of the whole command line and then of this setting, which win.
    ///
    /// `command_line` is that of this program. Reading it again with more at its end means that a setting can hold
    /// whatever `ralu generate` takes, in any combination, and nothing else has to know its options.
    pub fn arguments(&self, command_line: &[OsString]) -> Result<RequestArgs> {
        let refused = |reason: String| {
            Error::usage(format!(
                "the setting {:?}: {reason}; expected request options of `ralu generate`, for example \
                 --ralu 7x --ralu-variant official",
                self.name
            ))
        };
        let words = words(&self.options).map_err(refused)?;
        let name = std::iter::once(OsString::from("ralu"));
        let alone = Alone::try_parse_from(name.chain(words.iter().map(OsString::from)))
            .map_err(|error| refused(first_paragraph(&error)))?;
        let shared = [
            ("--model", alone.request.model != ModelArgs::default()),
            ("--precision", alone.request.precision.is_some()),
            ("--seed", alone.request.seed.is_some()),
            ("--count", alone.request.count.is_some()),
        ];
        if let Some((option, _)) = shared.iter().find(|(_, given)| *given) {
            return Err(refused(format!("{option} is the same for all settings")));
        }
        let line = command_line.iter().cloned().chain(words.iter().map(OsString::from));
        let cli = Cli::try_parse_from(line).map_err(|error| refused(first_paragraph(&error)))?;
        match cli.command {
            Command::Bench(args) => Ok(args.request),
            _ => Err(refused("it changes the command".to_owned())),
        }
    }
}

/// The options of a setting, and nothing else.
#[derive(Parser)]
#[command(disable_help_flag = true, args_override_self = true)]
struct Alone {
    #[command(flatten)]
    request: RequestArgs,
}

/// The settings that the arguments name, those of `--setting` first. None if they name none.
pub fn settings(args: &BenchArgs) -> Result<Vec<NamedOptions>> {
    let mut texts = args.quality.setting.clone();
    if let Some(path) = &args.quality.settings {
        let example = "\"7x exact: --ralu 7x\"";
        texts.extend(lines(path, "settings", example)?);
    }
    let settings =
        texts.iter().map(|text| NamedOptions::parse(text)).collect::<Result<Vec<_>>>()?;
    for (i, one) in settings.iter().enumerate() {
        if settings[..i].iter().any(|earlier| earlier.name == one.name) {
            return Err(Error::usage(format!(
                "two settings are called {:?}; give each a name of its own",
                one.name
            )));
        }
    }
    Ok(settings)
}

/// The lines of a file that say something. `what` they are is for messages, `example` is one of them.
pub fn lines(path: &Path, what: &str, example: &str) -> Result<Vec<String>> {
    let failed = |reason: String| {
        Error::failed(format!(
            "the {what} {} {reason}; expected a text file with one a line, for example {example}",
            shown(path)
        ))
    };
    let text = read_text(path).map_err(failed)?;
    let lines: Vec<String> = text
        .trim_start_matches('\u{feff}')
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect();
    if lines.is_empty() {
        return Err(failed("are empty".to_owned()));
    }
    Ok(lines)
}

/// Splits at spaces. Quotes of either kind keep a word together; a backslash is an ordinary character, as paths
/// have it.
fn words(text: &str) -> std::result::Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in text.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            None if c == '"' || c == '\'' => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            None if c.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    match quote {
        Some(open) => Err(format!("a quote ({open}) is not closed")),
        None => {
            words.extend(word);
            Ok(words)
        }
    }
}

/// What clap says is wrong, on one line and without advice for another command line.
fn first_paragraph(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let paragraph = text.split("\n\n").next().unwrap_or_default();
    let line = paragraph.lines().map(str::trim).collect::<Vec<_>>().join(" ");
    line.strip_prefix("error: ").unwrap_or(&line).to_owned()
}
