//! Files from the hub into its cache.
//!
//! `hf-hub` can download, too, but checks neither length nor hash of what arrives, appends a whole file to a part of it if a
//! server knows no ranges, asks again at once where it is told to wait, and asks five times for what needs a login. So the
//! transfer is done here, into the same layout.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::lock::{free_bytes, open_alone};
use crate::plan::{Download, FileToFetch};
use crate::remote::Failure;
use crate::{Hub, HubError, Result, Snapshot};

/// What happens while a model is fetched.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Progress {
    /// A file is begun, or gone on with.
    File {
        /// Its path in the repository.
        path: String,
        /// Its length.
        bytes: u64,
        /// Bytes that were there already.
        had: u64,
    },
    /// Bytes arrived.
    Bytes(u64),
    /// Bytes that had been counted have to be fetched again.
    Lost(u64),
    /// The hub or the network wants time.
    Waiting {
        /// Why.
        reason: String,
        /// How long.
        wait: Duration,
        /// Whether the hub asked for it, since there were too many requests.
        throttled: bool,
    },
}

/// Bytes that are read at once.
const CHUNK: usize = 1 << 17;

impl Hub {
    /// Fetches what is missing, and gives the folder with all files, or that with the one file.
    ///
    /// # Errors
    ///
    /// As [`Hub::plan`], and if the disk is full, a transfer breaks off too often, or what arrives is not what the hub has.
    /// What has arrived stays for another try, unless it is wrong.
    pub fn download(
        &self,
        download: &Download,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Snapshot> {
        let folder = self.folder(&download.repository);
        if let Some(free) = free_bytes(&folder)
            && download.missing_bytes > free
        {
            return Err(HubError::Full { folder, need: download.missing_bytes, free });
        }
        for file in &download.files {
            self.fetch(&download.repository, &download.commit, file, progress)?;
            self.link(&download.repository, &download.commit, file)?;
        }
        let cached = self.cache_repo(&download.repository);
        let place = folder.join("refs").join("main");
        cached
            .create_ref(&download.commit)
            .map_err(|error| HubError::io(&place, "write the file", error))?;
        Ok(Snapshot {
            repository: download.repository.clone(),
            commit: download.commit.clone(),
            folder: cached.pointer_path(&download.commit),
        })
    }

    fn blob_path(&self, repository: &str, file: &FileToFetch) -> PathBuf {
        self.folder(repository).join("blobs").join(&file.blob)
    }

    /// As `huggingface_hub` calls it.
    fn partial_path(&self, repository: &str, file: &FileToFetch) -> PathBuf {
        let blob = self.blob_path(repository, file);
        blob.with_file_name(format!("{}.incomplete", file.blob))
    }

    /// Bytes of a file that have to be fetched.
    pub(crate) fn missing_bytes(&self, repository: &str, file: &FileToFetch) -> u64 {
        let len = |path: &Path| path.metadata().map_or(0, |meta| meta.len());
        if len(&self.blob_path(repository, file)) == file.bytes {
            return 0;
        }
        let had = len(&self.partial_path(repository, file));
        if had <= file.bytes { file.bytes - had } else { file.bytes }
    }

    /// Sees to it that the file is in the cache's `blobs`.
    pub(crate) fn fetch(
        &self,
        repository: &str,
        commit: &str,
        file: &FileToFetch,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<()> {
        let blob = self.blob_path(repository, file);
        let path = file.path.clone();
        if blob.metadata().is_ok_and(|meta| meta.len() == file.bytes) {
            progress(Progress::File { path, bytes: file.bytes, had: file.bytes });
            return Ok(());
        }
        let blobs = self.folder(repository).join("blobs");
        std::fs::create_dir_all(&blobs)
            .map_err(|error| HubError::io(&blobs, "make the folder", error))?;
        let partial = self.partial_path(repository, file);
        let mut part = Part::open(&partial, file)?;
        progress(Progress::File { path, bytes: file.bytes, had: part.len });
        let (repo, of) = (repository, file.bytes);
        let arrived = self.remote.patiently(progress, |tried, progress| {
            let before = part.len;
            let result = part.receive(self, (repo, commit), progress);
            if part.len > before {
                *tried = 0;
            }
            result
        });
        arrived.map_err(|error| match error {
            HubError::Unreachable { reason, .. } => HubError::Broken {
                file: file.path.clone(),
                bytes: part.len,
                of,
                tries: self.settings.tries,
                reason,
            },
            other => other,
        })?;
        part.finish(&blob)
    }

    /// Sees to it that the snapshot of a commit has the file, and gives its path there.
    pub(crate) fn link(
        &self,
        repository: &str,
        commit: &str,
        file: &FileToFetch,
    ) -> Result<PathBuf> {
        let path = self.cache_repo(repository).pointer_path(commit).join(&file.path);
        let blob = self.blob_path(repository, file);
        if path
            .canonicalize()
            .is_ok_and(|there| blob.canonicalize().is_ok_and(|blob| blob == there))
        {
            return Ok(path);
        }
        let folder = path.parent().unwrap_or(&path);
        std::fs::create_dir_all(folder)
            .map_err(|error| HubError::io(folder, "make the folder", error))?;
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(HubError::io(&path, "replace the file", error));
            }
            _ => {}
        }
        // From snapshots/COMMIT/a/b up to the repository's folder: relative, so that the cache can be moved.
        let mut target: PathBuf = file.path.split('/').map(|_| "..").collect();
        target.extend(["..", "blobs", &file.blob]);
        link_or_copy(&target, &blob, &path)
            .map_err(|error| HubError::io(&path, "link the file", error))?;
        Ok(path)
    }
}

