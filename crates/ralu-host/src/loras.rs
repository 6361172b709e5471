//! Files of changes to a model: a folder of those with names, their hashes, and where those that a picture names are found.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;
use ralu::models::adapters::{AdapterError, Lora};
use ralu::models::files::{FilesError, ModelPaths};
use sha2::{Digest, Sha256};

use crate::files::folder_of;

/// Ends of their files.
const ENDS: [&str; 2] = ["safetensors", "sft"];

/// Files of changes that are known by their names: those in a folder.
#[derive(Clone, Debug)]
pub struct LoraDir {
    folder: PathBuf,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedLora {
    /// Its name: the file's, without its end.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// The file's length.
    pub bytes: u64,
}

impl LoraDir {
    /// The folder `given`, or `ralu/loras` in the user's own for data: `~/.local/share`, `~/Library/Application Support` or
    /// `%APPDATA%`. `None` if the system knows of no such folder. The folder need not be there.
    pub fn find(given: Option<&Path>) -> Option<LoraDir> {
        let folder = match given {
            Some(given) => given.to_path_buf(),
            None => {
                let strategy = etcetera::base_strategy::choose_native_strategy().ok()?;
                strategy.data_dir().join("ralu").join("loras")
            }
        };
        Some(LoraDir { folder })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// All files in it, by name.
    pub fn list(&self) -> Vec<NamedLora> {
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let mut found: Vec<NamedLora> = entries.filter_map(|entry| named(entry.path())).collect();
        found.sort_by(|a, b| a.name.cmp(&b.name).then(a.path.cmp(&b.path)));
        found
    }

    /// The file with this name, with or without its end.
    pub fn get(&self, name: &str) -> Option<PathBuf> {
        // A path of any other kind is none.
        if name.is_empty() || name.contains(['/', '\\']) {
            return None;
        }
        let whole = std::iter::once(self.folder.join(name));
        let ended = ENDS.iter().map(|end| self.folder.join(format!("{name}.{end}")));
        whole.chain(ended).filter_map(named).map(|found| found.path).next()
    }
}

fn named(path: PathBuf) -> Option<NamedLora> {
    let end = path.extension()?.to_str()?;
    let meta = path.metadata().ok().filter(|meta| meta.is_file())?;
    let name = path.file_stem()?.to_str()?.to_owned();
    ENDS.contains(&end).then_some(NamedLora { name, bytes: meta.len(), path })
}

/// `paths` with the hash of each file of changes. A file that is not there has none.
///
/// # Errors
///
/// If there is a hash already, and the file has another one.
pub fn hashed(paths: &ModelPaths) -> Result<ModelPaths, FilesError> {
    let mut paths = paths.clone();
    for lora in &mut paths.loras {
        let Ok(found) = hash(Path::new(&lora.file)) else { continue };
        if let Some(expected) = lora.sha256.clone().filter(|expected| *expected != found) {
            let file = lora.file.clone();
            return Err(AdapterError::OtherFile { file, found, expected }.into());
        }
        lora.sha256 = Some(found);
    }
    Ok(paths)
}

/// Looks for the files that a picture names: where they were, else next to the picture.
pub fn find(loras: &mut [Lora], picture: &Path) {
    for lora in loras {
        let path = Path::new(&lora.file);
        let beside = path.file_name().map(|name| folder_of(picture).join(name));
        if let Some(beside) = beside.filter(|beside| !path.is_file() && beside.is_file()) {
            lora.file = beside.to_string_lossy().into_owned();
        }
    }
}

/// The SHA-256 of a file, in hexadecimal.
fn hash(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut state = Sha256::new();
    let mut bytes = vec![0; 1 << 20];
    loop {
        match file.read(&mut bytes)? {
            0 => break,
            n => state.update(&bytes[..n]),
        }
    }
    Ok(state.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
