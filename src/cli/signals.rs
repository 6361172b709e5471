//! Ctrl-C: the first one stops a run after the slice of GPU work in hand, the second one the program.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use super::error::{Error, Result};

static ASKED: AtomicU32 = AtomicU32::new(0);
/// The temporary file that is being written, for the second Ctrl-C to remove.
static WRITING: Mutex<Option<PathBuf>> = Mutex::new(None);

/// Listens for Ctrl-C, SIGTERM and SIGHUP from now on.
pub fn listen() -> Result<()> {
    ctrlc::set_handler(|| {
        if ASKED.fetch_add(1, Ordering::SeqCst) == 0 {
            return;
        }
        if let Some(path) = WRITING.lock().ok().and_then(|mut path| path.take()) {
            let _ = std::fs::remove_file(path);
        }
        std::process::exit(130);
    })
    .map_err(|error| Error::failed(format!("Ctrl-C cannot be listened for: {error}")))
}

/// Fails once Ctrl-C was pressed.
pub fn check() -> Result<()> {
    if ASKED.load(Ordering::SeqCst) > 0 { Err(Error::Cancelled) } else { Ok(()) }
}

/// Notes which temporary file is being written.
pub fn set_writing(path: Option<&Path>) {
    if let Ok(mut writing) = WRITING.lock() {
        *writing = path.map(Path::to_path_buf);
    }
}
