//! Large uploads: bytes travel through a few small staging buffers that are used again and again.
//!
//! `queue.write_buffer` takes fresh memory for every call, which the system has to clear first, and keeps it until the
//! next submission has run. That is right for a step's few numbers and wrong for a model's gigabytes.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use super::signal::Signal;
use super::{Error, Gpu, Ledger, Store};
use crate::sync::Locked;
use crate::tensor::ResidentId;

/// Bytes of a staging buffer: large enough that a transfer costs more than its submission, small enough that a
/// processor's cache still holds it when a software adapter copies it on.
const CHUNK_BYTES: u64 = 4 << 20;
/// The least of them, where memory is short.
const LEAST_CHUNK_BYTES: u64 = 64 << 10;
/// Staging buffers: one is filled while the others are on their way.
const CHUNKS: usize = 4;
/// Whether a staging buffer's memory is touched only when all that goes there is known. In a browser it is gone at once
/// when the device is, and to touch it in a later turn is an exception that nothing in between can catch.
const WRITTEN_AT_ONCE: bool = cfg!(target_arch = "wasm32");
/// Mapped ranges start on multiples of this (WebGPU).
const MAP_ALIGNMENT: u64 = 8;

/// Uploads in progress. Nothing of them can be relied on before [`Uploads::finish`]; what was not finished when this
/// is dropped is not uploaded.
pub struct Uploads {
    /// Of a staging buffer.
    chunk_bytes: u64,
    open: Locked<Option<Chunk>>,
    /// Handed to the GPU, oldest first, to be mapped again when it is done with them.
    returning: Locked<VecDeque<Returning>>,
}

/// A staging buffer, counted while it lives.
pub(super) struct Staging {
    pub(super) raw: wgpu::Buffer,
    ledger: Arc<Ledger>,
}

impl Staging {
    /// A new one; mapped if the host is to write it.
    pub(super) async fn new(
        gpu: &Gpu,
        what: &str,
        bytes: u64,
        usage: wgpu::BufferUsages,
    ) -> Result<Self, Error> {
        let descriptor = wgpu::BufferDescriptor {
            label: Some(what),
            size: bytes,
            usage,
            mapped_at_creation: usage.contains(wgpu::BufferUsages::MAP_WRITE),
        };
        let raw = gpu.allocate(what, &descriptor).await?;
        gpu.ledger().update(|c| c.staging_bytes += bytes);
        Ok(Staging { raw, ledger: gpu.counters.clone() })
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        let bytes = self.raw.size();
        self.ledger.update(|c| c.staging_bytes -= bytes);
    }
}

/// A mapped staging buffer that is being filled.
struct Chunk {
    staging: Staging,
    used: u64,
    /// All bytes so far, if they are written at once.
    collected: Vec<u8>,
    copies: Vec<Copy>,
}

impl Chunk {
    async fn push(&mut self, gpu: &Gpu, part: &[u8]) -> Result<(), Error> {
        let at = self.used;
        self.used = (at + part.len() as u64).next_multiple_of(MAP_ALIGNMENT);
        if WRITTEN_AT_ONCE {
            self.collected.extend_from_slice(part);
            self.collected.resize(self.used as usize, 0);
            return Ok(());
        }
        self.write(gpu, at, part).await
    }

    async fn write(&self, gpu: &Gpu, at: u64, bytes: &[u8]) -> Result<(), Error> {
        match self.staging.raw.get_mapped_range_mut(at..at + bytes.len() as u64) {
            Ok(mut range) => {
                range.copy_from_slice(bytes);
                Ok(())
            }
            // A buffer that was made on a lost device is none.
            Err(error) => {
                gpu.check_lost().await?;
                Err(failed(error))
            }
        }
    }
}

struct Copy {
    from: u64,
    target: wgpu::Buffer,
    to: u64,
    bytes: u64,
}

struct Returning {
    staging: Staging,
    mapped: Signal,
    /// When it comes back, where time is simulated.
    end: Option<f64>,
    outcome: Arc<Mutex<Option<Result<(), wgpu::BufferAsyncError>>>>,
}

fn failed(message: impl ToString) -> Error {
    Error::Rejected { what: "an upload".into(), message: message.to_string() }
}

impl Default for Uploads {
    fn default() -> Self {
        Uploads::within(u64::MAX)
    }
}

impl Uploads {
    /// Uploads that take about `bytes` of staging memory, if that is less than they would like to have.
    pub fn within(bytes: u64) -> Self {
        let chunk_bytes = bytes / CHUNKS as u64 / MAP_ALIGNMENT * MAP_ALIGNMENT;
        Uploads {
            chunk_bytes: chunk_bytes.clamp(LEAST_CHUNK_BYTES, CHUNK_BYTES),
            open: Locked::default(),
            returning: Locked::default(),
        }
    }

