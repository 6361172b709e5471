//! Where models lie that pictures name. Pictures are for others, so they carry names and hashes and no path; which path a
//! hash stands for is kept in the folder of kept files.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use ralu::checkpoint::source::Source;
use ralu::models::files::{ModelFiles, ModelPaths};
use ralu::pipeline::Saved;
use sha2::{Digest, Sha256};

use crate::cache_dir::CacheDir;
use crate::error::Error;
use crate::files::folder_of;
use crate::{loras, models};

/// Files up to this length are hashed whole, of longer ones as much at the beginning.
const WHOLE: u64 = 1 << 20;
/// Pieces of longer files, and the bytes of each.
const PIECES: u64 = 32;
const PIECE: u64 = 1 << 16;
/// Ends of the names that are read from a model's folder.
const READ: [&str; 5] = ["gguf", "json", "model", "safetensors", "txt"];
/// How names of kept places begin.
const KEPT: &str = "place-";
/// Kept places above which those are removed that are gone.
const MANY: usize = 64;

/// What stands for a model's files, wherever they lie and whatever they are called: a SHA-256, in hexadecimal, of their
/// lengths and of pieces of them, as whole models take minutes to read. Files of changes to it are left out, which have
/// hashes of their own. `None` if a file cannot be read.
pub fn hash(model: &ModelFiles) -> Option<String> {
    let is_change = |path: &Path| model.loras().iter().any(|lora| Path::new(&lora.file) == path);
    let mut files = Vec::new();
    for path in model.paths() {
        // A folder is opened as the root of what it holds.
        let path = if path.is_empty() { PathBuf::from(model.name()) } else { path.into() };
        list(&path, true, &mut files).ok()?;
    }
    // Those that an index names.
    for part in model.parts() {
        let weights = model.weights(part.folder);
        files.extend(weights.into_iter().flat_map(|weights| weights.files()).map(PathBuf::from));
    }
    files.retain(|file| !is_change(file));
    files.sort();
    files.dedup();
    let mut hashes =
        files.iter().map(|file| hash_pieces(file)).collect::<io::Result<Vec<_>>>().ok()?;
    hashes.sort();
    hashes.dedup();
    (!hashes.is_empty()).then(|| hex(&Sha256::digest(hashes.concat())))
}

/// Adds a file, or the files of a model in a folder and in the folders there.
fn list(path: &Path, is_top: bool, files: &mut Vec<PathBuf>) -> io::Result<()> {
    if path.is_file() {
        files.push(path.to_path_buf());
        return Ok(());
    }
    // Weights next to the folders of a diffusers model belong to other programs.
    let is_model = is_top && path.join("model_index.json").is_file();
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        let is_hidden =
            path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let ends =
            |end: &str| path.extension().is_some_and(|found| found.eq_ignore_ascii_case(end));
        if path.is_dir() && is_top && !is_hidden {
            list(&path, false, files)?;
        } else if path.is_file() && READ.into_iter().any(ends) && (!is_model || ends("json")) {
            files.push(path);
        }
    }
    Ok(())
}

fn hash_pieces(path: &Path) -> io::Result<[u8; 32]> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut state = Sha256::new();
    state.update(length.to_le_bytes());
    let mut piece = |from: u64, bytes: u64| {
        file.seek(SeekFrom::Start(from))?;
        io::copy(&mut Read::by_ref(&mut file).take(bytes), &mut state).map(drop)
    };
    piece(0, WHOLE)?;
    if length > WHOLE {
        let last = length.saturating_sub(PIECE);
        for i in 0..=PIECES {
            piece(last / PIECES * i, PIECE)?;
        }
        piece(last, PIECE)?;
    }
    Ok(state.finalize().into())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Keeps where the files lie that pictures will name: the model with that hash, and the changes to it. That it cannot be
/// kept is no error: to repeat such a picture, the model has to be named.
pub fn remember(cache: &CacheDir, hash: &str, paths: &ModelPaths) {
    let kept = try_remember(cache, hash, paths);
    let _ = kept.inspect_err(|reason| tracing::warn!("the model's place is not kept: {reason}"));
}

