//! One program at a time writes a file.

use std::fs::{File, OpenOptions};
use std::path::Path;

use crate::{HubError, Result};

/// Opens a partial download for reading and writing at its end, alone.
pub(crate) fn open_alone(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true);
    #[cfg(windows)]
    std::os::windows::fs::OpenOptionsExt::share_mode(&mut options, 0);
    let file = match options.open(path) {
        Ok(file) => file,
        // ERROR_SHARING_VIOLATION
        Err(error) if cfg!(windows) && error.raw_os_error() == Some(32) => {
            return Err(HubError::Busy { path: path.to_owned() });
        }
        Err(error) => return Err(HubError::io(path, "open the file", error)),
    };
    #[cfg(unix)]
    {
        use rustix::fs::{FlockOperation, flock};
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(HubError::Busy { path: path.to_owned() });
            }
            // A file system without locks: nothing worse than two downloads.
            Err(_) => {}
        }
    }
    Ok(file)
}

/// Bytes that a folder's file system can take; `None` where that is not known.
pub(crate) fn free_bytes(folder: &Path) -> Option<u64> {
    #[cfg(unix)]
    {
        let there = folder.ancestors().find(|folder| folder.exists())?;
        let stat = rustix::fs::statvfs(there).ok()?;
        Some(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
    #[cfg(not(unix))]
    {
        let _ = folder;
        None
    }
}
