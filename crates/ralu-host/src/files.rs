//! Files that are either written whole or not at all.

use std::fs::{File, Metadata};
use std::io::{self, Write};
use std::path::Path;

#[cfg(unix)]
pub use crate::destination::file_of;
pub use crate::destination::{Destination, follow};
use crate::error::Error;

/// Told the path of the temporary file that is being written, and `None` when it is gone. A program that may be ended in
/// the middle, by a second Ctrl-C, removes it then.
pub type Writing = fn(Option<&Path>);

/// For programs that are not ended in the middle.
pub fn nobody(_: Option<&Path>) {}

/// Writes `bytes` to the file `path`, whole or not at all; what is linked to is replaced, and not the link. Fails where a
/// pipe, a device or a folder has that name.
pub fn write_file(path: &Path, bytes: &[u8], writing: Writing) -> Result<(), Error> {
    match Destination::find(path).map_err(|reason| Error::file(path, reason))? {
        Destination::File { path: file, replaced } => {
            replace(&file, replaced.as_ref(), bytes, writing)
                .map_err(|error| Error::file(path, error))
        }
        Destination::Stream { .. } => Err(Error::file(path, "this is no file")),
    }
}

/// Writes `bytes` to a file of their own and renames it to `path`, so that nobody ever sees half a file. The new file gets
/// the rights of the one that is `replaced`.
pub fn replace(
    path: &Path,
    replaced: Option<&Metadata>,
    bytes: &[u8],
    writing: Writing,
) -> io::Result<()> {
    replace_by(path, replaced, writing, |file| file.write_all(bytes))
}

/// [`replace`] with what `write` writes, which may be more than fits in memory.
pub fn replace_by<E: From<io::Error>>(
    path: &Path,
    replaced: Option<&Metadata>,
    writing: Writing,
    write: impl FnOnce(&mut File) -> Result<(), E>,
) -> Result<(), E> {
    let mut file = temporary(folder_of(path))?;
    writing(Some(file.path()));
    let written = write(file.as_file_mut()).and_then(|()| {
        replaced.map_or(Ok(()), |old| inherit(file.as_file(), old))?;
        Ok(file.persist(path).map(drop).map_err(|error| error.error)?)
    });
    writing(None);
    written
}

/// Gives a file the rights of the one that it replaces, and its owner if we may.
fn inherit(file: &File, old: &Metadata) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt, fchown};
        let new = file.metadata()?;
        if (new.uid(), new.gid()) != (old.uid(), old.gid()) {
            let _ = fchown(file, Some(old.uid()), Some(old.gid()));
        }
    }
    file.set_permissions(old.permissions())
}

/// The folder that a file is in; `.` for a bare name.
pub fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// A new file in `folder` that is removed unless it is renamed.
pub fn temporary(folder: &Path) -> io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".ralu-").suffix(".tmp");
    // Temporary files are private by default; what becomes of this one is an ordinary file.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder)
}
