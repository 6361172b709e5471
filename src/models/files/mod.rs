//! Models as people have them: a denoiser in a file of its own, its text encoders and VAE next to it, or all in one.
//!
//! [`ModelPaths`] says which file is what; [`ModelFiles`] opens them and shows the whole as if it were a diffusers folder:
//! configurations are made from shapes, weights have the names that networks ask for, and nothing else knows that there
//! is no such folder.
//!
//! - `contents.rs`: what a file holds, by prefixes and names.
//! - `rules.rs`: tables of names. Families, encoders and the VAE have theirs.
//! - `search.rs`: files next to the model's.
//! - `sort.rs`: finds out which of several files is what.
//! - `open.rs`: puts a model together.
//! - `originals.rs`: a denoiser's tensors under the names that its makers gave them, to be written.

mod contents;
mod error;
mod open;
pub(crate) mod originals;
mod role;
pub(crate) mod rules;
mod search;
mod sort;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use contents::{Contents, Found, is_lora};
pub use error::FilesError;
pub use role::Role;
use serde::{Deserialize, Serialize};

use super::adapters::{AdapterError, AdapterFile, AdapterReport, Lora, adapt};
use super::family::FAMILIES;
use crate::checkpoint::source::{Blob, BoxFuture, Memory, Padding, Source, SourceError, read};
use crate::checkpoint::weights::Weights;
use crate::text::Vocabularies;

/// Which file is what, by paths of a [`Source`]. By default, a diffusers folder at its root.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelPaths {
    /// A diffusers folder, a denoiser's file, a file with all parts, the index of several, or a folder laid out as
    /// ComfyUI's `models`.
    pub model: String,
    /// A denoiser whose other parts are the model's.
    pub diffusion_model: Option<String>,
    /// Other parts than the model's own: a file, or a folder of a diffusers model.
    pub parts: BTreeMap<Role, String>,
    /// CLIP's tokenizer: a folder, or a `tokenizer.json`.
    pub clip_tokenizer: Option<String>,
    /// T5's tokenizer: a folder, or a `tokenizer.json`.
    pub t5_tokenizer: Option<String>,
    /// Leaves T5 out where a model can be without it.
    pub without_t5: bool,
    /// Files with changes to the model.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub loras: Vec<Lora>,
}

impl ModelPaths {
    /// Changes any fields: `ModelPaths::default().with(|paths| paths.model = "m.gguf".into())`.
    pub fn with(mut self, change: impl FnOnce(&mut ModelPaths)) -> Self {
        change(&mut self);
        self
    }

    /// Whether nothing but the model itself is said.
    pub fn is_model_alone(&self) -> bool {
        *self == ModelPaths { model: self.model.clone(), ..Default::default() }
    }

    /// The same paths without files of changes.
    pub fn without_loras(&self) -> Self {
        ModelPaths { loras: vec![], ..self.clone() }
    }

    /// The same paths with `/` for every `\\`, as a [`Source`] wants them.
    pub fn with_slashes(&self) -> Self {
        self.map(|path| path.replace('\\', "/"))
    }

    /// The names of the files and folders alone.
    pub fn without_folders(&self) -> Self {
        let last = |path: &str| path.rsplit(['/', '\\']).next().unwrap_or_default().to_owned();
        self.map(|path| last(path.trim_end_matches(['/', '\\'])))
    }

    /// The same with every path changed.
    pub fn map(&self, change: impl Fn(&str) -> String) -> Self {
        let change = |path: &String| change(path);
        let changed = |lora: &Lora| Lora { file: change(&lora.file), ..lora.clone() };
        ModelPaths {
            model: change(&self.model),
            diffusion_model: self.diffusion_model.as_ref().map(change),
            parts: self.parts.iter().map(|(role, path)| (*role, change(path))).collect(),
            clip_tokenizer: self.clip_tokenizer.as_ref().map(change),
            t5_tokenizer: self.t5_tokenizer.as_ref().map(change),
            without_t5: self.without_t5,
            loras: self.loras.iter().map(changed).collect(),
        }
    }
}

/// Where a part of a model is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartPlace {
    /// What it is.
    pub role: Role,
    /// Its folder in a diffusers model.
    pub folder: &'static str,
    /// The file, or the folder of a diffusers model.
    pub path: String,
    /// How its names begin in the file.
    pub prefix: &'static str,
    /// How it was come by.
    pub origin: PartOrigin,
}

/// How a part was come by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartOrigin {
    /// It is in the model that was given.
    Model,
    /// It was given.
    Given,
    /// It lies next to the model's file.
    Found,
}

