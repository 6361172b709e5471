//! The values of tensors: as f32, and whether they are finite.

use std::ops::Range;

use super::{Result, TensorInfo, WeightError, Weights, out_of_range, unsupported};
use crate::tensor::Block;

impl Weights {
    /// Appends elements `range` of a tensor (row-major) to `out`, as f32. The range begins and ends between blocks.
    ///
    /// Fails with [`WeightError::NotFinite`] at the first NaN or infinity (also a f64 too large for f32).
    pub fn read_f32(&self, info: &TensorInfo, range: Range<u64>, out: &mut Vec<f32>) -> Result<()> {
        let Some(dtype) = info.dtype.known() else {
            return Err(unsupported(info));
        };
        if let Some(halves) = info
            .swapped_halves()
            .filter(|_| range.start <= range.end && range.end <= info.n_elements())
        {
            let middle = info.n_elements() / 2;
            for (half, start) in halves.iter().zip([0, middle]) {
                let [from, to] = [range.start, range.end].map(|at| at.clamp(start, start + middle));
                if from < to {
                    self.read_f32(half, from - start..to - start, out)?;
                }
            }
            return Ok(());
        }
        let within = range.start <= range.end && range.end <= info.n_elements();
        let at = |element| dtype.block.bytes_of(element).filter(|_| within);
        let (Some(start), Some(end)) = (at(range.start), at(range.end)) else {
            return Err(out_of_range(info, &range, info.n_elements(), "elements"));
        };
        let bytes = self.bytes(info, start..end)?;
        let first = out.len();
        self.widen(info, range.start, &bytes, out)?;
        match out[first..].iter().position(|x| !x.is_finite()) {
            None => Ok(()),
            Some(at) => Err(WeightError::NotFinite {
                name: info.name.to_string(),
                index: range.start + at as u64,
                value: out[first + at],
                file: info.file.to_string(),
            }),
        }
    }

    /// Rows `rows` of a tensor of rank 1 or more, as f32: `[rows.len(), the other dimensions]`.
    ///
    /// Meant for embedding tables, of which a prompt needs a few rows.
    pub fn rows_f32(&self, info: &TensorInfo, rows: Range<usize>) -> Result<Vec<f32>> {
        let n_rows = info.shape.first().copied().unwrap_or(0) as u64;
        let asked = rows.start as u64..rows.end as u64;
        if asked.start > asked.end || asked.end > n_rows {
            return Err(out_of_range(info, &asked, n_rows, "rows"));
        }
        let width = info.n_elements().checked_div(n_rows).unwrap_or(0);
        let mut out = Vec::new();
        self.read_f32(info, asked.start * width..asked.end * width, &mut out)?;
        Ok(out)
    }

    /// The whole tensor as f32.
    pub fn tensor_f32(&self, info: &TensorInfo) -> Result<Vec<f32>> {
        let mut out = Vec::new();
        self.read_f32(info, 0..info.n_elements(), &mut out)?;
        Ok(out)
    }

    /// The standard deviations `sqrt(variance + eps)` of a tensor of variances, computed in f64.
    pub fn standard_deviations(&self, info: &TensorInfo, eps: f64) -> Result<Vec<f32>> {
        let mut values = self.tensor_f32(info)?;
        if let Some((index, value)) = values.iter().enumerate().find(|(_, value)| **value < 0.0) {
            return Err(WeightError::NegativeVariance {
                name: info.name.to_string(),
                index,
                value: *value,
                file: info.file.to_string(),
            });
        }
        values.iter_mut().for_each(|value| *value = (f64::from(*value) + eps).sqrt() as f32);
        Ok(values)
    }

    /// Checks whole blocks of a tensor that start at byte `offset` of it for NaN and infinity, without converting them.
    /// Of a tensor that has a [`Scaling`](super::Scaling), these are codes.
    pub fn check_finite(&self, info: &TensorInfo, offset: u64, bytes: &[u8]) -> Result<()> {
        let Some((dtype, at)) =
            info.dtype.known().and_then(|dtype| Some((dtype, dtype.first_not_finite(bytes)?)))
        else {
            return Ok(());
        };
        let Block { numbers, bytes: size } = dtype.block;
        let mut values = Vec::new();
        dtype.widen(&bytes[at / numbers * size..][..size], &mut values);
        Err(WeightError::NotFinite {
            name: info.name.to_string(),
            index: offset / size as u64 * numbers as u64 + at as u64,
            value: values.get(at % numbers).copied().unwrap_or(f32::NAN),
            file: info.file.to_string(),
        })
    }
}
