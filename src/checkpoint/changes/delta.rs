//! The formulas of changes, a row at a time, in f64.

use std::sync::Arc;

use super::{Matrix, add_product};

/// What is added to a matrix `[out, in]`, for a weight of 1.
#[derive(Clone, Debug)]
pub enum Delta {
    /// LoRA: `scale * up * down`.
    Product {
        /// `[out, rank]`.
        up: Arc<Matrix>,
        /// `[rank, in]`.
        down: Arc<Matrix>,
        /// What it is multiplied by.
        scale: f64,
    },
    /// LoHa: `scale * (a1 * b1) ⊙ (a2 * b2)`.
    Hadamard {
        /// `[out, rank]` and `[rank, in]`, twice.
        factors: [Matrix; 4],
        /// What it is multiplied by.
        scale: f64,
    },
    /// LoKr: `scale * kron(w1, w2)`.
    Kronecker {
        /// `[a, c]`.
        w1: Matrix,
        /// `[b, d]`; `out = a b`, `in = c d`.
        w2: Matrix,
        /// What it is multiplied by.
        scale: f64,
    },
    /// All numbers of it.
    Dense(Matrix),
}

impl Delta {
    /// Rows and columns.
    pub fn shape(&self) -> [usize; 2] {
        match self {
            Delta::Product { up, down, .. } => [up.rows, down.cols],
            Delta::Hadamard { factors: [a, b, ..], .. } => [a.rows, b.cols],
            Delta::Kronecker { w1, w2, .. } => {
                [w1.rows.saturating_mul(w2.rows), w1.cols.saturating_mul(w2.cols)]
            }
            Delta::Dense(matrix) => [matrix.rows, matrix.cols],
        }
    }

    /// Row `i`.
    pub fn row(&self, i: usize) -> Vec<f64> {
        let [_, cols] = self.shape();
        let mut row = vec![0.0; cols];
        match self {
            Delta::Product { up, down, scale } => {
                add_product(up.row(i), down, &mut row);
                row.iter_mut().for_each(|value| *value *= scale);
            }
            Delta::Hadamard { factors: [a1, b1, a2, b2], scale } => {
                let mut other = vec![0.0; cols];
                add_product(a1.row(i), b1, &mut row);
                add_product(a2.row(i), b2, &mut other);
                row.iter_mut().zip(other).for_each(|(value, other)| *value *= scale * other);
            }
            Delta::Kronecker { w1, w2, scale } => {
                let (outer, inner) = (w1.row(i / w2.rows), w2.row(i % w2.rows));
                for (block, outer) in row.chunks_exact_mut(w2.cols).zip(outer) {
                    let factor = scale * f64::from(*outer);
                    let values = block.iter_mut().zip(inner);
                    values.for_each(|(value, inner)| *value = factor * f64::from(*inner));
                }
            }
            Delta::Dense(matrix) => {
                let values = row.iter_mut().zip(matrix.row(i));
                values.for_each(|(value, own)| *value = f64::from(*own));
            }
        }
        row
    }

    /// Whether it is zero everywhere, as far as single factors tell.
    pub fn is_zero(&self) -> bool {
        let zero = |matrix: &Matrix| matrix.values.iter().all(|value| *value == 0.0);
        match self {
            Delta::Product { up, down, scale } => *scale == 0.0 || zero(up) || zero(down),
            Delta::Hadamard { factors, scale } => *scale == 0.0 || factors.iter().any(zero),
            Delta::Kronecker { w1, w2, scale } => *scale == 0.0 || zero(w1) || zero(w2),
            Delta::Dense(matrix) => zero(matrix),
        }
    }
}
