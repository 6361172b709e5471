//! Files that are either written whole or not at all.

mod checks;
mod model_files;
mod read;

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use super::error::{Error, Result};
use super::output::shown;
use super::signals;
pub use checks::{Checks, check_folder, make_folder};
use ralu_host::files::{Destination, replace, replace_by};
pub use read::read_all;

/// Writes `bytes` to a file of their own and renames it to `path`, so that nobody ever sees half a file. Pipes and
/// devices are written into; what is linked to is replaced, and not the link.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    match find(path)? {
        Destination::File { path: file, replaced } => {
            replace(&file, replaced.as_ref(), bytes, signals::set_writing)
                .map_err(|error| failed(path, error))
        }
        Destination::Stream { is_pipe } => {
            let mut stream = if is_pipe {
                open_pipe(path)?
            } else {
                OpenOptions::new().write(true).open(path).map_err(|error| failed(path, error))?
            };
            stream.write_all(bytes).map_err(|error| failed(path, error))
        }
    }
}

/// Writes what `write` writes, however much that is, to a file of its own and renames it to `path`. Only files can be
/// written so.
pub fn write_by<E: From<std::io::Error> + std::fmt::Display>(
    path: &Path,
    write: impl FnOnce(&mut File) -> std::result::Result<(), E>,
) -> Result<()> {
    match find(path)? {
        Destination::File { path: file, replaced } => {
            replace_by(&file, replaced.as_ref(), signals::set_writing, write)
                .map_err(|error| failed(path, error))
        }
        Destination::Stream { .. } => Err(failed(path, "this is no file")),
    }
}

/// A finished picture that cannot be written to `path`, because of `error`, goes to the system's folder for temporary
/// files instead. Gives the error to tell.
pub fn rescue(path: &Path, bytes: &[u8], error: Error) -> Error {
    if !matches!(error, Error::Failed(_)) {
        return error;
    }
    let ending = path.extension().map(|ending| format!(".{}", ending.display()));
    let ending = ending.unwrap_or_default();
    let mut builder = tempfile::Builder::new();
    let file = builder.prefix("ralu-").suffix(&ending).tempfile_in(std::env::temp_dir());
    let kept = file.and_then(|mut file| {
        file.write_all(bytes)?;
        Ok(file.keep()?.1)
    });
    match kept {
        Ok(path) => {
            Error::failed(format!("{}; the picture is in {}", error.message(), shown(&path)))
        }
        Err(_) => error,
    }
}

fn find(path: &Path) -> Result<Destination> {
    Destination::find(path).map_err(|reason| failed(path, reason))
}

fn failed(path: &Path, reason: impl std::fmt::Display) -> Error {
    Error::failed(format!("{} cannot be written: {reason}", shown(path)))
}

/// Opens a named pipe when a reader is there; Ctrl-C ends the wait.
#[cfg(unix)]
fn open_pipe(path: &Path) -> Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    use std::time::Duration;

    use rustix::fs::{OFlags, fcntl_setfl};

    const RETRY: Duration = Duration::from_millis(50);
    let mut options = OpenOptions::new();
    options.write(true).custom_flags(OFlags::NONBLOCK.bits() as i32);
    let mut told = false;
    loop {
        match options.open(path) {
            Ok(pipe) => {
                fcntl_setfl(&pipe, OFlags::empty()).map_err(|error| failed(path, error))?;
                return Ok(pipe);
            }
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NXIO.raw_os_error()) => {
                if !told {
                    super::output::diagnostic(&format!("{}: waiting for a reader", shown(path)));
                    told = true;
                }
                signals::check()?;
                std::thread::sleep(RETRY);
            }
            Err(error) => return Err(failed(path, error)),
        }
    }
}

#[cfg(not(unix))]
fn open_pipe(path: &Path) -> Result<File> {
    OpenOptions::new().write(true).open(path).map_err(|error| failed(path, error))
}
