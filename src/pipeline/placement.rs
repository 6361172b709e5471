//! Which weights stay on the GPU and which are streamed, so that a run keeps within a budget of memory.
//!
//! The unit is a block of a network. A phase of a run (encoding the prompt, making modulations, drawing) needs some memory
//! always: temporaries, states, and weights that belong to no block. Of the rest of the budget, two slots serve the blocks
//! that are streamed, which take turns in them, and as many blocks as fit stay. Blocks that stay are spread between the
//! others: while one of them computes, the next streamed one arrives.

use std::collections::HashMap;

use super::model::Parts;
use super::{Error, Part};
use crate::checkpoint::weights::Weights;
use crate::gpu::{StreamedBlock, Uploads};
use crate::models::layers::Upload;
use crate::tensor::{PackedWeight, overlay};

/// Blocks that are on the GPU together, in turn.
const SLOTS: usize = 2;
/// Share of a budget that staging memory may take.
const STAGING_SHARE: u64 = 32;

/// The large weights of one block of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// What it is a block of.
    pub part: Part,
    /// Its weights, by their place in [`Parts::uploads_of`].
    pub uploads: Vec<usize>,
    /// Which of the slots it is brought to.
    pub slot: usize,
    /// Sizes of its buffers.
    buffers: Vec<u64>,
}

impl Block {
    /// Bytes of its weights.
    pub fn bytes(&self) -> u64 {
        self.buffers.iter().sum()
    }
}

/// Bytes of what a run needs besides weights, in each of its phases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PhaseBytes {
    /// While the prompt is encoded.
    pub encoding: u64,
    /// While modulations are made.
    pub modulating: u64,
    /// The modulations themselves, which are among those of modulating and of denoising.
    pub modulations: u64,
    /// From the first step to the picture.
    pub denoising: u64,
    /// In all phases, if nothing leaves the GPU between them.
    pub together: u64,
}

impl PhaseBytes {
    fn of(&self, part: Part) -> u64 {
        match part {
            Part::TextEncoders => self.encoding,
            Part::Modulation => self.modulating,
            Part::Denoiser => self.denoising,
        }
    }
}

/// What is streamed in a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Placement {
    /// The blocks, each by its number.
    pub streamed: Vec<Block>,
    /// Whether text encoders and modulations stay on the GPU after their work.
    pub keeps_all_parts: bool,
    /// Whether there is room for what encodes another prompt and makes its modulations next to the denoiser, so that this
    /// stays where it is.
    pub keeps_denoiser: bool,
    /// Bytes that uploads may take for staging, where that is limited.
    pub most_staging_bytes: Option<u64>,
}

/// What a part of a model takes on the GPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PartBytes {
    /// Weights that stay.
    pub resident: u64,
    /// Memory that streamed blocks share.
    pub slots: u64,
    /// Weights that are streamed, once for every use of the part.
    pub streamed: u64,
}

impl PartBytes {
    /// All that is on the GPU.
    pub fn total(&self) -> u64 {
        self.resident + self.slots
    }
}

impl Placement {
    /// Everything stays, as long as it is needed or, if `keeps_all_parts`, longer.
    pub fn resident(keeps_all_parts: bool) -> Self {
        Placement { keeps_all_parts, ..Default::default() }
    }

    /// The placement for which a run keeps within `budget` bytes, with as few streamed blocks of the denoiser as can be. If what
    /// works on the next prompt fits next to it, by streaming more of its own, the denoiser stays.
    ///
    /// # Errors
    ///
    /// If there is none: [`Error::MemoryBudget`] says what is the least.
    pub fn within(budget: u64, parts: &Parts, phases: &PhaseBytes) -> Result<Self, Error> {
        let staging = staging_bytes(budget);
        let all = |part: &Part| parts.bytes_of(*part);
        let kept = Part::ALL.iter().map(all).sum::<u64>() + phases.together + staging;
        if kept <= budget {
            return Ok(Placement {
                keeps_all_parts: true,
                most_staging_bytes: Some(staging),
                ..Default::default()
            });
        }
        let needs = Part::ALL.map(|part| Need::new(parts, part, phases.of(part)));
        let least = needs.iter().map(Need::least).max().unwrap_or(0);
        let room = budget.saturating_sub(staging);
        let apart = needs.iter().map(|need| need.most_resident(room)).collect::<Option<Vec<_>>>();
        let Some(apart) = apart else {
            return Err(Error::MemoryBudget { budget, least: least_budget(least) });
        };
        let [encoders, modulation, denoiser] = &needs;
        let left = room.saturating_sub(denoiser.bytes(apart[2]));
        let modulation = modulation.without(phases.modulations);
        let next = encoders.most_resident(left).zip(modulation.most_resident(left));
        let resident = match next {
            Some((encoders, modulation)) => vec![encoders, modulation, apart[2]],
            None => apart,
        };
        let streamed = needs.iter().zip(resident);
        let streamed = streamed.flat_map(|(need, n)| streamed_of(&need.blocks, n)).collect();
        Ok(Placement {
            streamed,
            keeps_all_parts: false,
            keeps_denoiser: next.is_some(),
            most_staging_bytes: Some(staging),
        })
    }

