//! The contact sheet: a row of small pictures for each prompt, a column for each setting.

use font8x8::legacy::BASIC_LEGACY;
use image::imageops::{self, FilterType};
use image::{Rgb, RgbImage};
use ralu::pipeline::Picture;

/// Larger pictures are made smaller, to this many pixels on their longer side.
const LARGEST: u32 = 128;
/// Columns are at least as wide, so that headings have room.
const NARROWEST: u32 = 96;
/// Between columns, and around everything.
const GAP: u32 = 12;
/// Side of a letter.
const LETTER: u32 = 8;
/// From one line of text to the next.
const LINE: u32 = 11;

const PAPER: Rgb<u8> = Rgb([255, 255, 255]);
const INK: Rgb<u8> = Rgb([24, 24, 27]);
/// For text of less importance.
const PALE: Rgb<u8> = Rgb([113, 113, 122]);

/// A column's heading.
pub struct Heading {
    /// In ink, in as many lines as it takes.
    pub name: String,
    /// In grey below.
    pub note: String,
}

/// A prompt and its pictures, one for each column; those that are missing stay empty.
pub struct Row {
    /// Above the pictures.
    pub caption: String,
    /// In the order of the headings.
    pub pictures: Vec<Option<RgbImage>>,
}

/// Draws the sheet. `width` x `height`: of the pictures before they are made smaller.
pub fn draw(headings: &[Heading], rows: &[Row], width: usize, height: usize) -> Picture {
    let (thumb_width, thumb_height) = thumbnail_size(width as u32, height as u32);
    let column = thumb_width.max(NARROWEST);
    let letters = (column / LETTER) as usize;
    let names: Vec<Vec<String>> =
        headings.iter().map(|heading| wrap(&heading.name, letters)).collect();
    let name_lines = names.iter().map(Vec::len).max().unwrap_or(0) as u32;

    let head_height = (name_lines + 1) * LINE + GAP;
    let row_height = LINE + thumb_height + GAP;
    let n_columns = headings.len() as u32;
    let mut sheet = RgbImage::from_pixel(
        GAP + n_columns * (column + GAP),
        GAP + head_height + rows.len() as u32 * row_height,
        PAPER,
    );
    let left = |i: usize| GAP + i as u32 * (column + GAP);
    for (i, (heading, lines)) in headings.iter().zip(&names).enumerate() {
        // Names stand on a common base line, whatever their length.
        let first = name_lines - lines.len() as u32;
        for (line, text) in lines.iter().enumerate() {
            write(&mut sheet, text, left(i), GAP + (first + line as u32) * LINE, INK);
        }
        let note: String = heading.note.chars().take(letters).collect();
        write(&mut sheet, &note, left(i), GAP + name_lines * LINE, PALE);
    }
    for (i, row) in rows.iter().enumerate() {
        let top = GAP + head_height + i as u32 * row_height;
        write(&mut sheet, &row.caption, GAP, top, PALE);
        for (j, picture) in row.pictures.iter().enumerate() {
            if let Some(picture) = picture {
                let (x, y) = (i64::from(left(j)), i64::from(top + LINE));
                imageops::replace(&mut sheet, picture, x, y);
            }
        }
    }
    Picture {
        width: sheet.width() as usize,
        height: sheet.height() as usize,
        rgb: sheet.into_raw(),
    }
}

/// Makes a picture small enough.
pub fn thumbnail(picture: RgbImage) -> RgbImage {
    let (width, height) = thumbnail_size(picture.width(), picture.height());
    if (width, height) == picture.dimensions() {
        return picture;
    }
    imageops::resize(&picture, width, height, FilterType::CatmullRom)
}

fn thumbnail_size(width: u32, height: u32) -> (u32, u32) {
    let longer = width.max(height).max(LARGEST);
    let scaled = |side: u32| (side * LARGEST).div_ceil(longer).max(1);
    (scaled(width), scaled(height))
}

/// Lines of at most `letters` letters, broken between words where possible.
fn wrap(text: &str, letters: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let letters_of_word: Vec<char> = word.chars().collect();
        for (i, piece) in letters_of_word.chunks(letters).enumerate() {
            let piece: String = piece.iter().collect();
            let Some(line) = lines.last_mut() else { continue };
            let used = line.chars().count();
            if used == 0 {
                *line = piece;
            } else if i == 0 && used + 1 + piece.chars().count() <= letters {
                line.push(' ');
                line.push_str(&piece);
            } else {
                lines.push(piece);
            }
        }
    }
    lines
}

/// Writes a line of text; what does not fit is cut off, letters that are not ASCII are question marks.
fn write(sheet: &mut RgbImage, text: &str, x: u32, y: u32, colour: Rgb<u8>) {
    for (i, c) in text.chars().enumerate() {
        let left = x + i as u32 * LETTER;
        if left + LETTER > sheet.width() {
            return;
        }
        let known = BASIC_LEGACY.get(c as usize).unwrap_or(&BASIC_LEGACY[usize::from(b'?')]);
        for (row, bits) in known.iter().enumerate() {
            for column in 0..LETTER {
                if bits >> column & 1 == 1 {
                    sheet.put_pixel(left + column, y + row as u32, colour);
                }
            }
        }
    }
}
