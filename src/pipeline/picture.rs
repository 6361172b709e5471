//! Pictures as bytes, and the drawings that show what a stage did.

use serde::Serialize;

use crate::sampling::{EdgeMap, Grid};

/// An 8-bit RGB picture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Picture {
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// `[height, width, 3]`; not in its JSON.
    #[serde(skip)]
    pub rgb: Vec<u8>,
}

impl Picture {
    /// From planes `[3, height, width]` with values in 0..1.
    pub fn from_planes(planes: &[f32], width: usize, height: usize) -> Self {
        let size = width * height;
        let mut rgb = Vec::with_capacity(size * 3);
        for pixel in 0..size {
            // diffusers rounds to the nearest of 256 levels.
            rgb.extend(
                (0..3).map(|c| (planes[c * size + pixel].clamp(0.0, 1.0) * 255.0).round() as u8),
            );
        }
        Picture { width, height, rgb }
    }

    /// The top left `width` x `height` pixels.
    pub fn crop(&self, width: usize, height: usize) -> Picture {
        let (width, height) = (width.min(self.width), height.min(self.height));
        let mut rgb = Vec::with_capacity(width * height * 3);
        for row in 0..height {
            let start = row * self.width * 3;
            rgb.extend_from_slice(&self.rgb[start..start + width * 3]);
        }
        Picture { width, height, rgb }
    }
}

/// From decoder output `[H * W, 4]` in [-1, 1] to planes `[3, H, W]`, in the decoder's range.
pub(super) fn planes(pixels: &[f32]) -> Vec<f32> {
    let size = pixels.len() / 4;
    let mut planes = vec![0.0; size * 3];
    for (i, pixel) in pixels.chunks_exact(4).enumerate() {
        for c in 0..3 {
            planes[c * size + i] = pixel[c];
        }
    }
    planes
}

/// From the decoder's [-1, 1] to 0..1.
pub(super) fn to_unit(planes: &[f32]) -> Vec<f32> {
    planes.iter().map(|y| (y / 2.0 + 0.5).clamp(0.0, 1.0)).collect()
}

/// Edges in white on black.
pub fn draw_edges(map: &EdgeMap) -> Picture {
    let rgb = map.edges.iter().flat_map(|edge| [if *edge > 0 { 255 } else { 0 }; 3]).collect();
    Picture { width: map.width, height: map.height, rgb }
}

/// The chosen regions over a picture: what was not chosen is dimmed, and each chosen patch is outlined.
pub fn draw_regions(picture: &Picture, grid: Grid, selected: &[u32]) -> Picture {
    const OUTLINE: [u8; 3] = [255, 196, 0];
    let (patch_w, patch_h) = (picture.width / grid.cols, picture.height / grid.rows);
    let mut chosen = vec![false; grid.n_tokens()];
    selected.iter().for_each(|&i| chosen[i as usize] = true);
    let is_chosen = |row: isize, col: isize| {
        row >= 0
            && col >= 0
            && (row as usize) < grid.rows
            && (col as usize) < grid.cols
            && chosen[row as usize * grid.cols + col as usize]
    };
    let mut out = picture.clone();
    for y in 0..picture.height {
        for x in 0..picture.width {
            let (row, col) = ((y / patch_h) as isize, (x / patch_w) as isize);
            let at = (y * picture.width + x) * 3;
            if !is_chosen(row, col) {
                out.rgb[at..at + 3].iter_mut().for_each(|v| *v = (u16::from(*v) * 2 / 5) as u8);
                continue;
            }
            let border = (y % patch_h == 0 && !is_chosen(row - 1, col))
                || (y % patch_h == patch_h - 1 && !is_chosen(row + 1, col))
                || (x % patch_w == 0 && !is_chosen(row, col - 1))
                || (x % patch_w == patch_w - 1 && !is_chosen(row, col + 1));
            if border {
                out.rgb[at..at + 3].copy_from_slice(&OUTLINE);
            }
        }
    }
    out
}
