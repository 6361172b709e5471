//! Memory that outlives recordings, by [`ResidentId`].

use std::collections::HashMap;
use std::sync::Arc;

use super::read_back::{numbers, read_buffer};
use super::{Buffer, Error, Gpu};
use crate::sync::Locked;
use crate::tensor::{PackedWeight, Resident, ResidentId};

/// Buffers of weights, inputs and states.
#[derive(Default)]
pub struct Store {
    buffers: Locked<HashMap<ResidentId, Vec<Arc<Buffer>>>>,
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

    /// Frees a resident's memory.
    pub fn free(&self, id: ResidentId) {
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
