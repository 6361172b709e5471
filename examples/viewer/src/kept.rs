//! What is kept from one start to the next, as JSON in the user's folder for settings.

use std::collections::BTreeMap;
use std::path::PathBuf;

use etcetera::BaseStrategy;
use ralu::models::files::{ModelPaths, Role};
use ralu::pipeline::LatentColors;
use ralu_host::files;
use serde::{Deserialize, Serialize};

use crate::form::{Form, Painted, RALU};
use crate::view::View;

/// See the module. Whatever is missing or damaged is as on the first start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Kept {
    pub form: Form,
    pub view: View,
    /// Width and height of the window.
    pub window: Option<[f32; 2]>,
    /// Whether it fills the screen.
    pub maximised: bool,
    /// What is painted over the form's size.
    pub painted: Painted,
    /// The model's folder.
    pub model: Option<PathBuf>,
    /// Its parts in files of their own.
    pub model_parts: Option<ModelPaths>,
    /// How much of the GPU's memory runs may take, as it is written; empty is `auto`.
    pub memory_budget: String,
    /// What was learnt of each model's colours, by its folder.
    pub colors: BTreeMap<String, LatentColors>,
}

impl Kept {
    fn file() -> Option<PathBuf> {
        let folders = etcetera::base_strategy::choose_native_strategy().ok()?;
        Some(folders.config_dir().join("ralu").join("viewer.json"))
    }

    /// What was kept.
    pub fn read() -> Kept {
        let bytes = Self::file().and_then(|file| std::fs::read(file).ok());
        let mut kept: Kept =
            bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        // The picture that it was loaded from is not kept.
        if kept.form.ralu == RALU[RALU.len() - 1] {
            kept.form.ralu = RALU[0].into();
        }
        kept
    }

    /// Keeps it, whole or not at all.
    pub fn write(&self) -> std::io::Result<()> {
        let Some(file) = Self::file() else { return Ok(()) };
        let Some(folder) = file.parent() else { return Ok(()) };
        std::fs::create_dir_all(folder)?;
        let bytes = serde_json::to_vec_pretty(self)?;
        files::write_file(&file, &bytes, files::nobody).map_err(std::io::Error::other)
    }

    /// The key of a model's colours.
    pub fn model_key(path: Option<&PathBuf>, parts: Option<&ModelPaths>) -> String {
        let model = path.map_or_else(|| "bundled".into(), |path| path.display().to_string());
        // Colours are those of what draws and decodes.
        let denoiser = parts.and_then(|parts| parts.diffusion_model.clone());
        let vae = parts.and_then(|parts| parts.parts.get(&Role::Vae).cloned());
        [Some(model), denoiser, vae].into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}
