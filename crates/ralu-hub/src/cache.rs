//! The models in the cache.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use ralu::models::builtin;
use ralu::models::family::FAMILIES;
use serde_json::Value;

use crate::{Hub, HubError, Name, Result, Snapshot};

/// A model, or files with models, in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedModel {
    /// Its snapshot.
    pub snapshot: Snapshot,
    /// What it is called here, if it is known.
    pub known: Option<&'static str>,
    /// Bytes of the files in the snapshot, each once.
    pub bytes: u64,
    /// Its files that are models by themselves: `owner/repo:file`.
    pub files: Vec<String>,
    /// Whether it is a model in diffusers' layout.
    pub is_folder: bool,
    /// Whether a link leads to a file that is not there, or a download has not ended.
    pub is_partial: bool,
}

/// What removing a model would free.
#[derive(Clone, Debug)]
pub struct Removal {
    /// The repository, as the cache spells it.
    pub repository: String,
    /// Bytes that are freed.
    pub bytes: u64,
    /// Links, blobs, and parts of blobs.
    files: BTreeSet<PathBuf>,
    /// Everything there is of the repository, if nothing of it stays.
    folder: Option<PathBuf>,
}

impl Hub {
    /// The files of a model that are in the cache, without asking the hub; `None` if none are. Whether all are there shows
    /// when they are read.
    pub fn cached(&self, name: &Name) -> Option<Snapshot> {
        let snapshot = self
            .snapshots()
            .into_iter()
            .find(|snapshot| snapshot.repository.eq_ignore_ascii_case(&name.repository))?;
        let wanted = name.file.as_deref().unwrap_or("model_index.json");
        snapshot.folder.join(wanted).is_file().then_some(snapshot)
    }

    /// The models in the cache that ralu may be able to read, by their names.
    pub fn models(&self) -> Vec<CachedModel> {
        let all = self.snapshots().into_iter().map(|snapshot| self.model_of(snapshot));
        all.filter(|model| model.is_folder || !model.files.is_empty()).collect()
    }

