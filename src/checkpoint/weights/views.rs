//! Views of tensors: other names and shapes, some of the rows, halves that change places. Nothing is read or copied; what
//! reads a tensor sees what the view shows.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::{Result, TensorInfo, WeightError, Weights};
use crate::checkpoint::dtype::StoredDType;
use crate::checkpoint::source::{Blob, SourceError};

impl TensorInfo {
    /// The same tensor under another name.
    #[must_use]
    pub fn renamed(&self, name: impl Into<Arc<str>>) -> Self {
        TensorInfo { name: name.into(), ..self.clone() }
    }

    /// Rows `rows`: a range along the first dimension. `None` if they are not all there, or do not begin and end between
    /// blocks.
    pub fn rows(&self, rows: Range<usize>) -> Option<Self> {
        let (n, inner) = self.shape.split_first()?;
        if rows.start > rows.end || rows.end > *n || self.halves_swapped {
            return None;
        }
        let block = self.dtype.known()?.block;
        let width = inner.iter().try_fold(1u64, |n, side| n.checked_mul(*side as u64))?;
        let at = |row: usize| block.bytes_of((row as u64).checked_mul(width)?);
        let start = self.range.start;
        let range = start + at(rows.start)?..start + at(rows.end)?;
        let mut shape = self.shape.clone();
        shape[0] = rows.len();
        let scaling = self.scaling.as_ref().map(|scaling| scaling.after(rows.start as u64 * width));
        Some(TensorInfo { shape, range, scaling, ..self.clone() })
    }

    /// The same tensor with the two halves of its rows in each other's place. `None` if the middle is not between rows and
    /// blocks.
    pub fn with_halves_swapped(&self) -> Option<Self> {
        let rows = self.shape.first().filter(|rows| rows.is_multiple_of(2))?;
        self.rows(0..rows / 2)?;
        Some(TensorInfo { halves_swapped: true, ..self.clone() })
    }

    /// The halves of a tensor whose halves are swapped, in their new order, each as it lies in the file; `None` for others.
    pub fn swapped_halves(&self) -> Option<[TensorInfo; 2]> {
        let rows = *self.shape.first().filter(|_| self.halves_swapped)?;
        let stored = TensorInfo { halves_swapped: false, ..self.clone() };
        Some([stored.rows(rows / 2..rows)?, stored.rows(0..rows / 2)?])
    }

    /// The same numbers in another shape; `None` if it has more or fewer.
    pub fn reshaped(&self, shape: &[usize]) -> Option<Self> {
        let n = shape.iter().try_fold(1u64, |n, side| n.checked_mul(*side as u64));
        (n == Some(self.n_elements())).then(|| TensorInfo { shape: shape.to_vec(), ..self.clone() })
    }
}

impl Weights {
    /// The same files with other tensors: views of this checkpoint's, found by their names.
    #[must_use]
    pub fn with_views(&self, views: impl IntoIterator<Item = TensorInfo>) -> Self {
        let tensors: BTreeMap<_, _> =
            views.into_iter().map(|info| (info.name.clone(), info)).collect();
        // Not a clone with other tensors: that would copy those of a whole checkpoint first.
        let Weights { place, shards, files, gguf, missing, low_rank, .. } = self;
        Weights {
            place: place.clone(),
            shards: shards.clone(),
            files: files.clone(),
            gguf: gguf.clone(),
            declared: Vec::new(),
            missing: missing.clone(),
            low_rank: low_rank.clone(),
            tensors,
        }
    }

    /// Adds a tensor of f32 numbers that no file has. `file` is where messages say that it is from.
    pub fn insert_f32(&mut self, name: &str, shape: &[usize], values: &[f32], file: &str) {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let made = Made { bytes, file: file.into() };
        self.insert_computed(name, shape, Arc::new(made), file);
    }

    /// Adds a tensor, or puts it in another's place, whose f32 numbers `blob` has. `file` is where messages say that it is
    /// from.
    pub fn insert_computed(
        &mut self,
        name: &str,
        shape: &[usize],
        blob: Arc<dyn Blob>,
        file: &str,
    ) {
        let name: Arc<str> = name.into();
        let (range, shard) = (0..blob.len(), self.shards.len());
        let dtype = StoredDType::named("F32");
        let info =
            TensorInfo::stored(name.clone(), dtype, shape.to_vec(), file.into(), range, shard);
        self.shards.push(blob);
        self.tensors.insert(name, info);
    }
}

/// Numbers that were made here.
struct Made {
    bytes: Vec<u8>,
    file: Arc<str>,
}

impl Blob for Made {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn bytes(&self, range: Range<u64>) -> std::result::Result<Cow<'_, [u8]>, SourceError> {
        let inside = self.bytes.get(range.start as usize..range.end as usize);
        inside.map(Cow::Borrowed).ok_or_else(|| SourceError::OutOfRange {
            path: self.file.to_string(),
            start: range.start,
            end: range.end,
            len: self.bytes.len() as u64,
        })
    }
}

/// The error that rows of a tensor are no layers of their own.
pub(crate) fn not_split(info: &TensorInfo, expected: impl Into<String>) -> WeightError {
    WeightError::NotSplit {
        name: info.name.to_string(),
        shape: info.shape.clone(),
        expected: expected.into(),
        file: info.file.to_string(),
    }
}

/// What a check of views gives.
pub(crate) type Viewed = Result<Vec<TensorInfo>>;
