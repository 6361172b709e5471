//! Bytes on their way back to the host.

use std::sync::{Arc, Mutex};

use super::in_flight::Caught;
use super::signal::Signal;
use super::{Error, Gpu, Store};
use crate::sync::Locked;
use crate::tensor::Resident;

/// A staging buffer through which matrices are read again and again, without anything waiting for them: a read
/// starts after the work that computes them, and is looked at when that work is known to have run.
pub struct ReadBack {
    staging: wgpu::Buffer,
    pending: Locked<Option<Pending>>,
}

struct Pending {
    what: Arc<str>,
    bytes: u64,
    mapped: Mapped,
    caught: Caught,
}

/// What became of a request to map a buffer.
pub(super) struct Mapped {
    done: Signal,
    outcome: Arc<Mutex<Option<Result<(), wgpu::BufferAsyncError>>>>,
}

impl ReadBack {
    /// For matrices of up to `bytes`.
    pub async fn new(gpu: &Gpu, bytes: u64) -> Result<Self, Error> {
        let staging = staging(gpu, "a read-back", bytes).await?;
        gpu.ledger().update(|c| c.buffers += 1);
        Ok(ReadBack { staging, pending: Locked::default() })
    }

    /// Copies matrices, one after the other, as they will be when everything submitted before has run. What was started
    /// before and not finished is forgotten.
    pub async fn start(
        &self,
        gpu: &Gpu,
        store: &Store,
        residents: &[&Resident],
    ) -> Result<(), Error> {
        if self.pending.lock().is_some() {
            self.finish(gpu).await?;
        }
        let bytes = residents.iter().flat_map(|resident| resident.band_bytes()).sum();
        let (mapped, caught) = gpu.scoped_later(|| {
            let mut encoder = gpu.device.create_command_encoder(&Default::default());
            let mut to = 0;
            for resident in residents {
                for (i, bytes) in resident.band_bytes().enumerate() {
                    let band = store.buffer(resident.id, i);
                    encoder.copy_buffer_to_buffer(&band.raw, 0, &self.staging, to, bytes);
                    to += bytes;
                }
            }
            gpu.queue.submit([encoder.finish()]);
            map(&self.staging, bytes)
        });
        let what = residents.first().map_or("".into(), |resident| resident.label.clone());
        *self.pending.lock() = Some(Pending { what, bytes, mapped, caught });
        Ok(())
    }

    /// Waits for the matrices that were started last, row-major. Empty if none were.
    pub async fn finish(&self, gpu: &Gpu) -> Result<Vec<f32>, Error> {
        let pending = self.pending.lock().take();
        let Some(Pending { what, bytes, mapped, caught }) = pending else { return Ok(vec![]) };
        gpu.judge(&what, caught.await).await?;
        let bytes = read_mapped(gpu, &what, &self.staging, bytes, mapped).await?;
        self.staging.unmap();
        Ok(numbers(&bytes).collect())
    }
}

/// Little-endian, as everything on a GPU.
pub(super) fn numbers(bytes: &[u8]) -> impl Iterator<Item = f32> + '_ {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
}

/// A buffer that the host can read.
pub(super) async fn staging(gpu: &Gpu, what: &str, bytes: u64) -> Result<wgpu::Buffer, Error> {
    let descriptor = wgpu::BufferDescriptor {
        label: Some("read-back"),
        size: bytes,
        usage: wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ,
        mapped_at_creation: false,
    };
    gpu.allocate(what, &descriptor).await
}

/// Reads a buffer, through a staging buffer made for it.
pub(super) async fn read_buffer(
    gpu: &Gpu,
    what: &str,
    source: &wgpu::Buffer,
    bytes: u64,
) -> Result<Vec<u8>, Error> {
    let staging = staging(gpu, what, bytes).await?;
    gpu.scoped(what, || {
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(source, 0, &staging, 0, bytes);
        gpu.queue.submit([encoder.finish()]);
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
    read_mapped(gpu, what, staging, bytes, map(staging, bytes)).await
}

/// Asks for the first `bytes` of a buffer, when everything submitted so far has run.
pub(super) fn map(staging: &wgpu::Buffer, bytes: u64) -> Mapped {
    let done = Signal::default();
    let outcome = Arc::new(Mutex::new(None));
    let (set, slot) = (done.clone(), outcome.clone());
    staging.map_async(wgpu::MapMode::Read, ..bytes, move |result| {
        if let Ok(mut slot) = slot.lock() {
            *slot = Some(result);
        }
        set.set();
    });
    Mapped { done, outcome }
}

/// The first `bytes` of a buffer that [`map`] asked for. It stays mapped.
pub(super) async fn read_mapped(
    gpu: &Gpu,
    what: &str,
    staging: &wgpu::Buffer,
    bytes: u64,
    mapped: Mapped,
) -> Result<Vec<u8>, Error> {
    let failed = |message: String| Error::Read { what: what.to_owned(), message };
    mapped.done.wait(gpu).await;
    gpu.check()?;
    let outcome = mapped.outcome.lock().ok().and_then(|mut outcome| outcome.take());
    match outcome {
        Some(Ok(())) => {}
        Some(Err(error)) => {
            gpu.check_lost().await?;
            return Err(failed(error.to_string()));
        }
        None => return Err(failed("no answer from the device".into())),
    }
    match staging.get_mapped_range(..bytes) {
        Ok(view) => Ok(view.to_vec()),
        Err(error) => {
            gpu.check_lost().await?;
            Err(failed(error.to_string()))
        }
    }
}
