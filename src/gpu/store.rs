//! Memory that outlives recordings, by [`ResidentId`].

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use super::{Buffer, Error, Gpu, signal::Signal};
use crate::tensor::{PackedWeight, Resident, ResidentId};

/// Buffers of weights, inputs and states.
#[derive(Default)]
pub struct Store {
    buffers: RefCell<HashMap<ResidentId, Vec<Rc<Buffer>>>>,
}

impl Store {
    /// Allocates a matrix; zeros.
    pub async fn create(&self, gpu: &Gpu, resident: &Resident) -> Result<(), Error> {
        let mut bands = Vec::new();
        for bytes in resident.band_bytes() {
            bands.push(Rc::new(gpu.buffer(&resident.label, bytes).await?));
        }
        self.buffers.borrow_mut().insert(resident.id, bands);
        Ok(())
    }

    /// Allocates a packed weight; zeros.
    pub async fn create_packed(&self, gpu: &Gpu, weight: &PackedWeight) -> Result<(), Error> {
        let mut shards = Vec::new();
        for bytes in weight.shard_bytes() {
            shards.push(Rc::new(gpu.buffer(&weight.label, bytes).await?));
        }
        self.buffers.borrow_mut().insert(weight.id, shards);
        Ok(())
    }

    /// Frees a resident's memory.
    pub fn free(&self, id: ResidentId) {
        self.buffers.borrow_mut().remove(&id);
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
            values.extend(
                bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])),
            );
        }
        Ok(values)
    }

    #[track_caller]
    pub(super) fn buffer(&self, id: ResidentId, index: usize) -> Rc<Buffer> {
        match self.buffers.borrow().get(&id).and_then(|buffers| buffers.get(index)) {
            Some(buffer) => buffer.clone(),
            None => panic!("{id:?} buffer {index} is used before it was created"),
        }
    }
}

async fn read_buffer(
    gpu: &Gpu,
    what: &str,
    source: &wgpu::Buffer,
    bytes: u64,
) -> Result<Vec<u8>, Error> {
    let staging = gpu
        .scoped(what, || {
            let staging = gpu.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("read-back"),
                size: bytes,
                usage: wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ,
                mapped_at_creation: false,
            });
            let mut encoder = gpu.device.create_command_encoder(&Default::default());
            encoder.copy_buffer_to_buffer(source, 0, &staging, 0, bytes);
            gpu.queue.submit([encoder.finish()]);
            staging
        })
        .await?;
    map_read(gpu, what, &staging, bytes).await
}

/// The first `bytes` of a buffer that can be mapped, when everything submitted so far has run. It stays mapped.
pub(super) async fn map_read(
    gpu: &Gpu,
    what: &str,
    staging: &wgpu::Buffer,
    bytes: u64,
) -> Result<Vec<u8>, Error> {
    if bytes == 0 {
        return Ok(vec![]);
    }
    let failed = |message: String| Error::Read { what: what.to_owned(), message };
    let signal = Signal::default();
    let outcome = std::sync::Arc::new(std::sync::Mutex::new(None));
    let (done, slot) = (signal.clone(), outcome.clone());
    staging.map_async(wgpu::MapMode::Read, ..bytes, move |result| {
        if let Ok(mut slot) = slot.lock() {
            *slot = Some(result);
        }
        done.set();
    });
    signal.wait(gpu).await;
    gpu.check()?;
    let outcome = outcome.lock().ok().and_then(|mut o| o.take());
    match outcome {
        Some(Ok(())) => {}
        Some(Err(error)) => {
            gpu.check_lost().await?;
            return Err(failed(error.to_string()));
        }
        None => return Err(failed("no answer from the device".into())),
    }
    let view = staging.get_mapped_range(..bytes).map_err(|error| failed(error.to_string()))?;
    Ok(view.to_vec())
}
