//! Pictures that carry a request, and painted masks.

use std::io::{Cursor, Write};
use std::sync::OnceLock;

use arbitrary::{Result, Unstructured};
use flate2::Compression;
use flate2::write::ZlibEncoder;
use ralu::pipeline::Saved;
use ralu::pipeline::png_file::{read_mask, request_in};
use ralu::sampling::{Grid, MaskMode, mask_regions};

use super::check::clean;
use super::limits::{Memory, bounded};
use super::saved::{REQUEST, follow};

/// A request may have 64 MiB, and a `Vec` that grows has as much again for a moment.
const MEMORY: Memory = Memory { bytes: 136 << 20, per_byte: 16 };

/// A header may promise 128 million pixels; nothing of a size is kept that is not read, but the mask.
const MASK_MEMORY: Memory = Memory { bytes: 130 << 20, per_byte: 64 };

/// What [`bomb`] unpacks to: more than may be read.
const BOMB_BYTES: usize = 256 << 20;

/// A text of nothing but spaces, packed as well as zlib can.
fn bomb() -> &'static [u8] {
    static BOMB: OnceLock<Vec<u8>> = OnceLock::new();
    BOMB.get_or_init(|| packed(std::iter::repeat_n(&[b' '; 1 << 16][..], BOMB_BYTES >> 16)))
}

fn packed<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    for part in parts {
        encoder.write_all(part).expect("a Vec takes all");
    }
    encoder.finish().expect("a Vec takes all")
}

/// The first byte says whether the rest is a file, or says what to make one of: checksums cannot be guessed.
pub fn check(input: &[u8]) {
    let Some((what, rest)) = input.split_first() else { return };
    let png = match what % 2 {
        0 => rest.to_vec(),
        _ => match assembled(&mut Unstructured::new(rest)) {
            Ok(png) => png,
            Err(_) => return,
        },
    };
    let length = png.len();
    bounded(MASK_MEMORY, length, || mask(&png));
    let found = bounded(MEMORY, length, || clean(request_in(&png[..])));
    if let Some(Some(text)) = found {
        follow(&text);
    }
}

/// As painted regions.
fn mask(png: &[u8]) {
    let Some(mask) = clean(read_mask(Cursor::new(png), MaskMode::Add)) else { return };
    assert_eq!(mask.luma.len(), mask.width * mask.height);
    assert!(!mask.luma.is_empty(), "a mask without pixels");
    let grid = Grid { rows: 4, cols: 6 };
    let shares = mask_regions(&mask.luma, mask.width, mask.height, grid).expect("shares");
    assert!(shares.len() == 24 && shares.iter().all(|share| (0.0..=1.0).contains(share)));
}

/// A PNG of up to eight chunks behind its header.
fn assembled(input: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    let (width, height) = (input.int_in_range(0..=9u32)?, input.int_in_range(0..=9u32)?);
    let depth = *input.choose(&[8u8, 8, 1, 2, 4, 16, 0, 3])?;
    let color = *input.choose(&[0u8, 2, 3, 4, 6, 0, 2, 1])?;
    let mut header = [width.to_be_bytes(), height.to_be_bytes()].concat();
    header.extend([depth, color, 0, 0, u8::from(input.ratio(1u8, 8u8)?)]);
    chunk(&mut png, b"IHDR", &header);
    for _ in 0..input.int_in_range(0..=8u8)? {
        let kinds: [&[u8; 4]; 12] = [
            b"iTXt", b"zTXt", b"tEXt", b"iTXt", b"IDAT", b"IEND", b"PLTE", b"tRNS", b"IHDR",
            b"fdAT", b"acTL", b"eXIf",
        ];
        let kind = *input.choose(&kinds)?;
        let data = match kind {
            b"iTXt" | b"zTXt" | b"tEXt" => text_chunk(kind, input)?,
            b"IDAT" if !input.ratio(1u8, 4u8)? => packed([&[0; 1024][..]]),
            _ => some(input)?,
        };
        chunk(&mut png, kind, &data);
    }
    if !input.ratio(1u8, 8u8)? {
        chunk(&mut png, b"IDAT", &packed([&[0; 1024][..]]));
        chunk(&mut png, b"IEND", &[]);
    }
    Ok(png)
}

fn chunk(png: &mut Vec<u8>, kind: &[u8; 4], data: &[u8]) {
    png.extend((data.len() as u32).to_be_bytes());
    let start = png.len();
    png.extend(kind);
    png.extend(data);
    let sum = crc32fast::hash(&png[start..]);
    png.extend(sum.to_be_bytes());
}

/// The data of a chunk with text.
fn text_chunk(kind: &[u8; 4], input: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let keyword = *input.choose(&[Saved::KEYWORD, Saved::KEYWORD, "prompt", "", "Ralu"])?;
    let text = match input.int_in_range(0..=7u8)? {
        0 => None,
        1..=3 => Some(REQUEST.as_bytes().to_vec()),
        _ => Some(some(input)?),
    };
    let mut data = keyword.as_bytes().to_vec();
    data.push(0);
    let pack = match kind {
        b"tEXt" => false,
        b"zTXt" => {
            data.push(0);
            true
        }
        _ => {
            let pack = input.arbitrary::<bool>()?;
            data.extend([u8::from(pack), 0, 0, 0]);
            pack
        }
    };
    match (text, pack) {
        (None, _) => data.extend(bomb()),
        (Some(text), true) => data.extend(packed([&text[..]])),
        (Some(text), false) => data.extend(text),
    }
    Ok(data)
}

fn some(input: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let n = input.int_in_range(0..=255)?;
    let n = n.min(input.len());
    Ok(input.bytes(n)?.to_vec())
}
