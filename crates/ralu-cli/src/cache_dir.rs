//! What is kept from one run to the next: small files in the user's cache folder, any of which may be deleted.

use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;

use super::error::{Error, Result};
use super::files;
use super::output::shown;

/// A folder of kept files.
pub struct CacheDir(PathBuf);

impl CacheDir {
    /// The one that `--cache-dir` names, or `ralu` in the user's own: `~/.cache`, `~/Library/Caches` or
    /// `%LOCALAPPDATA%`. `None` if the system knows of no such folder.
    pub fn find(given: Option<&Path>) -> Option<CacheDir> {
        let path = match given {
            Some(given) => given.to_path_buf(),
            None => {
                etcetera::base_strategy::choose_native_strategy().ok()?.cache_dir().join("ralu")
            }
        };
        Some(CacheDir(path))
    }

    /// Where a file is or would be.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A kept file, if it is there.
    pub fn read(&self, name: &str) -> Option<Vec<u8>> {
        let path = self.path(name);
        // Anything else would keep us waiting, or never end.
        if !path.metadata().is_ok_and(|meta| meta.is_file()) {
            return None;
        }
        std::fs::read(&path)
            .inspect_err(|error| tracing::debug!("{} is not read: {error}", shown(&path)))
            .ok()
    }

    /// Keeps a file, whole or not at all; of two programs that write at once the later one wins.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<PathBuf> {
        std::fs::create_dir_all(&self.0).map_err(|error| {
            Error::failed(format!("the folder {} cannot be made: {error}", shown(&self.0)))
        })?;
        let path = self.path(name);
        files::write_own(&path, bytes)?;
        Ok(path)
    }
}
