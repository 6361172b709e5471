//! Files that benches read: none can be too much.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::Path;

use crate::files::read_all;

/// More text than this in one file is a mistake.
const MAX_TEXT_BYTES: u64 = 16 << 20;

/// A file's text, of up to [`MAX_TEXT_BYTES`]; pipes are fine. Fails with a reason.
pub fn read_text(path: &Path) -> Result<String, String> {
    let file = File::open(path).map_err(|error| format!("cannot be read: {error}"))?;
    let bytes = read_all(file, MAX_TEXT_BYTES).map_err(|error| match error.kind() {
        ErrorKind::FileTooLarge => {
            format!("cannot be read: it is longer than {} MiB", MAX_TEXT_BYTES >> 20)
        }
        _ => format!("cannot be read: {error}"),
    })?;
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        format!("cannot be read: it is not UTF-8 (first other byte at {good})")
    })
}

/// Checks that a file has an end and can be read at any place. Opens nothing: opening a pipe waits for its
/// writer. Fails with a reason.
pub fn check_regular(path: &Path) -> io::Result<()> {
    let kind = match fs::metadata(path)? {
        meta if meta.is_file() => return Ok(()),
        meta if meta.is_dir() => "a folder",
        _ => "a pipe or a device",
    };
    Err(io::Error::other(format!("this is {kind}; expected a file on disk")))
}
