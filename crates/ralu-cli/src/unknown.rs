//! What to do about a word of the command line that nothing here is called: clap only knows how to pass it as a text.

use clap::CommandFactory;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::args::Cli;

/// Commands of which a message says that they have an option; of more, only some.
const MOST: usize = 4;

/// Puts the tips of an answer right.
pub fn advise(answer: &mut clap::Error) {
    let text = |kind| match answer.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        _ => None,
    };
    let tip = match answer.kind() {
        // A word that is like no command may be what is to be drawn.
        ErrorKind::InvalidSubcommand if answer.get(ContextKind::SuggestedSubcommand).is_none() => {
            text(ContextKind::InvalidSubcommand)
                .map(|word| format!("a picture of it is drawn by `ralu generate {word}`"))
        }
        ErrorKind::UnknownArgument => {
            let is_slip = answer.get(ContextKind::SuggestedArg).is_some();
            text(ContextKind::InvalidArg).and_then(|option| of_option(&option, is_slip))
        }
        _ => return,
    };
    // Also where there is none: what clap says of an option is to pass it as a text.
    let tips = tip.into_iter().map(Into::into).collect();
    answer.insert(ContextKind::Suggested, ContextValue::StyledStrs(tips));
}

/// Where an option is known that is not one of the command in question. `is_slip`: that has one which is spelled alike.
fn of_option(option: &str, is_slip: bool) -> Option<String> {
    let name = option.trim_start_matches('-').split('=').next().unwrap_or_default();
    let mut cli = Cli::command();
    cli.build();
    let has = |command: &clap::Command| {
        command.get_arguments().any(|argument| {
            let short = argument.get_short_and_visible_aliases().unwrap_or_default();
            let is_short = short.iter().any(|short| option == format!("-{short}"));
            let long = argument.get_long_and_visible_aliases().unwrap_or_default();
            !argument.is_hide_set()
                && (is_short || option.starts_with("--") && long.contains(&name))
        })
    };
    let commands: Vec<String> = cli
        .get_subcommands()
        .filter(|command| !command.is_hide_set() && has(command))
        .map(|command| format!("`ralu {}`", command.get_name()))
        .collect();
    let shown = commands.iter().take(MOST).map(String::as_str).collect::<Vec<_>>().join(", ");
    Some(match commands.len() {
        0 if is_slip => return None,
        0 => "`--help` after a command lists its options; a text that begins with a dash is given with --prompt".to_owned(),
        1..=MOST => format!("{option} is an option of {shown}"),
        _ => format!("{option} is an option of {shown} and others"),
    })
}
