//! Packing: from a checkpoint's rows to the order that kernels read, `[N / tile][K][tile]`.
//!
//! Where the GPU keeps a quantised type in blocks, rows become the words of such blocks first (`blocks`), and words take the
//! place of numbers.

mod blocks;
mod quantised;
mod transpose;

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use self::quantised::Numbers;
pub use self::quantised::Quantised;
use self::transpose::transpose;
use super::dtype::{DTYPES, DType};
use super::weights::{TensorInfo, WeightError, Weights, unsupported};
use crate::tensor::{PackedWeight, Storage};

/// Where consecutive outputs of a weight are from: rows of one tensor.
#[derive(Clone, Debug)]
pub struct RowSource {
    /// `[rows, K]` or `[rows, C, 3, 3]`.
    pub tensor: TensorInfo,
    /// Number of outputs.
    pub n: usize,
    /// Which row each output is; `None` is as stored.
    pub order: Option<Arc<[usize]>>,
    /// What its numbers are quantised to on the way, if they are.
    pub quantised: Option<Quantised>,
}

impl RowSource {
    /// The first `n` rows of `tensor`, as they are stored.
    pub fn rows(tensor: TensorInfo, n: usize) -> Self {
        RowSource { tensor, n, order: None, quantised: None }
    }

    /// Runs of consecutive rows that are outputs `outputs`.
    fn runs(&self, outputs: Range<usize>) -> Vec<Range<usize>> {
        match &self.order {
            None => vec![outputs],
            Some(order) => order[outputs].iter().map(|row| *row..row + 1).collect(),
        }
    }
}

/// The numbers of a vector that lies in `sources`, tensors `[rows]`, one after the other.
pub fn vector(weights: &Weights, sources: &[RowSource]) -> Result<Vec<f32>, WeightError> {
    let mut all = Vec::new();
    for source in sources {
        let values = weights.tensor_f32(&source.tensor)?;
        all.extend(source.runs(0..source.n).into_iter().flat_map(|run| &values[run]));
    }
    Ok(all)
}

/// What the numbers of each row of `sources`, none of which is quantised on the way, are to be multiplied by: the scales of
/// fp8, and one for rows without.
pub fn scales(weights: &Weights, sources: &[RowSource]) -> Result<Vec<f32>, WeightError> {
    let mut all = Vec::new();
    for source in sources {
        if source.tensor.scaling.is_none() {
            all.resize(all.len() + source.n, 1.0);
            continue;
        }
        for rows in source.runs(0..source.n) {
            all.extend(weights.scales(&source.tensor, rows)?);
        }
    }
    Ok(all)
}

/// Packs the tiles of weights, one after the other, in memory of its own.
#[derive(Default)]
pub struct Packer {
    packed: Vec<u8>,
    converted: Vec<u8>,
    words: Vec<u32>,
    values: Vec<f32>,
    /// Of the weight that is packed: see `quantised.rs`.
    fp8_scales: Vec<f32>,
}

impl Packer {
    /// Packs outputs `first..first + weight.tile` of a weight as [`PackedWeight`] describes: `[K][tile]`. `sources` are all
    /// `N` outputs, in order.
    ///
    /// Reads only those rows of the checkpoint. Fails on NaN and infinity, and on what does not fit f16 or a format that it
    /// is quantised to. Outputs past `N` are zero. Sources that are quantised to fp8 are [measured](Packer::measure) first.
    pub fn tile(
        &mut self,
        weights: &Weights,
        sources: &[RowSource],
        weight: &PackedWeight,
        first: usize,
    ) -> Result<&[u8], WeightError> {
        let (k, tile) = (weight.k, weight.tile);
        let mut read = Vec::new();
        let mut start = 0;
        for (i, source) in sources.iter().enumerate() {
            let [from, to] = [first, first + tile].map(|at| at.saturating_sub(start).min(source.n));
            if from < to {
                let scale = self.fp8_scales.get(i).copied().unwrap_or(1.0);
                read.push(match source.quantised {
                    Some(Quantised { format, .. }) => {
                        Read::Wide(Numbers::read(weights, source, from..to, (format, scale))?)
                    }
                    None => {
                        Read::Stored(Rows::read(weights, source, from..to, (k, weight.storage))?)
                    }
                });
            }
            start += source.n;
        }
        let read: Vec<Rows<'_>> = read.into_iter().map(Read::rows).collect::<Result<_, _>>()?;
        let rows: Vec<&[u8]> = read.iter().flat_map(Rows::iter).collect();

        if read.iter().all(|rows| rows.are_kept_as_is(weight.storage)) {
            let scales: Vec<u32> = read.iter().flat_map(|rows| &rows.scales).copied().collect();
            return Ok(self.rows(&rows, &scales, weight));
        }
        let mut converted = std::mem::take(&mut self.converted);
        converted.clear();
        for rows in &read {
            for row in rows.iter() {
                self.convert(rows.tensor, rows.dtype, row, weight.storage, &mut converted)?;
            }
        }
        let row_bytes = weight.storage.bytes_of(k) as usize;
        let rows: Vec<&[u8]> = converted.chunks_exact(row_bytes).collect();
        transpose_tile(&rows, weight, &mut self.packed);
        self.converted = converted;
        Ok(&self.packed)
    }

