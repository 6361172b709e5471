//! Pictures in bands of rows, each with copies of its neighbours' border rows.

use super::{Band, Command, Recorder, Tensor, split_rows};

/// Image rows that a group norm sums up together in a picture of that size: enough chunks of them to fill an adapter, few
/// enough to join quickly. It depends on nothing else, so that sums are the same bits however the picture is kept.
fn chunk_rows(height: usize, width: usize) -> usize {
    let pixels = (height * width / 256).clamp(64, 8192);
    (pixels / width).max(1)
}

/// Bands of as many rows as fit in `bytes`, multiples of `granule`, the last one of what is left: bands of different
/// pictures take about the same memory, which they then leave to each other.
fn equal_bands(rows: usize, granule: usize, row_bytes: u64, bytes: u64) -> Vec<Band> {
    let granules = (bytes / (row_bytes * granule as u64)).max(1) as usize;
    let starts = (0..rows).step_by(granules * granule);
    starts.map(|row0| Band { row0, rows: (granules * granule).min(rows - row0) }).collect()
}

impl Recorder {
    /// An uninitialised picture `[height * width, channels]`. If it needs several bands, each also holds
    /// copies of the neighbouring image rows, which [`Recorder::exchange_halo`] fills.
    pub fn image(&self, name: &str, height: usize, width: usize, channels: usize) -> Tensor<'_> {
        let (rows, row_bytes) = (height * width, (channels * 4) as u64);
        let chunk = chunk_rows(height, width) * width;
        let limit = self.band_bytes;
        if rows as u64 * row_bytes <= limit {
            return self.banded(
                name,
                [rows, channels],
                false,
                Some((0, chunk)),
                vec![Band { row0: 0, rows }],
            );
        }
        let halo_bytes = 2 * width as u64 * row_bytes;
        // A chunk that is larger than a binding is no reason to exceed one.
        let most = self.caps().max_binding_bytes;
        let granule = if chunk as u64 * row_bytes + halo_bytes <= most { chunk } else { width };
        let bytes = limit.saturating_sub(halo_bytes).max(1);
        let bands = match limit < most {
            true => equal_bands(rows, granule, row_bytes, bytes),
            false => split_rows(rows, granule, row_bytes, bytes),
        };
        let halo = if bands.len() > 1 { width } else { 0 };
        self.banded(name, [rows, channels], false, Some((halo, chunk)), bands)
    }

    /// Copies the image rows at the border between band `upper` and the next one to the other side, so that a convolution
    /// finds all it needs in one buffer. Does nothing behind the last band.
    pub fn exchange_halo(&self, image: Tensor<'_>, upper: usize) {
        let copies = {
            let base = self.base(image.base);
            let [Some(upper), Some(lower)] = [upper, upper + 1].map(|i| base.bands.get(i)) else {
                return;
            };
            let row_bytes = (base.cols * 4) as u64;
            let halo = base.halo as u64;
            let upper_first = if upper.row0 == 0 { 0 } else { halo };
            let bytes = halo * row_bytes;
            [
                Command::Copy {
                    src: upper.buffer,
                    src_offset: (upper_first + upper.rows as u64 - halo) * row_bytes,
                    dst: lower.buffer,
                    dst_offset: 0,
                    bytes,
                },
                Command::Copy {
                    src: lower.buffer,
                    src_offset: bytes,
                    dst: upper.buffer,
                    dst_offset: (upper_first + upper.rows as u64) * row_bytes,
                    bytes,
                },
            ]
        };
        self.inner.borrow_mut().commands.extend(copies);
    }
}
