//! Small models in memory, and what is asked of one that was changed.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use arbitrary::{Result, Unstructured};
use ralu::checkpoint::source::{Blob, Folder, Source, SourceError};
use serde_json::Value;

use super::check::keeps_its_word;
use super::edits::edited;
use super::limits::{Memory, bounded};

/// For tokenizers, the plan of a run and the host's part of it: the models' files have some 50 KB of text.
pub const MEMORY: Memory = Memory { bytes: 16 << 20, per_byte: 64 };

/// A file of a model.
#[derive(Clone)]
pub enum File {
    /// All of it.
    Text(Arc<str>),
    /// The header of a safetensors file, with its length before it, and how many zeros follow.
    Weights { head: Arc<[u8]>, zeros: u64 },
}

/// A model folder whose weights are zeros, which take no memory.
#[derive(Clone)]
pub struct Model {
    name: &'static str,
    files: BTreeMap<String, File>,
}

/// The models that are changed: both families, weights in one file and in several, and tokenizers of both kinds.
pub fn fixtures() -> &'static [Model] {
    static FIXTURES: OnceLock<Vec<Model>> = OnceLock::new();
    FIXTURES.get_or_init(|| {
        let flux = Model::read("flux-a");
        vec![Model::read("sd3-calm"), flux.clone().with_pair(), flux]
    })
}

/// Folder of `tests/fixtures`.
pub fn fixture(name: &str) -> std::path::PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = if here.ends_with("fuzz") { here.join("..") } else { here.to_path_buf() };
    root.join("tests/fixtures").join(name)
}

/// A model with up to four changes in its files.
pub fn check(input: &[u8]) {
    // An input that ends early is filled up with zeros: no error.
    if let Ok(model) = changed(&mut Unstructured::new(input)) {
        bounded(MEMORY, model.length(), || keeps_its_word(&model));
    }
}

fn changed(input: &mut Unstructured<'_>) -> Result<Model> {
    let mut model = input.choose(fixtures())?.clone();
    for _ in 0..input.int_in_range(1..=4u8)? {
        let names: Vec<&String> = model.files.keys().collect();
        let name = (*input.choose(&names)?).clone();
        let file = match &model.files[&name] {
            _ if input.int_in_range(0..=31u8)? == 31 => {
                model.files.remove(&name);
                continue;
            }
            File::Text(text) if name.ends_with(".txt") => File::Text(cut(text, input)?.into()),
            File::Text(text) => File::Text(edited(text, input)?.into()),
            File::Weights { head, zeros } => {
                let header = std::str::from_utf8(&head[8..]).expect("fixtures are UTF-8");
                let header = edited(header, input)?;
                weights(&header, zeros.saturating_add_signed(input.int_in_range(-1..=1i64)?))
            }
        };
        model.files.insert(name, file);
    }
    Ok(model)
}

/// Some of a text's lines.
fn cut(text: &str, input: &mut Unstructured<'_>) -> Result<String> {
    let n = text.lines().count();
    let (from, skip) = (input.int_in_range(0..=n)?, input.int_in_range(0..=n)?);
    let lines: Vec<&str> = text.lines().take(from).chain(text.lines().skip(from + skip)).collect();
    Ok(lines.join("\n"))
}

/// A file with this header.
pub fn weights(header: &str, zeros: u64) -> File {
    let mut head = (header.len() as u64).to_le_bytes().to_vec();
    head.extend_from_slice(header.as_bytes());
    File::Weights { head: head.into(), zeros }
}

impl Model {
    /// Without files.
    pub fn empty() -> Self {
        Model { name: "model", files: BTreeMap::new() }
    }

    /// A folder of `tests/fixtures`: its text, and of its weights the headers.
    fn read(name: &'static str) -> Self {
        let folder = Folder::open(fixture(name).join("model")).expect("tests/fixtures is there");
        let mut model = Model { name, ..Model::empty() };
        let mut folders = vec![String::new()];
        while let Some(dir) = folders.pop() {
            for name in folder.list(&dir).expect("fixtures can be listed") {
                let path = if dir.is_empty() { name } else { format!("{dir}/{name}") };
                if !folder.exists(&path) {
                    folders.push(path);
                } else if path.ends_with(".safetensors") {
                    let blob = folder.blob(&path).expect("fixtures can be read");
                    let bytes = |range| blob.bytes(range).expect("fixtures are whole");
                    let length = bytes(0..8).first_chunk().copied().expect("8 bytes were read");
                    let head = 8 + u64::from_le_bytes(length);
                    let file =
                        File::Weights { head: (*bytes(0..head)).into(), zeros: blob.len() - head };
                    model.files.insert(path, file);
                } else {
                    let text = folder.text(&path).expect("fixtures are text").unwrap_or_default();
                    model.files.insert(path, File::Text(text.into()));
                }
            }
        }
        model
    }

