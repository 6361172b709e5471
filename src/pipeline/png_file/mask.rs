//! Painted masks as PNGs of every kind.

use std::io::{BufRead, Seek};

use png::{BitDepth, ColorType, InterlaceInfo, Transformations};

use crate::pipeline::Mask;
use crate::sampling::MaskMode;

/// Longest side of a mask, in pixels.
const MAX_SIDE: u32 = 1 << 16;
/// Most pixels of a mask: twice those of the largest picture.
const MAX_PIXELS: usize = 1 << 27;

/// Why a mask cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MaskError {
    /// It is damaged, or something else.
    #[error("not a readable PNG ({0})")]
    Read(#[from] png::DecodingError),
    /// Its palette is not one.
    #[error("its palette has {bytes} bytes, expected 3 for each of at most 256 colours")]
    Palette {
        /// Length of the palette.
        bytes: usize,
    },
    /// It is larger than any picture.
    #[error(
        "it has {width} x {height} pixels, expected at most {MAX_SIDE} on a side and {} million in all",
        MAX_PIXELS / 1_000_000
    )]
    Size {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
}

/// Reads a mask: brightness times opacity, so that what is transparent is not painted, whatever colour lies below.
///
/// Every kind of PNG is read, with a row of it in memory at a time.
pub fn read_mask(png: impl BufRead + Seek, mode: MaskMode) -> Result<Mask, MaskError> {
    let mut decoder = png::Decoder::new(png);
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    decoder.set_transformations(Transformations::EXPAND);
    let info = decoder.read_header_info()?;
    let (width, height) = (info.width, info.height);
    let pixels = (width as usize).checked_mul(height as usize);
    let Some(pixels) = pixels.filter(|n| *n <= MAX_PIXELS && width.max(height) <= MAX_SIDE) else {
        return Err(MaskError::Size { width, height });
    };
    let mut reader = decoder.read_info()?;
    // The decoder looks at whole colours, and panics where there is a part of one.
    let palette = reader.info().palette.as_ref().map_or(0, |palette| palette.len());
    if palette % 3 != 0 || palette > 3 * 256 {
        return Err(MaskError::Palette { bytes: palette });
    }
    let (color, depth) = reader.output_color_type();
    let (width, height) = (width as usize, height as usize);
    let mut luma = vec![0; pixels];
    let mut line = Vec::with_capacity(width);
    let mut n_rows = 0;
    while let Some(row) = reader.next_interlaced_row()? {
        line.clear();
        push_luma(&mut line, color, depth, row.data());
        match row.interlace() {
            InterlaceInfo::Null(_) => luma[n_rows * width..][..width].copy_from_slice(&line),
            InterlaceInfo::Adam7(info) => {
                png::expand_interlaced_row(&mut luma, width, &line, info, 8);
            }
        }
        n_rows += 1;
    }
    Ok(Mask { luma, width, height, mode })
}

