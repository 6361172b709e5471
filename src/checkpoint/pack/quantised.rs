//! Weights that are quantised while they are loaded: rows are read as f32 and become rows of the format, which from there on
//! are packed as if the file had them. Nothing but a tile of a weight is ever in both.
//!
//! Numbers of fp8 share a scale, so the caller has all rows read once before the first is packed: [`Packer::measure`].

use std::borrow::Cow;
use std::ops::Range;
use std::slice;

use super::{Packer, RowSource, Rows, scales};
use crate::checkpoint::quantise::{QuantFormat, fp8_scale, largest};
use crate::checkpoint::weights::{WeightError, Weights, unsupported};

/// What a weight is quantised to on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quantised {
    /// The format.
    pub format: QuantFormat,
    /// Whether all sources of a weight share the scale of fp8, as they do where a file has them as one tensor.
    pub shares_scale: bool,
}

/// Rows that are measured at once.
const ROWS_AT_ONCE: usize = 64;

/// Rows of a tensor that are to be quantised, as f32. All sources of a tile are read before one of them is quantised: where
/// bytes have to be fetched, reading is repeated until they are there.
pub(super) struct Numbers<'w> {
    source: &'w RowSource,
    format: QuantFormat,
    /// Of fp8.
    scale: f32,
    /// Runs of rows.
    runs: Vec<Vec<f32>>,
}

impl<'w> Numbers<'w> {
    /// Reads the rows that are outputs `outputs` of `source`.
    pub fn read(
        weights: &Weights,
        source: &'w RowSource,
        outputs: Range<usize>,
        (format, scale): (QuantFormat, f32),
    ) -> Result<Self, WeightError> {
        let runs = source.runs(outputs).into_iter();
        let runs =
            runs.map(|rows| weights.rows_f32(&source.tensor, rows)).collect::<Result<_, _>>()?;
        Ok(Numbers { source, format, scale, runs })
    }

    /// Quantises them.
    pub fn rows(self) -> Result<Rows<'w>, WeightError> {
        let Numbers { source: RowSource { tensor, .. }, format, scale, runs } = self;
        let dtype = format.dtype();
        let width: u64 = tensor.shape.iter().skip(1).map(|side| *side as u64).product();
        let Some(row_bytes) = dtype.block.bytes_of(width) else {
            return Err(unsupported(tensor));
        };
        let mut scales = vec![];
        let mut quantise = |values: Vec<f32>| {
            let mut codes = Vec::new();
            format.quantise(&values, scale, &mut codes, &mut scales);
            // The scale of a block may be more than f16 holds.
            match dtype.first_not_finite(&codes) {
                None => Ok(Cow::Owned(codes)),
                Some(_) => Err(WeightError::BeyondFormat {
                    name: tensor.name.to_string(),
                    format: format.name(),
                    file: tensor.file.to_string(),
                }),
            }
        };
        let runs: Vec<Cow<'w, [u8]>> =
            runs.into_iter().map(&mut quantise).collect::<Result<_, _>>()?;
        let scales = scales.into_iter().map(f32::to_bits).collect();
        Ok(Rows { tensor, dtype, row_bytes: row_bytes as usize, runs, scales })
    }
}

impl RowSource {
    /// Whether all its numbers share a scale that has to be measured.
    fn has_measured_scale(&self) -> bool {
        self.quantised.is_some_and(|quantised| quantised.format == QuantFormat::Fp8)
    }
}

impl Packer {
    /// Begins with the sources of another weight: none of them is measured yet.
    pub fn begin(&mut self, sources: &[RowSource]) {
        self.fp8_scales.clear();
        self.fp8_scales.resize(sources.len(), 0.0);
    }

    /// Reads some rows of `sources` for the scales of those that are quantised to fp8: `step` counts from 0. Whether there are
    /// more. After the last of them [`Packer::end`] is to be called.
    pub fn measure(
        &mut self,
        weights: &Weights,
        sources: &[RowSource],
        step: usize,
    ) -> Result<bool, WeightError> {
        let mut left = step;
        for (i, source) in sources.iter().enumerate() {
            let rows = source.tensor.shape.first().copied().unwrap_or(0);
            let steps = rows.div_ceil(ROWS_AT_ONCE);
            if !source.has_measured_scale() {
                continue;
            }
            if left >= steps {
                left -= steps;
                continue;
            }
            // All rows of the tensor, of which the weight may have a part: they share the scale in a file, too.
            let first = left * ROWS_AT_ONCE;
            let values = weights.rows_f32(&source.tensor, first..rows.min(first + ROWS_AT_ONCE))?;
            self.fp8_scales[i] = self.fp8_scales[i].max(largest(&values));
            return Ok(true);
        }
        Ok(false)
    }

    /// Makes scales of what was measured of `sources`.
    pub fn end(&mut self, sources: &[RowSource]) {
        let all = largest(&self.fp8_scales);
        for (most, source) in self.fp8_scales.iter_mut().zip(sources) {
            let shares = source.quantised.is_some_and(|quantised| quantised.shares_scale);
            *most = fp8_scale(if shares { all } else { *most });
        }
    }

    /// Takes over what `other` has measured: both pack tiles of one weight.
    pub fn measured_like(&mut self, other: &Packer) {
        self.fp8_scales.clone_from(&other.fp8_scales);
    }

    /// What the numbers of each row of `sources` are to be multiplied by, as [`scales()`] says it, and those that
    /// were measured.
    pub fn scales(
        &self,
        weights: &Weights,
        sources: &[RowSource],
    ) -> Result<Vec<f32>, WeightError> {
        let mut all = Vec::new();
        for (source, measured) in sources.iter().zip(&self.fp8_scales) {
            match source.quantised {
                Some(_) => all.resize(all.len() + source.n, *measured),
                None => all.extend(scales(weights, slice::from_ref(source))?),
            }
        }
        Ok(all)
    }
}