fn try_remember(cache: &CacheDir, hash: &str, paths: &ModelPaths) -> Result<(), Error> {
    let absolute = |path: &str| match path {
        "" => String::new(),
        path => std::path::absolute(path).map_or(path.into(), |path| path.display().to_string()),
    };
    let paths = paths.map(absolute);
    keep(cache, hash, &paths.without_loras())?;
    for lora in &paths.loras {
        if let Some(hash) = &lora.sha256 {
            let file = ModelPaths::default().with(|paths| paths.model.clone_from(&lora.file));
            keep(cache, hash, &file)?;
        }
    }
    Ok(())
}

fn keep(cache: &CacheDir, hash: &str, paths: &ModelPaths) -> Result<(), Error> {
    let bytes = serde_json::to_vec(paths)?;
    // A file for each, so that programs at the same time lose nothing.
    let name = format!("{}-{}.place", begin(hash), &hex(&Sha256::digest(&bytes))[..8]);
    if cache.read(&name).is_some_and(|kept| kept == bytes) {
        return Ok(());
    }
    let kept = cache.list(KEPT);
    if kept.len() >= MANY {
        let is_gone = |name: &&String| read(cache, name).is_none_or(|paths| !is_there(&paths));
        kept.iter().filter(is_gone).for_each(|name| cache.remove(name));
    }
    cache.write(&name, &bytes).map(drop)
}

/// How the names of the places of a hash begin.
fn begin(hash: &str) -> String {
    let digits = hash.chars().filter(char::is_ascii_hexdigit).take(16);
    format!("{KEPT}{}", digits.collect::<String>())
}

fn read(cache: &CacheDir, name: &str) -> Option<ModelPaths> {
    serde_json::from_slice(&cache.read(name)?).ok()
}

/// Whether everything is still there.
fn is_there(paths: &ModelPaths) -> bool {
    let others = [&paths.diffusion_model, &paths.clip_tokenizer, &paths.t5_tokenizer];
    let all = others.into_iter().flatten().chain(paths.parts.values()).chain([&paths.model]);
    all.filter(|path| !path.is_empty()).all(|path| Path::new(path).exists())
}

/// The kept places of what has that hash, as far as they are still there.
fn kept(cache: &CacheDir, hash: &str) -> Vec<ModelPaths> {
    let names = cache.list(&begin(hash));
    names.iter().filter_map(|name| read(cache, name)).filter(is_there).collect()
}

/// Where the model of a picture lies: where an older version's picture says, where one with its hash was when it was last
/// drawn with, or under its name next to the picture or in a folder `models` here or above. Changes to it are looked for in
/// the same way. `None` if it is not found, or is the bundled one as it is.
pub fn of_picture(saved: &Saved, picture: &Path, cache: Option<&CacheDir>) -> Option<ModelPaths> {
    let mut parts = saved.model_parts.clone().unwrap_or_default();
    for lora in &mut parts.loras {
        let hash = lora.sha256.as_deref().unwrap_or_default();
        if let (Some(cache), false, false) =
            (cache, hash.is_empty(), Path::new(&lora.file).is_file())
            && let Some(place) = kept(cache, hash).pop()
        {
            lora.file = place.model;
        }
    }
    loras::find(&mut parts.loras, picture);
    let with_loras = |paths: ModelPaths| paths.with(|paths| paths.loras.clone_from(&parts.loras));
    if let Some(path) = saved.model_path.as_ref().filter(|path| Path::new(path).exists()) {
        return Some(parts.clone().with(|paths| paths.model.clone_from(path)));
    }
    let is_it = |paths: &ModelPaths| {
        let files = models::open(&paths.without_loras()).ok();
        files.and_then(|files| hash(&files)) == saved.model_hash
    };
    let wanted = saved.model_hash.as_deref()?;
    let mut kept = cache.map(|cache| kept(cache, wanted)).unwrap_or_default();
    kept.retain(is_it);
    if let Some(found) = kept.pop() {
        return Some(with_loras(found));
    }
    let here = std::env::current_dir().unwrap_or_default();
    let near = [folder_of(picture).to_path_buf(), PathBuf::new()];
    let folders = near.into_iter().chain(here.ancestors().map(|folder| folder.join("models")));
    folders.into_iter().find_map(|folder| {
        let path = |name: &str| match folder.join(name) {
            path if !name.is_empty() && path.exists() => path.display().to_string(),
            _ => name.to_owned(),
        };
        let found = parts.without_loras().map(path).with(|paths| paths.model = path(&saved.model));
        (Path::new(&found.model).exists() && is_it(&found)).then(|| with_loras(found))
    })
}
