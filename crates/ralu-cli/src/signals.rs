//! Ctrl-C: the first one stops a run after the current slice of GPU work, the second one the program.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use super::error::{Error, Result};

static ASKED: AtomicU32 = AtomicU32::new(0);
/// The temporary file that is being written, for the second Ctrl-C to remove.
static WRITING: Mutex<Option<PathBuf>> = Mutex::new(None);

/// Listens for Ctrl-C, SIGTERM and SIGHUP from now on, but for those that were ignored when the program started: that is
/// how `nohup` and the background jobs of scripts say that a run is to go on.
pub fn listen() -> Result<()> {
    start_listening(asked)
        .map_err(|error| Error::failed(format!("cannot install the Ctrl-C handler: {error}")))
}

fn asked() {
    if ASKED.fetch_add(1, Ordering::SeqCst) == 0 {
        return;
    }
    if let Some(path) = WRITING.lock().ok().and_then(|mut path| path.take()) {
        let _ = std::fs::remove_file(path);
    }
    std::process::exit(130);
}

#[cfg(unix)]
fn start_listening(each: fn()) -> std::io::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    use signal_hook::iterator::Signals;

    let wanted = [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| !is_ignored(*signal));
    let mut signals = Signals::new(wanted)?;
    let listener = std::thread::Builder::new().name("signals".into());
    listener.spawn(move || signals.forever().for_each(|_| each())).map(drop)
}

/// Whether a signal does nothing to this program.
#[cfg(unix)]
fn is_ignored(signal: std::ffi::c_int) -> bool {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: without a new action nothing is changed, and the old one is written if the answer is 0.
    unsafe {
        libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) == 0
            && action.assume_init().sa_sigaction == libc::SIG_IGN
    }
}

#[cfg(not(unix))]
fn start_listening(each: fn()) -> std::result::Result<(), ctrlc::Error> {
    ctrlc::set_handler(each)
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
