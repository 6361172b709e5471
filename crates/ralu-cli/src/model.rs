//! Finding the model.

use std::fs;
use std::path::{Path, PathBuf};

use ralu::checkpoint::source::Source;
use ralu::escape::escape;
use ralu::models::adapters::Lora;
use ralu::models::builtin;
use ralu::models::config::ModelConfig;
use ralu::models::files::{ModelFiles, ModelPaths};
use ralu_host::models::{self, BUNDLED, find_bundled, name_of};

use super::args::ModelArgs;
use super::error::{Error, Result};
use super::hub::{self, Place};
use super::output::{self, shown};

/// What the bundled model is called.
pub fn bundled_name() -> String {
    name_of(Path::new(BUNDLED))
}

/// An open model, whose configuration is not yet read.
pub struct Model {
    /// Its files.
    pub files: ModelFiles,
    /// Folders and files that it lies in.
    pub paths: Vec<PathBuf>,
    /// The last part of its path, or the name that it is known by.
    pub name: String,
    /// Which file is what.
    pub opened: ModelPaths,
    /// As the user gave it.
    pub given: ModelArgs,
}

impl Model {
    /// Its parts in files of their own, if there are any.
    pub fn parts(&self) -> Option<ModelPaths> {
        let parts = self.opened.clone().with(|paths| paths.model.clear());
        (!parts.is_model_alone()).then_some(parts)
    }

    /// The files with its weights. Files next to the folders of a diffusers model belong to other programs.
    pub fn weight_files(&self) -> Result<Vec<PathBuf>> {
        let list = |folder: &Path| -> Result<Vec<PathBuf>> {
            let failed =
                |error| Error::failed(format!("{}: cannot be listed: {error}", shown(folder)));
            let entries = fs::read_dir(folder).map_err(failed)?;
            entries.map(|entry| Ok(entry.map_err(failed)?.path())).collect()
        };
        let is_weights =
            |path: &PathBuf| path.extension().is_some_and(|extension| extension == "safetensors");
        let mut files = Vec::new();
        for path in &self.paths {
            if path.is_file() {
                files.push(path.clone());
                continue;
            }
            files.extend(list(path)?.into_iter().filter(|path| path.is_file() && is_weights(path)));
            for part in list(path)?.iter().filter(|path| path.is_dir()) {
                files.extend(list(part)?.into_iter().filter(is_weights));
            }
        }
        files.sort();
        files.dedup();
        Ok(files)
    }
}

/// Where the model lies that the user gave: a path, the bundled one's name, or one that is in the hub's cache. A path wins.
pub fn place(given: &str) -> Place {
    let path = PathBuf::from(given);
    match path.exists() {
        true => path.into(),
        false => match is_bundled(given).then(bundled) {
            Some(Ok(folder)) => folder.into(),
            _ => hub::cached(given).unwrap_or_else(|| path.into()),
        },
    }
}

/// LoRAs with paths for the names that were given: of a file in the folder of LoRAs, or `owner/repo:file` in the hub's cache. A path
/// wins.
pub fn placed(loras: &[Lora]) -> Vec<Lora> {
    let place = |lora: &Lora| {
        let found = match Path::new(&lora.file).exists() {
            true => None,
            false => hub::loras().and_then(|loras| loras.get(&lora.file)),
        };
        let path = found.unwrap_or_else(|| place(&lora.file).model);
        Lora { file: path.to_string_lossy().into_owned(), ..lora.clone() }
    };
    loras.iter().map(place).collect()
}

/// Whether that is the name of the bundled model.
fn is_bundled(given: &str) -> bool {
    given.eq_ignore_ascii_case(&bundled_name())
}

/// Why a model that is not there is not, if that is its name.
pub fn why_not_bundled(given: &str) -> Option<Error> {
    if is_bundled(given) { bundled().err() } else { None }
}

