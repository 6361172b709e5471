//! Which tokens there are in a stage, where they lie, and what they are made from.
//!
//! All three stages are lists of tokens over one [`Grid`] of coarse tokens. A coarse token at
//! `(row, col)` covers the four fine tokens `(2 row, 2 col)`, `(2 row, 2 col + 1)`,
//! `(2 row + 1, 2 col)`, `(2 row + 1, 2 col + 1)` of the full grid; its children are numbered 0 to
//! 3 in that order. Coordinates on the full grid name every token without fractions: a coarse
//! token has those of its first child.
//!
//! [`TokenLayout`] is the list of one stage, [`Transition`] leads from one to the next: entry `i`
//! says which token of the previous stage becomes token `i` of the next.
//!
//! The mixed stage's order is the authors': coarse tokens that stay, ascending, then the children
//! of the refined ones, four in a row. The last stage is in raster order; the list that leads
//! there comes first in the authors' order, and [`Transition::raster`] sorts it.
//!
//! Noise recorded from the authors' code is in that unsorted order for *both* transitions, and
//! already correlated (it is `z`, to be scaled by `noise_gain` alone). Measured on two recorded
//! runs: the variance of the sum over four siblings, divided by 4, should be `1 - 4 c`, 0.900 and
//! 0.621. In the second transition it is 0.896 and 0.589 if the rows are read in the unsorted
//! order, 1.001 and 0.892 if they are read as raster; in the first, 0.821 and 0.611 over the last
//! `4 k` rows (few blocks: the first figure's standard error is 0.04). Rows of kept tokens have
//! unit variance. So: renoise with the unsorted list, then sort; or sort such noise with
//! [`Transition::sort_rows`].
//!
//! ```
//! use ralu::sampling::{Grid, TokenLayout, Transition};
//!
//! let grid = Grid { rows: 2, cols: 2 };
//! let mixed = TokenLayout::mixed(grid, &[3])?;
//! assert_eq!(mixed.positions()[2..5], [[1.0, 0.0], [1.0, 1.0], [1.0, 1.5]]);
//! let to_full = Transition::mixed_to_full(grid, &[3])?;
//! assert_eq!((to_full.entries[4].src, to_full.entries[4].child), (1, Some(0)));
//! # Ok::<(), ralu::sampling::Error>(())
//! ```

use super::Error;
use super::rules::Upsample;

/// Longest side of a coarse grid. 32768 pixels; counts and indices then fit 32 bits.
const MAX_SIDE: usize = 1024;

/// A grid of coarse tokens, one per 32 x 32 pixels of the finished picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Grid {
    /// Rows of coarse tokens, height / 32.
    pub rows: usize,
    /// Columns of coarse tokens, width / 32.
    pub cols: usize,
}

impl Grid {
    /// The coarse grid of a picture of `width` x `height` pixels, both multiples of 32.
    pub fn of_image(width: usize, height: usize) -> Result<Grid, Error> {
        let near = |side: usize| (side.saturating_add(16) / 32).max(1).saturating_mul(32);
        if width == 0 || height == 0 || !width.is_multiple_of(32) || !height.is_multiple_of(32) {
            return Err(Error::ImageSize {
                width,
                height,
                near_width: near(width),
                near_height: near(height),
            });
        }
        let grid = Grid { rows: height / 32, cols: width / 32 };
        grid.check()?;
        Ok(grid)
    }

    /// Coarse tokens.
    pub fn n_tokens(self) -> usize {
        self.rows.saturating_mul(self.cols)
    }

    /// Tokens of the full grid, `4 * n_tokens`.
    pub fn n_full_tokens(self) -> usize {
        self.n_tokens().saturating_mul(4)
    }

    /// Rejects empty and absurd grids.
    pub(super) fn check(self) -> Result<(), Error> {
        let fits = |side: usize| (1..=MAX_SIDE).contains(&side);
        if fits(self.rows) && fits(self.cols) {
            Ok(())
        } else {
            Err(Error::GridSize { rows: self.rows, cols: self.cols, max: MAX_SIDE })
        }
    }

