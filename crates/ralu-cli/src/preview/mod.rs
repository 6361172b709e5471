//! Finished pictures in terminals that can show some. Which protocol a terminal knows is taken from the environment: a terminal
//! that is asked may never answer, and what it answers is mixed with what is typed.

mod sixel;

use std::io::IsTerminal;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ralu::pipeline::Picture;
use ralu_host::pictures;

use super::args::{GenerateArgs, PreviewArg};
use super::output;

/// Lines of text that a picture is as high as.
const ROWS: usize = 16;
/// Bytes of a piece of kitty's protocol.
const PIECE: usize = 4096;
/// Konsole shows sixels from this version on.
const KONSOLE_WITH_SIXELS: u32 = 220_400;

/// How a terminal is told of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Kitty,
    Iterm,
    Sixel,
}

impl Protocol {
    /// The one that was asked for, or that this terminal knows, if what is drawn goes to people.
    pub fn of(args: &GenerateArgs, quiet: bool) -> Option<Protocol> {
        match args.preview.unwrap_or_default() {
            PreviewArg::Off => None,
            PreviewArg::Kitty => Some(Protocol::Kitty),
            PreviewArg::Iterm => Some(Protocol::Iterm),
            PreviewArg::Sixel => Some(Protocol::Sixel),
            PreviewArg::Auto => {
                let is_seen = std::io::stderr().is_terminal() && std::io::stdout().is_terminal();
                let variable = |name: &str| std::env::var(name).ok();
                (is_seen && !quiet && args.events.is_none()).then(|| known(variable)).flatten()
            }
        }
    }
}

/// What the terminal knows that the environment describes.
fn known(variable: impl Fn(&str) -> Option<String>) -> Option<Protocol> {
    let term = variable("TERM").unwrap_or_default();
    // These stand between, and hand on what they know.
    if variable("TMUX").is_some() || term.starts_with("screen") || term.starts_with("tmux") {
        return None;
    }
    let program = variable("TERM_PROGRAM").unwrap_or_default();
    let konsole = variable("KONSOLE_VERSION").and_then(|version| version.parse::<u32>().ok());
    if variable("KITTY_WINDOW_ID").is_some()
        || ["xterm-kitty", "xterm-ghostty"].contains(&term.as_str())
        || program == "ghostty"
    {
        return Some(Protocol::Kitty);
    }
    if ["iTerm.app", "WezTerm", "mintty"].contains(&program.as_str())
        || variable("LC_TERMINAL").is_some_and(|name| name == "iTerm2")
    {
        return Some(Protocol::Iterm);
    }
    let is_known = ["foot", "mlterm", "contour"].iter().any(|known| term.starts_with(known));
    (is_known || konsole.is_some_and(|version| version >= KONSOLE_WITH_SIXELS))
        .then_some(Protocol::Sixel)
}

/// Shows a picture on stderr. That it cannot be shown is nothing to stop for.
pub fn show(protocol: Protocol, picture: &Picture) {
    let text = match protocol {
        Protocol::Sixel => Some(sixel::encode(picture)),
        Protocol::Kitty => png(picture).map(|(_, text)| kitty(&text)),
        Protocol::Iterm => png(picture).map(|(bytes, text)| {
            format!("\x1b]1337;File=inline=1;size={bytes};height={ROWS};preserveAspectRatio=1:{text}\x07")
        }),
    };
    if let Some(text) = text {
        output::to_terminal(&format!("{text}\n"));
    }
}

/// A PNG: its bytes, and as text.
fn png(picture: &Picture) -> Option<(usize, String)> {
    let bytes = pictures::plain(picture).ok()?;
    Some((bytes.len(), STANDARD.encode(bytes)))
}

fn kitty(text: &str) -> String {
    let mut pieces = text.as_bytes().chunks(PIECE).peekable();
    let mut told = String::new();
    // It is not to answer.
    let mut head = format!("a=T,f=100,q=2,r={ROWS},");
    while let Some(piece) = pieces.next() {
        let more = u8::from(pieces.peek().is_some());
        told += &format!("\x1b_G{head}m={more};{}\x1b\\", String::from_utf8_lossy(piece));
        head.clear();
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_are_known_by_their_variables() {
        let known = |variables: &[(&str, &str)]| {
            known(|name| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| (*value).to_owned())
            })
        };
        assert_eq!(known(&[]), None);
        assert_eq!(known(&[("TERM", "xterm-256color")]), None);
        assert_eq!(known(&[("TERM", "xterm-kitty")]), Some(Protocol::Kitty));
        assert_eq!(known(&[("KITTY_WINDOW_ID", "1"), ("TMUX", "/tmp/x")]), None);
        assert_eq!(known(&[("KITTY_WINDOW_ID", "1"), ("TERM", "screen-256color")]), None);
        assert_eq!(known(&[("TERM_PROGRAM", "WezTerm")]), Some(Protocol::Iterm));
        assert_eq!(known(&[("TERM", "foot-extra")]), Some(Protocol::Sixel));
        assert_eq!(known(&[("KONSOLE_VERSION", "220401")]), Some(Protocol::Sixel));
        assert_eq!(known(&[("KONSOLE_VERSION", "210800")]), None);
    }
}
