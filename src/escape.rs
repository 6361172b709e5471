//! Text from outside, made safe to show.
//!
//! Names of tensors, files and classes, and what pictures say about themselves, may come from a stranger. Shown as they
//! are, control characters in them set a terminal's title, hide or forge lines, make links or write to the clipboard.

use std::borrow::Cow;
use std::fmt::{self, Display, Formatter, Write};

/// `text` with every character that a terminal obeys instead of showing replaced by its escape (`\n`, `\u{1b}`): C0
/// and C1 controls, DEL, line and paragraph separators, and the marks, embeddings, overrides and isolates of
/// bidirectional text. Messages keep one line. Other text is unchanged.
///
/// ```
/// use ralu::escape::escape;
/// assert_eq!(escape("a\u{1b}]0;title\u{7}\n"), r"a\u{1b}]0;title\u{7}\n");
/// assert_eq!(escape("Füchse, 狐 🦊"), "Füchse, 狐 🦊");
/// ```
pub fn escape(text: &str) -> Cow<'_, str> {
    if text.chars().any(is_obeyed) { Escaped(text).to_string().into() } else { text.into() }
}

/// Displays a text as [`escape`] gives it.
#[derive(Clone, Copy, Debug)]
pub struct Escaped<'a>(pub &'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '\n' | '\r' | '\t' => write!(f, "{}", c.escape_default())?,
                c if is_obeyed(c) => write!(f, "{}", c.escape_unicode())?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// Whether a terminal does something else with `c` than to show it.
fn is_obeyed(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}
