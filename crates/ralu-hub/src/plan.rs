//! What a download fetches, before it does.

use ralu::models::config::{folder, stem};
use ralu::models::family::FAMILIES;
use serde_json::Value;

use crate::remote::{Info, Sibling};
use crate::transfer::Progress;
use crate::{Hub, HubError, Name, Result};

/// A file that a download fetches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileToFetch {
    /// Its path in the repository.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// Its name in the cache's `blobs`.
    pub(crate) blob: String,
    /// What its bytes must have, if the hub says.
    pub(crate) sha256: Option<String>,
}

/// What has to be fetched for a model.
#[derive(Clone, Debug)]
pub struct Download {
    /// The repository, as the hub spells it.
    pub repository: String,
    /// The commit.
    pub commit: String,
    /// All files of the model that ralu reads.
    pub files: Vec<FileToFetch>,
    /// Bytes that are neither in the cache nor left there by a download that broke off.
    pub missing_bytes: u64,
    /// Whether it is one file, not a model's folder.
    pub is_file: bool,
}

impl Download {
    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

/// The description of a diffusers model.
const INDEX: &str = "model_index.json";

impl Hub {
    /// Asks the hub what the model has. Of a diffusers folder only the files are taken that ralu reads: configurations,
    /// tokenizers, and each part's weights once. To know the parts, the folder's `model_index.json` is fetched.
    ///
    /// # Errors
    ///
    /// If the network is switched off or fails, the repository needs a login or an accepted licence, or has no such file or
    /// no model that ralu can run.
    pub fn plan(&self, name: &Name, progress: &mut dyn FnMut(Progress)) -> Result<Download> {
        if self.settings.offline {
            return Err(HubError::Offline {
                what: match &name.file {
                    Some(file) => format!("{}:{file}", name.repository),
                    None => name.repository.clone(),
                },
                cache: self.settings.cache.display().to_string(),
            });
        }
        let info = self.remote.info(&name.repository, progress)?;
        let chosen = match &name.file {
            Some(file) => vec![one_file(&info, file)?],
            None => {
                let Some(index) = info.siblings.iter().find(|file| file.path == INDEX) else {
                    return Err(HubError::NoModel {
                        repository: info.id.clone(),
                        files: models_in_files(&info),
                    });
                };
                let index = to_fetch(&info, index)?;
                self.fetch(&info.id, &info.sha, &index, progress)?;
                let path = self.link(&info.id, &info.sha, &index)?;
                let text = std::fs::read_to_string(&path)
                    .map_err(|error| HubError::io(&path, "read the file", error))?;
                let mut files = vec![index];
                let own = name.denoiser.is_none();
                files.extend(files_of_parts(&info, &parts(&info.id, &text)?, own)?);
                files
            }
        };
        let missing = chosen.iter().map(|file| self.missing_bytes(&info.id, file)).sum();
        Ok(Download {
            repository: info.id,
            commit: info.sha,
            files: chosen,
            missing_bytes: missing,
            is_file: name.file.is_some(),
        })
    }
}

/// The file's length and hashes.
fn to_fetch(info: &Info, file: &Sibling) -> Result<FileToFetch> {
    let lacks = |what: &str| HubError::Incomplete {
        repository: info.id.clone(),
        what: format!("{what} of {}", file.path),
    };
    Ok(match &file.lfs {
        Some(lfs) => FileToFetch {
            path: file.path.clone(),
            bytes: lfs.size,
            blob: lfs.sha256.clone(),
            sha256: Some(lfs.sha256.to_ascii_lowercase()),
        },
        None => FileToFetch {
            path: file.path.clone(),
            bytes: file.size.ok_or_else(|| lacks("the size"))?,
            blob: file.blob.clone().ok_or_else(|| lacks("the hash"))?,
            sha256: None,
        },
    })
}

fn one_file(info: &Info, path: &str) -> Result<FileToFetch> {
    match info.siblings.iter().find(|file| file.path == path) {
        Some(file) => to_fetch(info, file),
        None => Err(HubError::NoFile {
            repository: info.id.clone(),
            file: path.to_owned(),
            others: models_in_files(info),
        }),
    }
}

/// Files that hold weights and do not belong to a part's folder.
fn models_in_files(info: &Info) -> Vec<String> {
    let paths = info.siblings.iter().map(|file| &file.path);
    let weights = paths.filter(|path| path.ends_with(".gguf") || path.ends_with(".safetensors"));
    weights.filter(|path| !path.contains('/')).cloned().collect()
}

/// The folders of the parts that a `model_index.json` names.
fn parts(repository: &str, index: &str) -> Result<Vec<String>> {
    let bad = |reason: String| HubError::Answer { url: format!("{repository}/{INDEX}"), reason };
    let index: serde_json::Map<String, Value> =
        serde_json::from_str(index).map_err(|error| bad(error.to_string()))?;
    let pipeline = index.get("_class_name").and_then(Value::as_str).unwrap_or_default();
    if !FAMILIES.iter().any(|family| family.pipeline() == pipeline) {
        return Err(HubError::Pipeline {
            repository: repository.to_owned(),
            pipeline: pipeline.chars().take(80).collect(),
            supported: FAMILIES.iter().map(|family| family.pipeline()).collect(),
        });
    }
    // A part is a library and a class; both are null if the model is without it.
    let is_part = |value: &Value| match value.as_array().map(Vec::as_slice) {
        Some([library, class]) => library.is_string() && class.is_string(),
        _ => false,
    };
    Ok(index.into_iter().filter(|(_, value)| is_part(value)).map(|(name, _)| name).collect())
}

/// What is read of the folders of parts, with or without the denoiser's weights.
fn files_of_parts(info: &Info, parts: &[String], denoiser: bool) -> Result<Vec<FileToFetch>> {
    let mut chosen = Vec::new();
    for part in parts {
        let inside: Vec<(&str, &Sibling)> = info
            .siblings
            .iter()
            .filter_map(|file| Some((file.path.strip_prefix(part)?.strip_prefix('/')?, file)))
            .filter(|(name, _)| !name.contains('/'))
            .collect();
        if inside.is_empty() {
            let what = format!("the folder {part}, which its {INDEX} names");
            return Err(HubError::Incomplete { repository: info.id.clone(), what });
        }
        let names: Vec<&str> = inside.iter().map(|(name, _)| *name).collect();
        let weights = match denoiser || part != folder::TRANSFORMER {
            true => weights_of(&names),
            false => vec![],
        };
        for (name, file) in &inside {
            let small = name.ends_with(".json") && !name.contains(".index.");
            let words = *name == "merges.txt";
            if small || words || weights.contains(name) {
                chosen.push(to_fetch(info, file)?);
            }
        }
    }
    Ok(chosen)
}

/// The files of one copy of a part's weights: the one that `Weights::open` takes, which is the whole one rather than a
/// variant, and that in shards rather than that in one file.
fn weights_of<'n>(names: &[&'n str]) -> Vec<&'n str> {
    let has = |wanted: &str| names.iter().copied().find(|name| *name == wanted);
    for stem in [stem::DIFFUSERS, stem::TRANSFORMERS] {
        for variant in ["", ".fp16", ".bf16"] {
            let indices = [
                format!("{stem}.safetensors.index{variant}.json"),
                format!("{stem}{variant}.safetensors.index.json"),
            ];
            if let Some(index) = indices.iter().find_map(|index| has(index)) {
                let shard = |name: &&&str| {
                    let numbers = name.strip_prefix(stem).and_then(|rest| {
                        rest.strip_prefix(variant)?.strip_prefix('-')?.strip_suffix(".safetensors")
                    });
                    numbers.and_then(|numbers| numbers.split_once("-of-")).is_some_and(|(n, of)| {
                        [n, of].iter().all(|digits| digits.bytes().all(|c| c.is_ascii_digit()))
                    })
                };
                let mut all: Vec<&str> = names.iter().filter(shard).copied().collect();
                all.push(index);
                return all;
            }
            if let Some(whole) = has(&format!("{stem}{variant}.safetensors")) {
                return vec![whole];
            }
        }
    }
    vec![]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_taken_once() {
        let sharded = [
            "model.safetensors.index.json",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
        ];
        let half = [
            "model.fp16.safetensors",
            "model.safetensors.index.fp16.json",
            "model.fp16-00001-of-00002.safetensors",
        ];
        let other =
            ["model.bin", "model-best-of-all.safetensors", "config.json", "flax_model.msgpack"];
        let mut all: Vec<&str> = [&sharded[..], &half, &other].concat();
        let mut found = weights_of(&all);
        found.sort_unstable();
        let mut expected = sharded.to_vec();
        expected.sort_unstable();
        assert_eq!(found, expected);
        all.push("diffusion_pytorch_model.safetensors");
        assert_eq!(weights_of(&all), ["diffusion_pytorch_model.safetensors"]);
        assert_eq!(
            weights_of(&half),
            ["model.fp16-00001-of-00002.safetensors", "model.safetensors.index.fp16.json"]
        );
        assert_eq!(
            weights_of(&["model.fp16.safetensors", "model.bin"]),
            ["model.fp16.safetensors"]
        );
        assert_eq!(weights_of(&other), [""; 0]);
    }
}