    /// Full-grid coordinates of coarse token `index` (of its first child).
    fn corner(self, index: u32) -> (u32, u32) {
        let cols = self.cols as u32;
        (2 * (index / cols), 2 * (index % cols))
    }

    /// Rejects a selection that is not strictly ascending inside the grid; returns, for each
    /// coarse token, whether it is in it.
    fn selected(self, selected: &[u32]) -> Result<Vec<bool>, Error> {
        self.check()?;
        let n_tokens = self.n_tokens();
        let mut chosen = vec![false; n_tokens];
        let mut last = None;
        for (place, &found) in selected.iter().enumerate() {
            if last.is_some_and(|l| found <= l) || found as usize >= n_tokens {
                return Err(Error::Selection { place, found, n_tokens });
            }
            chosen[found as usize] = true;
            last = Some(found);
        }
        Ok(chosen)
    }
}

/// One token of a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token {
    /// Row on the full grid; of the first child, for a coarse token.
    pub full_row: u32,
    /// Column on the full grid; of the first child, for a coarse token.
    pub full_col: u32,
    /// Whether it is a token of the full grid (16 x 16 pixels) rather than a coarse one (32 x 32).
    pub fine: bool,
}

/// The tokens of one stage, in the order of the network's sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenLayout {
    /// The coarse grid all of them lie on.
    pub grid: Grid,
    /// The tokens.
    pub tokens: Vec<Token>,
    /// Whether positions are counted in fine tokens (stage 3) or coarse ones (stages 1 and 2).
    full_units: bool,
}

impl TokenLayout {
    /// Stage 1: all coarse tokens, raster order.
    pub fn low(grid: Grid) -> Result<TokenLayout, Error> {
        TokenLayout::mixed(grid, &[])
    }

    /// Stage 2: the coarse tokens not in `selected`, ascending, then the four children of each
    /// selected one. `selected`: coarse raster indices, strictly ascending.
    pub fn mixed(grid: Grid, selected: &[u32]) -> Result<TokenLayout, Error> {
        let transition = Transition::to_mixed(grid, selected)?;
        Ok(TokenLayout {
            grid,
            tokens: transition
                .entries
                .iter()
                .map(|entry| Token {
                    full_row: entry.full_row,
                    full_col: entry.full_col,
                    fine: entry.child.is_some(),
                })
                .collect(),
            full_units: false,
        })
    }

    /// Stage 3: all fine tokens, raster order.
    pub fn full(grid: Grid) -> Result<TokenLayout, Error> {
        grid.check()?;
        let (rows, cols) = (2 * grid.rows as u32, 2 * grid.cols as u32);
        Ok(TokenLayout {
            grid,
            tokens: (0..rows)
                .flat_map(|full_row| {
                    (0..cols).map(move |full_col| Token { full_row, full_col, fine: true })
                })
                .collect(),
            full_units: true,
        })
    }

    /// Length of the sequence.
    pub fn n_tokens(&self) -> usize {
        self.tokens.len()
    }

    /// `[row, col]` of each token as the network's position embedding takes it.
    ///
    /// Stages 1 and 2 count in coarse tokens, so that coarse tokens have the whole-number spacing
    /// of a half-size picture and their children half steps; stage 3 counts in fine tokens. A
    /// coarse token and its first child share a position, as in the authors' code.
    pub fn positions(&self) -> Vec<[f32; 2]> {
        let unit = if self.full_units { 1.0 } else { 0.5 };
        self.tokens.iter().map(|t| [t.full_row as f32 * unit, t.full_col as f32 * unit]).collect()
    }

    /// `[row, col]` of each token in units of the full grid, whatever the stage: coarse token
    /// `(i, j)` at `(2 i, 2 j)`. [`super::RopeMode::Crpa`] has them for fine queries.
    pub fn positions_in_full_units(&self) -> Vec<[f32; 2]> {
        self.tokens.iter().map(|t| [t.full_row as f32, t.full_col as f32]).collect()
    }
}

