//! PNG files that say how their picture was made: what the command line writes and the viewer, and what both read. Not
//! in browsers, which have a way of their own to make PNGs (`examples/web`).

use std::io::{BufRead, Seek};

use super::{Picture, Saved};

/// Why there is no PNG, or none that can be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PngError {
    /// It cannot be made.
    #[error("a PNG cannot be made: {0}")]
    Make(#[from] png::EncodingError),
    /// What it would say about itself cannot be written.
    #[error("a PNG cannot be made: its request cannot be written: {0}")]
    Request(#[from] serde_json::Error),
    /// It is damaged, or something else.
    #[error("not a readable PNG ({0}); expected a picture that ralu made")]
    Read(#[from] png::DecodingError),
}

/// The bytes of a PNG. `saved` goes into its text chunks, for [`request_in`], for people and for other programs.
pub fn encode(picture: &Picture, saved: Option<&Saved>) -> Result<Vec<u8>, PngError> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, picture.width as u32, picture.height as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.add_text_chunk("Software".into(), Saved::SOFTWARE.into())?;
    if let Some(saved) = saved {
        // iTXt is the chunk for texts that are not Latin-1.
        for (keyword, text) in saved.texts()? {
            encoder.add_itxt_chunk(keyword.into(), text)?;
        }
    }
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&picture.rgb)?;
    writer.finish()?;
    Ok(bytes)
}

/// The JSON of the request that a PNG carries, for [`Saved::parse`]; `None` if it carries none.
pub fn request_in(png: impl BufRead + Seek) -> Result<Option<String>, PngError> {
    let reader = png::Decoder::new(png).read_info()?;
    let info = reader.info();
    if let Some(chunk) = info.utf8_text.iter().find(|chunk| chunk.keyword == Saved::KEYWORD) {
        return Ok(Some(chunk.get_text()?));
    }
    // Programs that rewrite PNGs may turn an ASCII text into the older kinds of chunk.
    let plain = info.uncompressed_latin1_text.iter().find(|chunk| chunk.keyword == Saved::KEYWORD);
    if let Some(chunk) = plain {
        return Ok(Some(chunk.text.clone()));
    }
    let packed = info.compressed_latin1_text.iter().find(|chunk| chunk.keyword == Saved::KEYWORD);
    Ok(packed.map(|chunk| chunk.get_text()).transpose()?)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn a_request_is_found_in_every_kind_of_text_chunk() {
        type Add = fn(&mut png::Encoder<'_, &mut Vec<u8>>) -> Result<(), png::EncodingError>;
        let kinds: [(&str, Add, Option<&str>); 5] = [
            (
                "iTXt",
                |e| e.add_itxt_chunk(Saved::KEYWORD.into(), "{\"é\"}".into()),
                Some("{\"é\"}"),
            ),
            ("tEXt", |e| e.add_text_chunk(Saved::KEYWORD.into(), "{}".into()), Some("{}")),
            ("zTXt", |e| e.add_ztxt_chunk(Saved::KEYWORD.into(), "{} ".into()), Some("{} ")),
            ("another's", |e| e.add_text_chunk("Comment".into(), "{}".into()), None),
            ("no text", |_| Ok(()), None),
        ];
        for (kind, add, expected) in kinds {
            let mut bytes = Vec::new();
            let mut encoder = png::Encoder::new(&mut bytes, 1, 1);
            add(&mut encoder).unwrap();
            encoder.write_header().unwrap().write_image_data(&[0]).unwrap();
            let found = request_in(Cursor::new(bytes)).unwrap();
            assert_eq!(found.as_deref(), expected, "{kind}");
        }
        let error = request_in(Cursor::new(b"GIF89a")).unwrap_err().to_string();
        assert!(error.contains("not a readable PNG"), "{error}");
    }

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