#[cfg(unix)]
fn link_or_copy(target: &Path, _: &Path, path: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(target, path)
}

/// Not every user of Windows may make links; a second name of the file does where both lie on one disk.
#[cfg(windows)]
fn link_or_copy(target: &Path, blob: &Path, path: &Path) -> std::io::Result<()> {
    std::os::windows::fs::symlink_file(target, path)
        .or_else(|_| std::fs::hard_link(blob, path))
        .or_else(|_| std::fs::copy(blob, path).map(drop))
}

/// A file that is arriving.
struct Part<'f> {
    file: File,
    path: PathBuf,
    wanted: &'f FileToFetch,
    /// Bytes that have arrived.
    len: u64,
    /// Their hash, if one is expected.
    hash: Option<Sha256>,
}

impl<'f> Part<'f> {
    /// With what is there of it.
    fn open(path: &Path, wanted: &'f FileToFetch) -> Result<Self> {
        let mut file = open_alone(path)?;
        let read = |error| HubError::io(path, "read the file", error);
        let mut len = file.metadata().map_err(read)?.len();
        let mut hash = wanted.sha256.as_ref().map(|_| Sha256::new());
        if len > wanted.bytes {
            file.set_len(0).map_err(|error| HubError::io(path, "shorten the file", error))?;
            len = 0;
        }
        if let Some(hash) = &mut hash {
            file.seek(SeekFrom::Start(0)).map_err(read)?;
            let mut chunk = vec![0; CHUNK];
            let mut left = len;
            while left > 0 {
                let n = CHUNK.min(usize::try_from(left).unwrap_or(CHUNK));
                file.read_exact(&mut chunk[..n]).map_err(read)?;
                hash.update(&chunk[..n]);
                left -= n as u64;
            }
        }
        Ok(Part { file, path: path.to_owned(), wanted, len, hash })
    }

    /// Forgets what has arrived.
    fn restart(&mut self, progress: &mut dyn FnMut(Progress)) -> Result<()> {
        progress(Progress::Lost(self.len));
        self.len = 0;
        self.hash = self.wanted.sha256.as_ref().map(|_| Sha256::new());
        self.file.set_len(0).map_err(|error| HubError::io(&self.path, "shorten the file", error))
    }

    /// Receives the rest.
    fn receive(
        &mut self,
        hub: &Hub,
        (repository, commit): (&str, &str),
        progress: &mut dyn FnMut(Progress),
    ) -> std::result::Result<(), Failure> {
        if self.len == self.wanted.bytes {
            return Ok(());
        }
        let opened = hub.remote.open(repository, commit, &self.wanted.path, self.len)?;
        let (from_start, mut reader) = opened;
        if !from_start && self.len > 0 {
            // A server that knows no ranges sends all of it.
            self.restart(progress).map_err(Failure::Final)?;
        }
        let mut chunk = vec![0; CHUNK];
        loop {
            let n = match reader.read(&mut chunk) {
                Ok(n) => n,
                Err(error) => {
                    let reason = error.to_string();
                    return Err(Failure::Again { reason, wait: None, throttled: false });
                }
            };
            if n == 0 {
                break;
            }
            if self.len + n as u64 > self.wanted.bytes {
                return Err(Failure::Final(HubError::Answer {
                    url: self.wanted.path.clone(),
                    reason: format!(
                        "it has more than the {} bytes that the hub says",
                        self.wanted.bytes
                    ),
                }));
            }
            self.file.write_all(&chunk[..n]).map_err(|error| {
                Failure::Final(HubError::io(&self.path, "write the file", error))
            })?;
            if let Some(hash) = &mut self.hash {
                hash.update(&chunk[..n]);
            }
            self.len += n as u64;
            progress(Progress::Bytes(n as u64));
        }
        if self.len < self.wanted.bytes {
            let reason = "the connection was closed too early".to_owned();
            return Err(Failure::Again { reason, wait: None, throttled: false });
        }
        Ok(())
    }

    /// Checks what has arrived and gives it its name.
    fn finish(self, blob: &Path) -> Result<()> {
        if let (Some(hash), Some(expected)) = (self.hash, &self.wanted.sha256) {
            let found: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
            if found != *expected {
                std::fs::remove_file(&self.path)
                    .map_err(|error| HubError::io(&self.path, "remove the file", error))?;
                let (file, expected) = (self.wanted.path.clone(), expected.clone());
                return Err(HubError::Checksum { file, found, expected });
            }
        }
        self.file.sync_all().map_err(|error| HubError::io(&self.path, "write the file", error))?;
        // Windows renames no open file.
        #[cfg(windows)]
        drop(self.file);
        std::fs::rename(&self.path, blob)
            .map_err(|error| HubError::io(blob, "name the file", error))
    }
}