/// Row and column at which a grid of `rows` x `cols` tokens, odd or even, begins in a table of
/// positions with `side` x `side` entries: in its middle, rounded down, each axis for itself.
///
/// 64 x 64 tokens of SD3's table of 192 have rows 64 to 127. diffusers' `cropped_pos_embed`. A grid
/// larger than the table is [`Error::TableSize`].
pub fn table_crop(rows: usize, cols: usize, side: usize) -> Result<[f32; 2], Error> {
    if rows > side || cols > side {
        return Err(Error::TableSize { rows, cols, side });
    }
    Ok([((side - rows) / 2) as f32, ((side - cols) / 2) as f32])
}

/// `[row, col]` of each token of a stage in a table of positions with `side` x `side` entries, as
/// SD3 has.
///
/// Stages 1 and 2 lie where a half-size picture does: coarse token `(i, j)` at
/// [`table_crop`]` + (i, j)`, its children half an entry apart. The last stage lies where a plain
/// run has it, on whole entries. No code of the authors' for SD3 is known; this is what their rule
/// for FLUX amounts to about the table's middle, `C = side / 2`: from stage 2 to stage 3, position
/// `p` becomes `C + 2 (p - C)`. That holds exactly where `side` and `side - rows` are even. Where
/// `side - rows` is odd, the coarse grid is cropped half an entry too early, which that formula
/// would double to a whole one: stage 3 has the plain run's place instead, one entry further on.
pub fn table_positions(layout: &TokenLayout, side: usize) -> Result<Vec<[f32; 2]>, Error> {
    let Grid { rows, cols } = layout.grid;
    let scale = if layout.full_units { 2 } else { 1 };
    let [top, left] = table_crop(scale * rows, scale * cols, side)?;
    Ok(layout.positions().into_iter().map(|[row, col]| [top + row, left + col]).collect())
}

/// Where one token of the next stage comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Entry {
    /// Index of the token in the previous stage's sequence.
    pub src: u32,
    /// Which child of that token: 0 to 3 for `(0,0)`, `(0,1)`, `(1,0)`, `(1,1)`. `None` if the
    /// token is kept as it is.
    pub child: Option<u8>,
    /// Row on the full grid; of the first child, for a coarse token that is kept.
    pub full_row: u32,
    /// Column on the full grid; of the first child, for a coarse token that is kept.
    pub full_col: u32,
}

/// The step from one stage's token list to the next, as a plain gather list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    /// One entry per token of the next stage.
    pub entries: Vec<Entry>,
}

impl Transition {
    /// From the coarse grid to the mixed list: tokens not in `selected`, ascending, kept; then the
    /// four children of each selected one. `selected`: coarse raster indices, strictly ascending.
    pub fn to_mixed(grid: Grid, selected: &[u32]) -> Result<Transition, Error> {
        let chosen = grid.selected(selected)?;
        let mut entries = Vec::with_capacity(grid.n_tokens() + 3 * selected.len());
        for index in (0..).zip(&chosen).filter(|(_, c)| !**c).map(|(i, _)| i) {
            let (full_row, full_col) = grid.corner(index);
            entries.push(Entry { src: index, child: None, full_row, full_col });
        }
        for &index in selected {
            entries.extend(children(index, grid.corner(index)));
        }
        Ok(Transition { entries })
    }

    /// From the mixed list to the full grid, in the authors' order: the children of the tokens
    /// that were still coarse, then the fine ones as they are. [`Transition::raster`] sorts it.
    ///
    /// The sorted list with [`Transition::gather`] also turns any mixed-stage array (an estimate of
    /// the clean picture, say) into one over the full grid.
    pub fn mixed_to_full(grid: Grid, selected: &[u32]) -> Result<Transition, Error> {
        let mixed = Transition::to_mixed(grid, selected)?;
        let n_coarse = grid.n_tokens() - selected.len();
        let mut entries = Vec::with_capacity(grid.n_full_tokens());
        for (src, token) in (0..).zip(&mixed.entries[..n_coarse]) {
            entries.extend(children(src, (token.full_row, token.full_col)));
        }
        for (src, token) in (n_coarse as u32..).zip(&mixed.entries[n_coarse..]) {
            entries.push(Entry { src, child: None, ..*token });
        }
        Ok(Transition { entries })
    }

