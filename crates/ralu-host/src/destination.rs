//! What a path leads to that something is to be written to.

use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::files::folder_of;

/// Longest chain of links; systems follow about as many.
const MAX_LINKS: usize = 40;

/// Where bytes go, with all links followed.
pub enum Destination {
    /// A file, there already or not: it is replaced, and links to it stay.
    File {
        /// The file.
        path: PathBuf,
        /// What is known of the file that is there.
        replaced: Option<Metadata>,
    },
    /// A pipe or a device: it is written into, as nothing can replace it.
    Stream {
        /// Whether a reader has to be there.
        is_pipe: bool,
    },
}

impl Destination {
    /// Finds out what `path` leads to; fails with a reason if nothing can be written there. Opens nothing.
    pub fn find(path: &Path) -> Result<Destination, String> {
        let Some(name) = path.file_name() else { return Err("this names no file".into()) };
        let text = path.as_os_str().as_encoded_bytes();
        if text.last().is_some_and(|last| std::path::is_separator(char::from(*last))) {
            return Err(FOLDER.into());
        }
        // Links to pipes that have no name, as /dev/stdout, lead to no path.
        match fs::metadata(path) {
            Ok(meta) if meta.is_dir() => Err(FOLDER.into()),
            Ok(meta) if meta.is_file() => existing(path, meta),
            Ok(meta) => stream(path, &meta),
            // A folder that is none is found where folders are checked.
            Err(error) if is_absent(&error) => {
                let path = folder_of(path).join(name);
                let path = follow(path).map_err(|error| error.to_string())?;
                Ok(Destination::File { path, replaced: None })
            }
            Err(error) => Err(error.to_string()),
        }
    }
}

const FOLDER: &str = "this is a folder; give the name of a file in it";

fn existing(path: &Path, meta: Metadata) -> Result<Destination, String> {
    if meta.permissions().readonly() {
        return Err("this file is write-protected; choose another name or remove it first".into());
    }
    if is_our_output(&meta) {
        return Err("stdout or stderr is written to this file; choose another name".into());
    }
    let path = path.canonicalize().map_err(|error| error.to_string())?;
    Ok(Destination::File { path, replaced: Some(meta) })
}

/// Whether stdout or stderr goes to that file: it would be replaced, with what was written to it.
#[cfg(unix)]
fn is_our_output(meta: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    [file_of(&io::stdout()), file_of(&io::stderr())]
        .into_iter()
        .flatten()
        .any(|own| (own.dev(), own.ino()) == (meta.dev(), meta.ino()))
}

/// What a stream leads to.
#[cfg(unix)]
pub fn file_of(stream: &impl std::os::fd::AsFd) -> io::Result<Metadata> {
    fs::File::from(stream.as_fd().try_clone_to_owned()?).metadata()
}

#[cfg(not(unix))]
fn is_our_output(_: &Metadata) -> bool {
    false
}

#[cfg(unix)]
fn stream(path: &Path, meta: &Metadata) -> Result<Destination, String> {
    use std::os::unix::fs::FileTypeExt;
    let kind = meta.file_type();
    let is_pipe = kind.is_fifo();
    if !is_pipe && !kind.is_char_device() {
        let kind = if kind.is_block_device() { "a disk" } else { "a socket" };
        return Err(format!("this is {kind}; expected a file, a pipe or a character device"));
    }
    // Not opened: that waits for a reader, or does something to the device.
    rustix::fs::access(path, rustix::fs::Access::WRITE_OK).map_err(|error| error.to_string())?;
    Ok(Destination::Stream { is_pipe })
}

#[cfg(not(unix))]
fn stream(_: &Path, _: &Metadata) -> Result<Destination, String> {
    Ok(Destination::Stream { is_pipe: false })
}

/// Where a chain of links ends that leads to nothing.
pub fn follow(mut path: PathBuf) -> io::Result<PathBuf> {
    for _ in 0..MAX_LINKS {
        match fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_symlink() => {
                let target = fs::read_link(&path)?;
                path = folder_of(&path).join(target);
            }
            Ok(_) => return Ok(path),
            Err(error) if is_absent(&error) => return Ok(path),
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("too many links"))
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}
