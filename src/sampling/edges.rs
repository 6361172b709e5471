//! Edges of a decoded picture: grey, Canny, and counts per token.
//!
//! RALU refines early where the half-size picture has edges. [`edge_map`] turns a decoder's output
//! into an [`EdgeMap`], [`edge_density`] counts edge pixels under each token, [`gradient_sum`] is
//! the finer score that decides between equal counts. [`canny`] is OpenCV's
//! `Canny(gray, 100, 200)` bit for bit: 3x3 Sobel with replicated border, L1 norm, no blur.
//!
//! ```
//! use ralu::sampling::{GrayMap, Grid, edge_density, edge_map};
//!
//! // A half-size picture of 32 x 16 pixels, white in its right half: an edge next to the border.
//! let plane: Vec<f32> = (0..32 * 16).map(|i| if i % 32 < 16 { -1.0 } else { 1.0 }).collect();
//! let edges = edge_map(&[&plane[..]; 3].concat(), 32, 16, GrayMap::Fixed)?;
//! assert_eq!(edge_density(&edges, Grid { rows: 1, cols: 2 })?, [16, 0]);
//! # Ok::<(), ralu::sampling::Error>(())
//! ```

use super::Error;
use super::layout::Grid;
use super::rules::GrayMap;

/// Below or at this gradient (`|gx| + |gy|` of 8-bit grey) a pixel is no edge.
const LOW: i32 = 100;

/// Above this gradient a pixel is an edge on its own; in between it must touch one.
const HIGH: i32 = 200;

/// Pixels on the side of a token's block: a coarse token covers 16 x 16 pixels of the half-size
/// picture.
const BLOCK: usize = 16;

/// Edge pixels and gradients of a picture, row by row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EdgeMap {
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// `[height * width]`: 1 on an edge, else 0.
    pub edges: Vec<u8>,
    /// `[height * width]`: `|gx| + |gy|`, at most 2040.
    pub gradient: Vec<u16>,
}

impl EdgeMap {
    /// Edge pixels in the whole picture.
    pub fn count(&self) -> usize {
        self.edges.iter().map(|e| usize::from(*e)).sum()
    }
}

/// Edges of a decoded picture: [`gray_u8`], then [`canny`].
///
/// `image`: the decoder's raw output, `[3, height, width]`, nominally in `[-1, 1]`.
pub fn edge_map(
    image: &[f32],
    width: usize,
    height: usize,
    gray_map: GrayMap,
) -> Result<EdgeMap, Error> {
    canny(&gray_u8(image, width, height, gray_map)?, width, height)
}

/// Grey picture in 8 bits, `[height * width]`, from `[3, height, width]` in `[-1, 1]`.
///
/// `0.299 R + 0.587 G + 0.114 B` on the raw values, mapped to `[0, 1]` by `gray_map`, times 255,
/// cut (not rounded) to a whole number, as the authors' code does. What is not a number is black.
pub fn gray_u8(
    image: &[f32],
    width: usize,
    height: usize,
    gray_map: GrayMap,
) -> Result<Vec<u8>, Error> {
    let plane = width.saturating_mul(height);
    check_length(
        "the decoded picture",
        image.len(),
        plane.saturating_mul(3),
        "3 x height x width",
    )?;
    let (r, rest) = image.split_at(plane);
    let (g, b) = rest.split_at(plane);
    Ok(r.iter()
        .zip(g)
        .zip(b)
        .map(|((r, g), b)| {
            let y = 0.299 * r + 0.587 * g + 0.114 * b;
            let y = match gray_map {
                GrayMap::Official => y,
                GrayMap::Fixed => y / 2.0 + 0.5,
            };
            (y.clamp(0.0, 1.0) * 255.0) as u8
        })
        .collect())
}

/// Canny edges of an 8-bit grey picture `[height * width]`, thresholds 100 and 200.
pub fn canny(gray: &[u8], width: usize, height: usize) -> Result<EdgeMap, Error> {
    check_length("the grey picture", gray.len(), width.saturating_mul(height), "height x width")?;
    let (gx, gy) = sobel(gray, width, height);
    let gradient: Vec<u16> = gx.iter().zip(&gy).map(|(x, y)| (x.abs() + y.abs()) as u16).collect();

    // Thin: keep pixels that are the largest across their edge.
    let mut state = vec![Pixel::Nothing; gray.len()];
    let mut open = Vec::new(); // edges whose neighbours are still to be looked at
    let at = |row: isize, col: isize| -> i32 {
        let inside = row >= 0 && col >= 0 && row < height as isize && col < width as isize;
        if inside {
            i32::from(gradient[row as usize * width + col as usize])
        } else {
            0 // OpenCV pads the gradient with zeros
        }
    };
    for i in 0..gray.len() {
        let m = i32::from(gradient[i]);
        if m <= LOW {
            continue;
        }
        let (row, col) = ((i / width) as isize, (i % width) as isize);
        if largest_across(gx[i], gy[i], m, |dr, dc| at(row + dr, col + dc)) {
            state[i] = if m > HIGH {
                open.push(i);
                Pixel::Edge
            } else {
                Pixel::Maybe
            };
        }
    }

    // Grow: a weaker pixel is an edge if it touches one, corners included.
    while let Some(i) = open.pop() {
        let (row, col) = (i / width, i % width);
        for r in row.saturating_sub(1)..=(row + 1).min(height - 1) {
            for c in col.saturating_sub(1)..=(col + 1).min(width - 1) {
                let j = r * width + c;
                if state[j] == Pixel::Maybe {
                    state[j] = Pixel::Edge;
                    open.push(j);
                }
            }
        }
    }

    Ok(EdgeMap {
        width,
        height,
        edges: state.iter().map(|s| u8::from(*s == Pixel::Edge)).collect(),
        gradient,
    })
}