    /// The snapshots that `refs/main` names.
    fn snapshots(&self) -> Vec<Snapshot> {
        let mut found: Vec<Snapshot> = Vec::new();
        for entry in std::fs::read_dir(&self.settings.cache).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let repository = name.to_str().and_then(|name| name.strip_prefix("models--"));
            let Some(repository) = repository.map(|name| name.replacen("--", "/", 1)) else {
                continue;
            };
            if crate::name::check_repository(&repository).is_err() {
                continue;
            }
            let main = entry.path().join("refs").join("main");
            let Ok(commit) = std::fs::read_to_string(main) else { continue };
            let commit = commit.trim().to_owned();
            if commit.is_empty() || !commit.bytes().all(|c| c.is_ascii_alphanumeric()) {
                continue;
            }
            let folder = self.cache_repo(&repository).pointer_path(&commit);
            if folder.is_dir() {
                found.push(Snapshot { repository, commit, folder });
            }
        }
        found.sort_by(|a, b| a.repository.cmp(&b.repository));
        found
    }

    fn model_of(&self, snapshot: Snapshot) -> CachedModel {
        let mut inside = Vec::new();
        files_in(&snapshot.folder, 0, &mut inside);
        let mut blobs: BTreeMap<PathBuf, u64> = BTreeMap::new();
        let mut is_partial = self.has_partial(&snapshot.repository);
        let mut files = Vec::new();
        for path in &inside {
            match (path.canonicalize(), path.metadata()) {
                (Ok(blob), Ok(meta)) => drop(blobs.insert(blob, meta.len())),
                _ => is_partial = true,
            }
            let name = path.strip_prefix(&snapshot.folder).ok().and_then(Path::to_str);
            let single = name.filter(|name| {
                let ends = [".gguf", ".safetensors", ".sft"];
                !name.contains(['/', '\\']) && ends.iter().any(|end| name.ends_with(end))
            });
            files.extend(single.map(str::to_owned));
        }
        let is_folder = is_supported(&snapshot.folder.join("model_index.json"));
        // Weights next to a configuration are a language model's or the like.
        if is_folder || snapshot.folder.join("config.json").exists() {
            files.clear();
        }
        files.sort();
        let known = builtin::find(&snapshot.repository).map(|known| known.name);
        CachedModel { known, bytes: blobs.values().sum(), files, is_folder, is_partial, snapshot }
    }

    fn has_partial(&self, repository: &str) -> bool {
        let blobs = std::fs::read_dir(self.folder(repository).join("blobs"));
        blobs.into_iter().flatten().flatten().any(|entry| {
            entry.path().extension().is_some_and(|extension| extension == "incomplete")
        })
    }

    /// What removing a model, or one file of a repository, would free: its files in the snapshot, and those blobs that no
    /// other snapshot has. `None` if nothing of it is in the cache.
    pub fn removal(&self, name: &Name) -> Option<Removal> {
        let snapshot = self
            .snapshots()
            .into_iter()
            .find(|snapshot| snapshot.repository.eq_ignore_ascii_case(&name.repository))?;
        let folder = self.folder(&snapshot.repository);
        let mut all = Vec::new();
        files_in(&folder.join("snapshots"), 0, &mut all);
        let wanted = name.file.as_ref().map(|file| snapshot.folder.join(file));
        let (gone, stays): (Vec<PathBuf>, Vec<PathBuf>) =
            all.into_iter().partition(|path| match &wanted {
                Some(wanted) => path == wanted,
                None => path.starts_with(&snapshot.folder),
            });
        if gone.is_empty() {
            return None;
        }
        let len = |path: &Path| path.symlink_metadata().map_or(0, |meta| meta.len());
        if stays.is_empty() {
            let mut everything = Vec::new();
            files_in(&folder, 0, &mut everything);
            let bytes = everything.iter().map(|path| len(path)).sum();
            let repository = snapshot.repository;
            return Some(Removal {
                repository,
                bytes,
                files: everything.into_iter().collect(),
                folder: Some(folder),
            });
        }
        let blobs = folder.join("blobs").canonicalize().ok();
        let blob = |path: &PathBuf| {
            // Nothing outside of the repository's blobs is ever removed.
            path.canonicalize()
                .ok()
                .filter(|blob| blobs.as_ref().is_some_and(|blobs| blob.starts_with(blobs)))
        };
        let used: BTreeSet<PathBuf> = stays.iter().filter_map(blob).collect();
        let unused = gone.iter().filter_map(blob).filter(|blob| !used.contains(blob));
        let files: BTreeSet<PathBuf> = unused.chain(gone.iter().cloned()).collect();
        let bytes = files.iter().map(|path| len(path)).sum();
        Some(Removal { repository: snapshot.repository, bytes, files, folder: None })
    }

    /// Removes it.
    ///
    /// # Errors
    ///
    /// If a file cannot be removed; those before it are gone.
    pub fn remove(&self, removal: &Removal) -> Result<()> {
        for file in &removal.files {
            std::fs::remove_file(file)
                .map_err(|error| HubError::io(file, "remove the file", error))?;
        }
        match &removal.folder {
            Some(folder) => std::fs::remove_dir_all(folder)
                .map_err(|error| HubError::io(folder, "remove the folder", error)),
            None => Ok(()),
        }
    }
}

/// All files, and links whatever they lead to. Folders that are links are not entered.
fn files_in(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    const DEEPEST: usize = 16;
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && depth < DEEPEST => {
                files_in(&entry.path(), depth + 1, found)
            }
            Ok(kind) if !kind.is_dir() => found.push(entry.path()),
            _ => {}
        }
    }
}

/// Whether it is the index of a model of one of our families.
fn is_supported(index: &Path) -> bool {
    const MAX_BYTES: u64 = 1 << 20;
    if !index.metadata().is_ok_and(|meta| meta.is_file() && meta.len() <= MAX_BYTES) {
        return false;
    }
    let text = std::fs::read_to_string(index).unwrap_or_default();
    let index: Value = serde_json::from_str(&text).unwrap_or_default();
    FAMILIES.iter().any(|family| index["_class_name"] == family.pipeline())
}
