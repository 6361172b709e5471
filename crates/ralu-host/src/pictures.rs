//! Pictures with their request: what the files of a run are called, what is in them, and how a request is read again.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use ralu::pipeline::saved::Maker;
use ralu::pipeline::{Event, Picture, PictureKind, Products, Saved, Settings, png_file};

use crate::error::Error;
use crate::files;
use crate::picture_format;
pub use crate::picture_format::{PictureFormat, PictureOptions, is_picture};

/// What the files of a run are called.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// The picture; `None` for `ralu-SEED.png`. In a series each has its number: `NAME-0.png`, `NAME-1.png`.
    pub picture: Option<PathBuf>,
    /// The tensors, numbered in the same way, if they are wanted.
    pub tensors: Option<PathBuf>,
    /// The folder of the stages' pictures, if they are wanted.
    pub stages: Option<PathBuf>,
    /// The first picture's seed.
    pub first_seed: u64,
    /// How many pictures the run draws.
    pub count: usize,
}

impl Names {
    /// The file of picture number `image`, from 0.
    pub fn picture(&self, image: usize) -> PathBuf {
        match &self.picture {
            None => format!("ralu-{}.png", self.first_seed.wrapping_add(image as u64)).into(),
            Some(path) => self.numbered(path, image),
        }
    }

    /// The file of that picture's tensors.
    pub fn tensors(&self, image: usize) -> Option<PathBuf> {
        self.tensors.as_ref().map(|path| self.numbered(path, image))
    }

    /// The file of a stage's picture. Stages count from 1.
    pub fn stage_picture(&self, image: usize, stage: usize, kind: PictureKind) -> Option<PathBuf> {
        let prefix = if self.count > 1 { format!("{image}-") } else { String::new() };
        let name = format!("{prefix}stage{stage}-{kind}.png");
        self.stages.as_ref().map(|folder| folder.join(name))
    }

    fn numbered(&self, path: &Path, image: usize) -> PathBuf {
        if self.count > 1 { numbered(path, image) } else { path.to_path_buf() }
    }
}

/// `FILE.png` → `FILE-i.png`.
fn numbered(path: &Path, i: usize) -> PathBuf {
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(format!("-{i}"));
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}

/// What a file of a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResultKind {
    /// A finished picture.
    Picture,
    /// A picture of a stage.
    StagePicture,
    /// What the run made on the way, as safetensors.
    Tensors,
}

/// The files that were written because of an event.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Written {
    /// The file of the picture, or of a stage's picture.
    pub picture: Option<PathBuf>,
    /// The file of the tensors.
    pub tensors: Option<PathBuf>,
    /// Whether the picture's file had no room for its request.
    pub lost_request: bool,
}

/// Makes a run's files of its events.
#[derive(Clone)]
pub struct Results<'a> {
    /// What they are called.
    pub names: &'a Names,
    /// What pictures say about themselves.
    pub settings: &'a Settings,
    /// What draws them.
    pub maker: &'a Maker<'a>,
    /// Number of stages. The last one's clean estimate is the picture.
    pub stages: usize,
    /// How pictures are written.
    pub options: PictureOptions,
}

impl Results<'_> {
    /// Makes the files that `event` gives, and hands them to `write` one after the other.
    ///
    /// # Errors
    ///
    /// If a file cannot be made, or `write` fails.
    pub fn write<E: From<Error>>(
        &self,
        event: &Event,
        mut write: impl FnMut(ResultKind, &Path, &[u8]) -> Result<(), E>,
    ) -> Result<Written, E> {
        let mut written = Written::default();
        match event {
            Event::StagePicture { image, stage, kind, picture } => {
                if let Some(path) = self.names.stage_picture(*image, *stage, *kind) {
                    write(ResultKind::StagePicture, &path, &plain(picture)?)?;
                    written.picture = Some(path);
                }
            }
            Event::Image { image, seed, picture, tensors, report, .. } => {
                // The picture last: a program that waits for it finds everything.
                if let (Some(path), Some(tensors)) = (self.names.tensors(*image), tensors) {
                    let bytes = tensors.to_bytes().map_err(Error::from)?;
                    write(ResultKind::Tensors, &path, &bytes)?;
                    written.tensors = Some(path);
                }
                let estimate = PictureKind::Estimate;
                if let Some(path) = self.names.stage_picture(*image, self.stages, estimate) {
                    write(ResultKind::StagePicture, &path, &plain(picture)?)?;
                }
                let path = self.names.picture(*image);
                let saved = Saved::new(self.settings, *seed, self.maker, report.products);
                let saved = saved.map_err(|error| Error::from(ralu::Error::from(error)))?;
                let saved = self.options.metadata.then_some(&saved);
                let format = PictureFormat::of(&path).unwrap_or_default();
                let (bytes, lost) =
                    picture_format::encode(picture, saved, format, self.options.quality)?;
                written.lost_request = lost;
                write(ResultKind::Picture, &path, &bytes)?;
                written.picture = Some(path);
            }
            _ => {}
        }
        Ok(written)
    }
}

/// The PNG of a picture, with all that makes it again. `products` is what its report says.
///
/// # Errors
///
/// If there is no PNG of that size.
pub fn encode(
    picture: &Picture,
    settings: &Settings,
    seed: u64,
    maker: &Maker<'_>,
    products: Products,
) -> Result<Vec<u8>, Error> {
    let saved = Saved::new(settings, seed, maker, products).map_err(ralu::Error::from)?;
    Ok(png_file::encode(picture, Some(&saved))?)
}

/// The PNG of a picture that says nothing about itself.
///
/// # Errors
///
/// If there is no PNG of that size.
pub fn plain(picture: &Picture) -> Result<Vec<u8>, Error> {
    Ok(png_file::encode(picture, None)?)
}

/// Writes `NAME.png` in `folder`, or `NAME-2.png` and so on where that is there: whole or not at all, and never in place
/// of another file. Gives the file's path.
///
/// # Errors
///
/// If the folder cannot be written to.
pub fn write_new(folder: &Path, name: &str, bytes: &[u8]) -> Result<PathBuf, Error> {
    let mut path = folder.join(format!("{name}.png"));
    let failed = |error: std::io::Error| Error::file(&path, error);
    let mut file = files::temporary(files::folder_of(&path)).map_err(failed)?;
    file.write_all(bytes).map_err(failed)?;
    for number in 2_u64.. {
        match file.persist_noclobber(&path) {
            Ok(_) => break,
            Err(error) if error.error.kind() == ErrorKind::AlreadyExists => {
                file = error.file;
                path = folder.join(format!("{name}-{number}.png"));
            }
            Err(error) => return Err(Error::file(&path, error.error)),
        }
    }
    Ok(path)
}

/// What the picture at `path` says about itself, whatever its format.
///
/// # Errors
///
/// If it cannot be read, or ralu did not make it.
pub fn read_request(path: &Path) -> Result<Saved, Error> {
    let failed = |reason: String| Error::Picture { path: path.to_path_buf(), reason };
    let file =
        File::open(path).map_err(|reason| Error::Open { path: path.to_path_buf(), reason })?;
    if file.metadata().is_ok_and(|meta| meta.is_dir()) {
        return Err(failed("this is a folder; expected a picture's file".into()));
    }
    let text = picture_format::request_in(file).map_err(failed)?.ok_or_else(|| {
        failed(
            "this picture carries no request; expected a picture that ralu made (programs that edit or share pictures often \
             remove such texts)"
                .into(),
        )
    })?;
    Saved::parse(&text).map_err(|error| failed(error.to_string()))
}
