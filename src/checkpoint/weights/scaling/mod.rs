//! Quantised weights whose scales are tensors of their own: fp8 with a scale, and NF4 of bitsandbytes.
//!
//! - `join.rs` finds what belongs together when a checkpoint is opened. From then on the weight is one tensor with its
//!   logical shape, and what it needs is no longer listed.
//! - [`Scaling`] is what turns the stored codes of such a tensor into numbers. It follows views of rows.
//! - [`Weights::scales`] gives the scales of some rows, for who keeps the codes as they are; everybody else reads numbers.

mod join;
mod layers;
mod nf4;

use std::ops::Range;
use std::sync::Arc;

use super::{Result, TensorInfo, WeightError, Weights, out_of_range, unsupported};
pub(super) use layers::{DeclaredLayer, declared_layers, foreign};
pub use nf4::{NestedScales, Nf4Scales};

/// What turns the codes of a quantised tensor into numbers, where that is not in the codes' type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scaling {
    scales: Arc<Scales>,
    /// Numbers of the whole tensor that lie in front of this view of it.
    first: u64,
}

/// The scales of a whole tensor. Small ones are here, others are read where they are needed.
#[derive(Debug, PartialEq)]
pub enum Scales {
    /// Every number is the code's number times this one, which is positive and finite.
    Tensor(f32),
    /// Every number is the code's number times its row's scale: `[rows]`.
    Rows(TensorInfo),
    /// Every number is one of 16 levels times its block's largest number.
    Nf4(Box<Nf4Scales>),
}

// No scale that is kept is NaN.
impl Eq for Scales {}

impl Scaling {
    fn of(scales: Scales) -> Self {
        Scaling { scales: Arc::new(scales), first: 0 }
    }

    /// The same for a view of the tensor that begins `numbers` numbers, whole rows, after the start of this one.
    #[must_use]
    pub fn after(&self, numbers: u64) -> Self {
        Scaling { first: self.first + numbers, ..self.clone() }
    }

    /// Whether the GPU keeps scales of NF4 quantised, of rows of `width` numbers.
    pub fn stays_quantised(&self, width: usize) -> bool {
        matches!(&*self.scales, Scales::Nf4(nf4) if nf4.stay_quantised(self.first, width))
    }

    /// The scales of the whole tensor.
    pub fn scales(&self) -> &Scales {
        &self.scales
    }
}

impl Weights {
    /// The scales of rows `rows` of a tensor that has a [`Scaling`], row by row: one a row of fp8, and one for each block of
    /// 64 numbers of NF4. None for other tensors.
    pub fn scales(&self, info: &TensorInfo, rows: Range<usize>) -> Result<Vec<f32>> {
        let Some(Scaling { scales, first }) = &info.scaling else { return Ok(vec![]) };
        let n_rows = info.shape.first().copied().unwrap_or(1);
        if rows.start > rows.end || rows.end > n_rows {
            let asked = rows.start as u64..rows.end as u64;
            return Err(out_of_range(info, &asked, n_rows as u64, "rows"));
        }
        if let Some(halves) = info.swapped_halves() {
            let mut scales = Vec::new();
            for (half, start) in halves.iter().zip([0, n_rows / 2]) {
                let [from, to] =
                    [rows.start, rows.end].map(|row| row.clamp(start, start + n_rows / 2) - start);
                scales.extend(self.scales(half, from..to)?);
            }
            return Ok(scales);
        }
        let width = row_width(info);
        let at = |row: usize| first + row as u64 * width;
        match &**scales {
            Scales::Tensor(scale) => Ok(vec![*scale; rows.len()]),
            Scales::Rows(of_rows) => {
                let row0 = first.checked_div(width).unwrap_or(0);
                self.row_scales(of_rows, row0 + rows.start as u64..row0 + rows.end as u64)
            }
            Scales::Nf4(nf4) => nf4.of_numbers(self, at(rows.start)..at(rows.end)),
        }
    }

    /// The words of scales that rows `rows` have in [`Storage::Nf4Double`](crate::tensor::Storage::Nf4Double), four a block. None
    /// where the scales do not [stay quantised](Scaling::stays_quantised).
    pub fn nf4_words(&self, info: &TensorInfo, rows: Range<usize>) -> Result<Vec<u32>> {
        let Some(Scaling { scales, first }) = &info.scaling else { return Ok(vec![]) };
        let n_rows = info.shape.first().copied().unwrap_or(1);
        if rows.start > rows.end || rows.end > n_rows {
            let asked = rows.start as u64..rows.end as u64;
            return Err(out_of_range(info, &asked, n_rows as u64, "rows"));
        }
        let width = row_width(info);
        let at = |row: usize| first + row as u64 * width;
        match &**scales {
            Scales::Nf4(nf4) => nf4.words_of_numbers(self, at(rows.start)..at(rows.end)),
            Scales::Tensor(_) | Scales::Rows(_) => Ok(vec![]),
        }
    }

    /// Appends the numbers of `bytes`, whole blocks of a tensor from number `start` on, to `out`.
    pub(super) fn widen(
        &self,
        info: &TensorInfo,
        start: u64,
        bytes: &[u8],
        out: &mut Vec<f32>,
    ) -> Result<()> {
        let Some(dtype) = info.dtype.known() else { return Err(unsupported(info)) };
        let at = out.len();
        let Some(Scaling { scales, first }) = &info.scaling else {
            dtype.widen(bytes, out);
            return Ok(());
        };
        match &**scales {
            Scales::Tensor(scale) => {
                dtype.widen(bytes, out);
                out[at..].iter_mut().for_each(|value| *value *= scale);
            }
            Scales::Rows(of_rows) => {
                dtype.widen(bytes, out);
                let (width, start) = (row_width(info).max(1), first + start);
                let end = start + (out.len() - at) as u64;
                let rows = start / width..end.div_ceil(width);
                let scales = self.row_scales(of_rows, rows)?;
                // The first row may begin in its middle.
                let mut rest = &mut out[at..];
                let mut left = width - start % width;
                for scale in scales {
                    let (row, others) = rest.split_at_mut(rest.len().min(left as usize));
                    row.iter_mut().for_each(|value| *value *= scale);
                    (rest, left) = (others, width);
                }
            }
            Scales::Nf4(nf4) => nf4.widen(self, first + start, bytes, out)?,
        }
        Ok(())
    }

    fn row_scales(&self, info: &TensorInfo, rows: Range<u64>) -> Result<Vec<f32>> {
        let mut scales = Vec::new();
        self.read_f32(info, rows.clone(), &mut scales)?;
        check_scales(info, rows.start, &scales)?;
        Ok(scales)
    }
}

/// Numbers of a row.
fn row_width(info: &TensorInfo) -> u64 {
    info.shape.iter().skip(1).map(|side| *side as u64).product()
}

/// Finite scales, of which the first is element `start`, are positive.
fn check_scales(info: &TensorInfo, start: u64, scales: &[f32]) -> Result<()> {
    match scales.iter().position(|scale| *scale <= 0.0) {
        None => Ok(()),
        Some(at) => Err(WeightError::Scale {
            name: info.name.to_string(),
            index: start + at as u64,
            value: scales[at],
            file: info.file.to_string(),
        }),
    }
}