    /// Packs rows, at most a tile, whose numbers are kept as they are: rows of the type that `weight.storage` keeps. `scales`
    /// are the words of scales of NF4's blocks, row by row; other types have none.
    pub fn rows(&mut self, rows: &[&[u8]], scales: &[u32], weight: &PackedWeight) -> &[u8] {
        if weight.storage.is_packed() {
            self.words.clear();
            if weight.storage.with_single_scales() == Storage::Nf4 {
                let (storage, blocks) = (weight.storage, weight.k / weight.storage.block().numbers);
                let scales = scales.chunks_exact(blocks * storage.scale_words());
                rows.iter().zip(scales).for_each(|(row, scales)| {
                    blocks::words_of_nf4(storage, row, scales, &mut self.words);
                });
            } else {
                let append =
                    |row: &&[u8]| blocks::words_of_row(weight.storage, row, &mut self.words);
                rows.iter().for_each(append);
            }
            let bytes = bytemuck::cast_slice::<u32, u8>(&self.words);
            let row_bytes = weight.storage.bytes_of(weight.k) as usize;
            let rows: Vec<&[u8]> = bytes.chunks_exact(row_bytes).collect();
            transpose_tile(&rows, weight, &mut self.packed);
        } else {
            transpose_tile(rows, weight, &mut self.packed);
        }
        &self.packed
    }

    /// Packs outputs `first..first + weight.tile` of a matrix in f32, of which `row` gives output by output. Those past `N` are
    /// zero.
    pub fn computed(
        &mut self,
        weight: &PackedWeight,
        first: usize,
        mut row: impl FnMut(usize, &mut [f32]),
    ) -> &[u8] {
        let n = weight.n.saturating_sub(first).min(weight.tile);
        self.values.clear();
        self.values.resize(n * weight.k, 0.0);
        for (i, values) in self.values.chunks_exact_mut(weight.k).enumerate() {
            row(first + i, values);
        }
        let bytes: &[u8] = bytemuck::cast_slice(&self.values);
        let rows: Vec<&[u8]> = bytes.chunks_exact(4 * weight.k).collect();
        transpose_tile(&rows, weight, &mut self.packed);
        &self.packed
    }

    /// The tile that was packed last.
    pub fn packed(&self) -> &[u8] {
        &self.packed
    }

    /// Appends a row to `converted`: in another type, and with a kernel's taps in front of its channels.
    fn convert(
        &mut self,
        tensor: &TensorInfo,
        dtype: &DType,
        row: &[u8],
        storage: Storage,
        converted: &mut Vec<u8>,
    ) -> Result<(), WeightError> {
        self.values.clear();
        dtype.widen(row, &mut self.values);
        let taps = tensor.taps();
        if taps > 1 {
            let channels = self.values.len() / taps;
            let stored = self.values.clone();
            for (i, value) in self.values.iter_mut().enumerate() {
                *value = stored[i % channels * taps + i / channels];
            }
        }
        match storage {
            Storage::F32 => converted.extend(self.values.iter().flat_map(|v| v.to_le_bytes())),
            Storage::F16 => {
                // A weight beyond it would become infinite, and the picture black.
                let largest = f32::from(f16::MAX);
                if let Some(beyond) = self.values.iter().find(|v| v.abs() > largest) {
                    return Err(WeightError::BeyondF16 {
                        name: tensor.name.to_string(),
                        value: *beyond,
                        file: tensor.file.to_string(),
                    });
                }
                let mut halves = vec![f16::ZERO; self.values.len()];
                halves.convert_from_f32_slice(&self.values);
                converted.extend(halves.iter().flat_map(|v| v.to_le_bytes()));
            }
            Storage::Bf16 => {
                let halves = self.values.iter().map(|v| bf16::from_f32(*v));
                converted.extend(halves.flat_map(|v| v.to_le_bytes()));
            }
            // Only what is stored so is kept so.
            _ => {
                return Err(WeightError::NotNarrowed {
                    name: tensor.name.to_string(),
                    dtype: dtype.name,
                    storage,
                    file: tensor.file.to_string(),
                });
            }
        }
        Ok(())
    }
}