/// Opens the model that the options name, or the bundled one.
pub fn open(given: &ModelArgs) -> Result<Model> {
    let mut given = given.clone();
    given.parts.loras = placed(&given.parts.loras);
    let given = &given;
    let Place { model: path, denoiser } = match &given.model {
        Some(given) => place(given),
        // A denoiser with all parts given or found needs no other model.
        None => match &given.parts.diffusion_model {
            Some(file) => PathBuf::from(file).into(),
            None => bundled()?.into(),
        },
    };
    if let Some(name) = &given.model
        && !path.exists()
        && let Some(error) = why_not_bundled(name)
    {
        return Err(error);
    }
    if let Some(name) = &given.model
        && builtin::get(name).is_some()
        && !path.exists()
    {
        return Err(Error::failed(hub::how_to_get(name).unwrap_or_default()));
    }
    let mut paths = given.parts.paths(path.to_string_lossy().into_owned());
    if given.model.is_none() && paths.diffusion_model.is_some() {
        paths.diffusion_model = None;
    }
    let denoiser = denoiser.map(|file| file.to_string_lossy().into_owned());
    paths.diffusion_model = paths.diffusion_model.or(denoiser);
    let files = models::open(&paths).map_err(|error| {
        match given.model.as_deref().and_then(hub::how_to_get) {
            Some(advice) if !path.exists() => Error::failed(format!("{error}; {advice}")),
            _ => match given.parts.loras.iter().find(|lora| !Path::new(&lora.file).exists()) {
                Some(lora) => {
                    Error::failed(format!("{error}; {}", hub::how_to_get_lora(&lora.file)))
                }
                None => error.into(),
            },
        }
    })?;
    let name = match (&given.model, files.base()) {
        (Some(given), _) if !Path::new(given).exists() && !is_bundled(given) => given.clone(),
        (_, Some("") | None) => name_of(Path::new(&files.name())),
        (_, Some(base)) => name_of(Path::new(base)),
    };
    let opened = paths.with(|paths| paths.loras = files.loras().to_vec());
    let all = files.paths().into_iter().map(|inside| match inside {
        "" => path.clone(),
        inside => PathBuf::from(inside),
    });
    let paths = all.collect();
    Ok(Model { files, paths, name, opened, given: given.clone() })
}

/// Says what was found and assumed of a model's files.
pub fn tell(files: &ModelFiles) {
    for note in files.notes() {
        output::diagnostic(&escape(note));
    }
}

/// A configuration, with or without weights to it.
pub struct Planned {
    /// What the model is made of.
    pub config: ModelConfig,
    /// Its files, unless only its name is known.
    pub files: Option<ModelFiles>,
    /// What it is called.
    pub name: String,
}

/// The configuration of a model's files or of a name that [`builtin`] knows.
pub fn planned(given: &ModelArgs) -> Result<Planned> {
    if let Some(name) = given.alone()
        && !Path::new(name).exists()
        && let Some(config) = builtin::get(name)
    {
        return Ok(Planned { config, files: None, name: name.to_ascii_lowercase() });
    }
    let model = open(given).map_err(|error| match given.alone() {
        Some(name) if !name.contains(['/', '\\']) => Error::failed(format!(
            "{}; known by name: {}",
            error.message(),
            builtin::names().join(", ")
        )),
        _ => error,
    })?;
    tell(&model.files);
    let config = ModelConfig::load(&model.files as &dyn Source)?;
    Ok(Planned { config, files: Some(model.files), name: model.name })
}

/// The bundled model: looked for upwards from where we are, then upwards from where the program lies, then in the user's
/// folder of data.
fn bundled() -> Result<PathBuf> {
    let here = std::env::current_dir().ok();
    let program = std::env::current_exe().ok();
    let data = models::data_folder();
    let places = [here.as_deref(), program.as_deref(), data.as_deref()];
    let found = find_bundled(places.into_iter().flatten());
    match (found, here) {
        (None, _) => {
            let folder = data.map_or_else(|| "ralu".to_owned(), |data| shown(&data));
            Err(Error::failed(format!(
                "the bundled model ({BUNDLED}) is neither in this folder, in one above it or above this program, nor in {folder}; \
                 `git clone --depth 1 {} {folder}` fetches it; or give another model with --model PATH or NAME (`ralu list` \
                 has names)",
                env!("CARGO_PKG_REPOSITORY")
            )))
        }
        // Shorter in messages.
        (Some(found), Some(here)) => {
            Ok(found.strip_prefix(&here).map(Path::to_path_buf).unwrap_or(found))
        }
        (Some(found), None) => Ok(found),
    }
}
