//! Files that the command line names to be read: none can be too much.

use std::io::{self, ErrorKind, Read};

/// Everything that `input` gives; more than `limit` bytes are [`ErrorKind::FileTooLarge`].
pub fn read_all(input: impl Read, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    input.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(ErrorKind::FileTooLarge.into());
    }
    Ok(bytes)
}
