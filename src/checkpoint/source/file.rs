//! A file on disk that is read in ranges, and must not change while it is open.

use std::borrow::Cow;
use std::fs::{File, Metadata};
use std::io::{self, ErrorKind, Read};
use std::ops::Range;
use std::time::SystemTime;

use super::{Blob, SourceError, out_of_range};

/// An open file. Every read looks whether the file is still the one that was opened: a file that shrinks is an error
/// (memory-mapped, it would be a signal that ends the program), and so is one that is written into, whose first half may
/// be another model's than its second. Replacing the file (write elsewhere, rename) is safe: this one stays open.
pub(super) struct OpenFile {
    path: String,
    file: File,
    stamp: Stamp,
}

/// What changes when a file is written into.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    len: u64,
    /// `None` where the file system keeps no times.
    modified: Option<SystemTime>,
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Stamp { len: metadata.len(), modified: metadata.modified().ok() }
    }
}

impl OpenFile {
    /// `path` is for messages.
    pub fn new(file: File, path: String) -> Result<Self, SourceError> {
        match file.metadata() {
            Ok(metadata) => Ok(OpenFile { path, file, stamp: Stamp::of(&metadata) }),
            Err(error) => Err(SourceError::Io { path, action: "look at the file", error }),
        }
    }

    pub fn path(&self) -> &str {
        &self.path
    }

    /// Reads the whole file, of up to `limit` bytes.
    pub fn read(&self, limit: u64) -> Result<Vec<u8>, SourceError> {
        let path = || self.path.clone();
        let bytes = self.stamp.len;
        if bytes > limit {
            return Err(SourceError::TooLarge { path: path(), bytes, limit });
        }
        let mut text = Vec::with_capacity(bytes as usize);
        let read = (&self.file).take(limit).read_to_end(&mut text);
        read.map_err(|error| SourceError::Io { path: path(), action: "read the file", error })?;
        self.check()?;
        Ok(text)
    }

    /// Fails if the file has changed since it was opened.
    fn check(&self) -> Result<(), SourceError> {
        let path = || self.path.clone();
        let now = match self.file.metadata() {
            Ok(metadata) => Stamp::of(&metadata),
            Err(error) => {
                return Err(SourceError::Io { path: path(), action: "look at the file", error });
            }
        };
        if now != self.stamp {
            let (before, now) = (self.stamp.len, now.len);
            return Err(SourceError::Changed { path: path(), before, now });
        }
        Ok(())
    }
}

impl Blob for OpenFile {
    fn len(&self) -> u64 {
        self.stamp.len
    }

    fn bytes(&self, range: Range<u64>) -> Result<Cow<'_, [u8]>, SourceError> {
        let len = self.stamp.len;
        let Some(n) = range.end.checked_sub(range.start).filter(|_| range.end <= len) else {
            return Err(out_of_range(&range, len, &self.path));
        };
        let out_of_memory = |_| SourceError::Io {
            path: self.path.clone(),
            action: "read the file",
            error: ErrorKind::OutOfMemory.into(),
        };
        let n = usize::try_from(n).map_err(|_| out_of_range(&range, len, &self.path))?;
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(n).map_err(out_of_memory)?;
        bytes.resize(n, 0);
        let read = read_exact_at(&self.file, &mut bytes, range.start);
        // Before the outcome is looked at: a read beyond the new end of a file is what a change looks like.
        self.check()?;
        let path = self.path.clone();
        read.map_err(|error| SourceError::Io { path, action: "read the file", error })?;
        Ok(bytes.into())
    }
}

#[cfg(unix)]
fn read_exact_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut bytes: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, bytes, offset) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(n) => {
                bytes = &mut bytes[n..];
                offset += n as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