/// Adds the brightness of a row's pixels, 0 to 255.
fn push_luma(line: &mut Vec<u8>, color: ColorType, depth: BitDepth, samples: &[u8]) {
    // Expanded samples have 8 or 16 bits.
    let (bytes, most) = if depth == BitDepth::Sixteen { (2, 65_535) } else { (1, 255) };
    line.extend(samples.chunks_exact(bytes * color.samples()).map(|pixel| {
        let sample = |i: usize| {
            let bytes = &pixel[i * bytes..][..bytes];
            bytes.iter().fold(0u64, |value, byte| value << 8 | u64::from(*byte))
        };
        // ITU-R BT.709.
        let mixed = || (2126 * sample(0) + 7152 * sample(1) + 722 * sample(2)) / 10_000;
        let (luma, alpha) = match color {
            ColorType::Grayscale | ColorType::Indexed => (sample(0), most),
            ColorType::GrayscaleAlpha => (sample(0), sample(1)),
            ColorType::Rgb => (mixed(), most),
            ColorType::Rgba => (mixed(), sample(3)),
        };
        ((luma * alpha * 255 + most * most / 2) / (most * most)) as u8
    }));
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    /// A PNG of `rows` as they are stored.
    fn png(
        color: ColorType,
        depth: BitDepth,
        [width, height]: [u32; 2],
        palette: &[u8],
        transparent: &[u8],
        rows: &[u8],
    ) -> Vec<u8> {
        let mut bytes = vec![];
        let mut encoder = png::Encoder::new(&mut bytes, width, height);
        encoder.set_color(color);
        encoder.set_depth(depth);
        if !palette.is_empty() {
            encoder.set_palette(palette);
        }
        if !transparent.is_empty() {
            encoder.set_trns(transparent);
        }
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(rows).unwrap();
        writer.finish().unwrap();
        bytes
    }

    fn luma(png: Vec<u8>) -> Vec<u8> {
        read_mask(Cursor::new(png), MaskMode::Replace).unwrap().luma
    }

    #[test]
    fn a_mask_is_brightness_times_opacity_in_every_kind_of_png() {
        use BitDepth::{Eight, Four, One, Sixteen, Two};
        use ColorType::{Grayscale, GrayscaleAlpha, Indexed, Rgb, Rgba};
        let line = |color, depth, n, palette, transparent, row: &[u8]| {
            luma(png(color, depth, [n, 1], palette, transparent, row))
        };
        assert_eq!(line(Grayscale, Eight, 3, &[], &[], &[0, 100, 255]), [0, 100, 255]);
        assert_eq!(line(Grayscale, One, 3, &[], &[], &[0b1010_0000]), [255, 0, 255]);
        assert_eq!(line(Grayscale, Two, 4, &[], &[], &[0b0001_1011]), [0, 85, 170, 255]);
        assert_eq!(line(Grayscale, Four, 2, &[], &[], &[0xf1]), [255, 17]);
        assert_eq!(line(Grayscale, Sixteen, 2, &[], &[], &[0xff, 0xff, 0x80, 0]), [255, 128]);
        assert_eq!(
            line(Rgb, Eight, 3, &[], &[], &[255, 0, 0, 0, 255, 0, 0, 0, 255]),
            [54, 182, 18]
        );
        // White, erased; white; half white; grey, half transparent.
        let gray = [255, 0, 255, 255, 255, 128, 128, 128];
        assert_eq!(line(GrayscaleAlpha, Eight, 4, &[], &[], &gray), [0, 255, 128, 64]);
        let rgba = gray.chunks(2).flat_map(|pixel| [pixel[0], pixel[0], pixel[0], pixel[1]]);
        let rgba: Vec<u8> = rgba.collect();
        assert_eq!(line(Rgba, Eight, 4, &[], &[], &rgba), [0, 255, 128, 64]);
        let wide = |bytes: &[u8]| bytes.iter().flat_map(|byte| [*byte; 2]).collect::<Vec<u8>>();
        assert_eq!(line(Rgba, Sixteen, 4, &[], &[], &wide(&rgba)), [0, 255, 128, 64]);
        assert_eq!(line(GrayscaleAlpha, Sixteen, 4, &[], &[], &wide(&gray)), [0, 255, 128, 64]);
        // Three times white, the first two more or less transparent, and black.
        let palette = [[255; 9].as_slice(), &[0; 3]].concat();
        let transparent = [0, 51];
        assert_eq!(line(Indexed, Eight, 4, &palette, &transparent, &[0, 1, 2, 3]), [0, 51, 255, 0]);
        assert_eq!(line(Indexed, Two, 4, &palette, &transparent, &[0b0001_1011]), [0, 51, 255, 0]);
        // One colour is transparent: white, and of two bits 3.
        assert_eq!(line(Grayscale, Eight, 3, &[], &[0, 255], &[255, 254, 0]), [0, 254, 0]);
        assert_eq!(line(Grayscale, Two, 2, &[], &[0, 3], &[0b1110_0000]), [0, 170]);
        assert_eq!(line(Grayscale, Sixteen, 2, &[], &[255; 2], &[255, 255, 255, 0]), [0, 254]);
        let key = [0, 255, 0, 255, 0, 255];
        assert_eq!(line(Rgb, Eight, 2, &[], &key, &[255, 255, 255, 255, 255, 254]), [0, 254]);
        assert_eq!(
            line(Rgb, Sixteen, 2, &[], &[255; 6], &[[255; 11].as_slice(), &[0]].concat())[0],
            0
        );
    }

    #[test]
    fn what_is_no_mask_says_so() {
        let message =
            |png: &[u8]| read_mask(Cursor::new(png), MaskMode::Replace).unwrap_err().to_string();
        assert!(message(b"GIF89a").contains("not a readable PNG"));
        let good = png(ColorType::Grayscale, BitDepth::Eight, [4, 4], &[], &[], &[255; 16]);
        assert!(message(&good[..good.len() - 20]).contains("not a readable PNG"));
        // A header is all that there is of it.
        for (width, height) in
            [(1u32 << 17, 1u32), (1, 1 << 17), (1 << 14, 1 << 14), (1 << 31, 1 << 31)]
        {
            let mut huge = good.clone();
            huge[16..20].copy_from_slice(&width.to_be_bytes());
            huge[20..24].copy_from_slice(&height.to_be_bytes());
            let checksum = crc32fast::hash(&huge[12..29]).to_be_bytes();
            huge[29..33].copy_from_slice(&checksum);
            let message = message(&huge);
            assert!(
                message.contains("134 million") || message.contains("not a readable"),
                "{message}"
            );
        }
    }

    /// Found by fuzzing: the decoder looks at three bytes where two are left.
    #[test]
    fn half_a_colour_in_a_palette_is_refused() {
        let whole = [255; 6];
        let read = |palette: &[u8]| {
            let rows = [0, 1];
            let png = png(ColorType::Indexed, BitDepth::Eight, [2, 1], palette, &[9], &rows);
            read_mask(Cursor::new(png), MaskMode::Replace)
        };
        assert_eq!(read(&whole).unwrap().luma, [9, 255]);
        for (bytes, part) in [
            // Without one whole colour, by the decoder.
            (1, "not a readable PNG"),
            (2, "not a readable PNG"),
            (4, "palette has 4 bytes"),
            (5, "palette has 5 bytes"),
        ] {
            let message = read(&whole[..bytes]).unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        }
    }

    /// By hand, as the encoder writes none.
    #[test]
    fn an_interlaced_mask_is_the_same_mask() {
        let chunk = |kind: &[u8; 4], body: &[u8]| {
            let named = [kind, body].concat();
            let checksum = crc32fast::hash(&named).to_be_bytes();
            [&(body.len() as u32).to_be_bytes()[..], &named, &checksum].concat()
        };
        // 3 x 3 pixels of grey and opacity; passes 1, 4, 5, 6 and 7 have pixels.
        let pixel = |i: u8| [200, 20 * i];
        let header = [0, 0, 0, 3, 0, 0, 0, 3, 8, 4, 0, 0, 1];
        let row = |pixels: &[u8]| {
            [vec![0], pixels.iter().flat_map(|i| pixel(*i)).collect::<Vec<u8>>()].concat()
        };
        let rows = [row(&[0]), row(&[2]), row(&[6, 8]), row(&[1]), row(&[7]), row(&[3, 4, 5])];
        let png = [
            b"\x89PNG\r\n\x1a\n".to_vec(),
            chunk(b"IHDR", &header),
            chunk(b"IDAT", &fdeflate::compress_to_vec(&rows.concat())),
            chunk(b"IEND", b""),
        ]
        .concat();
        let expected: Vec<u8> =
            (0..9u32).map(|i| ((200 * 20 * i * 255 + 32_512) / (255 * 255)) as u8).collect();
        assert_eq!(luma(png), expected);
    }
}