    /// Bytes that uploads take for staging.
    pub fn staging_bytes(&self) -> u64 {
        Uploads::within(self.most_staging_bytes.unwrap_or(u64::MAX)).staging_bytes()
    }

    /// Whether any block comes and goes.
    pub fn streams(&self) -> bool {
        !self.streamed.is_empty()
    }

    /// The numbers of a part's streamed blocks.
    pub fn blocks_of(&self, part: Part) -> impl Iterator<Item = (u32, &Block)> {
        let numbered = self.streamed.iter().enumerate();
        numbered.filter(move |(_, block)| block.part == part).map(|(i, block)| (i as u32, block))
    }

    /// Which of a part's uploads are streamed, by their places.
    pub fn is_streamed(&self, part: Part, upload: usize) -> bool {
        self.blocks_of(part).any(|(_, block)| block.uploads.contains(&upload))
    }

    /// What a part takes.
    pub fn bytes_of(&self, parts: &Parts, part: Part) -> PartBytes {
        let blocks: Vec<Block> = self.blocks_of(part).map(|(_, block)| block.clone()).collect();
        let streamed = blocks.iter().map(Block::bytes).sum();
        PartBytes {
            resident: parts.bytes_of(part) - streamed,
            slots: slot_bytes(blocks.iter()),
            streamed,
        }
    }
}

/// What a part needs while it works.
#[derive(Clone)]
struct Need {
    blocks: Vec<Block>,
    /// Weights outside of blocks, temporaries and states.
    fixed: u64,
}

impl Need {
    /// `bytes` are those of the part's phase, besides weights.
    fn new(parts: &Parts, part: Part, bytes: u64) -> Self {
        let blocks = parts.blocks_of(part);
        let in_blocks: u64 = blocks.iter().map(Block::bytes).sum();
        Need { fixed: bytes + parts.bytes_of(part) - in_blocks, blocks }
    }

    /// The same where `bytes` of it are there already.
    fn without(&self, bytes: u64) -> Self {
        Need { fixed: self.fixed - bytes, ..self.clone() }
    }

    /// Bytes if `resident` of its blocks stay.
    fn bytes(&self, resident: usize) -> u64 {
        self.fixed + bytes_with(&self.blocks, resident)
    }

    fn least(&self) -> u64 {
        (0..=self.blocks.len()).map(|resident| self.bytes(resident)).min().unwrap_or(self.fixed)
    }

    /// The most blocks that may stay within `room` bytes; `None` if it does not fit at all.
    fn most_resident(&self, room: u64) -> Option<usize> {
        most_resident(&self.blocks, room.checked_sub(self.fixed)?)
    }
}

/// Bytes of staging memory within a budget.
fn staging_bytes(budget: u64) -> u64 {
    Uploads::within(budget / STAGING_SHARE).staging_bytes()
}

/// The smallest budget of which `bytes` are left besides staging memory.
fn least_budget(bytes: u64) -> u64 {
    let mut budget = bytes;
    while budget < bytes + staging_bytes(budget) {
        budget = bytes + staging_bytes(budget);
    }
    budget
}

/// Bytes of the slots that blocks take turns in, of which the first goes to the first slot, the next to the next.
fn slot_bytes<'b>(blocks: impl Iterator<Item = &'b Block> + Clone) -> u64 {
    let of_slot = |slot: usize| -> u64 {
        let own = blocks.clone().skip(slot).step_by(SLOTS);
        overlay(own.map(|block| block.buffers.as_slice())).iter().sum()
    };
    (0..SLOTS).map(of_slot).sum()
}

/// Whether block `i` of `n` stays if `resident` of them do: they are spread evenly.
fn is_resident(i: usize, n: usize, resident: usize) -> bool {
    (i + 1) * resident / n > i * resident / n
}

/// Bytes of all blocks if `resident` of them stay.
fn bytes_with(blocks: &[Block], resident: usize) -> u64 {
    let n = blocks.len();
    let stays = |i: &usize| is_resident(*i, n, resident);
    let kept: u64 = (0..n).filter(stays).map(|i| blocks[i].bytes()).sum();
    let streamed = (0..n).filter(|i| !stays(i)).map(|i| &blocks[i]);
    kept + slot_bytes(streamed)
}

