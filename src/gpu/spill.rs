//! Temporaries that wait on the host until they are needed again, for runs in less memory than their temporaries take.
//!
//! What is saved travels through two staging buffers: the GPU goes on while the host empties one of them, and waits only
//! where both are full or where a copy is asked for that is still on its way.

use std::collections::{HashMap, VecDeque};

use super::in_flight::Caught;
use super::read_back::{Mapped, map, read_mapped};
use super::uploads::Staging;
use super::{Error, Gpu, Uploads};
use crate::tensor::{Command, Recording};

/// Staging buffers for what is saved.
const CHUNKS: usize = 2;
/// What errors call a saved temporary.
const WHAT: &str = "a temporary on the host";

/// Bytes of staging memory while a program of `recording` runs: none if nothing is saved.
pub(crate) fn staging_bytes(recording: &Recording) -> u64 {
    let saved = recording.commands.iter().filter_map(|command| match command {
        Command::Save { bytes, .. } => Some(*bytes),
        _ => None,
    });
    saved.max().map_or(0, |largest| {
        let uploads = uploads(largest);
        uploads.staging_bytes() + CHUNKS as u64 * uploads.chunk_bytes()
    })
}

/// Uploads for temporaries of which the largest takes `largest` bytes: with chunks of an eighth of it.
fn uploads(largest: u64) -> Uploads {
    Uploads::within(largest / 2)
}

/// The copies of one run of a program.
pub(super) struct Spill {
    uploads: Uploads,
    idle: Vec<Staging>,
    /// How many staging buffers there are.
    made: usize,
    /// On their way to the host, oldest first.
    saving: VecDeque<Saving>,
    copies: HashMap<u32, Vec<u8>>,
}

struct Saving {
    copy: u32,
    staging: Staging,
    bytes: u64,
    mapped: Mapped,
    caught: Caught,
    /// When it arrives, where time is simulated.
    end: Option<f64>,
}

impl Spill {
    /// For temporaries of which the largest takes `largest` bytes.
    pub fn new(largest: u64) -> Self {
        Spill {
            uploads: uploads(largest),
            idle: vec![],
            made: 0,
            saving: VecDeque::new(),
            copies: HashMap::new(),
        }
    }

    /// Copies a buffer, as it is when everything submitted before has run.
    pub async fn save(
        &mut self,
        gpu: &Gpu,
        copy: u32,
        source: &wgpu::Buffer,
        bytes: u64,
    ) -> Result<(), Error> {
        let mut kept = Vec::new();
        kept.try_reserve_exact(bytes as usize)
            .map_err(|error| Error::Rejected { what: WHAT.into(), message: error.to_string() })?;
        self.copies.insert(copy, kept);
        let chunk = self.uploads.chunk_bytes();
        for offset in (0..bytes).step_by(chunk as usize) {
            let bytes = chunk.min(bytes - offset);
            let staging = self.staging(gpu).await?;
            let (mapped, caught) = gpu.scoped_later(|| {
                let mut encoder = gpu.device.create_command_encoder(&Default::default());
                encoder.copy_buffer_to_buffer(source, offset, &staging.raw, 0, bytes);
                gpu.queue.submit([encoder.finish()]);
                map(&staging.raw, bytes)
            });
            let end = gpu.faults().submit(0.0);
            self.saving.push_back(Saving { copy, staging, bytes, mapped, caught, end });
        }
        Ok(())
    }

    /// Brings a copy back, before whatever is submitted next.
    pub async fn restore(
        &mut self,
        gpu: &Gpu,
        copy: u32,
        target: &wgpu::Buffer,
        is_last: bool,
    ) -> Result<(), Error> {
        while self.saving.iter().any(|saving| saving.copy == copy) {
            self.empty_oldest(gpu).await?;
        }
        let Some(bytes) = self.copies.remove(&copy) else {
            unreachable!("temporary {copy} is restored before it is saved")
        };
        self.uploads.write_to(gpu, target, 0, &bytes).await?;
        self.uploads.flush(gpu).await?;
        if !is_last {
            self.copies.insert(copy, bytes);
        }
        Ok(())
    }

    async fn staging(&mut self, gpu: &Gpu) -> Result<Staging, Error> {
        if self.idle.is_empty() && self.made == CHUNKS {
            self.empty_oldest(gpu).await?;
        }
        if let Some(staging) = self.idle.pop() {
            return Ok(staging);
        }
        self.made += 1;
        let usage = wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ;
        Staging::new(gpu, WHAT, self.uploads.chunk_bytes(), usage).await
    }

    /// Waits for what was sent to the host first.
    async fn empty_oldest(&mut self, gpu: &Gpu) -> Result<(), Error> {
        let Some(Saving { copy, staging, bytes, mapped, caught, end }) = self.saving.pop_front()
        else {
            return Ok(());
        };
        gpu.judge(WHAT, caught.await).await?;
        let values = read_mapped(gpu, WHAT, &staging.raw, bytes, mapped).await?;
        gpu.faults().wait(end);
        if let Some(kept) = self.copies.get_mut(&copy) {
            kept.extend_from_slice(&values);
        }
        staging.raw.unmap();
        self.idle.push(staging);
        Ok(())
    }
}
