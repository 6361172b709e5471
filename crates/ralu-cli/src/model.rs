//! Finding the model.

use std::path::{Path, PathBuf};

use ralu::checkpoint::source::{Folder, Source};
use ralu::escape::Escaped;
use ralu::models::builtin;
use ralu::models::config::ModelConfig;
use ralu_host::models::{BUNDLED, find_bundled, name_of};

use super::error::{Error, Result};

/// What the bundled model is called.
pub fn bundled_name() -> String {
    name_of(Path::new(BUNDLED))
}

/// An open model folder, not yet read.
pub struct Model {
    /// Its files.
    pub folder: Folder,
    /// Where they are.
    pub path: PathBuf,
    /// The last part of its path.
    pub name: String,
    /// As the user gave it; `None` for the bundled model.
    pub given: Option<String>,
}

/// Opens the model folder that `--model` names, or the bundled one.
pub fn open(given: Option<&str>) -> Result<Model> {
    let path = match given {
        Some(given) => PathBuf::from(given),
        None => bundled()?,
    };
    if let Some(name) = given
        && builtin::get(name).is_some()
        && !path.exists()
    {
        return Err(Error::failed(format!(
            "{} is a name that only `ralu plan`, `ralu inspect` and `ralu bench ops`, `step` and `run` know: its \
             weights are not bundled; download the model and give its folder with --model",
            Escaped(name)
        )));
    }
    let folder = Folder::open(&path)?;
    Ok(Model { folder, name: name_of(&path), path, given: given.map(str::to_owned) })
}

/// A configuration, with or without weights to it.
pub struct Planned {
    /// What the model is made of.
    pub config: ModelConfig,
    /// Its files, unless only its name is known.
    pub folder: Option<Folder>,
    /// What it is called.
    pub name: String,
}

/// The configuration of a folder or of a name that [`builtin`] knows.
pub fn planned(given: Option<&str>) -> Result<Planned> {
    if let Some(name) = given
        && !Path::new(name).exists()
        && let Some(config) = builtin::get(name)
    {
        return Ok(Planned { config, folder: None, name: name.to_ascii_lowercase() });
    }
    let model = open(given).map_err(|error| match given {
        Some(name) if !name.contains(['/', '\\']) => Error::failed(format!(
            "{}; known by name: {}",
            error.message(),
            builtin::names().join(", ")
        )),
        _ => error,
    })?;
    let config = ModelConfig::load(&model.folder as &dyn Source)?;
    Ok(Planned { config, folder: Some(model.folder), name: model.name })
}

/// The bundled model: looked for upwards from where we are, then upwards from where the program lies.
fn bundled() -> Result<PathBuf> {
    let here = std::env::current_dir().ok();
    let program = std::env::current_exe().ok();
    let found = find_bundled([here.as_deref(), program.as_deref()].into_iter().flatten());
    match (found, here) {
        (None, _) => Err(Error::failed(format!(
            "no --model was given, and the bundled one ({BUNDLED}) is neither in this folder nor in one above \
             it; run from inside the repository or give a diffusers model folder with --model PATH"
        ))),
        // Shorter in messages.
        (Some(found), Some(here)) => {
            Ok(found.strip_prefix(&here).map(Path::to_path_buf).unwrap_or(found))
        }
        (Some(found), None) => Ok(found),
    }
}
