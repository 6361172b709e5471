//! The output folder: `SETTING/PROMPT-SEED.png`, and the references' latents next to their pictures.

use std::path::{Path, PathBuf};

use image::RgbImage;
use ralu::pipeline::{NamedTensor, NamedTensors, Picture, png_file};

use super::cases::slug;
use super::results::FILE;
use crate::bench::read::check_regular;
use crate::error::{Error, Result};
use crate::files::{self, Checks};
use crate::output::shown;

/// The table of the results.
pub const TABLE: &str = "table.md";
/// All pictures on one.
pub const SHEET: &str = "contact.png";
/// What all files are, in messages.
const RESULTS: &str = "the results";
/// Of the final latents.
const LATENTS: &str = "latents";

/// A picture and the latents it was decoded from.
pub struct Made {
    pub picture: Picture,
    /// Packed, `[tokens, channels]`.
    pub latents: Vec<f32>,
}

/// All pictures of a comparison.
pub struct Pictures<'a> {
    /// Of the reference, which keeps latents too, and of each setting.
    pub folders: Vec<&'a str>,
    pub prompts: &'a [String],
    pub seeds: &'a [u64],
}

/// Where results are kept.
pub struct Store {
    folder: PathBuf,
}

impl Store {
    /// Makes the folder if need be, and checks that everything can be written that belongs into it.
    pub fn open(folder: &Path, checks: &mut Checks, pictures: &Pictures<'_>) -> Result<Self> {
        let is_new = files::make_folder(folder, RESULTS)?;
        let store = Store { folder: folder.to_path_buf() };
        let checked = store.check(checks, pictures);
        if checked.is_err() && is_new {
            let _ = std::fs::remove_dir(folder);
        }
        checked.map(|()| store)
    }

    fn check(&self, checks: &mut Checks, pictures: &Pictures<'_>) -> Result<()> {
        files::check_folder(&self.folder, RESULTS)?;
        for name in [FILE, TABLE, SHEET] {
            checks.output(&self.folder.join(name), RESULTS)?;
        }
        for (i, setting) in pictures.folders.iter().enumerate() {
            let folder = self.folder.join(setting);
            // It is made when its first picture is.
            if folder.symlink_metadata().is_err() {
                continue;
            }
            for (number, prompt) in pictures.prompts.iter().enumerate() {
                for &seed in pictures.seeds {
                    let path = self.path(setting, (number, prompt), seed);
                    checks.output(&path, RESULTS)?;
                    if i == 0 {
                        checks.output(&path.with_extension("safetensors"), RESULTS)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// The output folder.
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
        files::make_folder(&self.folder.join(setting), RESULTS)?;
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

/// The bytes of a file; `None` if it is not there.
fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    match check_regular(path).and_then(|()| std::fs::read(path)) {
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