/// The most blocks that may stay if all take at most `bytes`.
fn most_resident(blocks: &[Block], bytes: u64) -> Option<usize> {
    (0..=blocks.len()).rev().find(|resident| bytes_with(blocks, *resident) <= bytes)
}

/// The blocks that are streamed if `resident` of them stay.
fn streamed_of(blocks: &[Block], resident: usize) -> Vec<Block> {
    let n = blocks.len();
    let streamed = (0..n).filter(|i| !is_resident(*i, n, resident));
    let numbered = streamed.enumerate();
    numbered.map(|(i, block)| Block { slot: i % SLOTS, ..blocks[block].clone() }).collect()
}

impl Parts {
    /// The blocks of a part's networks, in the order in which they are used, with their matrices. A decoder has none: its
    /// layers are few, and each is used once.
    pub fn blocks_of(&self, part: Part) -> Vec<Block> {
        let uploads = self.uploads_of(part);
        let mut blocks: Vec<Block> = Vec::new();
        let mut known: HashMap<(*const Weights, String), usize> = HashMap::new();
        for (i, (weights, upload)) in uploads.into_iter().enumerate() {
            let Upload::Packed { weight, sources } = upload else { continue };
            if std::ptr::eq(weights, &self.vae.weights) {
                continue;
            }
            let Some(name) = sources.first().and_then(|source| block_name(&source.tensor.name))
            else {
                continue;
            };
            let at = *known.entry((std::ptr::from_ref(weights), name)).or_insert_with(|| {
                blocks.push(Block { part, uploads: vec![], slot: 0, buffers: vec![] });
                blocks.len() - 1
            });
            blocks[at].uploads.push(i);
            blocks[at].buffers.extend(weight.shard_bytes().map(buffer_bytes));
        }
        blocks
    }

    /// The matrices of a block.
    pub fn weights_of<'p>(&'p self, block: &Block) -> Vec<&'p PackedWeight> {
        let uploads = self.uploads_of(block.part);
        let weights = block.uploads.iter().filter_map(|i| match uploads[*i].1 {
            Upload::Packed { weight, .. } => Some(weight),
            _ => None,
        });
        weights.collect()
    }
}

/// What a buffer of `bytes` takes.
fn buffer_bytes(bytes: u64) -> u64 {
    bytes.next_multiple_of(16)
}

/// The block that a tensor belongs to: its name up to the first number. `None` if it is outside of all blocks.
fn block_name(tensor: &str) -> Option<String> {
    let parts: Vec<&str> = tensor.split('.').collect();
    let is_number = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let at = parts.iter().position(is_number)?;
    Some(parts[..=at].join("."))
}

/// As the store wants it; `weights` are those of the block.
pub(super) fn streamed_block<'w>(
    number: u32,
    block: &Block,
    weights: &'w [&'w PackedWeight],
) -> StreamedBlock<'w> {
    StreamedBlock { number, slot: block.slot, weights }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(sizes: &[&[u64]]) -> Vec<Block> {
        let block = |buffers: &&[u64]| Block {
            part: Part::Denoiser,
            uploads: vec![],
            slot: 0,
            buffers: buffers.to_vec(),
        };
        sizes.iter().map(block).collect()
    }

    #[test]
    fn blocks_that_stay_are_spread() {
        let stays = |n: usize, resident: usize| -> String {
            (0..n).map(|i| if is_resident(i, n, resident) { 'r' } else { 's' }).collect()
        };
        assert_eq!(stays(6, 3), "srsrsr");
        assert_eq!(stays(6, 2), "ssrssr");
        assert_eq!(stays(5, 1), "ssssr");
        assert_eq!((stays(4, 0), stays(4, 4)), ("ssss".into(), "rrrr".into()));
    }

    #[test]
    fn slots_hold_the_largest_block() {
        let all = blocks(&[&[64, 32], &[32, 64], &[96], &[16, 16, 16]]);
        // The first slot serves blocks 0 and 2: 96 and 32; the second 1 and 3: 64, 32 and 16.
        assert_eq!(bytes_with(&all, 0), 128 + 112);
        assert_eq!(bytes_with(&all, 4), 96 + 96 + 96 + 48);
        assert_eq!(most_resident(&all, 239), None);
        assert_eq!(most_resident(&all, 240), Some(0));
        assert_eq!(most_resident(&all, 336), Some(4));
    }

    #[test]
    fn blocks_are_named_by_their_first_number() {
        let name = |tensor| block_name(tensor);
        assert_eq!(name("transformer_blocks.12.ff.net.2.weight").unwrap(), "transformer_blocks.12");
        assert_eq!(
            name("encoder.block.3.layer.0.SelfAttention.q.weight").unwrap(),
            "encoder.block.3"
        );
        assert_eq!(name("x_embedder.weight"), None);
    }
}