    /// From the coarse grid straight to the full one, raster order: the only transition of a
    /// two-stage run, and the plain view of a coarse array at full size.
    pub fn low_to_full(grid: Grid) -> Result<Transition, Error> {
        Ok(Transition::mixed_to_full(grid, &[])?.raster())
    }

    /// Tokens of the next stage.
    pub fn n_tokens(&self) -> usize {
        self.entries.len()
    }

    /// For each place in raster order of the full grid, the entry that belongs there.
    pub fn sort_permutation(&self) -> Vec<u32> {
        let mut order: Vec<u32> = (0..self.entries.len() as u32).collect();
        order.sort_by_key(|&i| {
            let entry = &self.entries[i as usize];
            (entry.full_row, entry.full_col)
        });
        order
    }

    /// The same transition with its entries in raster order of the full grid.
    pub fn raster(&self) -> Transition {
        Transition {
            entries: self
                .sort_permutation()
                .into_iter()
                .map(|i| self.entries[i as usize])
                .collect(),
        }
    }

    /// Rows `[n, 4 C]` given in this transition's order (noise from outside, for instance), put into
    /// raster order.
    pub fn sort_rows(&self, rows: &[f32]) -> Result<Vec<f32>, Error> {
        let width = check_rows("the rows to sort", rows, self.entries.len())?;
        Ok(self
            .sort_permutation()
            .into_iter()
            .flat_map(|i| row(rows, width, i as usize))
            .copied()
            .collect())
    }

    /// Applies the transition to tokens `[n_previous, 4 C]`; returns `[n_next, 4 C]`. Number `channel * 4 + 2 p + q` of a
    /// token is latent pixel `(p, q)` of its 2x2 patch.
    ///
    /// The plain definition of `Up(x)`, against which a kernel can be checked.
    pub fn gather(&self, tokens: &[f32], upsample: Upsample) -> Result<Vec<f32>, Error> {
        let n_previous = self.entries.iter().map(|e| e.src as usize + 1).max();
        let width = check_rows("the previous stage's tokens", tokens, n_previous.unwrap_or(0))?;
        let mut out = Vec::with_capacity(self.entries.len() * width);
        for entry in &self.entries {
            let from = row(tokens, width, entry.src as usize);
            match (entry.child, upsample) {
                // Child (p, q) is filled with its parent's latent pixel (p, q).
                (Some(child), Upsample::Latent) => out.extend(
                    from.chunks_exact(4).flat_map(|patch| [patch[usize::from(child) & 3]; 4]),
                ),
                _ => out.extend_from_slice(from),
            }
        }
        Ok(out)
    }
}

/// The numbers of a token in a matrix of `n`: a multiple of 4.
fn check_rows(what: &'static str, rows: &[f32], n: usize) -> Result<usize, Error> {
    let width = rows.len().div_ceil(n.max(1)).next_multiple_of(4);
    if rows.len() == n * width {
        return Ok(width);
    }
    let shape = "[tokens, numbers of a token, a multiple of 4]";
    Err(Error::Length { what, found: rows.len(), expected: n * width, shape })
}

/// The four children of coarse token `src` whose first child lies at `corner`.
fn children(src: u32, corner: (u32, u32)) -> [Entry; 4] {
    [0u8, 1, 2, 3].map(|child| Entry {
        src,
        child: Some(child),
        full_row: corner.0 + u32::from(child >> 1),
        full_col: corner.1 + u32::from(child & 1),
    })
}

fn row(rows: &[f32], width: usize, i: usize) -> &[f32] {
    &rows[i * width..(i + 1) * width]
}