/// A model's files, shown as a diffusers folder.
///
/// Cheap enough to clone: clones share the open files.
#[derive(Clone)]
pub struct ModelFiles {
    source: Arc<dyn Source>,
    /// What the model is called: the path of its folder, or of its denoiser's file.
    name: String,
    /// The diffusers folder that has what is not here.
    base: Option<String>,
    /// Files that are nowhere.
    made: BTreeMap<String, String>,
    /// Files and folders that lie elsewhere.
    moved: BTreeMap<String, String>,
    /// Weights of the parts that are no folders.
    weights: BTreeMap<&'static str, Weights>,
    /// Folders that are not looked into, though the base has them.
    hidden: BTreeSet<&'static str>,
    padding: BTreeMap<&'static str, Padding>,
    /// For text encoders without a tokenizer, in place of those that are built in.
    vocabularies: Option<Vocabularies>,
    parts: Vec<PartPlace>,
    notes: Vec<String>,
    /// Files of changes, and what is said of each.
    loras: Vec<Lora>,
    adapters: Vec<AdapterReport>,
}

impl ModelFiles {
    /// A diffusers folder as it is.
    pub fn folder(source: Arc<dyn Source>, folder: &str) -> Self {
        let name = source.shown(folder);
        ModelFiles {
            source,
            name,
            base: Some(folder.to_owned()),
            made: BTreeMap::new(),
            moved: BTreeMap::new(),
            weights: BTreeMap::new(),
            hidden: BTreeSet::new(),
            padding: BTreeMap::new(),
            vocabularies: None,
            parts: Vec::new(),
            notes: Vec::new(),
            loras: Vec::new(),
            adapters: Vec::new(),
        }
    }

    /// Reads the headers of all files and finds out what they are.
    pub fn open(source: Arc<dyn Source>, paths: &ModelPaths) -> Result<Self, FilesError> {
        let files = open::open(source.clone(), paths)?;
        let mut opened = Vec::new();
        for lora in &paths.loras {
            let shown = source.shown(&lora.file);
            let weights = Weights::open_blob(open_lora(&*source, &lora.file)?, &shown)?;
            opened.push(AdapterFile { shown, weight: lora.weight, weights });
        }
        files.adapted(&paths.loras, &opened)
    }

    /// Like [`ModelFiles::open`], for a source whose bytes have to be fetched.
    pub async fn fetch(source: Arc<dyn Source>, paths: &ModelPaths) -> Result<Self, FilesError> {
        let files = read(&*source, || open::open(source.clone(), paths)).await?;
        let mut opened = Vec::new();
        for lora in &paths.loras {
            // All numbers are read before anything is drawn, so the whole file is fetched at once.
            let blob = read(&*source, || open_lora(&*source, &lora.file)).await?;
            let shown = source.shown(&lora.file);
            let mut whole = Vec::new();
            while (whole.len() as u64) < blob.len() {
                let start = whole.len() as u64;
                let range = start..blob.len().min(start + FETCHED_BYTES);
                let bytes =
                    read(&*source, || Ok::<_, FilesError>(blob.bytes(range.clone())?.into_owned()));
                whole.extend(bytes.await?);
            }
            let memory = Memory::new(shown.clone()).with("lora", whole);
            let weights = Weights::open_blob(memory.blob("lora")?, &shown)?;
            opened.push(AdapterFile { shown, weight: lora.weight, weights });
        }
        read(&files, || files.clone().adapted(&paths.loras, &opened)).await
    }

    /// The same model with the changes of `opened`, which are the files `loras`.
    fn adapted(mut self, loras: &[Lora], opened: &[AdapterFile]) -> Result<Self, FilesError> {
        if opened.is_empty() {
            return Ok(self);
        }
        let (changed, reports) = adapt(&self, opened)?;
        for (folder, weights) in changed {
            // A folder whose weights are elsewhere is not looked into.
            let config = format!("{folder}/config.json");
            if let Some(text) = self.text(&config)? {
                self.made.insert(config, text);
            }
            self.weights.insert(folder, weights);
        }
        self.notes.extend(reports.iter().map(AdapterReport::to_string));
        self.loras = loras.to_vec();
        self.adapters = reports;
        Ok(self)
    }

    /// What is to be said of the files of changes, in their order.
    pub fn adapters(&self) -> &[AdapterReport] {
        &self.adapters
    }

    /// The files of changes.
    pub fn loras(&self) -> &[Lora] {
        &self.loras
    }

    /// The same model, whose text encoders that come without a tokenizer take one of `vocabularies`. A file of these is read
    /// only when it is needed.
    pub fn with_vocabularies(mut self, vocabularies: Vocabularies) -> Self {
        self.vocabularies = Some(vocabularies);
        self
    }

