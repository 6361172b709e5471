//! Where a model's bytes come from.
//!
//! A [`Source`] is a tree of named files: a [`Folder`] on disk, a [`Memory`] map for tests, or a
//! [`Remote`] whose bytes have to be fetched, as in a browser. Paths are relative, `/`-separated and cannot leave the
//! source. Nothing here knows what the bytes mean.
//!
//! ```
//! use ralu::checkpoint::source::{Memory, Source};
//! let source = Memory::new("demo").with("vae/config.json", "{}");
//! assert_eq!(source.text("vae/config.json").unwrap().as_deref(), Some("{}"));
//! assert_eq!(source.text("model_index.json").unwrap(), None);
//! ```

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

#[cfg(not(target_arch = "wasm32"))]
mod file;
mod remote;
mod text;
mod unfinished;

use super::weights::Weights;
use crate::escape::Escaped;
pub use crate::sync::BoxFuture;
use crate::sync::{MaybeSend, MaybeSync};
pub use remote::{Origin, Remote};
use text::{max_text_bytes, to_text};
pub(crate) use unfinished::unfinished_download;

/// A tree of named files.
pub trait Source: MaybeSend + MaybeSync {
    /// What to call this source in messages: the folder's path, or a given name.
    fn name(&self) -> String;

    /// The whole file as UTF-8 text; `None` if there is no such file.
    ///
    /// Meant for small files: more than 4 MiB of a configuration, or 64 MiB of a tokenizer or an index, is refused.
    /// So is a file that is no text but stands in for one: an empty file, a Git LFS pointer, a web page.
    fn text(&self, path: &str) -> Result<Option<String>, SourceError>;

    /// Whether a file of that name is there.
    fn exists(&self, path: &str) -> bool;

    /// The names (not paths) of the files and folders directly inside `dir`, sorted; `""` is the root.
    /// A folder that is not there is empty.
    fn list(&self, dir: &str) -> Result<Vec<String>, SourceError>;

    /// Opens a file for reading in ranges. A missing or zero-length file is an error.
    fn blob(&self, path: &str) -> Result<Box<dyn Blob>, SourceError>;

    /// The file as messages show it.
    fn shown(&self, path: &str) -> String {
        let name = self.name();
        match name.trim_end_matches('/') {
            "" => path.to_owned(),
            name => format!("{name}/{path}").trim_end_matches('/').to_owned(),
        }
    }

    /// What the tokenizer in the folder `dir` pads with, where its files do not decide that.
    fn padding(&self, dir: &str) -> Option<Padding> {
        let _ = dir;
        None
    }

    /// The weights of the part `dir` of a model, where they do not lie in files of that folder: a source may show a
    /// model of other files as if it were a folder.
    fn weights(&self, dir: &str) -> Option<&Weights> {
        let _ = dir;
        None
    }

    /// Where ready-made vocabularies are, for text encoders that come without a tokenizer: files of
    /// [`Vocabularies`](crate::text::Vocabularies). Without this, those that are built into the library are used.
    fn vocabularies(&self) -> Option<&dyn Source> {
        None
    }

    /// What low-rank changes of each of their files are multiplied by: in the first, second and last stage of a run.
    fn change_weights(&self) -> Vec<[f64; 3]> {
        vec![]
    }

    /// The numbers of files among them some of whose changes are merged into weights.
    fn fixed_changes(&self) -> Vec<usize> {
        vec![]
    }

    /// What the user should know of the files before a model of them draws, in sentences.
    fn warnings(&self) -> Vec<String> {
        vec![]
    }

    /// Fetches what reads, also those of blobs, could not have at once ([`SourceError::Absent`]); false if that was
    /// nothing. Most sources lack nothing. See [`read`].
    fn fetch(&self) -> BoxFuture<'_, Result<bool, SourceError>> {
        Box::pin(std::future::ready(Ok(false)))
    }
}

/// What a tokenizer pads with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Padding {
    /// The end mark.
    End,
    /// The token of this id.
    Id(u32),
}

/// Reads from `source`, again and again until all it asks for has been fetched. `read` has no other effects.
pub async fn read<T, E: From<SourceError>>(
    source: &dyn Source,
    mut read: impl FnMut() -> Result<T, E>,
) -> Result<T, E> {
    loop {
        let result = read();
        if !source.fetch().await? {
            return result;
        }
    }
}

/// One file, readable in ranges.
pub trait Blob: MaybeSend + MaybeSync {
    /// Length in bytes; never 0.
    fn len(&self) -> u64;

    /// Always false: an empty file cannot be opened.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes of `range`; borrowed where the blob is already in memory.
    fn bytes(&self, range: Range<u64>) -> Result<Cow<'_, [u8]>, SourceError>;
}

