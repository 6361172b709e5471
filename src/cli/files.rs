//! Files that are either written whole or not at all.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::error::{Error, Result};
use super::signals;

/// Checks, before any work is done, that a file called `path` can be written. `what` says whose it is.
pub fn check_writable(path: &Path, what: &str) -> Result<()> {
    if path.is_dir() {
        return Err(Error::failed(format!(
            "{what} {}: this is a folder; give the name of a file in it",
            path.display()
        )));
    }
    check_folder(folder_of(path), what)
}

/// Checks that files can be made in `folder`.
pub fn check_folder(folder: &Path, what: &str) -> Result<()> {
    let shown = folder.display();
    match fs::metadata(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(Error::failed(format!(
            "the folder of {what}, {shown}, does not exist; make it first or choose another one"
        ))),
        Err(error) => {
            Err(Error::failed(format!("the folder of {what}, {shown}, cannot be used: {error}")))
        }
        Ok(meta) if !meta.is_dir() => Err(Error::failed(format!(
            "the folder of {what}, {shown}, is a file; choose another one"
        ))),
        // Trying is the only honest check: there are permissions, read-only mounts, quotas and ACLs.
        Ok(_) => temporary(folder).map(drop).map_err(|error| {
            Error::failed(format!(
                "the folder of {what}, {shown}, cannot be written to ({error}); choose another one"
            ))
        }),
    }
}

/// Writes `bytes` beside `path` and then renames, so that nobody ever sees half a file.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let failed = |error: std::io::Error| {
        Error::failed(format!("{} cannot be written: {error}", path.display()))
    };
    let mut file = temporary(folder_of(path)).map_err(failed)?;
    signals::set_writing(Some(file.path()));
    let written = file.write_all(bytes).and_then(|()| file.flush()).map_err(failed);
    let renamed = written.and_then(|()| file.persist(path).map_err(|error| failed(error.error)));
    signals::set_writing(None);
    renamed.map(drop)
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn temporary(folder: &Path) -> std::io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".ralu-").suffix(".tmp");
    // Temporary files are private by default; what becomes of this one is an ordinary file.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder)
}

/// `FILE.png` → `FILE-i.png`.
pub fn numbered(path: &Path, i: usize) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let name = match path.extension() {
        Some(extension) => format!("{stem}-{i}.{}", extension.to_string_lossy()),
        None => format!("{stem}-{i}"),
    };
    path.with_file_name(name)
}
