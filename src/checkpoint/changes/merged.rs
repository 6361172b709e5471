//! A tensor with changes, as a file of f32 numbers that is computed as it is read.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use super::{Delta, Rows};
use crate::checkpoint::source::{Blob, SourceError};
use crate::checkpoint::weights::{TensorInfo, WeightError, Weights};
use crate::sync::Locked;

/// One change of a tensor.
#[derive(Clone)]
pub struct MergedChange {
    /// What is added for a weight of 1.
    pub delta: Arc<Delta>,
    /// Which rows of it are the tensor's.
    pub rows: Rows,
    /// What the change is multiplied by.
    pub weight: f64,
    /// What becomes of it.
    pub kind: MergedKind,
}

/// How a change is merged.
#[derive(Clone)]
pub enum MergedKind {
    /// It is added.
    Added,
    /// It takes the tensor's place.
    Replacing,
    /// The sum is scaled: DoRA.
    Scaled(Magnitudes),
}

/// DoRA: the sum `V = W + ΔW` is scaled to these norms, and the change is the difference to `W`.
#[derive(Clone)]
pub struct Magnitudes {
    /// A norm for each row of the file's layer, or for each of its columns.
    pub norms: Arc<[f32]>,
    /// With a norm for each column: those of `V`.
    pub columns: Option<Arc<Norms>>,
}

/// The norms of the columns of `V`, over the rows of all tensors that the file's layer consists of. Found when they are
/// first asked for.
pub struct Norms {
    base: Arc<Weights>,
    /// The tensors, with their rows.
    parts: Vec<(TensorInfo, Rows)>,
    delta: Arc<Delta>,
    found: Locked<Option<Arc<[f64]>>>,
}

impl Norms {
    /// Those of `base`'s tensors `parts` with `delta`.
    pub fn new(base: Arc<Weights>, parts: Vec<(TensorInfo, Rows)>, delta: Arc<Delta>) -> Self {
        Norms { base, parts, delta, found: Locked::default() }
    }

    fn get(&self) -> Result<Arc<[f64]>, SourceError> {
        if let Some(found) = &*self.found.lock() {
            return Ok(found.clone());
        }
        let [_, cols] = self.delta.shape();
        let mut squares = vec![0.0; cols];
        for (info, rows) in &self.parts {
            for i in 0..info.shape.first().copied().unwrap_or(0) {
                let own = row(&self.base, info, i)?;
                let added = self.delta.row(rows.of_file(i));
                let values = own.iter().zip(added).map(|(own, added)| own + added);
                squares.iter_mut().zip(values).for_each(|(sum, value)| *sum += value * value);
            }
        }
        let found: Arc<[f64]> = squares.into_iter().map(f64::sqrt).collect();
        self.found.set(Some(found.clone()));
        Ok(found)
    }
}

/// Row `i` of a tensor.
fn row(base: &Weights, info: &TensorInfo, i: usize) -> Result<Vec<f64>, SourceError> {
    let values = base.rows_f32(info, i..i + 1).map_err(|error| match error {
        WeightError::Source(error) => error,
        error => SourceError::Unreadable { path: info.file.to_string(), reason: error.to_string() },
    })?;
    Ok(values.into_iter().map(f64::from).collect())
}

/// A tensor of a checkpoint and what is added to it, in f32.
pub struct Merged {
    base: Arc<Weights>,
    info: TensorInfo,
    changes: Vec<MergedChange>,
}

impl Merged {
    /// The tensor `info` of `base`, of one dimension or more, with `changes`.
    pub fn new(base: Arc<Weights>, info: TensorInfo, changes: Vec<MergedChange>) -> Self {
        Merged { base, info, changes }
    }

    fn cols(&self) -> usize {
        self.info.shape.iter().skip(1).product()
    }

    /// Row `i` of the sum. All changes are worked out against the stored row.
    fn row(&self, i: usize) -> Result<Vec<f64>, SourceError> {
        let own = row(&self.base, &self.info, i)?;
        let mut sum = own.clone();
        for MergedChange { delta, rows, weight, kind } in &self.changes {
            let at = rows.of_file(i);
            let mut change = delta.row(at);
            if let MergedKind::Replacing = kind {
                change.iter_mut().zip(&own).for_each(|(change, own)| *change -= own);
            }
            if let MergedKind::Scaled(Magnitudes { norms, columns }) = kind {
                let whole = |(own, change): (&f64, &f64)| own + change;
                let v: Vec<f64> = own.iter().zip(&change).map(whole).collect();
                let factor = |norm: f64, found: f64| if found > 0.0 { norm / found } else { 0.0 };
                let scaled: Vec<f64> = match columns {
                    Some(columns) => {
                        let found = columns.get()?;
                        let found = found.iter().zip(norms.iter());
                        let factors = found.map(|(found, norm)| factor(f64::from(*norm), *found));
                        v.iter().zip(factors).map(|(v, factor)| v * factor).collect()
                    }
                    None => {
                        let found = v.iter().map(|v| v * v).sum::<f64>().sqrt();
                        let factor = factor(f64::from(norms[at]), found);
                        v.iter().map(|v| v * factor).collect()
                    }
                };
                let differences = scaled.iter().zip(&own).map(|(scaled, own)| scaled - own);
                change = differences.collect();
            }
            sum.iter_mut().zip(change).for_each(|(sum, change)| *sum += weight * change);
        }
        Ok(sum)
    }
}

impl Blob for Merged {
    fn len(&self) -> u64 {
        4 * self.info.n_elements()
    }

    fn bytes(&self, range: Range<u64>) -> Result<Cow<'_, [u8]>, SourceError> {
        if range.start > range.end || range.end > self.len() {
            let (path, len) = (self.info.file.to_string(), self.len());
            return Err(SourceError::OutOfRange { path, start: range.start, end: range.end, len });
        }
        let row_bytes = 4 * self.cols() as u64;
        let rows = range.start / row_bytes..range.end.div_ceil(row_bytes);
        let mut bytes = Vec::with_capacity(((rows.end - rows.start) * row_bytes) as usize);
        for i in rows.clone() {
            let row = self.row(i as usize)?;
            bytes.extend(row.into_iter().flat_map(|value| (value as f32).to_le_bytes()));
        }
        let start = (range.start - rows.start * row_bytes) as usize;
        let end = start + (range.end - range.start) as usize;
        Ok(bytes[start..end].to_vec().into())
    }
}
