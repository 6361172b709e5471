//! Choosing the regions: which coarse tokens become fine at the first transition.
//!
//! A [`Ranking`] orders tokens by their edges, or by what their latents say ([`latent_gradient`],
//! [`temporal_variance`]). A person may also paint a mask: [`mask_regions`] says how much of each
//! token is painted, and [`Ranking::select_with_mask`] lets the painting replace the search or add
//! to it.
//!
//! In runs recorded from the authors' code the scores are whole multiples of 255 (they sum pixels
//! of that value), and the chosen tokens are those of [`Ranking::select`] without a finer score:
//! their noise of 1e-6 is lost next to such numbers in f32, so equal scores came out by index.
//!
//! ```
//! use ralu::sampling::Ranking;
//!
//! let edge_pixels = vec![3, 9, 0, 9];
//! assert_eq!(Ranking::by_edges(edge_pixels, vec![]).select(3), [0, 1, 3]);
//! ```

use serde::{Deserialize, Serialize};

use super::Error;
use super::layout::Grid;
use super::noise::unpack;

/// A token counts as painted when at least this share of it is white.
pub const PAINTED: f32 = 0.5;

/// What a painted mask does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
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

/// Coarse tokens in the order in which they deserve to become fine.
#[derive(Debug, Clone, PartialEq)]
pub struct Ranking {
    /// What decides first.
    score: Vec<f32>,
    /// What decides among equal scores; 0 where it is missing.
    fine: Vec<f32>,
}

impl Ranking {
    /// By edge pixels per token, raster order ([`super::edge_density`]), and among equal counts by
    /// `fine_score` ([`super::gradient_sum`]; an empty list leaves it out,
    /// [`super::TieBreak::Index`]).
    pub fn by_edges(density: Vec<u32>, fine_score: Vec<f32>) -> Ranking {
        // A token has at most 256 pixels: exact in f32.
        Ranking { score: density.into_iter().map(|count| count as f32).collect(), fine: fine_score }
    }

    /// By any score, one per token in raster order; larger is finer earlier. What is not a number
    /// comes last.
    pub fn by_score(score: &[f32]) -> Ranking {
        Ranking { score: score.to_vec(), fine: vec![] }
    }

    /// The score of each token.
    pub fn scores(&self) -> Vec<f32> {
        self.score.clone()
    }

    /// The `k` first tokens, in ascending order. Among equals the smaller index comes first:
    /// nothing is left to chance, so a flat picture has regions too, and always the same ones. If
    /// `k` exceeds the tokens, all are returned.
    pub fn select(&self, k: usize) -> Vec<u32> {
        // total_cmp alone would put a NaN first and 0 before -0.
        let key = |x: f32| if x.is_nan() { f32::NEG_INFINITY } else { x + 0.0 };
        let fine = |i: u32| key(self.fine.get(i as usize).copied().unwrap_or(0.0));
        let score = |i: u32| key(self.score[i as usize]);
        let mut order: Vec<u32> = (0..self.score.len() as u32).collect();
        order.sort_by(|&a, &b| {
            score(b).total_cmp(&score(a)).then(fine(b).total_cmp(&fine(a))).then(a.cmp(&b))
        });
        order.truncate(k);
        order.sort_unstable();
        order
    }

    /// The regions of a run with a mask, in ascending order.
    ///
    /// `shares` from [`mask_regions`]; a token is painted if its share is at least [`PAINTED`].
    /// With [`MaskMode::Replace`] the painted tokens are the answer, however many; with
    /// [`MaskMode::Add`] they join the `k` that [`Ranking::select`] finds. None or all of the
    /// tokens may come out: see [`super::RaluParams::resolve_regions`] for what a run does then.
    pub fn select_with_mask(&self, mode: MaskMode, shares: &[f32], k: usize) -> Vec<u32> {
        let painted = (0..).zip(shares).filter(|(_, share)| **share >= PAINTED).map(|(i, _)| i);
        let mut regions: Vec<u32> = painted.collect();
        if mode == MaskMode::Add {
            regions.extend(self.select(k));
            regions.sort_unstable();
            regions.dedup();
        }
        regions
    }
}

/// How steep a clean estimate's latents are in each coarse token: the magnitude of 3x3 Sobel's two
/// directions in each latent channel, with replicated borders, summed over the channels and the 2x2
/// latent pixels of the token.
///
/// `tokens`: `[M_d, 4 C]` of `grid`, raster order, as [`super::pack`] has them. RALU's ablation (v3,
/// table S3) has a "gradient kernel" on latents that it does not state; this is ours.
pub fn latent_gradient(tokens: &[f32], grid: Grid) -> Result<Vec<f32>, Error> {
    grid.check()?;
    let (h, w) = (2 * grid.rows, 2 * grid.cols);
    let latents = unpack(tokens, h, w)?;
    let mut scores = vec![0.0; grid.n_tokens()];
    for plane in latents.chunks_exact(h * w) {
        // Neighbours past the border are the border's own pixels.
        let at = |row: usize, col: usize, down: isize, right: isize| {
            let row = row.saturating_add_signed(down).min(h - 1);
            let col = col.saturating_add_signed(right).min(w - 1);
            f64::from(plane[row * w + col])
        };
        for row in 0..h {
            for col in 0..w {
                let near = |down, right| at(row, col, down, right);
                let across = near(-1, 1) + 2.0 * near(0, 1) + near(1, 1)
                    - near(-1, -1)
                    - 2.0 * near(0, -1)
                    - near(1, -1);
                let along = near(1, -1) + 2.0 * near(1, 0) + near(1, 1)
                    - near(-1, -1)
                    - 2.0 * near(-1, 0)
                    - near(-1, 1);
                scores[row / 2 * grid.cols + col / 2] += libm::hypot(across, along);
            }
        }
    }
    Ok(scores.into_iter().map(|score: f64| score as f32).collect())
}

/// How much the clean estimate of each coarse token has changed over the steps of a stage: the
/// variance over `estimates`, averaged over the token's numbers.
///
/// `estimates`: at least two, `[M_d, 4 C]` of `grid` each. AViTS (2026) has it as one half of its
/// score.
pub fn temporal_variance(estimates: &[Vec<f32>], grid: Grid) -> Result<Vec<f32>, Error> {
    grid.check()?;
    let n = estimates.len();
    if n < 2 {
        return Err(Error::Value {
            what: "the number of clean estimates",
            found: n as f64,
            expected: "at least 2",
            hint: "one step has no variance; choose regions by edges or by latent-gradient",
        });
    }
    let n_tokens = grid.n_tokens();
    let width = estimates[0].len().div_ceil(n_tokens).next_multiple_of(4);
    let expected = n_tokens * width;
    for estimate in estimates {
        if estimate.len() != expected {
            return Err(Error::Length {
                what: "a clean estimate",
                found: estimate.len(),
                expected,
                shape: "[tokens, numbers of a token, a multiple of 4]",
            });
        }
    }
    let variance = |i: usize| {
        let mean = estimates.iter().map(|e| f64::from(e[i])).sum::<f64>() / n as f64;
        estimates.iter().map(|e| (f64::from(e[i]) - mean).powi(2)).sum::<f64>() / n as f64
    };
    Ok((0..grid.n_tokens())
        .map(|token| {
            let numbers = token * width..(token + 1) * width;
            (numbers.map(variance).sum::<f64>() / width as f64) as f32
        })
        .collect())
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
