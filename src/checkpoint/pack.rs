//! Packing: from a checkpoint's rows to the order that kernels read, `[N / tile][K][tile]`.
//!
//! The bytes of a whole model pass through here on their way to the GPU, so this is written for memory, not for the
//! eye: sixteen numbers at a time, in blocks that stay in the first-level cache.

use std::borrow::Cow;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use super::dtype::DType;
use super::weights::{TensorInfo, WeightError, Weights, unsupported};
use crate::tensor::{PackedWeight, Storage};

/// Numbers of a row that are transposed together: two cache lines of 16-bit numbers.
const BLOCK: usize = 64;

/// Packs the tiles of weights, one after the other, in memory of its own.
#[derive(Default)]
pub struct Packer {
    packed: Vec<u8>,
    converted: Vec<u8>,
    values: Vec<f32>,
}

impl Packer {
    /// Packs outputs `first..first + weight.tile` of a weight as [`PackedWeight`] describes: `[K][tile]`.
    ///
    /// Reads only those rows of the checkpoint, or, with `order`, the rows that it names for these outputs. Fails on
    /// NaN and infinity, and on what does not fit f16 where that is asked for. Outputs past `N` are zero.
    pub fn tile(
        &mut self,
        weights: &Weights,
        tensor: &TensorInfo,
        weight: &PackedWeight,
        first: usize,
        order: Option<&[usize]>,
    ) -> Result<&[u8], WeightError> {
        let (k, tile) = (weight.k, weight.tile);
        let n_rows = tile.min(weight.n.saturating_sub(first));
        let known = tensor.dtype.known();
        // A row is whole blocks.
        let row = known.and_then(|dtype| Some((dtype, dtype.block.bytes_of(k as u64)?)));
        let Some((dtype, row_bytes)) = row else {
            return Err(unsupported(tensor));
        };
        let row_bytes = row_bytes as usize;
        let bytes_of =
            |row: usize, rows: usize| (row * row_bytes) as u64..((row + rows) * row_bytes) as u64;
        let ranges: Vec<_> = match order {
            None => vec![bytes_of(first, n_rows)],
            Some(order) => {
                order[first..first + n_rows].iter().map(|row| bytes_of(*row, 1)).collect()
            }
        };
        let mut pieces: Vec<Cow<'_, [u8]>> = Vec::with_capacity(ranges.len());
        for range in &ranges {
            let bytes = weights.bytes(tensor, range.clone())?;
            weights.check_finite(tensor, range.start, &bytes)?;
            pieces.push(bytes);
        }
        let mut rows: Vec<&[u8]> = pieces.iter().flat_map(|p| p.chunks_exact(row_bytes)).collect();

        // A 3x3 kernel is stored [N, C, 3, 3] and wanted as (ky, kx, c).
        let packed_row_bytes = weight.storage.bytes_of(k) as usize;
        if tensor.taps() > 1 || !dtype.is_kept_as_is(weight.storage) {
            self.converted.clear();
            for row in rows {
                self.convert(tensor, dtype, row, weight.storage)?;
            }
            rows = self.converted.chunks_exact(packed_row_bytes).collect();
        }
        self.packed.resize(packed_row_bytes * tile, 0);
        if rows.len() < tile {
            self.packed.fill(0);
        }
        transpose(&rows, weight.storage.block().bytes, tile, &mut self.packed);
        Ok(&self.packed)
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
            Storage::F32 => self.converted.extend(self.values.iter().flat_map(|v| v.to_le_bytes())),
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
                self.converted.extend(halves.iter().flat_map(|v| v.to_le_bytes()));
            }
            Storage::Bf16 => {
                let halves = self.values.iter().map(|v| bf16::from_f32(*v));
                self.converted.extend(halves.flat_map(|v| v.to_le_bytes()));
            }
            // Only what is stored so is kept so.
            Storage::F8E4M3 => {
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

/// Rows of blocks `[rows][K]` to `[K][tile]`. A block is a number, but for quantised types.
fn transpose(rows: &[&[u8]], block_bytes: usize, tile: usize, packed: &mut [u8]) {
    match block_bytes {
        1 => transpose_narrow::<1>(rows, tile, packed),
        2 => transpose_narrow::<2>(rows, tile, packed),
        4 => transpose_32(rows, tile, packed),
        _ => {
            for (r, row) in rows.iter().enumerate() {
                place(row, 0, block_bytes, (r, tile), packed);
            }
        }
    }
}

/// Puts the blocks of a row, from number `first` on, in column `r` of `[K][tile]`.
fn place(
    row: &[u8],
    first: usize,
    block_bytes: usize,
    (r, tile): (usize, usize),
    packed: &mut [u8],
) {
    for (i, block) in row.chunks_exact(block_bytes).enumerate().skip(first) {
        packed[(i * tile + r) * block_bytes..][..block_bytes].copy_from_slice(block);
    }
}

/// Rows of numbers of `BYTES` bytes, 1 or 2, `[rows][K]` to `[K][tile]`.
fn transpose_narrow<const BYTES: usize>(rows: &[&[u8]], tile: usize, packed: &mut [u8]) {
    let k = rows.first().map_or(0, |row| row.len() / BYTES);
    let whole = k - k % 4;
    for block in (0..whole).step_by(BLOCK) {
        let columns = BYTES * block..BYTES * (block + BLOCK).min(whole);
        let packed = &mut packed[block * tile * BYTES..];
        for (i, four) in rows.chunks_exact(4).enumerate() {
            let [a, b, c, d] =
                [0, 1, 2, 3].map(|row| four[row][columns.clone()].chunks_exact(4 * BYTES));
            let quads = a.zip(b).zip(c.zip(d));
            for (((a, b), (c, d)), packed) in quads.zip(packed.chunks_mut(4 * tile * BYTES)) {
                let columns = transpose_4x4::<BYTES>([a, b, c, d].map(word::<BYTES>));
                for (column, packed) in columns.iter().zip(packed.chunks_exact_mut(tile * BYTES)) {
                    let at = 4 * BYTES * i;
                    packed[at..at + 4 * BYTES].copy_from_slice(&column.to_le_bytes()[..4 * BYTES]);
                }
            }
        }
    }
    // What is left when neither is a multiple of 4.
    let rest = rows.len() - rows.len() % 4;
    for (r, row) in rows.iter().enumerate() {
        place(row, if r < rest { whole } else { 0 }, BYTES, (r, tile), packed);
    }
}

/// Four numbers of `BYTES` bytes, 1 or 2, as the low bytes of a word. Lengths are constants, or each would be a call.
fn word<const BYTES: usize>(bytes: &[u8]) -> u64 {
    if BYTES == 1 {
        let mut word = [0; 4];
        word.copy_from_slice(bytes);
        return u32::from_le_bytes(word).into();
    }
    let mut word = [0; 8];
    word.copy_from_slice(bytes);
    u64::from_le_bytes(word)
}

/// Four rows of four numbers of `BYTES` bytes, as columns. Two rounds of swaps: single numbers, then pairs.
fn transpose_4x4<const BYTES: usize>([a, b, c, d]: [u64; 4]) -> [u64; 4] {
    let (one, two) = (8 * BYTES, 16 * BYTES);
    let number = (1 << one) - 1;
    let even = number | (number << two);
    let odd = even << one;
    let low = (1 << two) - 1;
    let high = low << two;
    // [a0 b0 a2 b2], [a1 b1 a3 b3] and the same of c and d.
    let (ab_even, ab_odd) = ((a & even) | ((b & even) << one), ((a >> one) & even) | (b & odd));
    let (cd_even, cd_odd) = ((c & even) | ((d & even) << one), ((c >> one) & even) | (d & odd));
    [
        (ab_even & low) | (cd_even << two),
        (ab_odd & low) | (cd_odd << two),
        (ab_even >> two) | (cd_even & high),
        (ab_odd >> two) | (cd_odd & high),
    ]
}

/// Rows of 32-bit numbers `[rows][K]` to `[K][tile]`.
fn transpose_32(rows: &[&[u8]], tile: usize, packed: &mut [u8]) {
    let k = rows.first().map_or(0, |row| row.len() / 4);
    for block in (0..k).step_by(BLOCK / 2) {
        let columns = 4 * block..4 * (block + BLOCK / 2).min(k);
        let packed = &mut packed[block * tile * 4..];
        for (i, four) in rows.chunks(4).enumerate() {
            let at = 16 * i;
            if let [a, b, c, d] = four {
                let [a, b, c, d] = [a, b, c, d].map(|row| row[columns.clone()].chunks_exact(4));
                let quads = a.zip(b).zip(c.zip(d));
                for (((a, b), (c, d)), packed) in quads.zip(packed.chunks_exact_mut(tile * 4)) {
                    let packed = &mut packed[at..at + 16];
                    packed[0..4].copy_from_slice(a);
                    packed[4..8].copy_from_slice(b);
                    packed[8..12].copy_from_slice(c);
                    packed[12..16].copy_from_slice(d);
                }
                continue;
            }
            for (r, row) in four.iter().enumerate() {
                let values = row[columns.clone()].chunks_exact(4);
                for (value, packed) in values.zip(packed.chunks_exact_mut(tile * 4)) {
                    packed[at + 4 * r..at + 4 * r + 4].copy_from_slice(value);
                }
            }
        }
    }
}