/// Why bytes could not be had. Paths are as the user would write them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the messages name the fields")]
pub enum SourceError {
    /// The model folder is not there.
    #[error(
        "{}: no such folder or file; give the path of a diffusers model folder (the one that holds model_index.json), or \
         of a model's file",
        Escaped(.path)
    )]
    MissingFolder { path: String },
    /// The model folder is a file.
    #[error(
        "{}: expected a diffusers model folder (the one that holds model_index.json), found a file; {}",
        Escaped(.path), instead_of_file(.path)
    )]
    NotAFolder { path: String },
    /// A file is not there.
    #[error("{}: no such file; the model folder is incomplete, download it again", Escaped(.path))]
    MissingFile { path: String },
    /// A link to something that is not there.
    #[error(
        "{}: is a link that points to {}, which is not there: the download is not complete, or the folder was copied \
         without what its links point to (the Hugging Face cache keeps files in blobs/); download the model again, or \
         copy it with links followed",
        Escaped(.path), Escaped(.target)
    )]
    DanglingLink { path: String, target: String },
    /// A file has no content.
    #[error(
        "{}: the file is empty (0 bytes); its download probably failed, fetch it again",
        Escaped(.path)
    )]
    Empty { path: String },
    /// A file was expected and something else is there.
    #[error("{}: expected a file, found a folder or device", Escaped(.path))]
    NotAFile { path: String },
    /// The file is not text.
    #[error(
        "{}: expected UTF-8 text, found other bytes at offset {offset}; fetch the file again",
        Escaped(.path)
    )]
    NotText { path: String, offset: usize },
    /// The file is text, but not as it should be.
    #[error("{}: the file {reason}", Escaped(.path))]
    OtherText {
        path: String,
        /// What it is, and what to do: a predicate.
        reason: &'static str,
    },
    /// A text file is implausibly large.
    #[error(
        "{}: {bytes} bytes are too many for a text file of this kind (limit {limit}); is this the right file?",
        Escaped(.path)
    )]
    TooLarge { path: String, bytes: u64, limit: u64 },
    /// A file was written into while it was open.
    #[error(
        "{}: the file was changed while it was read (it had {before} bytes and has {now} now); wait until nothing writes to it, and try again",
        Escaped(.path)
    )]
    Changed { path: String, before: u64, now: u64 },
    /// A range outside the file was asked for.
    #[error(
        "{}: bytes {start}..{end} were asked for, but the file has {len} bytes; it is truncated or was changed, fetch it again",
        Escaped(.path)
    )]
    OutOfRange { path: String, start: u64, end: u64, len: u64 },
    /// A path that would leave the source.
    #[error(
        "{path:?}: file names inside a model are relative and without '..'; the model folder is damaged or not to be trusted"
    )]
    BadPath { path: String },
    /// The bytes are elsewhere, and [`Source::fetch`] gets them.
    #[error("{}: not fetched yet", Escaped(.path))]
    Absent { path: String },
    /// The bytes could not be fetched.
    #[error("{}: cannot fetch the file: {}", Escaped(.path), Escaped(.reason))]
    Fetch { path: String, reason: String },
    /// What is computed from the file cannot be.
    #[error("{}: {}", Escaped(.path), Escaped(.reason))]
    Unreadable { path: String, reason: String },
    /// The operating system said no.
    #[error("{}: cannot {action}: {error}", Escaped(.path))]
    Io { path: String, action: &'static str, error: std::io::Error },
}

/// What to give instead of the file `path`.
fn instead_of_file(path: &str) -> &'static str {
    let low = path.to_ascii_lowercase();
    let ends = |ends: &[&str]| ends.iter().any(|end| low.ends_with(end));
    if ends(&[".gguf", ".safetensors", ".sft"]) {
        "a model's file is opened as a file, not as a folder"
    } else if ends(&[".ckpt", ".pt", ".pth", ".bin", ".onnx"]) {
        "files of this kind are not read: get the model as safetensors, as GGUF, or as a diffusers folder"
    } else {
        "give the folder"
    }
}

/// Splits a path into its names; refuses what could leave the source.
fn names(path: &str) -> Result<Vec<&str>, SourceError> {
    let bad = || SourceError::BadPath { path: path.to_string() };
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." if path.is_empty() || part == "." => {}
            "" if !parts.is_empty() => {} // a doubled or trailing slash
            "" | ".." => return Err(bad()),
            _ if part.contains(['\\', ':', '\0']) => return Err(bad()),
            _ => parts.push(part),
        }
    }
    Ok(parts)
}

