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
    if !text.chars().any(is_obeyed) {
        return text.into();
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    // Writing to a String cannot fail.
    let _ = write_escaped(text, &mut escaped);
    escaped.into()
}

/// Displays a text as [`escape`] gives it. Of a text of more than 2000 characters only the beginning and the end are
/// shown: names in a file may have megabytes.
///
/// ```
/// use ralu::escape::Escaped;
/// assert_eq!(Escaped("a\u{1b}b").to_string(), r"a\u{1b}b");
/// let shown = Escaped(&"name".repeat(1 << 20)).to_string();
/// assert!(shown.starts_with("namename") && shown.ends_with("namename") && shown.contains(" … "));
/// assert!(shown.len() < 2010);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Escaped<'a>(pub &'a str);

/// Characters shown of a long text's beginning and end.
const SHOWN: [usize; 2] = [1500, 500];

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let text = self.0;
        let [first, last] = SHOWN;
        if text.chars().nth(first + last).is_none() {
            return write_escaped(text, f);
        }
        let end = text.char_indices().nth(first).map_or(text.len(), |(at, _)| at);
        let start = text.char_indices().nth_back(last - 1).map_or(0, |(at, _)| at);
        write_escaped(&text[..end], f)?;
        f.write_str(" … ")?;
        write_escaped(&text[start..], f)
    }
}

fn write_escaped(text: &str, f: &mut impl Write) -> fmt::Result {
    for c in text.chars() {
        match c {
            '\n' | '\r' | '\t' => write!(f, "{}", c.escape_default())?,
            c if is_obeyed(c) => write!(f, "{}", c.escape_unicode())?,
            c => f.write_char(c)?,
        }
    }
    Ok(())
}

/// Whether a terminal does something else with `c` than to show it.
fn is_obeyed(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}
