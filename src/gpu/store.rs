//! Memory that outlives recordings, by [`ResidentId`].

use std::collections::HashMap;
use std::sync::Arc;

use super::read_back::{numbers, read_buffer};
use super::{Buffer, Error, Gpu};
use crate::sync::Locked;
use crate::tensor::{Band, PackedWeight, Resident, ResidentId, overlay};

/// Buffers of weights, inputs and states.
#[derive(Default)]
pub struct Store {
    buffers: Locked<HashMap<ResidentId, Vec<Arc<Buffer>>>>,
    /// Of weights that share their memory with others, the number of their block.
    streamed: Locked<HashMap<ResidentId, u32>>,
}

/// Weights that are on the GPU only while they are needed, in memory that they share with other blocks.
#[derive(Clone, Copy)]
pub struct StreamedBlock<'w> {
    /// What [`Feed`](super::Feed) calls it.
    pub number: u32,
    /// Blocks with the same slot are never there together.
    pub slot: usize,
    /// Its weights.
    pub weights: &'w [&'w PackedWeight],
}

impl StreamedBlock<'_> {
    /// Bytes of its buffers.
    pub fn buffer_bytes(&self) -> Vec<u64> {
        self.weights.iter().flat_map(|weight| weight.shard_bytes()).collect()
    }
}

impl Store {
    /// Allocates a matrix; zeros.
    pub async fn create(&self, gpu: &Gpu, resident: &Resident) -> Result<(), Error> {
        let mut bands = Vec::new();
        for bytes in resident.band_bytes() {
            bands.push(Arc::new(gpu.buffer(&resident.label, bytes).await?));
        }
        self.buffers.lock().insert(resident.id, bands);
        Ok(())
    }

    /// Allocates a packed weight; zeros.
    pub async fn create_packed(&self, gpu: &Gpu, weight: &PackedWeight) -> Result<(), Error> {
        let mut shards = Vec::new();
        for bytes in weight.shard_bytes() {
            shards.push(Arc::new(gpu.buffer(&weight.label, bytes).await?));
        }
        self.buffers.lock().insert(weight.id, shards);
        Ok(())
    }

