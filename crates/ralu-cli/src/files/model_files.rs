//! The files that a model consists of, wherever links lead.

use std::collections::{HashSet, VecDeque};
use std::fs::{self, Metadata};
use std::path::{Component, Path, PathBuf, absolute};

use ralu_host::files::{folder_of, follow};

/// How many folders deep a model is looked through; its parts are one deep.
const MAX_DEPTH: usize = 4;
/// More entries than this are no model's alone.
const MAX_ENTRIES: usize = 1 << 14;
/// Ends of the names that are read from a model folder.
const READ: [&str; 4] = ["json", "model", "safetensors", "txt"];

/// What there is in a model folder.
#[derive(Default)]
pub struct ModelFiles {
    /// The folder as it was given, made absolute but with its links.
    given: PathBuf,
    /// The folder without links.
    root: PathBuf,
    /// It and all folders in it, without links.
    folders: HashSet<PathBuf>,
    /// All files in them, without links; also those that links name and that are not there.
    files: HashSet<PathBuf>,
    /// The files that are there, whatever else they are called.
    ids: HashSet<FileId>,
}

impl ModelFiles {
    /// Looks through a model folder, as far as a model goes. What cannot be read is left out.
    pub fn find(folder: &Path) -> ModelFiles {
        let Ok(root) = folder.canonicalize() else { return ModelFiles::default() };
        let mut found = ModelFiles { given: normal(folder), root, ..Default::default() };
        let mut entries = 0;
        let mut waiting = VecDeque::from([(folder.to_path_buf(), 0)]);
        while let Some((folder, depth)) = waiting.pop_front() {
            if !found.enter(&folder) {
                continue;
            }
            let Ok(list) = fs::read_dir(&folder) else { continue };
            for entry in list.flatten() {
                entries += 1;
                if entries > MAX_ENTRIES {
                    return found;
                }
                let path = entry.path();
                match fs::metadata(&path) {
                    Ok(meta) if !meta.is_dir() => found.add(&path, &meta),
                    Ok(_) if depth < MAX_DEPTH => waiting.push_back((path, depth + 1)),
                    Ok(_) => {}
                    // A link to what is not there yet.
                    Err(_) => found.files.extend(end_of(path)),
                }
            }
        }
        found
    }

    /// Notes a folder. Gives whether it is new, and the model's: links may lead in circles.
    fn enter(&mut self, folder: &Path) -> bool {
        let Ok(real) = folder.canonicalize() else { return false };
        let is_around = self.root != real && self.root.starts_with(&real);
        !is_around && self.folders.insert(real)
    }

    fn add(&mut self, path: &Path, meta: &Metadata) {
        // No model reads pictures.
        if !path.extension().is_some_and(|end| end.eq_ignore_ascii_case("png")) {
            self.ids.extend(id_of(meta));
            self.files.extend(path.canonicalize());
        }
    }

    /// Whether writing to `path`, which leads to `file`, would change the model: it is a file of it, or has a name that
    /// is read from a model folder.
    pub fn changes_with(&self, path: &Path, file: &Path) -> bool {
        let id = fs::metadata(file).ok().as_ref().and_then(id_of);
        if self.files.contains(file) || id.is_some_and(|id| self.ids.contains(&id)) {
            return true;
        }
        let is_inside = |path: &Path| {
            let real = folder_of(path).canonicalize();
            real.is_ok_and(|real| real.starts_with(&self.root) || self.folders.contains(&real))
                || normal(path).starts_with(&self.given)
        };
        let has_model = !self.root.as_os_str().is_empty();
        has_model && [path, file].into_iter().any(|path| is_read(path) && is_inside(path))
    }
}

/// What stands for a file, whatever it is called.
type FileId = (u64, u64);

#[cfg(unix)]
fn id_of(meta: &Metadata) -> Option<FileId> {
    use std::os::unix::fs::MetadataExt;
    Some((meta.dev(), meta.ino()))
}

/// Here paths have to do.
#[cfg(not(unix))]
fn id_of(_: &Metadata) -> Option<FileId> {
    None
}

/// Where a link leads that leads to nothing, without links.
fn end_of(link: PathBuf) -> Option<PathBuf> {
    let end = follow(link).ok()?;
    let folder = folder_of(&end).canonicalize().ok()?;
    Some(folder.join(end.file_name()?))
}

fn is_read(path: &Path) -> bool {
    path.extension().is_some_and(|end| READ.iter().any(|read| end.eq_ignore_ascii_case(read)))
}

/// The path from the root as it is spelled, with `..` taken off.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in absolute(path).unwrap_or_else(|_| path.to_path_buf()).components() {
        match part {
            Component::ParentDir => {
                normal.pop();
            }
            Component::CurDir => {}
            part => normal.push(part),
        }
    }
    normal
}
