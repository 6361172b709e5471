//! Files that the window reads and writes.

use std::path::{Path, PathBuf};

use ralu::models::files::ModelPaths;
use ralu::models::layers::Precision;
use ralu::models::quantise::Quantise;
use ralu::pipeline::saved::Maker;
use ralu::pipeline::{Picture, Request};
use ralu_host::models::{self, is_lora_file, is_model_file};
use ralu_host::{CacheDir, Error, pictures, places};

use crate::record::Record;

/// Pixels between the pictures of a strip.
const GAP: usize = 8;

/// Saves a finished picture with all that makes it again, next to the earlier ones in the working folder.
pub fn save(record: &Record, adapter: &str) -> Result<PathBuf, String> {
    let model = &record.model;
    let picture = record.picture.as_ref().ok_or("there is no finished picture to save yet")?;
    let maker = Maker {
        model: &model.name,
        model_hash: model.hash.as_deref(),
        model_parts: model.parts.clone(),
        adapter,
        has_guidance: model.has_guidance,
        precision: Precision::default(),
        quantise: model.quantise,
        given: vec![],
    };
    let (settings, seed) = (&record.settings, record.settings.seed);
    let bytes = pictures::encode(picture, settings, seed, &maker, record.products)
        .map_err(|e| e.to_string())?;
    write_new(&format!("ralu-{seed}"), &bytes)
}

/// Saves the stages next to each other: the end of stage 1, its regions, the finished picture.
pub fn save_strip(record: &Record) -> Result<PathBuf, String> {
    let shown: Vec<&Picture> = record.strip.iter().chain(&record.picture).collect();
    if record.picture.is_none() || shown.is_empty() {
        return Err("there is no finished run to save a strip of yet".into());
    }
    let bytes = pictures::plain(&strip(&shown)).map_err(|error| error.to_string())?;
    write_new(&format!("ralu-{}-stages", record.settings.seed), &bytes)
}

/// Pictures in a row, all as high as the highest.
fn strip(pictures: &[&Picture]) -> Picture {
    let height = pictures.iter().map(|picture| picture.height).max().unwrap_or(0);
    let scaled = |picture: &Picture| (picture.width * height / picture.height.max(1)).max(1);
    let widths: usize = pictures.iter().map(|picture| scaled(picture)).sum();
    let width = widths + GAP * (pictures.len() - 1);
    let mut rgb = vec![0x12; width * height * 3];
    let mut left = 0;
    for picture in pictures {
        let shown = scaled(picture);
        for y in 0..height {
            for x in 0..shown {
                let from = y * picture.height / height * picture.width + x * picture.width / shown;
                let to = y * width + left + x;
                rgb[3 * to..3 * to + 3].copy_from_slice(&picture.rgb[3 * from..3 * from + 3]);
            }
        }
        left += shown + GAP;
    }
    Picture { width, height, rgb }
}

/// Writes a picture under a new name into the working folder.
fn write_new(name: &str, bytes: &[u8]) -> Result<PathBuf, String> {
    let path = pictures::write_new(Path::new(""), name, bytes)
        .map_err(|error| format!("{error}; start the viewer in a folder where it may write"))?;
    Ok(std::path::absolute(&path).unwrap_or(path))
}

/// What was dropped on the window.
pub enum Dropped {
    /// A model's folder, or its file.
    Model(PathBuf),
    /// A file of changes to the model that is open.
    Lora(PathBuf),
    /// A picture's.
    Picture {
        /// What makes it again.
        request: Box<Request>,
        /// The folder or file of the model that made it; the bundled one if `None`.
        model: Option<PathBuf>,
        /// Its parts in files of their own.
        parts: Option<ModelPaths>,
        /// What it was quantised to.
        quantise: Option<Quantise>,
        /// What stands for its model's files.
        hash: Option<String>,
    },
}

/// Finds out what a path is.
pub fn read(path: &Path) -> Result<Dropped, String> {
    if is_lora_file(path) {
        return Ok(Dropped::Lora(path.to_path_buf()));
    }
    if path.is_dir() || is_model_file(path) {
        return Ok(Dropped::Model(path.to_path_buf()));
    }
    let saved = pictures::read_request(path).map_err(|error| match error {
        Error::Open { .. } => {
            format!(
                "{error}; expected a model folder, a model file, a LoRA or a PNG that ralu made"
            )
        }
        _ => error.to_string(),
    })?;
    let request = saved.request().map_err(|error| format!("{}: {error}", path.display()))?;
    let (request, quantise, hash) = (Box::new(request), saved.quantize, saved.model_hash.clone());
    let cache = CacheDir::find(None);
    let found = places::of_picture(&saved, path, cache.as_ref());
    if found.is_none() && saved.model != models::name_of(Path::new(models::BUNDLED)) {
        return Err(format!(
            "{} was made with the model {}, which is not found; open that first",
            path.display(),
            saved.model
        ));
    }
    let (model, parts) = match found {
        None => (None, saved.model_parts),
        Some(found) => {
            let model = PathBuf::from(&found.model);
            let parts = found.with(|paths| paths.model.clear());
            (Some(model), (!parts.is_model_alone()).then_some(parts))
        }
    };
    Ok(Dropped::Picture { request, model, parts, quantise, hash })
}
