//! Pictures as sixels: bands of six lines, of which each colour is drawn by itself. The colours are a cube of 6 x 6 x 6, dithered.

use ralu::pipeline::Picture;

/// The largest width and height in pixels: a picture that is larger is made smaller by leaving pixels out.
const MOST: [usize; 2] = [640, 384];
/// Levels of each of red, green and blue.
const LEVELS: usize = 6;
/// Bayer's matrix: what a pixel's place adds before its level is cut off, in sixteenths.
const DITHER: [[usize; 4]; 4] = [[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]];
/// Lines of a band.
const BAND: usize = 6;

/// The text that shows a picture.
pub fn encode(picture: &Picture) -> String {
    let step = picture.width.div_ceil(MOST[0]).max(picture.height.div_ceil(MOST[1])).max(1);
    let (width, height) = (picture.width / step, picture.height / step);
    let color = |x: usize, y: usize| {
        let at = 3 * (y * step * picture.width + x * step);
        let level = |value: u8| {
            let sixteenths = usize::from(value) * (LEVELS - 1) * 16 / 255 + DITHER[y % 4][x % 4];
            (sixteenths / 16).min(LEVELS - 1)
        };
        picture.rgb[at..at + 3].iter().fold(0, |number, value| number * LEVELS + level(*value))
    };
    let mut text = format!("\x1bPq\"1;1;{width};{height}");
    for number in 0..LEVELS.pow(3) {
        let percent = |level: usize| level % LEVELS * 100 / (LEVELS - 1);
        let [red, green, blue] = [number / LEVELS / LEVELS, number / LEVELS, number].map(percent);
        text += &format!("#{number};2;{red};{green};{blue}");
    }
    for top in (0..height).step_by(BAND) {
        let lines = top..height.min(top + BAND);
        let band: Vec<Vec<usize>> =
            lines.map(|y| (0..width).map(|x| color(x, y)).collect()).collect();
        let mut used: Vec<usize> = band.iter().flatten().copied().collect();
        used.sort_unstable();
        used.dedup();
        for number in used {
            text += &format!("#{number}");
            let bits = |x: usize| {
                let set = band.iter().enumerate().filter(|(_, line)| line[x] == number);
                set.map(|(y, _)| 1_u8 << y).sum::<u8>()
            };
            runs(&mut text, (0..width).map(bits));
            text.push('$');
        }
        text.push('-');
    }
    text + "\x1b\\"
}

/// Adds the columns of a band, those that are the same as one.
fn runs(text: &mut String, columns: impl Iterator<Item = u8>) {
    let mut columns = columns.peekable();
    while let Some(bits) = columns.next() {
        let mut count = 1;
        while columns.next_if_eq(&bits).is_some() {
            count += 1;
        }
        let column = char::from(b'?' + bits);
        match count {
            1..=3 => (0..count).for_each(|_| text.push(column)),
            _ => *text += &format!("!{count}{column}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers of the palette that a text draws, line by line; `None` where it draws nothing.
    fn decode(text: &str) -> (usize, usize, Vec<Option<usize>>) {
        let body = text.strip_prefix("\x1bPq\"1;1;").and_then(|text| text.strip_suffix("\x1b\\"));
        let (size, body) = body.expect("sixels").split_once('#').expect("colours");
        let (width, height) = size.split_once(';').expect("a size");
        let (width, height): (usize, usize) =
            (width.parse().expect("a width"), height.parse().expect("a height"));
        let mut pixels = vec![None; width * height];
        let body = format!("#{body}");
        let mut rest = body.chars().peekable();
        let (mut x, mut top, mut color, mut times) = (0, 0, 0, 1);
        while let Some(c) = rest.next() {
            let mut number = || {
                let mut digits = String::new();
                while let Some(digit) = rest.next_if(char::is_ascii_digit) {
                    digits.push(digit);
                }
                digits.parse::<usize>().expect("a number")
            };
            match c {
                '#' => {
                    color = number();
                    while rest.next_if(|c| *c == ';' || c.is_ascii_digit()).is_some() {}
                }
                '!' => times = number(),
                '$' => x = 0,
                '-' => (x, top) = (0, top + BAND),
                c => {
                    let bits = c as usize - '?' as usize;
                    for _ in 0..times {
                        for y in (0..BAND).filter(|y| bits >> y & 1 == 1) {
                            assert_eq!(pixels[(top + y) * width + x].replace(color), None);
                        }
                        x += 1;
                    }
                    times = 1;
                }
            }
        }
        (width, height, pixels)
    }

    #[test]
    fn what_is_drawn_is_the_picture() {
        let (width, height) = (37, 20);
        let rgb: Vec<u8> = (0..width * height)
            .flat_map(|i| [(i % width * 6) as u8, (i / width * 12) as u8, (i % 251) as u8])
            .collect();
        let picture = Picture { width, height, rgb };
        let (found_width, found_height, pixels) = decode(&encode(&picture));
        assert_eq!((found_width, found_height), (width, height));
        for (pixel, rgb) in pixels.iter().zip(picture.rgb.chunks_exact(3)) {
            let number = pixel.expect("a colour");
            let levels = [number / LEVELS / LEVELS, number / LEVELS % LEVELS, number % LEVELS];
            for (level, value) in levels.iter().zip(rgb) {
                // Dithering takes a neighbour of the nearest level.
                assert!((level * 51).abs_diff(usize::from(*value)) <= 51, "{levels:?} for {rgb:?}");
            }
        }
    }

    #[test]
    fn large_pictures_are_made_smaller() {
        let picture = Picture { width: 1024, height: 1000, rgb: vec![255; 3 * 1024 * 1000] };
        let (width, height, pixels) = decode(&encode(&picture));
        assert_eq!((width, height), (341, 333));
        assert!(pixels.iter().all(|pixel| *pixel == Some(LEVELS.pow(3) - 1)));
    }
}
