//! PNG files, and the requests they carry in their text chunks.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use ralu::pipeline::{Picture, Saved};

use super::error::{Error, Result};

/// The bytes of a PNG. `saved` goes into its text chunks, for `--from`, for people and for other programs.
pub fn encode(picture: &Picture, saved: Option<&Saved>) -> Result<Vec<u8>> {
    let failed =
        |error: png::EncodingError| Error::failed(format!("a PNG cannot be made: {error}"));
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, picture.width as u32, picture.height as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.add_text_chunk("Software".into(), Saved::SOFTWARE.into()).map_err(failed)?;
    if let Some(saved) = saved {
        // iTXt is the chunk for texts that are not Latin-1.
        for (keyword, text) in saved.texts()? {
            encoder.add_itxt_chunk(keyword.into(), text).map_err(failed)?;
        }
    }
    let mut writer = encoder.write_header().map_err(failed)?;
    writer.write_image_data(&picture.rgb).map_err(failed)?;
    writer.finish().map_err(failed)?;
    Ok(bytes)
}

/// The JSON of the request that a PNG carries, if it does.
pub fn read_request(path: &Path) -> Result<Option<String>> {
    let shown = path.display();
    let file = File::open(path)
        .map_err(|error| Error::failed(format!("{shown} cannot be opened: {error}")))?;
    if file.metadata().is_ok_and(|meta| meta.is_dir()) {
        return Err(Error::failed(format!("{shown}: this is a folder; expected a PNG file")));
    }
    let not_png = |error: png::DecodingError| {
        Error::failed(format!(
            "{shown}: not a readable PNG ({error}); expected a picture that `ralu generate` made"
        ))
    };
    let reader = png::Decoder::new(BufReader::new(file)).read_info().map_err(not_png)?;
    let info = reader.info();
    if let Some(chunk) = info.utf8_text.iter().find(|chunk| chunk.keyword == Saved::KEYWORD) {
        return chunk.get_text().map(Some).map_err(not_png);
    }
    // Programs that rewrite PNGs may turn an ASCII text into the older kinds of chunk.
    let plain = info.uncompressed_latin1_text.iter().find(|chunk| chunk.keyword == Saved::KEYWORD);
    Ok(plain.map(|chunk| chunk.text.clone()))
}
