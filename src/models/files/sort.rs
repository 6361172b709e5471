//! Finds out which of several files is what: a user gives a list and says no more.

use super::{Contents, FilesError, ModelPaths, Role, is_lora};
use crate::checkpoint::source::{Source, SourceError};
use crate::checkpoint::weights::{WeightError, Weights};
use crate::models::adapters::{Lora, LoraWeight};
use crate::models::family::Family;
use crate::text::TokenizerKind;

/// Endings of files that are looked into, those of pickled ones too: the error says why they are refused.
const WEIGHTS: [&str; 7] = [".safetensors", ".sft", ".gguf", ".ckpt", ".pt", ".pth", ".bin"];

/// What a list of files holds.
#[derive(Default)]
struct Sorted {
    paths: ModelPaths,
    /// The denoiser's file, its family, and the parts in it.
    model: Option<(String, &'static dyn Family, Vec<Role>)>,
    /// What each file is, in words.
    found: Vec<String>,
    /// What is not fetched yet; everything else is looked into all the same, so that it is asked for at once.
    absent: Option<SourceError>,
}

impl ModelPaths {
    /// Which of `files` is what, by their contents: one denoiser, or a file with all parts, and files with other parts,
    /// which come before those of the first. JSON files that have `tokenizer` in their name are tokenizers, if they hold a
    /// vocabulary; which one they are, their contents say, too. LoRAs get a weight of 1. Files of other kinds are left alone.
    ///
    /// # Errors
    ///
    /// If a file cannot be read, a part is in two files, or a part is missing that the model cannot be without.
    pub fn sort(source: &dyn Source, files: &[String]) -> Result<Self, FilesError> {
        let mut sorted = Sorted::default();
        for path in files {
            match sorted.add(source, path) {
                Err(
                    FilesError::Source(absent @ SourceError::Absent { .. })
                    | FilesError::Weights(WeightError::Source(absent @ SourceError::Absent { .. })),
                ) => sorted.absent = Some(absent),
                other => other?,
            }
        }
        sorted.finish(source)
    }
}

impl Sorted {
    fn add(&mut self, source: &dyn Source, path: &str) -> Result<(), FilesError> {
        let low = path.to_ascii_lowercase();
        if WEIGHTS.iter().any(|end| low.ends_with(end)) {
            return self.weights(source, path);
        }
        if !low.ends_with(".json") || !name_of(&low).contains("tokenizer") {
            return Ok(());
        }
        let text = source.text(path)?.unwrap_or_default();
        let Some(kind) = TokenizerKind::of_json(&text) else { return Ok(()) };
        let taken = match kind {
            TokenizerKind::T5 => &mut self.paths.t5_tokenizer,
            TokenizerKind::Clip => &mut self.paths.clip_tokenizer,
            TokenizerKind::ByteLevel => return Ok(()),
        };
        match taken.replace(path.to_owned()) {
            None => Ok(()),
            Some(first) => Err(twice(source, format!("{kind} tokenizer"), &first, path)),
        }
    }

    fn weights(&mut self, source: &dyn Source, path: &str) -> Result<(), FilesError> {
        let weights = Weights::open_path(source, path)?;
        if is_lora(&weights) {
            let (file, weight) = (path.to_owned(), LoraWeight::default());
            self.paths.loras.push(Lora { file, weight, sha256: None });
            return Ok(());
        }
        let asked = Role::ALL.into_iter().find(|role| role.is_named(name_of(path)));
        let contents = Contents::of(&weights, asked)?;
        if contents.parts.is_empty() {
            let first: String =
                weights.names().next().unwrap_or("none").chars().take(200).collect();
            let file = weights.place().to_owned();
            return Err(FilesError::Unknown { file, n: weights.len(), first });
        }
        self.found.push(format!("{}: {}", source.shown(path), contents.in_words()));
        let twice = |role: Role, first: &str| Err(twice(source, role.to_string(), first, path));
        let denoiser = contents.parts.get(&Role::Denoiser).and_then(|found| found.denoiser);
        if let Some((family, _)) = denoiser {
            if let Some((first, ..)) = &self.model {
                return twice(Role::Denoiser, first);
            }
            let own = contents.parts.into_keys().collect();
            self.model = Some((path.to_owned(), family, own));
            return Ok(());
        }
        for role in contents.parts.into_keys() {
            if let Some(first) = self.paths.parts.insert(role, path.to_owned()) {
                return twice(role, &first);
            }
        }
        Ok(())
    }

    fn finish(self, source: &dyn Source) -> Result<ModelPaths, FilesError> {
        let Sorted { mut paths, model, found, absent } = self;
        if let Some(absent) = absent {
            return Err(absent.into());
        }
        let Some((model, family, own)) = model else {
            let loras =
                paths.loras.iter().map(|lora| format!("{}: a LoRA", source.shown(&lora.file)));
            let found: Vec<String> = found.into_iter().chain(loras).collect();
            let found =
                if found.is_empty() { "none is a model's".into() } else { found.join("; ") };
            return Err(FilesError::NoDenoiser { found });
        };
        let there = |role: &Role| own.contains(role) || paths.parts.contains_key(role);
        let encoders = family.text_encoders().iter().filter(|slot| !slot.optional);
        let needed = encoders.filter_map(|slot| slot.role).chain([Role::Vae]);
        let roles: Vec<Role> = needed.filter(|role| !there(role)).collect();
        if !roles.is_empty() {
            return Err(FilesError::MissingParts { model: source.shown(&model), roles });
        }
        paths.model = model;
        Ok(paths)
    }
}

fn twice(source: &dyn Source, what: String, first: &str, second: &str) -> FilesError {
    FilesError::Twice { what, first: source.shown(first), second: source.shown(second) }
}

fn name_of(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}