    /// Where parts are from that are not in the model's folder.
    pub fn parts(&self) -> &[PartPlace] {
        &self.parts
    }

    /// What the user should know: parts that were found, parts that are not used, what was assumed.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The diffusers folder that has what no file has.
    pub fn base(&self) -> Option<&str> {
        self.base.as_deref()
    }

    /// Every path that is read: files, and folders as a whole.
    pub fn paths(&self) -> Vec<&str> {
        let parts = self.parts.iter().map(|part| part.path.as_str());
        let others = self.base.iter().chain(self.moved.values()).map(String::as_str);
        let loras = self.loras.iter().map(|lora| lora.file.as_str());
        parts.chain(others).chain(loras).collect()
    }

    /// Where a file or folder of the model lies.
    fn real(&self, path: &str) -> Option<String> {
        let mut first = path;
        loop {
            if let Some(moved) = self.moved.get(first) {
                let rest = path[first.len()..].trim_start_matches('/');
                return Some(if rest.is_empty() {
                    moved.clone()
                } else {
                    search::join(moved, rest)
                });
            }
            match first.rsplit_once('/') {
                Some((above, _)) => first = above,
                None => break,
            }
        }
        if self.weights.contains_key(first) || self.hidden.contains(first) {
            return None;
        }
        match path {
            "" => self.base.clone(),
            path => self.base.as_ref().map(|base| search::join(base, path)),
        }
    }
}

impl Source for ModelFiles {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn text(&self, path: &str) -> Result<Option<String>, SourceError> {
        if let Some(made) = self.made.get(path) {
            return Ok(Some(made.clone()));
        }
        self.real(path).map_or(Ok(None), |real| self.source.text(&real))
    }

    fn exists(&self, path: &str) -> bool {
        self.made.contains_key(path)
            || self.real(path).is_some_and(|real| self.source.exists(&real))
    }

    fn list(&self, dir: &str) -> Result<Vec<String>, SourceError> {
        self.real(dir).map_or(Ok(Vec::new()), |real| self.source.list(&real))
    }

    fn blob(&self, path: &str) -> Result<Box<dyn Blob>, SourceError> {
        match self.real(path) {
            Some(real) => self.source.blob(&real),
            None => Err(SourceError::MissingFile { path: self.shown(path) }),
        }
    }

    fn shown(&self, path: &str) -> String {
        // A configuration that was made of shapes is called what these are from.
        let folder = path.split('/').next().unwrap_or(path);
        match self.parts.iter().find(|part| part.folder == folder) {
            Some(part) if self.made.contains_key(path) => part.path.clone(),
            _ => match self.real(path) {
                Some(real) => self.source.shown(&real),
                None => format!("{}/{path}", self.name),
            },
        }
    }

    fn padding(&self, dir: &str) -> Option<Padding> {
        self.padding.get(dir).copied().or_else(|| self.source.padding(&self.real(dir)?))
    }

    fn weights(&self, dir: &str) -> Option<&Weights> {
        self.weights.get(dir)
    }

    fn change_weights(&self) -> Vec<[f64; 3]> {
        self.loras.iter().map(|lora| lora.weight.stages()).collect()
    }

    fn fixed_changes(&self) -> Vec<usize> {
        let reports = self.adapters.iter().enumerate();
        reports.filter(|(_, report)| report.has_merged).map(|(i, _)| i).collect()
    }

    fn warnings(&self) -> Vec<String> {
        self.adapters.iter().flat_map(AdapterReport::warnings).collect()
    }

    fn vocabularies(&self) -> Option<&dyn Source> {
        self.vocabularies.as_ref().map(Vocabularies::source)
    }

    fn fetch(&self) -> BoxFuture<'_, Result<bool, SourceError>> {
        let Some(vocabularies) = self.vocabularies() else { return self.source.fetch() };
        Box::pin(async move {
            let any = self.source.fetch().await?;
            Ok(vocabularies.fetch().await? || any)
        })
    }
}

/// Bytes of a file of changes that are fetched together.
const FETCHED_BYTES: u64 = 8 << 20;

/// Opens a file of changes.
fn open_lora(source: &dyn Source, path: &str) -> Result<Box<dyn Blob>, FilesError> {
    if !source.exists(path) {
        let file = source.shown(path);
        return Err(AdapterError::NoFile { file }.into());
    }
    Ok(source.blob(path)?)
}

/// The models that are supported, in words.
fn supported() -> String {
    FAMILIES.iter().map(|family| family.examples()).collect::<Vec<_>>().join(", ")
}
