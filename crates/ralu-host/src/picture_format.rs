//! Pictures as files of several formats. Each carries the request that draws it again: PNG in text chunks
//! ([`png_file`]), JPEG and WebP in EXIF, where other programs look for the same parts of it.

use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Read};
use std::path::Path;

use exif::experimental::Writer;
use exif::{Field, In, Tag, Value};
use image::codecs::jpeg::JpegEncoder;
use image::codecs::webp::WebPEncoder;
use image::{ExtendedColorType, ImageEncoder};
use ralu::pipeline::{Picture, Saved, png_file};

use crate::error::Error;

/// The most bytes of EXIF that a JPEG has room for: a segment's, less its length and its name.
const MAX_JPEG_EXIF: usize = 65_535 - 2 - 6;

/// The most bytes of a JPEG or a WebP that are read.
const MAX_BYTES: u64 = 256 << 20;

/// What a picture's file can be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PictureFormat {
    /// Every pixel as it is.
    #[default]
    Png,
    /// Small, and not every pixel as it is.
    Jpeg,
    /// Every pixel as it is, smaller than PNG.
    WebP,
}

impl PictureFormat {
    /// The endings of names.
    pub const ENDINGS: [(&str, PictureFormat); 4] = [
        ("png", PictureFormat::Png),
        ("jpg", PictureFormat::Jpeg),
        ("jpeg", PictureFormat::Jpeg),
        ("webp", PictureFormat::WebP),
    ];

    /// The format of a file, by the ending of its name in any case; `None` if that is not known.
    pub fn of(path: &Path) -> Option<PictureFormat> {
        let ending = path.extension()?;
        let mut known = PictureFormat::ENDINGS.iter();
        known.find(|(known, _)| ending.eq_ignore_ascii_case(known)).map(|(_, format)| *format)
    }
}

/// How pictures are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PictureOptions {
    /// Of JPEGs, from 1 to 100.
    pub quality: u8,
    /// Whether they carry their request.
    pub metadata: bool,
}

impl Default for PictureOptions {
    fn default() -> Self {
        PictureOptions { quality: 92, metadata: true }
    }
}

/// The bytes of a picture's file, and whether it had no room for its request.
///
/// # Errors
///
/// If there is no file of that format for a picture of that size.
pub fn encode(
    picture: &Picture,
    saved: Option<&Saved>,
    format: PictureFormat,
    quality: u8,
) -> Result<(Vec<u8>, bool), Error> {
    if format == PictureFormat::Png {
        return Ok((png_file::encode(picture, saved)?, false));
    }
    let mut exif = saved.map(write_exif).transpose()?;
    let has_no_room = format == PictureFormat::Jpeg
        && exif.as_ref().is_some_and(|bytes| bytes.len() > MAX_JPEG_EXIF);
    if has_no_room {
        exif = None;
    }
    let mut bytes = vec![];
    match format {
        PictureFormat::Jpeg => {
            write(JpegEncoder::new_with_quality(&mut bytes, quality), picture, exif)?;
        }
        _ => write(WebPEncoder::new_lossless(&mut bytes), picture, exif)?,
    }
    Ok((bytes, has_no_room))
}

fn write(
    mut encoder: impl ImageEncoder,
    picture: &Picture,
    exif: Option<Vec<u8>>,
) -> Result<(), Error> {
    if let Some(exif) = exif {
        encoder.set_exif_metadata(exif).map_err(|error| Error::Encode(error.to_string()))?;
    }
    let (width, height) = (picture.width as u32, picture.height as u32);
    encoder
        .write_image(&picture.rgb, width, height, ExtendedColorType::Rgb8)
        .map_err(|error| Error::Encode(error.to_string()))
}

/// The request as `ImageDescription`, in JSON of ASCII alone, and for other programs as `UserComment`, in words.
fn write_exif(saved: &Saved) -> Result<Vec<u8>, Error> {
    let texts = saved.texts()?;
    let text = |keyword| texts.iter().find(|(known, _)| *known == keyword).map(|(_, text)| text);
    let ascii = |text: &str| Value::Ascii(vec![text.as_bytes().to_vec()]);
    let mut fields = vec![(Tag::Software, ascii(Saved::SOFTWARE))];
    fields.extend(text(Saved::KEYWORD).map(|text| (Tag::ImageDescription, ascii(text))));
    fields.extend(text(Saved::PARAMETERS).map(|text| {
        let mut comment = b"UNICODE\0".to_vec();
        comment.extend(text.encode_utf16().flat_map(u16::to_be_bytes));
        (Tag::UserComment, Value::Undefined(comment, 0))
    }));
    let fields: Vec<Field> =
        fields.into_iter().map(|(tag, value)| Field { tag, ifd_num: In::PRIMARY, value }).collect();
    let mut writer = Writer::new();
    fields.iter().for_each(|field| writer.push_field(field));
    let mut bytes = Cursor::new(vec![]);
    // Big-endian, like the text of the comment.
    writer.write(&mut bytes, false).map_err(|error| Error::Encode(error.to_string()))?;
    Ok(bytes.into_inner())
}

/// What a file that begins with these bytes is; `None` if it is no picture of these formats.
fn format_of(start: &[u8]) -> Option<PictureFormat> {
    match start {
        [0x89, b'P', b'N', b'G', ..] => Some(PictureFormat::Png),
        [0xff, 0xd8, ..] => Some(PictureFormat::Jpeg),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => {
            Some(PictureFormat::WebP)
        }
        _ => None,
    }
}

/// Whether the file at `path` is a picture, by its first bytes.
pub fn is_picture(path: &Path) -> bool {
    let mut start = vec![];
    let read = File::open(path).and_then(|file| file.take(12).read_to_end(&mut start));
    read.is_ok() && format_of(&start).is_some()
}

/// The request that a picture carries, as text; `None` if it carries none.
///
/// # Errors
///
/// A sentence, if it is no picture.
pub fn request_in(file: impl Read) -> Result<Option<String>, String> {
    let mut file = BufReader::new(file);
    let start = file.fill_buf().map_err(|error| error.to_string())?;
    if !matches!(format_of(start), Some(PictureFormat::Jpeg | PictureFormat::WebP)) {
        // What is no PNG either, it says.
        return png_file::request_in(file).map_err(|error| error.to_string());
    }
    // The file may be a pipe, and EXIF is looked for here and there.
    let mut bytes = vec![];
    file.take(MAX_BYTES).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    let fields = match exif::Reader::new().read_from_container(&mut Cursor::new(bytes)) {
        Ok(fields) => fields,
        Err(exif::Error::NotFound(_)) => return Ok(None),
        Err(error) => return Err(format!("not a readable picture ({error})")),
    };
    let field = fields.get_field(Tag::ImageDescription, In::PRIMARY);
    let text = field.and_then(|field| match &field.value {
        Value::Ascii(lines) => lines.first(),
        _ => None,
    });
    // Other programs describe pictures, too.
    let text = text.filter(|text| text.starts_with(b"{"));
    Ok(text.map(|text| String::from_utf8_lossy(text).into_owned()))
}