/// Edge pixels in each token's 16 x 16 block, `[rows * cols]` in raster order.
///
/// `grid`: the coarse grid; the picture is the half-size one, `16 rows` x `16 cols` pixels. The
/// authors' code sums pixels of value 255 instead, the same order 255 times larger.
pub fn edge_density(map: &EdgeMap, grid: Grid) -> Result<Vec<u32>, Error> {
    block_sums(map, grid, |i| u32::from(map.edges[i]))
}

/// Sum of the gradient in each token's 16 x 16 block: the finer score for equal edge counts.
///
/// Whole numbers below 2^20, so f32 holds them exactly.
pub fn gradient_sum(map: &EdgeMap, grid: Grid) -> Result<Vec<f32>, Error> {
    let sums = block_sums(map, grid, |i| u32::from(map.gradient[i]))?;
    Ok(sums.into_iter().map(|sum| sum as f32).collect())
}

#[derive(Clone, Copy, PartialEq)]
enum Pixel {
    Nothing,
    Maybe,
    Edge,
}

/// OpenCV's non-maximum suppression, with its fixed-point tangents and its unequal comparisons:
/// on a plateau across a horizontal or vertical edge the first pixel wins, on a diagonal none.
fn largest_across(gx: i32, gy: i32, m: i32, near: impl Fn(isize, isize) -> i32) -> bool {
    const TAN_22_5: i64 = 13_573; // tan(22.5 degrees) * 2^15; tan(67.5) is that + 2
    let (x, y) = (i64::from(gx.abs()), i64::from(gy.abs()) << 15);
    if y < x * TAN_22_5 {
        m > near(0, -1) && m >= near(0, 1)
    } else if y > x * TAN_22_5 + (x << 16) {
        m > near(-1, 0) && m >= near(1, 0)
    } else {
        let q = if (gx ^ gy) < 0 { -1 } else { 1 };
        m > near(-1, -q) && m > near(1, q)
    }
}

/// 3x3 Sobel in both directions, replicated border.
fn sobel(gray: &[u8], width: usize, height: usize) -> (Vec<i32>, Vec<i32>) {
    let mut gx = Vec::with_capacity(gray.len());
    let mut gy = Vec::with_capacity(gray.len());
    for row in 0..height {
        let rows = [row.saturating_sub(1), row, (row + 1).min(height - 1)];
        for col in 0..width {
            let cols = [col.saturating_sub(1), col, (col + 1).min(width - 1)];
            let p = |r: usize, c: usize| i32::from(gray[rows[r] * width + cols[c]]);
            gx.push(p(0, 2) - p(0, 0) + 2 * (p(1, 2) - p(1, 0)) + p(2, 2) - p(2, 0));
            gy.push(p(2, 0) - p(0, 0) + 2 * (p(2, 1) - p(0, 1)) + p(2, 2) - p(0, 2));
        }
    }
    (gx, gy)
}

fn block_sums(map: &EdgeMap, grid: Grid, value: impl Fn(usize) -> u32) -> Result<Vec<u32>, Error> {
    grid.check()?;
    let (want_width, want_height) = (grid.cols * BLOCK, grid.rows * BLOCK);
    if map.width != want_width || map.height != want_height {
        return Err(Error::PictureGrid {
            width: map.width,
            height: map.height,
            want_width,
            want_height,
            rows: grid.rows,
            cols: grid.cols,
        });
    }
    let pixels = map.width * map.height;
    // The fields are public, so the arrays may have been changed since `canny` made them.
    check_length("the edge map", map.edges.len(), pixels, "height x width")?;
    check_length("the gradient map", map.gradient.len(), pixels, "height x width")?;
    let mut sums = vec![0; grid.n_tokens()];
    for i in 0..pixels {
        let (row, col) = (i / map.width, i % map.width);
        sums[row / BLOCK * grid.cols + col / BLOCK] += value(i);
    }
    Ok(sums)
}

fn check_length(
    what: &'static str,
    found: usize,
    expected: usize,
    shape: &'static str,
) -> Result<(), Error> {
    if found == expected { Ok(()) } else { Err(Error::Length { what, found, expected, shape }) }
}