/// The files of a model kept in memory: for tests.
#[derive(Clone, Default)]
pub struct Memory {
    name: String,
    files: BTreeMap<String, Arc<[u8]>>,
}

impl Memory {
    /// An empty source that calls itself `name` in messages.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), files: BTreeMap::new() }
    }

    /// Adds or replaces a file.
    pub fn with(mut self, path: impl Into<String>, bytes: impl AsRef<[u8]>) -> Self {
        self.insert(path, bytes);
        self
    }

    /// Adds or replaces a file.
    pub fn insert(&mut self, path: impl Into<String>, bytes: impl AsRef<[u8]>) {
        self.files.insert(path.into(), Arc::from(bytes.as_ref()));
    }

    /// Removes a file; false if it was not there.
    pub fn remove(&mut self, path: &str) -> bool {
        self.files.remove(path).is_some()
    }

    fn get(&self, path: &str) -> Result<Option<&Arc<[u8]>>, SourceError> {
        Ok(self.files.get(&names(path)?.join("/")))
    }

    fn shown(&self, path: &str) -> String {
        format!("{}/{path}", self.name)
    }
}

impl Source for Memory {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn text(&self, path: &str) -> Result<Option<String>, SourceError> {
        let Some(bytes) = self.get(path)? else { return Ok(None) };
        let (shown, limit) = (self.shown(path), max_text_bytes(path));
        match bytes.len() as u64 {
            len if len > limit => Err(SourceError::TooLarge { path: shown, bytes: len, limit }),
            _ => to_text(&shown, bytes.to_vec()).map(Some),
        }
    }

    fn exists(&self, path: &str) -> bool {
        matches!(self.get(path), Ok(Some(_)))
    }

    fn list(&self, dir: &str) -> Result<Vec<String>, SourceError> {
        let mut prefix = names(dir)?.join("/");
        if !prefix.is_empty() {
            prefix.push('/');
        }
        let inside = self.files.keys().filter_map(|path| path.strip_prefix(prefix.as_str()));
        let mut found: Vec<String> =
            inside.filter_map(|rest| rest.split('/').next()).map(str::to_string).collect();
        found.sort();
        found.dedup();
        Ok(found)
    }

    fn blob(&self, path: &str) -> Result<Box<dyn Blob>, SourceError> {
        let shown = self.shown(path);
        match self.get(path)? {
            None => Err(SourceError::MissingFile { path: shown }),
            Some(bytes) if bytes.is_empty() => Err(SourceError::Empty { path: shown }),
            Some(bytes) => Ok(Box::new(MemoryBlob { path: shown, bytes: bytes.clone() })),
        }
    }
}

struct MemoryBlob {
    path: String,
    bytes: Arc<[u8]>,
}

impl Blob for MemoryBlob {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn bytes(&self, range: Range<u64>) -> Result<Cow<'_, [u8]>, SourceError> {
        slice(&self.bytes, range, &self.path).map(Cow::Borrowed)
    }
}

/// `bytes[range]`, or an error that says what there is.
fn slice<'a>(bytes: &'a [u8], range: Range<u64>, path: &str) -> Result<&'a [u8], SourceError> {
    let error = || out_of_range(&range, bytes.len() as u64, path);
    let start = usize::try_from(range.start).map_err(|_| error())?;
    let end = usize::try_from(range.end).map_err(|_| error())?;
    bytes.get(start..end).ok_or_else(error)
}

fn out_of_range(range: &Range<u64>, len: u64, path: &str) -> SourceError {
    SourceError::OutOfRange { path: path.to_string(), start: range.start, end: range.end, len }
}

#[cfg(not(target_arch = "wasm32"))]
pub use folder::{Folder, open_file};

#[cfg(not(target_arch = "wasm32"))]
mod folder {
    use super::file::OpenFile;
    use super::*;
    use std::fs::{self, File};
    use std::io::ErrorKind;
    use std::path::{Path, PathBuf};

    /// A model folder on disk. Files are read a range at a time, and none may change while it is open: one that was
    /// written into or shortened is an error at the next read. Replacing a file (write elsewhere, rename) is safe.
    #[derive(Clone, Debug)]
    pub struct Folder {
        root: PathBuf,
        /// Whether paths are those of the system, and may lead anywhere.
        anywhere: bool,
    }

    impl Folder {
        /// Opens a folder; fails if it is missing or a file.
        pub fn open(root: impl AsRef<Path>) -> Result<Self, SourceError> {
            let root = root.as_ref().to_path_buf();
            let path = root.display().to_string();
            match fs::metadata(&root) {
                Ok(meta) if meta.is_dir() => Ok(Self { root, anywhere: false }),
                Ok(_) => Err(SourceError::NotAFolder { path }),
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    Err(SourceError::MissingFolder { path })
                }
                Err(error) => Err(SourceError::Io { path, action: "open the model folder", error }),
            }
        }

