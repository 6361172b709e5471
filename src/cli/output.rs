//! Writing to stdout and stderr without being hurt by a reader that goes away.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use super::error::{Error, Result};

/// A line of results.
pub fn line(text: impl std::fmt::Display) -> Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}").and_then(|()| stdout.flush()).map_err(closed)
}

/// A JSON document as a result.
pub fn json(value: &impl Serialize) -> Result<()> {
    line(serde_json::to_string_pretty(value)?)
}

/// Something for people. That it cannot be written is nothing to stop for.
pub fn diagnostic(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Whether stderr shows colours: it is a terminal, and `NO_COLOR` (<https://no-color.org>) is not set.
pub fn colours() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn closed(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Error::OutputClosed,
        _ => Error::failed(format!("stdout cannot be written: {error}")),
    }
}
