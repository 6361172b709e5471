//! How matrices get from a checkpoint to the GPU: read, packed and handed over a few tiles of outputs at a time, so that no
//! second copy of a weight is ever in host memory. Threads of the host pack the tiles side by side, if it lends any.

use super::Error;
use super::device::Device;
use crate::checkpoint::pack::{Packer, RowSource};
use crate::checkpoint::source::{Source, read};
use crate::checkpoint::weights::{WeightError, Weights};
use crate::gpu::{Pauses, Uploads};
use crate::sync::Locked;
use crate::tensor::PackedWeight;
use crate::turns::Turns;
use crate::workers::Workers;

/// Bytes of the tiles that are packed side by side, at most, unless one alone has more: they still lie in a processor's cache
/// when they are handed over.
const BYTES_AT_ONCE: u64 = 8 << 20;
/// Tiles for each thread: the threads that are done first take what is left.
const TILES_PER_WORKER: usize = 2;

/// Packs as many tiles at a time as there are threads for it.
#[derive(Default)]
pub(super) struct Packers {
    first: Locked<Packer>,
    others: Vec<Locked<Packer>>,
}

impl Packers {
    /// The one that works alone.
    pub fn first(&mut self) -> &mut Packer {
        self.first.get_mut()
    }

    /// Has all numbers of `sources` read that share a scale, if there are any: of a weight that is packed next.
    pub async fn measure(
        &mut self,
        source: &dyn Source,
        weights: &Weights,
        sources: &[RowSource],
        turns: &Turns,
    ) -> Result<(), Error> {
        let packer = self.first();
        packer.begin(sources);
        let mut step = 0;
        while read(source, || packer.measure(weights, sources, step)).await? {
            step += 1;
            turns.yield_if_due().await;
        }
        packer.end(sources);
        Ok(())
    }

    /// Uploads a matrix, whose memory there is, with pauses between its tiles. It is from `sources` in a checkpoint. `keep` is
    /// given all bytes in order.
    pub async fn upload(
        &mut self,
        source: &dyn Source,
        device: &Device,
        (weights, weight, sources): (&Weights, &PackedWeight, &[RowSource]),
        (uploads, pauses): (&Uploads, &Pauses),
        turns: &Turns,
        mut keep: impl FnMut(&[u8]),
    ) -> Result<(), Error> {
        let Device { gpu, store, .. } = device;
        let workers = device.workers.lock().clone();
        let at_once = self.prepare(weight, &*workers);
        for (i, shard) in weight.shards.iter().enumerate() {
            let mut offset = 0;
            let tiles: Vec<usize> =
                (shard.row0..shard.row0 + shard.rows).step_by(weight.tile).collect();
            for tiles in tiles.chunks(at_once) {
                let pack = || self.pack((weights, weight, sources), tiles, &*workers);
                read(source, pack).await?;
                for n in 0..tiles.len() {
                    let bytes = self.packed(n);
                    keep(bytes);
                    uploads.write(gpu, store, weight.id, i, offset, bytes).await?;
                    let handed = bytes.len() as u64;
                    offset += handed;
                    turns.yield_if_due().await;
                    pauses.after(handed).await;
                }
            }
        }
        Ok(())
    }

    /// Makes room for the tiles of `weight` that are packed side by side: how many.
    fn prepare(&mut self, weight: &PackedWeight, workers: &dyn Workers) -> usize {
        if workers.count() <= 1 {
            return 1;
        }
        let tile_bytes = weight.storage.bytes_of(weight.k) * weight.tile as u64;
        let at_once = (BYTES_AT_ONCE / tile_bytes.max(1)) as usize;
        let at_once = at_once.clamp(1, TILES_PER_WORKER * workers.count());
        self.others.resize_with(at_once - 1, Locked::default);
        let first = self.first.get_mut();
        self.others.iter_mut().for_each(|other| other.get_mut().measured_like(first));
        at_once
    }

    /// Packs the tiles that begin with the outputs `tiles`. If several fail, the error is that of the first of them.
    fn pack(
        &self,
        (weights, weight, sources): (&Weights, &PackedWeight, &[RowSource]),
        tiles: &[usize],
        workers: &dyn Workers,
    ) -> Result<(), WeightError> {
        let packers = std::iter::once(&self.first).chain(&self.others);
        let tasks: Vec<_> = packers
            .zip(tiles)
            .map(|(packer, first)| (packer, first, Locked::new(Ok(()))))
            .collect();
        workers.run(tasks.len(), &|i: usize| {
            let (packer, first, outcome) = &tasks[i];
            outcome.set(packer.lock().tile(weights, sources, weight, **first).map(|_| ()));
        });
        tasks.into_iter().try_for_each(|(_, _, outcome)| outcome.replace(Ok(())))
    }

    /// Tile `n` of those that were packed last.
    fn packed(&mut self, n: usize) -> &[u8] {
        match n.checked_sub(1) {
            None => self.first.get_mut().packed(),
            Some(n) => self.others[n].get_mut().packed(),
        }
    }
}
