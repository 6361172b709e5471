//! A position in a header that is read from its start to its end, a window at a time.

use std::ops::Range;
use std::sync::Arc;

use super::GgufError;
use crate::checkpoint::source::Blob;
use crate::checkpoint::weights::WeightError;

/// Bytes that are read at once.
const WINDOW: u64 = 64 << 10;
/// A longer name is an attack or a damaged file: writers allow at most 127 bytes.
const MAX_TEXT_BYTES: u64 = 64 << 10;
/// A longer header is an attack or a damaged file: one with T5's vocabulary has 2 MB.
const MAX_HEADER_BYTES: u64 = 100_000_000;

type Result<T> = std::result::Result<T, WeightError>;

/// Reads what a header consists of, one after the other.
pub(super) struct Cursor<'b> {
    blob: &'b dyn Blob,
    pub file: &'b Arc<str>,
    window: Vec<u8>,
    /// Where the window begins.
    start: u64,
    at: u64,
}

impl<'b> Cursor<'b> {
    pub fn new(blob: &'b dyn Blob, file: &'b Arc<str>) -> Self {
        Cursor { blob, file, window: Vec::new(), start: 0, at: 0 }
    }

    /// Bytes of the file.
    pub fn len(&self) -> u64 {
        self.blob.len()
    }

    /// Bytes from the start of the file.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Bytes from here to the end of the file.
    pub fn left(&self) -> u64 {
        self.len() - self.at
    }

    /// The error that the file is damaged.
    pub fn damaged(&self, reason: impl Into<String>) -> WeightError {
        GgufError::Damaged { file: self.file.to_string(), reason: reason.into() }.into()
    }

    /// Moves on by `n` bytes of `what`, which the file must have.
    pub fn skip(&mut self, n: u64, what: &str) -> Result<()> {
        self.check(n, what)?;
        self.at += n;
        Ok(())
    }

    fn check(&self, n: u64, what: &str) -> Result<()> {
        if n > self.left() {
            return Err(GgufError::Truncated {
                file: self.file.to_string(),
                what: what.into(),
                at: self.at,
                needed: n,
                len: self.len(),
            }
            .into());
        }
        if self.at + n > MAX_HEADER_BYTES {
            return Err(self.damaged(format!(
                "its header has more than {MAX_HEADER_BYTES} bytes (at {what})"
            )));
        }
        Ok(())
    }

    /// The next `n` bytes.
    pub fn bytes(&mut self, n: u64, what: &str) -> Result<&[u8]> {
        self.check(n, what)?;
        let end = self.at + n;
        if self.at < self.start || end > self.start + self.window.len() as u64 {
            let until = end.max((self.at + WINDOW).min(self.len()));
            self.window = self.blob.bytes(self.at..until)?.into_owned();
            self.start = self.at;
        }
        let from = (self.at - self.start) as usize;
        self.at = end;
        Ok(&self.window[from..from + n as usize])
    }

    /// Bytes of a range that was skipped.
    pub fn read_at(&self, range: Range<u64>) -> Result<Vec<u8>> {
        Ok(self.blob.bytes(range)?.into_owned())
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.bytes(N as u64, what)?);
        Ok(out)
    }

    pub fn u32(&mut self, what: &str) -> Result<u32> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub fn u64(&mut self, what: &str) -> Result<u64> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A name: its length, then its bytes.
    pub fn text(&mut self, what: &str) -> Result<String> {
        let n = self.u64(what)?;
        self.check(n, what)?;
        if n > MAX_TEXT_BYTES {
            return Err(
                self.damaged(format!("{what} has {n} bytes, expected at most {MAX_TEXT_BYTES}"))
            );
        }
        let text = self.bytes(n, what)?.to_vec();
        String::from_utf8(text).map_err(|_| self.damaged(format!("{what} is not UTF-8")))
    }
}