    /// CLIP's vocabulary and merges in two files, as FLUX.1's repositories have them.
    fn with_pair(mut self) -> Self {
        let json: Value = serde_json::from_str(&self.text_of("tokenizer/tokenizer.json"))
            .expect("the fixtures are JSON");
        let mut vocab = json["model"]["vocab"].clone();
        let added = json["added_tokens"].as_array().into_iter().flatten();
        for token in added {
            vocab[token["content"].as_str().unwrap_or_default()] = token["id"].clone();
        }
        let merges = json["model"]["merges"].as_array().into_iter().flatten();
        let merge = |merge: &Value| match merge {
            Value::String(line) => line.clone(),
            pair => format!(
                "{} {}",
                pair[0].as_str().unwrap_or_default(),
                pair[1].as_str().unwrap_or_default()
            ),
        };
        let lines: Vec<String> =
            std::iter::once("#version: 0.2".to_owned()).chain(merges.map(merge)).collect();
        self.files.remove("tokenizer/tokenizer.json");
        let vocab = vocab.to_string();
        self.with("tokenizer/vocab.json", &vocab).with("tokenizer/merges.txt", &lines.join("\n"))
    }

    /// With a text file added or replaced.
    pub fn with(mut self, path: &str, text: &str) -> Self {
        self.files.insert(path.to_owned(), File::Text(text.into()));
        self
    }

    /// With a file added or replaced.
    pub fn with_file(mut self, path: &str, file: File) -> Self {
        self.files.insert(path.to_owned(), file);
        self
    }

    /// A text file of a fixture.
    pub fn text_of(&self, path: &str) -> Arc<str> {
        match &self.files[path] {
            File::Text(text) => text.clone(),
            File::Weights { .. } => panic!("{path} holds weights"),
        }
    }

    /// The header of a safetensors file of a fixture.
    pub fn header_of(&self, path: &str) -> (&str, u64) {
        match &self.files[path] {
            File::Weights { head, zeros } => {
                (std::str::from_utf8(&head[8..]).expect("fixtures are UTF-8"), *zeros)
            }
            File::Text(_) => panic!("{path} holds text"),
        }
    }

    /// Bytes of all texts and headers.
    pub fn length(&self) -> usize {
        let length = |file: &File| match file {
            File::Text(text) => text.len(),
            // A length in front of a header may reach into the zeros.
            File::Weights { head, zeros } => {
                let declared = head.first_chunk().map_or(0, |length| u64::from_le_bytes(*length));
                let all = head.len() as u64 + zeros;
                head.len().max(if declared < all { declared as usize } else { 0 })
            }
        };
        self.files.values().map(length).sum()
    }

    /// The names of all JSON files.
    pub fn json_files(&self) -> Vec<&str> {
        let names = self.files.keys().map(String::as_str);
        names.filter(|name| name.ends_with(".json")).collect()
    }
}

impl Source for Model {
    fn name(&self) -> String {
        self.name.to_owned()
    }

    fn text(&self, path: &str) -> std::result::Result<Option<String>, SourceError> {
        match self.files.get(path) {
            None => Ok(None),
            Some(File::Text(text)) => Ok(Some(text.to_string())),
            Some(File::Weights { .. }) => {
                Err(SourceError::NotText { path: path.to_owned(), offset: 0 })
            }
        }
    }

    fn exists(&self, path: &str) -> bool {
        self.files.contains_key(path)
    }

    fn list(&self, dir: &str) -> std::result::Result<Vec<String>, SourceError> {
        let prefix = if dir.is_empty() { String::new() } else { format!("{dir}/") };
        let inside = self.files.keys().filter_map(|path| path.strip_prefix(prefix.as_str()));
        let mut names: Vec<String> =
            inside.filter_map(|rest| rest.split('/').next()).map(str::to_owned).collect();
        names.dedup();
        Ok(names)
    }

    fn blob(&self, path: &str) -> std::result::Result<Box<dyn Blob>, SourceError> {
        let missing = || SourceError::MissingFile { path: path.to_owned() };
        match self.files.get(path).ok_or_else(missing)? {
            File::Text(text) if text.is_empty() => {
                Err(SourceError::Empty { path: path.to_owned() })
            }
            File::Text(text) => Ok(Box::new(Zeros { head: text.as_bytes().into(), zeros: 0 })),
            File::Weights { head, zeros } => {
                Ok(Box::new(Zeros { head: head.clone(), zeros: *zeros }))
            }
        }
    }
}

/// Bytes, and zeros after them.
struct Zeros {
    head: Arc<[u8]>,
    zeros: u64,
}

impl Blob for Zeros {
    fn len(&self) -> u64 {
        self.head.len() as u64 + self.zeros
    }

    fn bytes(&self, range: Range<u64>) -> std::result::Result<Cow<'_, [u8]>, SourceError> {
        let (start, end) = (range.start as usize, range.end as usize);
        if range.start > range.end || range.end > self.len() {
            let Range { start, end } = range;
            let path = "weights".to_owned();
            return Err(SourceError::OutOfRange { path, start, end, len: self.len() });
        }
        if let Some(bytes) = self.head.get(start..end) {
            return Ok(bytes.into());
        }
        let mut bytes = self.head.get(start..).unwrap_or_default().to_vec();
        bytes.resize(end - start, 0);
        Ok(bytes.into())
    }
}
