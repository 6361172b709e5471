//! Writing to stdout and stderr: nothing that a terminal would obey, and without being hurt by a reader that goes away.

use std::borrow::Cow;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

use ralu::escape::escape;
use serde::Serialize;

use super::error::{Error, Result};
use super::signals;

/// Between two tries to write to a pipe that is full and does not wait.
const RETRY: Duration = Duration::from_millis(10);

/// Lines of results.
pub fn line(text: impl std::fmt::Display) -> Result<()> {
    result(&visible(&text.to_string()))
}

/// A JSON document as a result.
pub fn json(value: &impl Serialize) -> Result<()> {
    result(&visible_json(&serde_json::to_string_pretty(value)?))
}

/// A JSON document as a file.
#[cfg(feature = "bench")]
pub fn json_file(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = format!("{}\n", visible_json(&serde_json::to_string_pretty(value)?));
    super::files::write(path, text.as_bytes())
}

/// A line of JSON as a result.
pub fn json_line(json: &str) -> Result<()> {
    result(&visible_json(json))
}

/// Something for people. That it cannot be written is nothing to stop for.
pub fn diagnostic(text: &str) {
    // In one piece: other programs may write to the same terminal.
    let _ = io::stderr().lock().write_all(format!("{}\n", visible(text)).as_bytes());
}

/// What a terminal is to obey: ours alone, and nothing from outside.
pub fn to_terminal(text: &str) {
    let mut stderr = io::stderr().lock();
    let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}

/// Whether stderr shows colours: it is a terminal, and `NO_COLOR` (<https://no-color.org>) is not set.
pub fn colours() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// A path as messages show it.
pub fn shown(path: &Path) -> String {
    escape(&path.to_string_lossy()).into_owned()
}

/// `text` with everything escaped that a terminal obeys, but for ends of lines and tabs, which are ours: text from
/// outside is escaped, with its own ends of lines, where it enters a message.
pub fn visible(text: &str) -> Cow<'_, str> {
    let ours = |c| matches!(c, '\n' | '\t');
    if text.split(ours).all(|part| matches!(escape(part), Cow::Borrowed(_))) {
        return text.into();
    }
    let parts = text.split_inclusive(ours).flat_map(|part| {
        let (part, end) = part.split_at(part.trim_end_matches(ours).len());
        [escape(part), end.into()]
    });
    parts.collect::<String>().into()
}

/// JSON that means the same, with everything escaped that JSON itself does not escape and a terminal obeys.
fn visible_json(json: &str) -> Cow<'_, str> {
    if let Cow::Borrowed(_) = visible(json) {
        return json.into();
    }
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        match escape(c.encode_utf8(&mut [0; 4])) {
            // Such characters stand in strings alone, and have one code unit.
            Cow::Owned(_) if c != '\n' => text.push_str(&format!("\\u{:04x}", u32::from(c))),
            _ => text.push(c),
        }
    }
    text.into()
}

fn result(text: &str) -> Result<()> {
    bytes(format!("{text}\n").as_bytes())
}

/// Bytes that are no text.
pub fn bytes(bytes: &[u8]) -> Result<()> {
    let mut stdout = io::stdout().lock();
    let mut rest = bytes;
    loop {
        // What is buffered already stays there, whatever goes wrong.
        let written = match rest {
            [] => stdout.flush().map(|()| None),
            rest => stdout.write(rest).map(Some),
        };
        match written {
            Ok(None) => return Ok(()),
            Ok(Some(0)) => return Err(closed(ErrorKind::WriteZero.into())),
            Ok(Some(bytes)) => rest = &rest[bytes..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // Another program may have set our pipe to return at once.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                signals::check()?;
                std::thread::sleep(RETRY);
            }
            Err(error) => return Err(closed(error)),
        }
    }
}

fn closed(error: io::Error) -> Error {
    if error.kind() == ErrorKind::BrokenPipe || is_hung_up(&error) {
        return Error::OutputClosed;
    }
    Error::failed(format!("stdout cannot be written: {error}"))
}

/// Whether stdout was a terminal that is gone.
#[cfg(unix)]
fn is_hung_up(error: &io::Error) -> bool {
    use std::os::unix::fs::FileTypeExt;
    error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
        && ralu_host::files::file_of(&io::stdout())
            .is_ok_and(|meta| meta.file_type().is_char_device())
}

#[cfg(not(unix))]
fn is_hung_up(_: &io::Error) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_shown() {
        assert_eq!(visible("a\tb\n\nc\n"), "a\tb\n\nc\n");
        assert_eq!(visible("\u{1b}]0;x\u{7}\n\ta\r\n"), "\\u{1b}]0;x\\u{7}\n\ta\\r\n");
        assert_eq!(visible("\u{7f}\u{9b}\u{202e}é猫"), "\\u{7f}\\u{9b}\\u{202e}é猫");
    }

    #[test]
    fn json_keeps_its_meaning() {
        let value =
            serde_json::json!({ "a": "\u{1b}\u{7f}\u{9b}\u{202e}\n é 猫 🦊", "b": ["\u{85}"] });
        for text in [value.to_string(), serde_json::to_string_pretty(&value).unwrap()] {
            let safe = visible_json(&text);
            assert_eq!(visible(&safe), safe);
            assert!(safe.contains("\\u009b") && safe.contains("é 猫 🦊"), "{safe}");
            assert_eq!(serde_json::from_str::<serde_json::Value>(&safe).unwrap(), value);
        }
    }
}
