//! Choosing the regions: which coarse tokens become fine at the first transition.
//!
//! [`select`] ranks tokens by their edges. A person may also paint a mask: [`mask_regions`] says
//! how much of each token is painted, and [`select_with_mask`] lets the painting replace the
//! search or add to it.
//!
//! In runs recorded from the authors' code the scores are whole multiples of 255 (they sum pixels
//! of that value), and the chosen tokens are those of [`select`] without a finer score: their noise
//! of 1e-6 vanishes beside such numbers in f32, so equal scores came out by index.
//!
//! ```
//! let edge_pixels = [3, 9, 0, 9];
//! assert_eq!(ralu::sampling::select(&edge_pixels, &[], 3), [0, 1, 3]);
//! ```

use super::Error;
use super::layout::Grid;

/// A token counts as painted when at least this share of it is white.
pub const PAINTED: f32 = 0.5;

/// What a painted mask does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum MaskMode {
    /// The painted tokens are the regions; edges play no part, and the up ratio neither.
    Replace,
    /// The painted tokens join those found by their edges, so there are more of them than the up
    /// ratio says.
    #[default]
    Add,
}

/// Number of regions for an up ratio: `floor(up_ratio * low_tokens)`, as the authors' code rounds.
pub fn region_count(up_ratio: f64, low_tokens: usize) -> usize {
    // A ratio that is no number casts to 0, a negative one too; above 1 there are no more tokens.
    ((up_ratio * low_tokens as f64) as usize).min(low_tokens)
}

/// The `k` tokens with the most edge pixels, in ascending order.
///
/// `density`: edge pixels per coarse token, raster order ([`super::edge_density`]). Among equal
/// counts the larger `fine_score` wins ([`super::gradient_sum`]; an empty slice leaves it out,
/// [`super::TieBreak::Index`]), then the smaller index: nothing is left to chance, so a flat
/// picture has regions too, and always the same ones. If `k` exceeds the tokens, all are returned.
pub fn select(density: &[u32], fine_score: &[f32], k: usize) -> Vec<u32> {
    let fine = |i: u32| fine_score.get(i as usize).copied().unwrap_or(0.0);
    let mut order: Vec<u32> = (0..density.len() as u32).collect();
    order.sort_by(|&a, &b| {
        let (more, less) = (density[a as usize], density[b as usize]);
        less.cmp(&more).then(fine(b).total_cmp(&fine(a))).then(a.cmp(&b))
    });
    order.truncate(k);
    order.sort_unstable();
    order
}

/// Share of white in each coarse token's area, 0 to 1, raster order.
///
/// `luma`: the mask, `[height * width]`, 255 is white (painted) and grey counts in proportion. It
/// may have any size; it is laid over the whole picture, and pixels cut by a token's border count
/// with their part of the area.
pub fn mask_regions(
    luma: &[u8],
    width: usize,
    height: usize,
    grid: Grid,
) -> Result<Vec<f32>, Error> {
    grid.check()?;
    let expected = width.saturating_mul(height);
    if luma.len() != expected || expected == 0 {
        return Err(Error::Length {
            what: "the mask",
            found: luma.len(),
            expected: expected.max(1),
            shape: "height x width, at least one pixel",
        });
    }
    let col_parts = overlaps(width, grid.cols);
    let row_parts = overlaps(height, grid.rows);
    let mut shares = Vec::with_capacity(grid.n_tokens());
    for rows in &row_parts {
        for cols in &col_parts {
            // Weights are whole numbers and add up to width * height for every token.
            let mut white = 0u128;
            for &(row, row_weight) in rows {
                let line: u64 = cols
                    .iter()
                    .map(|&(col, weight)| weight * u64::from(luma[row * width + col]))
                    .sum();
                white += u128::from(row_weight) * u128::from(line);
            }
            shares.push((white as f64 / (255.0 * expected as f64)) as f32);
        }
    }
    Ok(shares)
}

/// The regions of a run with a mask, in ascending order.
///
/// `shares` from [`mask_regions`]; a token is painted if its share is at least [`PAINTED`]. With
/// [`MaskMode::Replace`] the painted tokens are the answer, however many; with [`MaskMode::Add`]
/// they join the `k` that [`select`] finds. None or all of the tokens may come out: see
/// [`super::RaluParams::resolve_regions`] for what a run does then.
pub fn select_with_mask(
    mode: MaskMode,
    shares: &[f32],
    density: &[u32],
    fine_score: &[f32],
    k: usize,
) -> Vec<u32> {
    let painted = (0..).zip(shares).filter(|(_, share)| **share >= PAINTED).map(|(i, _)| i);
    let mut regions: Vec<u32> = painted.collect();
    if mode == MaskMode::Add {
        regions.extend(select(density, fine_score, k));
        regions.sort_unstable();
        regions.dedup();
    }
    regions
}

/// For each of `parts` equal pieces of a line of `pixels`, the pixels in it with their overlap, in
/// units of 1 / `parts` of a pixel (so that all are whole numbers).
fn overlaps(pixels: usize, parts: usize) -> Vec<Vec<(usize, u64)>> {
    (0..parts)
        .map(|part| {
            let (from, to) = (part * pixels, (part + 1) * pixels);
            (from / parts..to.div_ceil(parts))
                .map(|pixel| {
                    let left = from.max(pixel * parts);
                    let right = to.min((pixel + 1) * parts);
                    (pixel, (right - left) as u64)
                })
                .collect()
        })
        .collect()
}