    /// Allocates memory in which blocks take turns. Nothing is in it yet.
    pub async fn create_streamed(
        &self,
        gpu: &Gpu,
        blocks: &[StreamedBlock<'_>],
    ) -> Result<(), Error> {
        for slot in 0..blocks.iter().map(|block| block.slot + 1).max().unwrap_or(0) {
            let own: Vec<&StreamedBlock<'_>> =
                blocks.iter().filter(|block| block.slot == slot).collect();
            let sizes: Vec<Vec<u64>> = own.iter().map(|block| block.buffer_bytes()).collect();
            let mut buffers = Vec::new();
            for (i, bytes) in overlay(sizes.iter().map(Vec::as_slice)).into_iter().enumerate() {
                let label = format!("streamed weights {slot}.{i}");
                buffers.push(Arc::new(gpu.buffer(&label, bytes).await?));
            }
            for block in own {
                self.share(block, &buffers);
            }
        }
        Ok(())
    }

    /// Gives the weights of a block their places: the largest one's is the largest buffer.
    fn share(&self, block: &StreamedBlock<'_>, buffers: &[Arc<Buffer>]) {
        let shards = block.weights.iter().enumerate().flat_map(|(i, weight)| {
            weight.shard_bytes().enumerate().map(move |(shard, bytes)| (bytes, i, shard))
        });
        let mut shards: Vec<(u64, usize, usize)> = shards.collect();
        shards.sort_by_key(|(bytes, i, shard)| (std::cmp::Reverse(*bytes), *i, *shard));
        let mut places: Vec<Vec<(usize, Arc<Buffer>)>> = vec![vec![]; block.weights.len()];
        for ((_, i, shard), buffer) in shards.into_iter().zip(buffers) {
            places[i].push((shard, buffer.clone()));
        }
        for (weight, mut own) in block.weights.iter().zip(places) {
            own.sort_by_key(|(shard, _)| *shard);
            let own = own.into_iter().map(|(_, buffer)| buffer).collect();
            self.buffers.lock().insert(weight.id, own);
            self.streamed.lock().insert(weight.id, block.number);
        }
    }

    /// The block that a weight belongs to, if it is streamed.
    pub(super) fn streamed_block(&self, id: ResidentId) -> Option<u32> {
        self.streamed.lock().get(&id).copied()
    }

    /// Frees a resident's memory; shared memory with the last of those who share it.
    pub fn free(&self, id: ResidentId) {
        self.streamed.lock().remove(&id);
        self.buffers.lock().remove(&id);
    }

    /// Writes raw bytes into one buffer of a resident, before whatever is submitted next. For much, [`Uploads`] is
    /// faster.
    ///
    /// [`Uploads`]: super::Uploads
    pub async fn write_bytes(
        &self,
        gpu: &Gpu,
        id: ResidentId,
        buffer: usize,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), Error> {
        let target = self.buffer(id, buffer);
        gpu.scoped("an upload", || gpu.queue.write_buffer(&target.raw, offset, bytes)).await
    }

    /// Writes a whole matrix, row-major `[rows, cols]`.
    #[track_caller]
    pub fn write<'a>(
        &'a self,
        gpu: &'a Gpu,
        resident: &'a Resident,
        values: &'a [f32],
    ) -> impl Future<Output = Result<(), Error>> + 'a {
        assert_eq!(
            values.len(),
            resident.rows * resident.cols,
            "{}: wrong number of values for [{}, {}]",
            resident.label,
            resident.rows,
            resident.cols
        );
        async move {
            for (i, band) in resident.bands.iter().enumerate() {
                let range = band.row0 * resident.cols..(band.row0 + band.rows) * resident.cols;
                self.write_bytes(gpu, resident.id, i, 0, bytemuck::cast_slice(&values[range]))
                    .await?;
            }
            Ok(())
        }
    }

    /// Copies the rows of `from` that begin with `first` over the whole of `to`, before whatever is submitted next.
    #[track_caller]
    pub fn copy_rows<'a>(
        &'a self,
        gpu: &'a Gpu,
        from: &'a Resident,
        first: usize,
        to: &'a Resident,
    ) -> impl Future<Output = Result<(), Error>> + 'a {
        assert_eq!(from.cols, to.cols, "{}: rows of another width", to.label);
        assert!(first + to.rows <= from.rows, "{}: rows past the end", from.label);
        async move {
            let mut encoder = gpu.device.create_command_encoder(&Default::default());
            for row in 0..to.rows {
                let (source, source_at) = self.row(from, first + row);
                let (target, target_at) = self.row(to, row);
                let bytes = to.cols as u64 * 4;
                encoder.copy_buffer_to_buffer(
                    &source.raw,
                    source_at,
                    &target.raw,
                    target_at,
                    bytes,
                );
            }
            let submit = || gpu.queue.submit([encoder.finish()]);
            gpu.scoped("a copy", submit).await.map(|_| ())
        }
    }

    /// Fills the first `bytes` bytes of a buffer of a resident with copies of `from`, which lies in one buffer, before
    /// whatever is submitted next. `bytes` is a multiple of 4.
    pub async fn copy_over(
        &self,
        gpu: &Gpu,
        from: &Resident,
        id: ResidentId,
        buffer: usize,
        bytes: u64,
    ) -> Result<(), Error> {
        let (source, target) = (self.buffer(from.id, 0), self.buffer(id, buffer));
        let length = from.band_bytes().sum::<u64>().max(4);
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        let mut at = 0;
        while at < bytes {
            let part = length.min(bytes - at);
            encoder.copy_buffer_to_buffer(&source.raw, 0, &target.raw, at, part);
            at += part;
        }
        let submit = || gpu.queue.submit([encoder.finish()]);
        gpu.scoped("a copy", submit).await.map(|_| ())
    }

    /// The buffer that a row of a matrix lies in, and where.
    fn row(&self, matrix: &Resident, row: usize) -> (Arc<Buffer>, u64) {
        let is_after = |band: &Band| band.row0 > row;
        let i = matrix.bands.iter().position(is_after).unwrap_or(matrix.bands.len()) - 1;
        let at = (row - matrix.bands[i].row0) * matrix.cols * 4;
        (self.buffer(matrix.id, i), at as u64)
    }

    /// Reads a whole matrix back, row-major `[rows, cols]`.
    pub async fn read(&self, gpu: &Gpu, resident: &Resident) -> Result<Vec<f32>, Error> {
        let mut values = Vec::with_capacity(resident.rows * resident.cols);
        for (i, bytes) in resident.band_bytes().enumerate() {
            let source = self.buffer(resident.id, i);
            let bytes = read_buffer(gpu, &resident.label, &source.raw, bytes).await?;
            values.extend(numbers(&bytes));
        }
        Ok(values)
    }

    #[track_caller]
    pub(super) fn buffer(&self, id: ResidentId, index: usize) -> Arc<Buffer> {
        match self.buffers.lock().get(&id).and_then(|buffers| buffers.get(index)) {
            Some(buffer) => buffer.clone(),
            None => panic!("{id:?} buffer {index} is used before it was created"),
        }
    }
}
