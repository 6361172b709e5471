//! Changes to the matrices of a checkpoint: what LoRA and its relatives come down to.
//!
//! - [`LowRank`]: a product of two narrow matrices, which networks add while they run, whatever the matrix is stored in.
//! - [`Stack`] (`stack.rs`): all of them of one layer, as one pair of matrices.
//! - [`Delta`] (`delta.rs`): the formulas, a row at a time.
//! - [`Merged`] (`merged.rs`): a tensor and what is added to it, as if a file had the sum.
//!
//! What files look like that hold such changes is not known here.

mod delta;
mod merged;
mod stack;

use std::sync::Arc;

pub use delta::Delta;
pub use merged::{Magnitudes, Merged, MergedChange, MergedKind, Norms};
pub use stack::{Layer, Stack};

/// Numbers in rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
    /// `[rows, cols]`, row-major.
    pub values: Vec<f32>,
}

impl Matrix {
    /// `values` as `rows` rows, which they fill.
    pub fn new(rows: usize, values: Vec<f32>) -> Self {
        let cols = values.len() / rows.max(1);
        Matrix { rows, cols, values }
    }

    /// Row `i`.
    pub fn row(&self, i: usize) -> &[f32] {
        &self.values[i * self.cols..][..self.cols]
    }

    /// The product of two matrices, in f64.
    pub fn times(&self, other: &Matrix) -> Matrix {
        let mut values = Vec::with_capacity(self.rows * other.cols);
        let mut sums = vec![0.0; other.cols];
        for i in 0..self.rows {
            sums.fill(0.0);
            add_product(self.row(i), other, &mut sums);
            values.extend(sums.iter().map(|sum| *sum as f32));
        }
        Matrix { rows: self.rows, cols: other.cols, values }
    }
}

/// `out += row * matrix`.
fn add_product(row: &[f32], matrix: &Matrix, out: &mut [f64]) {
    for (factor, own) in row.iter().zip(matrix.values.chunks_exact(matrix.cols.max(1))) {
        let factor = f64::from(*factor);
        out.iter_mut().zip(own).for_each(|(sum, value)| *sum += factor * f64::from(*value));
    }
}

/// Which rows of a layer of a file the rows of a network's layer are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rows {
    /// The first of them.
    pub first: usize,
    /// How many rows the file's layer has.
    pub of: usize,
    /// Whether the halves of the rows are in each other's place. Then they are all of the rows.
    pub are_swapped: bool,
}

impl Rows {
    /// The row of the file for row `i` of the network.
    pub fn of_file(self, i: usize) -> usize {
        match self.are_swapped {
            true => (i + self.of / 2) % self.of,
            false => self.first + i,
        }
    }
}

/// `weight * scale * up * down`, added to a matrix `[n, k]`, with a weight for each file.
#[derive(Clone, Debug)]
pub struct LowRank {
    /// `[rank, k]`. Layers that share it have the same `Arc`.
    pub down: Arc<Matrix>,
    /// `[rows of the file's layer, rank]`.
    pub up: Arc<Matrix>,
    /// Which rows of `up` are the layer's.
    pub rows: Rows,
    /// What the product is multiplied by, besides the weight of its file.
    pub scale: f64,
    /// The number of the file that it is from.
    pub file: usize,
}
