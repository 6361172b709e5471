//! Machine code that a driver prints instead of giving it.

use std::ffi::{c_int, c_void};
use std::fs::OpenOptions;
use std::io::Read;
use std::path::Path;

use crate::Result;

unsafe extern "C" {
    /// C's, in which the driver's lines wait.
    fn fflush(stream: *mut c_void) -> c_int;
}

/// What the driver printed since the last call, from its first block on; `file` is what stdout is appended to. Before it
/// are other forms of the kernel.
pub fn take(file: &Path) -> Result<String> {
    // SAFETY: a null stream means all of them.
    unsafe { fflush(std::ptr::null_mut()) };
    let mut opened = OpenOptions::new().read(true).write(true).open(file)?;
    let mut bytes = Vec::new();
    opened.read_to_end(&mut bytes)?;
    opened.set_len(0)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let start = text.find("\nblock0 {").ok_or_else(|| {
        format!("{}: the driver was to print machine code, and has not", file.display())
    })?;
    Ok(text[start..].to_owned())
}