        /// The system's files, by the paths that a user gives: absolute, or from the working folder on. Not for paths
        /// that are read from a file.
        pub fn anywhere() -> Self {
            Self { root: PathBuf::new(), anywhere: true }
        }

        /// Where it lies.
        pub fn path(&self) -> &Path {
            &self.root
        }

        fn resolve(&self, path: &str) -> Result<PathBuf, SourceError> {
            if self.anywhere {
                return Ok(PathBuf::from(if path.is_empty() { "." } else { path }));
            }
            let mut full = self.root.clone();
            full.extend(names(path)?);
            Ok(full)
        }

        /// The error for a file that is not there because of a link that leads nowhere, the file's own or that of a
        /// folder above it.
        fn dangling(&self, path: &str) -> Option<SourceError> {
            let mut full = self.root.clone();
            for name in names(path).ok()? {
                full.push(name);
                let target = fs::read_link(&full).ok();
                if let (Some(target), false) = (target, full.exists()) {
                    let target = target.display().to_string();
                    return Some(SourceError::DanglingLink {
                        path: full.display().to_string(),
                        target,
                    });
                }
            }
            None
        }

        /// The open file; `None` if there is none.
        fn file(&self, path: &str) -> Result<Option<OpenFile>, SourceError> {
            let full = self.resolve(path)?;
            let dangling = || self.dangling(path);
            let path = full.display().to_string();
            // Look before opening: opening a pipe would wait for its writer.
            match fs::metadata(&full) {
                Ok(meta) if meta.is_file() => {}
                Ok(_) => return Err(SourceError::NotAFile { path }),
                Err(error)
                    if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
                {
                    return dangling().map_or(Ok(None), Err);
                }
                Err(error) => {
                    return Err(SourceError::Io { path, action: "look at the file", error });
                }
            }
            let file = match File::open(&full) {
                Ok(file) => file,
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(SourceError::Io { path, action: "open the file", error }),
            };
            OpenFile::new(file, path).map(Some)
        }
    }

    /// Opens a file that belongs to no model, to be read in ranges. Fails if it is a pipe or a device, which cannot be.
    pub fn open_file(path: &Path) -> Result<Box<dyn Blob>, SourceError> {
        let shown = path.display().to_string();
        // Look before opening: opening a pipe would wait for its writer.
        let action = "open the file";
        match fs::metadata(path) {
            Ok(meta) if !meta.is_file() => Err(SourceError::NotAFile { path: shown }),
            Err(error) => Err(SourceError::Io { path: shown, action, error }),
            Ok(_) => match File::open(path) {
                Ok(file) => Ok(Box::new(OpenFile::new(file, shown)?)),
                Err(error) => Err(SourceError::Io { path: shown, action, error }),
            },
        }
    }

    impl Source for Folder {
        fn name(&self) -> String {
            self.root.display().to_string()
        }

        fn text(&self, path: &str) -> Result<Option<String>, SourceError> {
            match self.file(path)? {
                None => Ok(None),
                Some(file) => to_text(file.path(), file.read(max_text_bytes(path))?).map(Some),
            }
        }

        /// True also for a link that leads nowhere, a pipe and a device, so that opening them says what is wrong.
        fn exists(&self, path: &str) -> bool {
            self.resolve(path).is_ok_and(|full| {
                full.metadata().map_or_else(|_| full.is_symlink(), |meta| !meta.is_dir())
            })
        }

        fn list(&self, dir: &str) -> Result<Vec<String>, SourceError> {
            let full = self.resolve(dir)?;
            let io = |error| SourceError::Io {
                path: full.display().to_string(),
                action: "list the folder",
                error,
            };
            let entries = match fs::read_dir(&full) {
                Ok(entries) => entries,
                Err(error)
                    if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
                {
                    return self.dangling(dir).map_or(Ok(Vec::new()), Err);
                }
                Err(error) => return Err(io(error)),
            };
            let mut found = Vec::new();
            for entry in entries {
                found.push(entry.map_err(io)?.file_name().to_string_lossy().into_owned());
            }
            found.sort();
            Ok(found)
        }

        fn blob(&self, path: &str) -> Result<Box<dyn Blob>, SourceError> {
            match self.file(path)? {
                None => {
                    let path = self.resolve(path)?.display().to_string();
                    Err(SourceError::MissingFile { path })
                }
                Some(file) if file.len() == 0 => {
                    Err(SourceError::Empty { path: file.path().to_owned() })
                }
                Some(file) => Ok(Box::new(file)),
            }
        }
    }
}