    /// Bytes of a staging buffer.
    pub(super) fn chunk_bytes(&self) -> u64 {
        self.chunk_bytes
    }

    /// Bytes of staging memory that they take at most.
    pub fn staging_bytes(&self) -> u64 {
        self.chunk_bytes * CHUNKS as u64
    }

    /// Uploads bytes, a multiple of 4, into buffer number `index` of a resident. They are copied before this ends.
    pub async fn write(
        &self,
        gpu: &Gpu,
        store: &Store,
        id: ResidentId,
        index: usize,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), Error> {
        gpu.ledger().update(|c| c.uploaded_bytes += bytes.len() as u64);
        self.write_to(gpu, &store.buffer(id, index).raw, offset, bytes).await
    }

    /// The same for any buffer, of what is no weight.
    pub(super) async fn write_to(
        &self,
        gpu: &Gpu,
        target: &wgpu::Buffer,
        mut offset: u64,
        mut bytes: &[u8],
    ) -> Result<(), Error> {
        while !bytes.is_empty() {
            let open = self.open.lock().take();
            let mut chunk = match open {
                Some(chunk) => chunk,
                None => self.chunk(gpu).await?,
            };
            let now = bytes.len().min((self.chunk_bytes - chunk.used) as usize);
            let (part, rest) = bytes.split_at(now);
            let n = part.len() as u64;
            let from = chunk.used;
            chunk.push(gpu, part).await?;
            chunk.copies.push(Copy { from, target: target.clone(), to: offset, bytes: n });
            (offset, bytes) = (offset + n, rest);
            if chunk.used == self.chunk_bytes {
                self.submit(gpu, chunk).await?;
            } else {
                *self.open.lock() = Some(chunk);
            }
        }
        Ok(())
    }

    /// Hands everything to the device: it arrives before whatever is submitted next. Keeps the staging memory.
    pub async fn flush(&self, gpu: &Gpu) -> Result<(), Error> {
        let open = self.open.lock().take();
        match open {
            Some(chunk) => self.submit(gpu, chunk).await,
            None => Ok(()),
        }
    }

    /// Hands everything to the device and waits for its end. Frees the staging memory.
    pub async fn finish(&self, gpu: &Gpu) -> Result<(), Error> {
        self.flush(gpu).await?;
        gpu.idle().await?;
        self.returning.lock().clear();
        Ok(())
    }

    /// A mapped staging buffer: a new one, or the one that was handed over first.
    async fn chunk(&self, gpu: &Gpu) -> Result<Chunk, Error> {
        let returning = {
            let mut returning = self.returning.lock();
            if returning.len() < CHUNKS { None } else { returning.pop_front() }
        };
        let staging = match returning {
            Some(Returning { staging, mapped, end, outcome }) => {
                mapped.wait(gpu).await;
                gpu.faults().wait(end);
                gpu.check()?;
                let outcome = outcome.lock().ok().and_then(|mut outcome| outcome.take());
                match outcome {
                    Some(Ok(())) => staging,
                    Some(Err(error)) => {
                        gpu.check_lost().await?;
                        return Err(failed(error));
                    }
                    None => return Err(failed("no answer from the device")),
                }
            }
            None => {
                let usage = wgpu::BufferUsages::MAP_WRITE | wgpu::BufferUsages::COPY_SRC;
                Staging::new(gpu, "an upload", self.chunk_bytes, usage).await?
            }
        };
        let room = if WRITTEN_AT_ONCE { self.chunk_bytes as usize } else { 0 };
        let collected = Vec::with_capacity(room);
        Ok(Chunk { staging, used: 0, collected, copies: Vec::new() })
    }

    /// Starts a chunk's copies, and asks for its memory back.
    async fn submit(&self, gpu: &Gpu, chunk: Chunk) -> Result<(), Error> {
        if WRITTEN_AT_ONCE {
            chunk.write(gpu, 0, &chunk.collected).await?;
        }
        let Chunk { staging, copies, .. } = chunk;
        let copy = || {
            staging.raw.unmap();
            let mut encoder = gpu.device.create_command_encoder(&Default::default());
            for Copy { from, target, to, bytes } in &copies {
                encoder.copy_buffer_to_buffer(&staging.raw, *from, target, *to, *bytes);
            }
            gpu.queue.submit([encoder.finish()]);
        };
        gpu.scoped("an upload", copy).await?;
        let end = gpu.faults().submit(0.0);
        let (mapped, outcome) = (Signal::default(), Arc::new(Mutex::new(None)));
        let (set, slot) = (mapped.clone(), outcome.clone());
        staging.raw.map_async(wgpu::MapMode::Write, .., move |result| {
            if let Ok(mut slot) = slot.lock() {
                *slot = Some(result);
            }
            set.set();
        });
        self.returning.lock().push_back(Returning { staging, mapped, end, outcome });
        Ok(())
    }
}
