//! What is kept from one run to the next: small files in the user's cache folder, any of which may be deleted.

use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;
use ralu::escape::Escaped;

use crate::error::Error;
use crate::files::{self, Writing};

/// A folder of kept files, which programs share.
#[derive(Clone, Debug)]
pub struct CacheDir {
    folder: PathBuf,
    writing: Writing,
}

impl CacheDir {
    /// The folder `given`, or `ralu` in the user's own: `~/.cache`, `~/Library/Caches` or `%LOCALAPPDATA%`. `None` if the
    /// system knows of no such folder. The folder need not be there.
    pub fn find(given: Option<&Path>) -> Option<CacheDir> {
        let folder = match given {
            Some(given) => given.to_path_buf(),
            None => {
                etcetera::base_strategy::choose_native_strategy().ok()?.cache_dir().join("ralu")
            }
        };
        Some(CacheDir { folder, writing: files::nobody })
    }

    /// The same folder; `writing` is told of temporary files.
    pub fn when_writing(self, writing: Writing) -> CacheDir {
        CacheDir { writing, ..self }
    }

    /// Where the file `name` is or would be.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The file `name`, if it is there and can be read.
    pub fn read(&self, name: &str) -> Option<Vec<u8>> {
        let path = self.path(name);
        // Anything else would keep us waiting, or never end.
        if !path.metadata().is_ok_and(|meta| meta.is_file()) {
            return None;
        }
        std::fs::read(&path)
            .inspect_err(|error| {
                tracing::debug!("{} is not read: {error}", Escaped(&path.to_string_lossy()));
            })
            .ok()
    }

    /// Names of the files that begin so, in the alphabet's order.
    pub fn list(&self, begin: &str) -> Vec<String> {
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let mut names: Vec<String> = names.filter(|name| name.starts_with(begin)).collect();
        names.sort();
        names
    }

    /// Removes a file, if it is there.
    pub fn remove(&self, name: &str) {
        let path = self.path(name);
        let _ = std::fs::remove_file(&path).inspect_err(|error| {
            tracing::debug!("{} is not removed: {error}", Escaped(&path.to_string_lossy()));
        });
    }

    /// Keeps a file, whole or not at all; of two programs that write at once the later one wins. Gives its path.
    ///
    /// # Errors
    ///
    /// If the folder cannot be made, or the file cannot be written.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<PathBuf, Error> {
        std::fs::create_dir_all(&self.folder)
            .map_err(|reason| Error::Folder { path: self.folder.clone(), reason })?;
        let path = self.path(name);
        files::write_file(&path, bytes, self.writing)?;
        Ok(path)
    }
}
