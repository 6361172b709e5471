//! Memory that outlives a recording: weights, inputs and states.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::Storage;

/// Names a piece of GPU memory that outlives a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResidentId(pub u32);

/// Hands out [`ResidentId`]s; one per pipeline.
#[derive(Default)]
pub struct ResidentIds(AtomicU32);

impl ResidentIds {
    /// Gives out `first` and those after it.
    pub fn starting_at(first: ResidentId) -> Self {
        ResidentIds(AtomicU32::new(first.0))
    }

    /// An id that was never given out before.
    pub fn next(&self) -> ResidentId {
        ResidentId(self.0.fetch_add(1, Ordering::Relaxed))
    }

    /// A resident matrix `[rows, cols]` of f32, in bands if it is larger than `max_binding_bytes`.
    pub fn matrix(
        &self,
        label: &str,
        rows: usize,
        cols: usize,
        max_binding_bytes: u64,
    ) -> Resident {
        Resident {
            id: self.next(),
            label: label.into(),
            rows,
            cols,
            bands: split_rows(rows, 1, (cols * 4) as u64, max_binding_bytes).into(),
        }
    }

    /// A resident picture `[height * width, channels]` of f32, in bands of whole image rows.
    pub fn picture(
        &self,
        label: &str,
        [height, width, channels]: [usize; 3],
        max_binding_bytes: u64,
    ) -> Resident {
        let rows = height * width;
        Resident {
            id: self.next(),
            label: label.into(),
            rows,
            cols: channels,
            bands: split_rows(rows, width, (channels * 4) as u64, max_binding_bytes).into(),
        }
    }
}

/// Consecutive rows of a matrix that share a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Band {
    /// First row.
    pub row0: usize,
    /// Number of rows.
    pub rows: usize,
}

/// Splits `rows` rows of `row_bytes` bytes into as few, near-equal bands as fit in `max_bytes` each.
/// Borders fall on multiples of `granule` rows. A single granule that is too large is left whole; the
/// device reports it by name.
pub fn split_rows(rows: usize, granule: usize, row_bytes: u64, max_bytes: u64) -> Vec<Band> {
    let units = rows.div_ceil(granule).max(1);
    let per_band = ((max_bytes / (row_bytes * granule as u64).max(1)) as usize).max(1);
    let n_bands = units.div_ceil(per_band);
    let mut bands = Vec::with_capacity(n_bands);
    let mut row0 = 0;
    for i in 0..n_bands {
        let end = (units * (i + 1) / n_bands * granule).min(rows);
        bands.push(Band { row0, rows: end - row0 });
        row0 = end;
    }
    bands
}

/// A matrix `[rows, cols]` of f32 that outlives a recording.
#[derive(Clone, Debug)]
pub struct Resident {
    /// Its name in the store.
    pub id: ResidentId,
    /// For debuggers and errors.
    pub label: Arc<str>,
    /// Rows.
    pub rows: usize,
    /// Columns, a multiple of 4.
    pub cols: usize,
    /// Row ranges, one buffer each.
    pub bands: Arc<[Band]>,
}

impl Resident {
    /// Bytes of each band's buffer.
    pub fn band_bytes(&self) -> impl Iterator<Item = u64> + '_ {
        self.bands.iter().map(|band| (band.rows * self.cols * 4) as u64)
    }
}

/// The weight of a linear layer or a convolution, packed for the kernels.
///
/// A weight `[N, K]` (outputs by inputs; a 3x3 convolution has `K = 9 * C`) is stored as
/// `[ceil(N / tile)][K][tile]`: the `tile` outputs that a workgroup computes lie side by side, so its
/// lanes read one contiguous run for every `k`. Outputs past `N` are zero. Where a storage has blocks of several
/// numbers, they lie along `K`, and their words take the place of numbers: `[ceil(N / 64)][K / numbers][words][64]`.
#[derive(Clone, Debug)]
pub struct PackedWeight {
    /// Its name in the store.
    pub id: ResidentId,
    /// For debuggers and errors.
    pub label: Arc<str>,
    /// Outputs `N`.
    pub n: usize,
    /// Inputs `K`.
    pub k: usize,
    /// Outputs in one tile: 4 a lane.
    pub tile: usize,
    /// Storage type.
    pub storage: Storage,
    /// Output ranges, one buffer each, with borders on multiples of `tile`.
    pub shards: Arc<[Band]>,
    /// `[1, N]`: what all numbers of an output are to be multiplied by, which products do once, with their sums.
    pub scale: Option<Resident>,
}

impl PackedWeight {
    /// Plans a weight of `n` outputs and `k` inputs, whole blocks, in shards of at most `max_binding_bytes`.
    pub fn new(
        ids: &ResidentIds,
        label: &str,
        n: usize,
        k: usize,
        storage: Storage,
        max_binding_bytes: u64,
    ) -> Self {
        assert!(
            storage.holds_rows_of(k),
            "{label}: rows of {k} numbers are no whole blocks of {storage:?}"
        );
        // 16 lanes of 4 columns, fewer for narrow outputs such as the 3 channels of a picture. Models have no such outputs
        // in blocks, so kernels know them in one size.
        let lanes = n.div_ceil(4).next_power_of_two().min(16);
        let tile = 4 * if storage.is_packed() { 16 } else { lanes };
        let padded = n.div_ceil(tile) * tile;
        let shards = split_rows(padded, tile, storage.bytes_of(k), max_binding_bytes);
        PackedWeight {
            id: ids.next(),
            label: label.into(),
            n,
            k,
            tile,
            storage,
            shards: shards.into(),
            scale: None,
        }
    }

    /// Bytes of each shard's buffer.
    pub fn shard_bytes(&self) -> impl Iterator<Item = u64> + '_ {
        self.shards.iter().map(|shard| shard.rows as u64 * self.storage.bytes_of(self.k))
    }
}
