//! Looks for parts next to a model's file.

use super::{Contents, FilesError, Role};
use crate::checkpoint::source::{Source, SourceError};
use crate::checkpoint::weights::{WeightError, Weights};

/// Folders of ComfyUI that hold models, and those next to them that hold parts.
const MODELS: [&str; 3] = ["unet", "diffusion_models", "checkpoints"];
const PARTS: [&str; 3] = ["text_encoders", "clip", "vae"];
/// Of one kind, at most so many files are opened.
const MAX_OPENED: usize = 64;

/// The folder that a file is in; `""` for a bare name.
pub fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| if folder.is_empty() { "/" } else { folder })
}

pub fn join(folder: &str, name: &str) -> String {
    match folder {
        "" => name.to_owned(),
        folder => format!("{}/{name}", folder.trim_end_matches('/')),
    }
}

/// Where parts of the model file `path` are looked for: each list of folders before the next.
pub fn places(path: &str) -> Vec<Vec<String>> {
    let own = folder_of(path);
    let mut places = vec![vec![own.to_owned()]];
    let name = own.rsplit('/').next().unwrap_or(own);
    if MODELS.contains(&name) {
        let above = folder_of(own);
        places.push(PARTS.iter().map(|part| join(above, part)).collect());
    }
    places
}

/// A file with the part `role` next to the model file `path`.
pub fn part(
    source: &dyn Source,
    path: &str,
    role: Role,
) -> Result<Option<(String, Contents)>, FilesError> {
    for folders in places(path) {
        let mut found: Vec<(u8, String, String, Contents)> = Vec::new();
        for folder in &folders {
            let names = source.list(folder)?;
            for name in names.into_iter().filter(|name| role.is_named(name)).take(MAX_OPENED) {
                let file = join(folder, &name);
                if file == path {
                    continue;
                }
                let weights = match Weights::open_path(source, &file) {
                    Ok(weights) => weights,
                    // What is not fetched yet is asked for again; what cannot be read is no candidate.
                    Err(WeightError::Source(absent @ SourceError::Absent { .. })) => {
                        return Err(absent.into());
                    }
                    Err(_) => continue,
                };
                let rank = rank(&weights);
                if let Ok(contents) = Contents::of(&weights, Some(role))
                    && contents.parts.contains_key(&role)
                {
                    found.push((rank, name, file, contents));
                }
            }
        }
        found.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
        if let [first, second, ..] = &found[..]
            && (first.0, &first.1) == (second.0, &second.1)
        {
            let (first, second) = (first.2.clone(), second.2.clone());
            return Err(FilesError::Ambiguous { role, first, second });
        }
        if let Some((_, _, file, contents)) = found.into_iter().next() {
            return Ok(Some((file, contents)));
        }
    }
    Ok(None)
}

/// 16 bits before 8 before GGUF.
fn rank(weights: &Weights) -> u8 {
    if weights.gguf().is_some() {
        return 2;
    }
    let is_fp8 = |name: &str| name.starts_with("F8");
    let bytes = |fp8: bool| -> u64 {
        let infos = weights.iter().filter(|info| is_fp8(info.dtype.name()) == fp8);
        infos.map(|info| info.n_bytes()).sum()
    };
    u8::from(bytes(true) > bytes(false))
}

/// The model file in a folder laid out as ComfyUI's `models`; `None` if the folder is not.
pub fn model_in(source: &dyn Source, folder: &str) -> Result<Option<String>, FilesError> {
    let inside = source.list(folder)?;
    if !MODELS.iter().any(|name| inside.iter().any(|inside| inside == name)) {
        return Ok(None);
    }
    let is_model = |name: &str| {
        let low = name.to_ascii_lowercase();
        [".safetensors", ".sft", ".gguf"].iter().any(|end| low.ends_with(end))
    };
    let mut files = Vec::new();
    for name in MODELS {
        let folder = join(folder, name);
        let names = source.list(&folder)?;
        files.extend(names.iter().filter(|name| is_model(name)).map(|name| join(&folder, name)));
    }
    match files.len() {
        0 => Ok(None),
        1 => Ok(files.pop()),
        n => {
            let shown: Vec<&str> = files.iter().take(20).map(String::as_str).collect();
            Err(FilesError::Several { folder: folder.into(), n, files: shown.join(", ") })
        }
    }
}
