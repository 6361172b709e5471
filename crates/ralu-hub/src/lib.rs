//! Models by name, from the Hugging Face hub and its cache on this machine.
//!
//! - [`Name`]: what a user may call a model: a known name, `owner/repo`, or `owner/repo:file`;
//! - [`Hub`]: where the hub and its cache are; [`Hub::cached`] finds what is there without a network, [`Hub::plan`] asks
//!   the hub what a download would fetch, and [`Hub::download`] fetches it;
//! - [`cache`]: the models in the cache, and removing one.
//!
//! The cache has the layout of `huggingface_hub`, which other programs share, by the `hf-hub` crate: `blobs` by their
//! hashes, and a folder of links to them for each snapshot. Downloads go on where they stopped, and are checked: their
//! size, and the SHA-256 that the hub keeps of large files.
//!
//! Nothing is printed and no environment variable is read here: faces do both.

#![warn(missing_docs)]

pub mod cache;
mod error;
mod lock;
mod name;
mod plan;
mod remote;
mod settings;
mod transfer;

pub use error::HubError;
pub use name::Name;
pub use plan::{Download, FileToFetch};
pub use settings::Settings;
pub use transfer::Progress;

use std::path::PathBuf;

use hf_hub::{Cache, CacheRepo, Repo, RepoType};

/// What a call gives.
pub type Result<T> = std::result::Result<T, HubError>;

/// The hub and its cache.
pub struct Hub {
    settings: Settings,
    cache: Cache,
    remote: remote::Remote,
}

/// A model's files on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The repository, as the cache spells it.
    pub repository: String,
    /// The commit that the files are of.
    pub commit: String,
    /// Their folder.
    pub folder: PathBuf,
}

impl Hub {
    /// For these settings. Nothing is read or sent yet.
    pub fn new(settings: Settings) -> Self {
        let cache = Cache::new(settings.cache.clone());
        let remote = remote::Remote::new(&settings);
        Hub { settings, cache, remote }
    }

    /// What it was made with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    fn cache_repo(&self, repository: &str) -> CacheRepo {
        self.cache.repo(Repo::new(repository.to_owned(), RepoType::Model))
    }

    /// The folder of everything that the cache has of a repository.
    fn folder(&self, repository: &str) -> PathBuf {
        let repo = Repo::new(repository.to_owned(), RepoType::Model);
        self.settings.cache.join(repo.folder_name())
    }
}
