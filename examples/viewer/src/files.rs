//! Files that the window reads and writes.

use std::fs::File;
use std::io::{BufReader, Write};
use std::path::{Path, PathBuf};

use ralu::models::layers::Precision;
use ralu::pipeline::saved::Maker;
use ralu::pipeline::{Picture, Request, Saved, png_file};

use crate::record::Record;

/// Pixels between the pictures of a strip.
const GAP: usize = 8;

/// Saves a finished picture with all that makes it again, beside the earlier ones in the working folder.
pub fn save(record: &Record, adapter: &str) -> Result<PathBuf, String> {
    let model = &record.model;
    let picture = record.picture.as_ref().ok_or("there is no finished picture to save yet")?;
    let path_text = model.path.as_ref().map(|path| path.display().to_string());
    let maker = Maker {
        model: &model.name,
        model_path: path_text.as_deref(),
        adapter,
        has_guidance: model.has_guidance,
        precision: Precision::default(),
        given: vec![],
    };
    let saved = Saved::new(&record.settings, record.settings.seed, &maker)
        .map_err(|error| error.to_string())?;
    let bytes = png_file::encode(picture, Some(&saved)).map_err(|error| error.to_string())?;
    write_new(&format!("ralu-{}", record.settings.seed), &bytes)
}

/// Saves the stages beside each other: the end of stage 1, its regions, the finished picture.
pub fn save_strip(record: &Record) -> Result<PathBuf, String> {
    let pictures: Vec<&Picture> = record.strip.iter().chain(&record.picture).collect();
    if record.goes_on && !record.is_plain() {
        let what = "the GPU was lost in this run, and its stages' pictures with it";
        return Err(format!("{what}; draw it again (R) to save a strip"));
    }
    if record.picture.is_none() || pictures.is_empty() {
        return Err("there is no finished run to save a strip of yet".into());
    }
    let bytes = png_file::encode(&strip(&pictures), None).map_err(|error| error.to_string())?;
    write_new(&format!("ralu-{}-stages", record.settings.seed), &bytes)
}

/// What a PNG says about itself.
fn saved_in(png: BufReader<File>) -> Result<Saved, String> {
    let text = png_file::request_in(png).map_err(|error| error.to_string())?;
    let text = text.ok_or("this PNG carries no request; expected a picture that ralu made")?;
    Saved::parse(&text).map_err(|error| error.to_string())
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

/// Writes `NAME.png`, or `NAME-2.png` and so on where that is there: nothing is ever replaced.
fn write_new(name: &str, bytes: &[u8]) -> Result<PathBuf, String> {
    for number in 1.. {
        let suffix = if number == 1 { String::new() } else { format!("-{number}") };
        let path = PathBuf::from(format!("{name}{suffix}.png"));
        match File::create_new(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => continue,
            Err(error) => {
                return Err(format!(
                    "{} cannot be written: {error}; start the viewer in a folder where it may write",
                    path.display()
                ));
            }
            Ok(mut file) => {
                file.write_all(bytes).map_err(|error| {
                    // Half a picture is worse than none.
                    let _ = std::fs::remove_file(&path);
                    format!("{} cannot be written: {error}", path.display())
                })?;
                return Ok(std::path::absolute(&path).unwrap_or(path));
            }
        }
    }
    unreachable!("there is a name for every number")
}

/// What was dropped on the window.
pub enum Dropped {
    /// A model's folder.
    Model(PathBuf),
    /// The request of a picture, and the folder of the model that made it; the bundled one if `None`.
    Picture(Box<Request>, Option<PathBuf>),
}

/// Finds out what a path is.
pub fn read(path: &Path) -> Result<Dropped, String> {
    if path.is_dir() {
        return Ok(Dropped::Model(path.to_path_buf()));
    }
    let shown = path.display();
    let file = File::open(path).map_err(|error| {
        format!(
            "{shown} cannot be opened: {error}; expected a model folder or a PNG that ralu made"
        )
    })?;
    let saved = saved_in(BufReader::new(file)).map_err(|error| format!("{shown}: {error}"))?;
    let request = saved.request().map_err(|error| format!("{shown}: {error}"))?;
    Ok(Dropped::Picture(Box::new(request), saved.model_path.map(PathBuf::from)))
}
