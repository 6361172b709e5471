//! Files of changes to a model: their hashes, and where those that a picture names are found.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use ralu::models::adapters::{AdapterError, Lora};
use ralu::models::files::{FilesError, ModelPaths};
use sha2::{Digest, Sha256};

use crate::files::folder_of;

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
