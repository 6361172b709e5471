//! A stored table of positions, as SD3 has it: what is added to an image token for its place.
//!
//! The checkpoint has `[P * P, hidden]`. Row `i * P + j` is for row `i` and column `j` of the table; its first
//! half encodes the column, its second half the row, each as sines, then cosines. diffusers'
//! `get_2d_sincos_pos_embed`.
//!
//! Under RALU, tokens also lie between two entries of the table. There the formula gives the vector, provided that it
//! gives the stored table too; where it does not, the nearest entries are interpolated.

use super::layers::Loader;
use crate::checkpoint::weights::{TensorInfo, WeightError, Weights};

/// Where the table is, and what its formula depends on.
pub struct PositionTable {
    tensor: TensorInfo,
    /// P.
    side: usize,
    hidden: usize,
    /// Coordinate of an entry: its index times this.
    spacing: f64,
}

/// How positions between two entries are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interpolation {
    /// By the formula, which was found to give the stored table.
    Formula,
    /// Linearly, from the nearest entries.
    Linear,
}

impl PositionTable {
    /// Asks for the table `name`, `[1, side * side, hidden]`, whose coordinates run from 0 to `base`.
    pub(super) fn load(
        loader: &Loader<'_>,
        name: &str,
        [side, hidden]: [usize; 2],
        base: usize,
    ) -> Self {
        let mut tensor = loader.path().require_buffer(name, &[1, side * side, hidden]);
        tensor.shape = vec![side * side, hidden];
        PositionTable { tensor, side, hidden, spacing: base as f64 / side as f64 }
    }

    /// P.
    pub fn side(&self) -> usize {
        self.side
    }

    /// Compares the stored table's diagonal, which has every coordinate of both axes, with the formula.
    pub fn check(&self, weights: &Weights) -> Result<Interpolation, WeightError> {
        // Numbers up to 1 were rounded to what they are stored as, and f32 arithmetic of the coordinates adds to that.
        let rounding = self.tensor.dtype.known().map_or(0.0, |row| row.rounding);
        let tolerance = f64::from(rounding) + 1e-4;
        for i in 0..self.side {
            let stored = self.row(weights, i, i)?;
            let formula = self.formula(i as f64, i as f64);
            let agrees = |(a, b): (&f32, &f32)| f64::from(a - b).abs() <= tolerance;
            if !stored.iter().zip(&formula).all(agrees) {
                return Ok(Interpolation::Linear);
            }
        }
        Ok(Interpolation::Formula)
    }

    /// The vectors of tokens at `positions` (row, column) in units of the table's entries, `[N, hidden]`. Positions
    /// outside the table count as on its border.
    pub fn rows(
        &self,
        weights: &Weights,
        positions: &[[f32; 2]],
        interpolation: Interpolation,
    ) -> Result<Vec<f32>, WeightError> {
        let last = (self.side - 1) as f64;
        let mut table = Vec::with_capacity(positions.len() * self.hidden);
        for position in positions {
            let [row, column] = position.map(|x| f64::from(x).clamp(0.0, last));
            let is_entry = row.fract() == 0.0 && column.fract() == 0.0;
            match interpolation {
                _ if is_entry => table.extend(self.row(weights, row as usize, column as usize)?),
                Interpolation::Formula => table.extend(self.formula(row, column)),
                Interpolation::Linear => table.extend(self.interpolated(weights, row, column)?),
            }
        }
        Ok(table)
    }

    fn row(&self, weights: &Weights, row: usize, column: usize) -> Result<Vec<f32>, WeightError> {
        let at = row * self.side + column;
        weights.rows_f32(&self.tensor, at..at + 1)
    }

    fn formula(&self, row: f64, column: f64) -> Vec<f32> {
        let half = self.hidden / 2;
        let quarter = half / 2;
        let mut vector = Vec::with_capacity(self.hidden);
        for position in [column * self.spacing, row * self.spacing] {
            let angle = |j: usize| position * libm::pow(10_000.0, -(j as f64) / quarter as f64);
            vector.extend((0..quarter).map(|j| libm::sin(angle(j)) as f32));
            vector.extend((0..quarter).map(|j| libm::cos(angle(j)) as f32));
        }
        vector
    }

    fn interpolated(
        &self,
        weights: &Weights,
        row: f64,
        column: f64,
    ) -> Result<Vec<f32>, WeightError> {
        let neighbours = |x: f64| {
            let low = x.floor();
            let high = (low + 1.0).min((self.side - 1) as f64);
            [(low as usize, 1.0 - (x - low)), (high as usize, x - low)]
        };
        let mut sum = vec![0.0f32; self.hidden];
        for (i, row_share) in neighbours(row) {
            for (j, column_share) in neighbours(column) {
                let share = (row_share * column_share) as f32;
                if share > 0.0 {
                    let entry = self.row(weights, i, j)?;
                    sum.iter_mut().zip(entry).for_each(|(sum, value)| *sum += share * value);
                }
            }
        }
        Ok(sum)
    }
}