/// What was read of a source.
enum Read<'w> {
    Stored(Rows<'w>),
    Wide(Numbers<'w>),
}

impl<'w> Read<'w> {
    fn rows(self) -> Result<Rows<'w>, WeightError> {
        match self {
            Read::Stored(rows) => Ok(rows),
            Read::Wide(numbers) => numbers.rows(),
        }
    }
}

/// Rows of a tensor, as they are stored; as f32, if they need scales that are not kept with them.
struct Rows<'w> {
    tensor: &'w TensorInfo,
    dtype: &'static DType,
    /// Bytes of a row.
    row_bytes: usize,
    /// Runs of rows.
    runs: Vec<Cow<'w, [u8]>>,
    /// The words of scales of NF4's blocks, row by row.
    scales: Vec<u32>,
}

impl<'w> Rows<'w> {
    /// The rows of `k` numbers that are outputs `outputs` of `source`, all of them finite, to be kept as `storage`.
    fn read(
        weights: &'w Weights,
        source: &'w RowSource,
        outputs: Range<usize>,
        (k, storage): (usize, Storage),
    ) -> Result<Self, WeightError> {
        let tensor = &source.tensor;
        // A row is whole blocks.
        let known = tensor.dtype.known();
        let row = known.and_then(|dtype| Some((dtype, dtype.block.bytes_of(k as u64)?)));
        let Some((dtype, row_bytes)) = row else {
            return Err(unsupported(tensor));
        };
        let (mut runs, mut scales) = (Vec::new(), Vec::new());
        let is_kept = tensor.taps() == 1 && dtype.is_kept_as_is(storage);
        if tensor.scaling.is_some() && !is_kept {
            for rows in source.runs(outputs) {
                let [start, end] = [rows.start, rows.end].map(|row| row as u64 * k as u64);
                let mut values = Vec::new();
                weights.read_f32(tensor, start..end, &mut values)?;
                runs.push(Cow::Owned(bytemuck::cast_slice(&values).to_vec()));
            }
            return Ok(Rows { tensor, dtype: &DTYPES[0], row_bytes: 4 * k, runs, scales });
        }
        for rows in source.runs(outputs) {
            let [start, end] = [rows.start, rows.end].map(|row| row as u64 * row_bytes);
            let bytes = weights.bytes(tensor, start..end)?;
            weights.check_finite(tensor, start, &bytes)?;
            runs.push(bytes);
            match storage {
                Storage::Nf4 => {
                    scales.extend(weights.scales(tensor, rows)?.into_iter().map(f32::to_bits));
                }
                Storage::Nf4Double => scales.extend(weights.nf4_words(tensor, rows)?),
                _ => {}
            }
        }
        Ok(Rows { tensor, dtype, row_bytes: row_bytes as usize, runs, scales })
    }

    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.runs.iter().flat_map(|run| run.chunks_exact(self.row_bytes))
    }

    /// A 3x3 kernel is not: it is stored `[N, C, 3, 3]` and wanted as (ky, kx, c).
    fn are_kept_as_is(&self, storage: Storage) -> bool {
        self.tensor.taps() == 1 && self.dtype.is_kept_as_is(storage)
    }
}

/// Rows of a storage, at most a tile, as a tile; zeros past their end.
fn transpose_tile(rows: &[&[u8]], weight: &PackedWeight, packed: &mut Vec<u8>) {
    packed.resize(weight.storage.bytes_of(weight.k) as usize * weight.tile, 0);
    if rows.len() < weight.tile {
        packed.fill(0);
    }
    transpose(rows, weight.storage.unit_bytes(), weight.tile, packed);
}
