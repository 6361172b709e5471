//! The output folder: `SETTING/PROMPT-SEED.png`, and the references' latents beside their pictures.

use std::path::{Path, PathBuf};

use image::RgbImage;
use ralu::pipeline::{NamedTensor, NamedTensors, Picture, png_file};

use super::cases::slug;
use crate::cli::error::{Error, Result};
use crate::cli::files;
use crate::cli::output::shown;

/// Of the final latents.
const LATENTS: &str = "latents";

/// A picture and the latents it was decoded from.
pub struct Made {
    pub picture: Picture,
    /// Packed, `[tokens, channels]`.
    pub latents: Vec<f32>,
}

/// Where results are kept.
pub struct Store {
    folder: PathBuf,
}

impl Store {
    /// Makes the folder if need be, and checks that it can be written to.
    pub fn open(folder: &Path) -> Result<Self> {
        if !folder.exists() {
            make_folder(folder)?;
        }
        files::check_folder(folder, "the results")?;
        Ok(Store { folder: folder.to_path_buf() })
    }

    /// Itself.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where the picture of a setting lies. Prompts are numbered: their names may be alike.
    fn path(&self, setting: &str, prompt: (usize, &str), seed: u64) -> PathBuf {
        let (number, text) = prompt;
        let name = match slug(text) {
            slug if slug.is_empty() => format!("{:02}-{seed}", number + 1),
            slug => format!("{:02}-{slug}-{seed}", number + 1),
        };
        self.folder.join(setting).join(format!("{name}.png"))
    }

    /// Writes a picture.
    pub fn save(
        &self,
        setting: &str,
        prompt: (usize, &str),
        seed: u64,
        picture: &Picture,
    ) -> Result<()> {
        let path = self.path(setting, prompt, seed);
        make_folder(&self.folder.join(setting))?;
        files::write(&path, &png_file::encode(picture, None)?)
    }

    /// Writes a picture and its latents, so that settings can be compared with it later.
    pub fn save_with_latents(
        &self,
        setting: &str,
        prompt: (usize, &str),
        seed: u64,
        made: &Made,
    ) -> Result<()> {
        let mut tensors = NamedTensors::default();
        tensors.insert(LATENTS, &[made.latents.len()], made.latents.clone());
        self.save(setting, prompt, seed, &made.picture)?;
        let path = self.path(setting, prompt, seed).with_extension("safetensors");
        files::write(&path, &tensors.to_bytes()?)
    }

    /// What [`Store::save_with_latents`] wrote, if it is still there.
    pub fn load_with_latents(
        &self,
        setting: &str,
        prompt: (usize, &str),
        seed: u64,
    ) -> Result<Option<Made>> {
        let Some(picture) = self.load(setting, prompt, seed)? else { return Ok(None) };
        let path = self.path(setting, prompt, seed).with_extension("safetensors");
        let Some(bytes) = read(&path)? else { return Ok(None) };
        let mut tensors = NamedTensors::read(&bytes, &[LATENTS]).map_err(|e| damaged(&path, e))?;
        let Some(NamedTensor::F32 { data: latents, .. }) = tensors.0.remove(LATENTS) else {
            return Err(damaged(&path, "it holds no latents"));
        };
        let (width, height) = (picture.width() as usize, picture.height() as usize);
        let picture = Picture { width, height, rgb: picture.into_raw() };
        Ok(Some(Made { picture, latents }))
    }

    /// A picture, if it is still there.
    pub fn load(
        &self,
        setting: &str,
        prompt: (usize, &str),
        seed: u64,
    ) -> Result<Option<RgbImage>> {
        let path = self.path(setting, prompt, seed);
        let Some(bytes) = read(&path)? else { return Ok(None) };
        image::load_from_memory_with_format(&bytes, image::ImageFormat::Png)
            .map(|picture| Some(picture.into_rgb8()))
            .map_err(|error| damaged(&path, error))
    }
}

fn make_folder(folder: &Path) -> Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    std::fs::create_dir(folder).map_err(|error| {
        Error::failed(format!(
            "the folder {} cannot be made: {error}; make it first or choose another one",
            shown(folder)
        ))
    })
}

/// The bytes of a file; `None` if it is not there.
fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::failed(format!("{} cannot be read: {error}", shown(path)))),
    }
}

fn damaged(path: &Path, reason: impl std::fmt::Display) -> Error {
    Error::failed(format!(
        "{} cannot be used: {reason}; remove it, and it will be made again",
        shown(path)
    ))
}
