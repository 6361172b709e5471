//! Blocks of weights on their way to the GPU, while others compute.
//!
//! See [`placement`](super::placement) for what is streamed. A block is read, packed and handed over again every time it is
//! needed, unless the host keeps a packed copy. The queue orders the rest: a block arrives in its slot after the block
//! before it in that slot has computed.

use std::collections::HashMap;
use std::sync::Arc;

use super::device::Device;
use super::model::Model;
use super::packing::Packers;
use super::placement::{Block, Placement, streamed_block};
use super::random_weights::RandomWeights;
use super::{Error, Part};
use crate::gpu::{Feed, Pauses, Pieces, Uploads};
use crate::models::layers::Upload;
use crate::sync::Locked;
use crate::turns::Turns;

/// Bytes of a copy that are handed over at once.
const COPIED_AT_ONCE: usize = 64 << 10;

/// Which blocks are streamed, and which of them are in their slots.
#[derive(Default)]
pub(super) struct Streaming {
    placement: Locked<Arc<Placement>>,
    /// What each slot of each part holds.
    slots: Locked<HashMap<(Part, usize), u32>>,
    /// What brings blocks; taken while it works.
    carrier: Locked<Option<Box<Carrier>>>,
    /// Packed blocks that the host keeps.
    copies: Locked<Copies>,
}

/// Packed blocks in the host's memory, by their numbers.
#[derive(Default)]
struct Copies {
    blocks: HashMap<u32, Arc<Vec<u8>>>,
    bytes: u64,
}

/// Memory of the host for blocks on their way.
struct Carrier {
    uploads: Uploads,
    packers: Packers,
    random: RandomWeights,
}

impl Streaming {
    /// What is streamed.
    pub fn placement(&self) -> Arc<Placement> {
        self.placement.lock().clone()
    }

    /// From now on other blocks are streamed. Nothing that the placement before is about is on the GPU.
    pub fn set_placement(&self, placement: Placement) {
        self.placement.set(placement.into());
        self.slots.take();
        self.carrier.take();
        self.copies.take();
    }

    /// Keeps a packed block, unless all copies together would then take more than `most` bytes.
    fn keep(&self, number: u32, block: Vec<u8>, most: u64) {
        let mut copies = self.copies.lock();
        let bytes = copies.bytes + block.len() as u64;
        if bytes <= most && !copies.blocks.contains_key(&number) {
            copies.bytes = bytes;
            copies.blocks.insert(number, Arc::new(block));
        }
    }

    /// Whether there is room for one more block of that size.
    fn has_room(&self, bytes: u64, most: u64) -> bool {
        self.copies.lock().bytes + bytes <= most
    }

    /// Allocates the slots of a part.
    pub async fn create_slots(
        &self,
        model: &Model,
        device: &Device,
        part: Part,
    ) -> Result<(), Error> {
        let placement = self.placement();
        let blocks: Vec<_> = placement.blocks_of(part).collect();
        let weights: Vec<_> =
            blocks.iter().map(|(_, block)| model.parts.weights_of(block)).collect();
        let streamed: Vec<_> = blocks
            .iter()
            .zip(&weights)
            .map(|((number, block), weights)| streamed_block(*number, block, weights))
            .collect();
        Ok(device.store.create_streamed(&device.gpu, &streamed).await?)
    }

    /// Forgets what is in a part's slots, which were freed. Until the next block comes no staging memory is needed.
    pub fn forget(&self, part: Part) {
        self.slots.lock().retain(|(of, _), _| *of != part);
        self.carrier.take();
    }
}

/// Brings the blocks that a program needs.
pub(super) struct Feeder<'a> {
    pub model: &'a Model,
    pub device: &'a Device,
    pub streaming: &'a Streaming,
}

impl Feed for Feeder<'_> {
    type Error = Error;

    async fn bring(&self, number: u32, pauses: &Pauses) -> Result<(), Error> {
        let Feeder { model, device, streaming } = self;
        let placement = streaming.placement();
        let Some(block) = placement.streamed.get(number as usize) else {
            unreachable!("program with blocks of another placement")
        };
        let slot = (block.part, block.slot);
        if streaming.slots.lock().get(&slot) == Some(&number) {
            return Ok(());
        }
        // If this is dropped in the middle, nothing is there.
        streaming.slots.lock().remove(&slot);
        let carrier = streaming.carrier.lock().take();
        let mut carrier = carrier.unwrap_or_else(|| {
            let uploads = Uploads::within(placement.staging_bytes());
            Box::new(Carrier { uploads, packers: Packers::default(), random: Default::default() })
        });
        let tensors = model.parts.uploads_of(block.part);
        let turns = Turns::new();
        let copy = streaming.copies.lock().blocks.get(&number).cloned();
        let most = model.options.host_memory;
        let keeps = copy.is_none() && streaming.has_room(block.bytes(), most);
        let mut packed = Vec::with_capacity(if keeps { block.bytes() as usize } else { 0 });
        let mut at = 0;
        for i in &block.uploads {
            let (weights, Upload::Packed { weight, sources }) = tensors[*i] else { continue };
            let Carrier { uploads, packers, random } = &mut *carrier;
            if model.is_random {
                random.fill_packed(device, weight).await?;
            } else if let Some(copy) = &copy {
                for (shard, bytes) in weight.shard_bytes().enumerate() {
                    let end = at + bytes as usize;
                    for (i, part) in copy[at..end].chunks(COPIED_AT_ONCE).enumerate() {
                        let (gpu, store) = (&device.gpu, &device.store);
                        let offset = (i * COPIED_AT_ONCE) as u64;
                        uploads.write(gpu, store, weight.id, shard, offset, part).await?;
                        pauses.after(part.len() as u64).await;
                    }
                    at = end;
                }
            } else {
                let source = &*model.source;
                let from = (weights, weight, &sources[..]);
                packers.measure(source, weights, sources, &turns).await?;
                let keep = |bytes: &[u8]| {
                    if keeps {
                        packed.extend_from_slice(bytes);
                    }
                };
                let way = (&*uploads, pauses);
                packers.upload(source, device, from, way, &turns, keep).await?;
            }
        }
        carrier.uploads.flush(&device.gpu).await?;
        if keeps && !model.is_random {
            streaming.keep(number, packed, most);
        }
        streaming.carrier.set(Some(carrier));
        streaming.slots.lock().insert(slot, number);
        Ok(())
    }

    fn fit_together(&self, a: u32, b: u32) -> bool {
        let placement = self.streaming.placement();
        let slot = |number: u32| placement.streamed.get(number as usize).map(|block| block.slot);
        slot(a) != slot(b)
    }

    fn pieces(&self, number: u32) -> Pieces {
        let placement = self.streaming.placement();
        let block = placement.streamed.get(number as usize).map_or(0, Block::bytes);
        let bytes = (placement.staging_bytes() / 2).max(1);
        Pieces { count: block.div_ceil(bytes).max(1), bytes }
    }
}
