//! PNG files that say how their picture was made, which the command line and the viewer write and read, and painted
//! masks. Not in browsers, which have a way of their own to make PNGs (`examples/web`).

mod mask;
mod text;

use super::{Picture, Saved};

pub use mask::{MaskError, read_mask};
pub use text::{TextError, request_in};

/// Why there is no PNG.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PngError {
    /// It cannot be made.
    #[error("a PNG cannot be made: {0}")]
    Make(#[from] png::EncodingError),
    /// What it would say about itself cannot be written.
    #[error("a PNG cannot be made: its request cannot be written: {0}")]
    Request(#[from] serde_json::Error),
}

/// The bytes of a PNG. `saved` goes into its text chunks, for [`request_in`], for people and for other programs.
pub fn encode(picture: &Picture, saved: Option<&Saved>) -> Result<Vec<u8>, PngError> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, picture.width as u32, picture.height as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    if let Some(saved) = saved {
        encoder.add_text_chunk("Software".into(), Saved::SOFTWARE.into())?;
        for (keyword, text) in saved.texts()? {
            if keyword == Saved::KEYWORD {
                // ASCII, for the oldest kind of chunk: programs that rewrite PNGs (ImageMagick 6) drop iTXt.
                encoder.add_text_chunk(keyword.into(), text)?;
            } else {
                // iTXt is the chunk for texts that are not Latin-1.
                encoder.add_itxt_chunk(keyword.into(), text)?;
            }
        }
    }
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&picture.rgb)?;
    writer.finish()?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn pixels_come_through() {
        let picture = Picture { width: 2, height: 1, rgb: vec![1, 2, 3, 250, 128, 0] };
        let bytes = encode(&picture, None).unwrap();
        let mut reader = png::Decoder::new(Cursor::new(bytes)).read_info().unwrap();
        let mut rgb = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut rgb).unwrap();
        assert_eq!(rgb, picture.rgb);
    }
}
