//! Which weights stay on the GPU and which are streamed, so that a run keeps within a budget of memory.
//!
//! The unit is a block of a network. A phase of a run (encoding the prompt, making modulations, drawing) needs some memory
//! always: temporaries, states, and weights that belong to no block. Of the rest of the budget, two slots serve the blocks
//! that are streamed, which take turns in them, and as many blocks as fit stay. Blocks that stay are spread between the
//! others: while one of them computes, the next streamed one arrives. The decoder's blocks come once for a picture, so they
//! are streamed rather than others. Where not even two slots fit, one has to do.

use std::collections::HashMap;

use super::decoder_memory::DecoderMemory;
use super::model::Parts;
use super::{Error, Part};
use crate::checkpoint::pack::RowSource;
use crate::checkpoint::weights::Weights;
use crate::gpu::{StreamedBlock, Uploads};
use crate::models::layers::Upload;
use crate::tensor::{PackedWeight, overlay};

/// How blocks are streamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slots {
    /// Blocks that are on the GPU together, in turn: two, or one, which the GPU waits for.
    pub count: usize,
    /// Whether all blocks of the decoder are among them.
    pub have_decoder: bool,
}

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
    /// Whether it is of the decoder, which is used once for a picture.
    pub is_decoders: bool,
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
    /// What the decoder's temporaries may take.
    pub decoder: DecoderMemory,
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
    /// Weights of the decoder that are streamed, once for every picture.
    pub decoder: u64,
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
    pub fn within(
        budget: u64,
        parts: &Parts,
        phases: &PhaseBytes,
        slots: Slots,
    ) -> Result<Self, Error> {
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
        let needs = Part::ALL.map(|part| Need::new(parts, part, phases.of(part), slots));
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
        let streamed = streamed.flat_map(|(need, n)| need.blocks.streamed(n)).collect();
        Ok(Placement {
            streamed,
            keeps_denoiser: next.is_some(),
            most_staging_bytes: Some(staging),
            ..Default::default()
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

    /// Bytes of weights that are streamed in `steps` steps and a picture. What encodes prompts and makes modulations is not among
    /// them: all of it arrives for every prompt, streamed or not.
    pub fn streamed_bytes(&self, steps: usize) -> u64 {
        let times = |block: &Block| if block.is_decoders { 1 } else { steps as u64 };
        let blocks = self.blocks_of(Part::Denoiser);
        blocks.map(|(_, block)| times(block) * block.bytes()).sum()
    }

    /// The numbers of a part's streamed blocks.
    pub fn blocks_of(&self, part: Part) -> impl Iterator<Item = (u32, &Block)> {
        let numbered = self.streamed.iter().enumerate();
        numbered.filter(move |(_, block)| block.part == part).map(|(i, block)| (i as u32, block))
    }

    /// How many of a part's streamed blocks are on the GPU together.
    pub fn slots_of(&self, part: Part) -> usize {
        self.blocks_of(part).map(|(_, block)| block.slot + 1).max().unwrap_or(0)
    }

    /// Which of a part's uploads are streamed, by their places.
    pub fn is_streamed(&self, part: Part, upload: usize) -> bool {
        self.blocks_of(part).any(|(_, block)| block.uploads.contains(&upload))
    }

    /// What a part takes.
    pub fn bytes_of(&self, parts: &Parts, part: Part) -> PartBytes {
        let blocks: Vec<Block> = self.blocks_of(part).map(|(_, block)| block.clone()).collect();
        let bytes = |is_decoders: bool| -> u64 {
            let own = blocks.iter().filter(|block| block.is_decoders == is_decoders);
            own.map(Block::bytes).sum()
        };
        let (streamed, decoder) = (bytes(false), bytes(true));
        PartBytes {
            resident: parts.bytes_of(part) - streamed - decoder,
            slots: slot_bytes(&blocks.iter().collect::<Vec<_>>()),
            streamed,
            decoder,
        }
    }
}

/// What a part needs while it works.
#[derive(Clone)]
struct Need {
    blocks: Blocks,
    /// Weights outside of these blocks, temporaries and states.
    fixed: u64,
}

impl Need {
    /// `bytes` are those of the part's phase, besides weights.
    fn new(parts: &Parts, part: Part, bytes: u64, slots: Slots) -> Self {
        let of_decoder = |block: &Block| block.is_decoders;
        let (mut once, all): (Vec<_>, Vec<_>) =
            parts.blocks_of(part).into_iter().partition(of_decoder);
        if !slots.have_decoder {
            once.clear();
        }
        let in_blocks: u64 = all.iter().chain(&once).map(Block::bytes).sum();
        let fixed = bytes + parts.bytes_of(part) - in_blocks;
        Need { blocks: Blocks { all, once, slots: slots.count }, fixed }
    }

    /// The same where `bytes` of it are there already.
    fn without(&self, bytes: u64) -> Self {
        Need { fixed: self.fixed - bytes, ..self.clone() }
    }

    /// Bytes if `resident` of its blocks stay.
    fn bytes(&self, resident: usize) -> u64 {
        self.fixed + self.blocks.bytes_with(resident)
    }

    fn least(&self) -> u64 {
        (0..=self.blocks.all.len()).map(|resident| self.bytes(resident)).min().unwrap_or(self.fixed)
    }

    /// The most blocks that may stay within `room` bytes; `None` if it does not fit at all.
    fn most_resident(&self, room: u64) -> Option<usize> {
        self.blocks.most_resident(room.checked_sub(self.fixed)?)
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

/// Bytes of the slots that blocks take turns in.
fn slot_bytes(blocks: &[&Block]) -> u64 {
    let slots = blocks.iter().map(|block| block.slot + 1).max().unwrap_or(0);
    let of_slot = |slot: usize| -> u64 {
        let own = blocks.iter().filter(|block| block.slot == slot);
        overlay(own.map(|block| block.buffers.as_slice())).iter().sum()
    };
    (0..slots).map(of_slot).sum()
}

/// Whether block `i` of `n` stays if `resident` of them do: they are spread evenly.
fn is_resident(i: usize, n: usize, resident: usize) -> bool {
    (i + 1) * resident / n > i * resident / n
}

/// Blocks of which some may stay.
#[derive(Clone)]
struct Blocks {
    all: Vec<Block>,
    /// Those that never stay.
    once: Vec<Block>,
    slots: usize,
}

impl Blocks {
    /// The blocks that are streamed if `resident` of them stay: the first goes to the first slot, the next to the next.
    fn streamed(&self, resident: usize) -> Vec<Block> {
        let n = self.all.len();
        let streamed = (0..n).filter(|i| !is_resident(*i, n, resident)).map(|i| &self.all[i]);
        let numbered = streamed.chain(&self.once).enumerate();
        numbered.map(|(i, block)| Block { slot: i % self.slots, ..block.clone() }).collect()
    }

    /// Bytes of all blocks if `resident` of them stay.
    fn bytes_with(&self, resident: usize) -> u64 {
        let n = self.all.len();
        let stays = (0..n).filter(|i| is_resident(*i, n, resident));
        let kept: u64 = stays.map(|i| self.all[i].bytes()).sum();
        kept + slot_bytes(&self.streamed(resident).iter().collect::<Vec<_>>())
    }

    /// The most blocks that may stay if all take at most `bytes`.
    fn most_resident(&self, bytes: u64) -> Option<usize> {
        (0..=self.all.len()).rev().find(|resident| self.bytes_with(*resident) <= bytes)
    }
}

impl Parts {
    /// The blocks of a part's networks, in the order in which they are used, with their matrices.
    pub fn blocks_of(&self, part: Part) -> Vec<Block> {
        let uploads = self.uploads_of(part);
        let mut blocks: Vec<Block> = Vec::new();
        let mut known: HashMap<(*const Weights, String), usize> = HashMap::new();
        for (i, (weights, upload)) in uploads.into_iter().enumerate() {
            let Upload::Packed { weight, sources } = upload else { continue };
            let is_decoders = std::ptr::eq(weights, &self.vae.weights);
            let name = |source: &RowSource| match is_decoders {
                true => layer_name(&source.tensor.name),
                false => block_name(&source.tensor.name),
            };
            let Some(name) = sources.first().and_then(name) else { continue };
            let at = *known.entry((std::ptr::from_ref(weights), name)).or_insert_with(|| {
                let (uploads, buffers) = (vec![], vec![]);
                blocks.push(Block { part, uploads, slot: 0, is_decoders, buffers });
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
    let at = parts.iter().position(is_number)?;
    Some(parts[..=at].join("."))
}

/// The same for the decoder, whose blocks have layers of very different sizes: the name up to the last number.
fn layer_name(tensor: &str) -> Option<String> {
    let parts: Vec<&str> = tensor.split('.').collect();
    let at = parts.iter().rposition(is_number)?;
    Some(parts[..=at].join("."))
}

fn is_number(part: &&str) -> bool {
    !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit())
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
            is_decoders: false,
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
        let two = Blocks { all, once: vec![], slots: 2 };
        assert_eq!(two.bytes_with(0), 128 + 112);
        assert_eq!(two.bytes_with(4), 96 + 96 + 96 + 48);
        assert_eq!(two.most_resident(239), None);
        assert_eq!(two.most_resident(240), Some(0));
        assert_eq!(two.most_resident(336), Some(4));
        // What is always streamed has a turn in the slots, too.
        let once = blocks(&[&[80]]);
        assert_eq!(Blocks { once, ..two.clone() }.bytes_with(4), 96 + 96 + 96 + 48 + 80);
        assert_eq!(Blocks { slots: 1, ..two }.bytes_with(0), 96 + 32 + 16);
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
        let name = |tensor| layer_name(tensor);
        let conv = "decoder.up_blocks.3.resnets.1.conv1.weight";
        assert_eq!(name(conv).unwrap(), "decoder.up_blocks.3.resnets.1");
        assert_eq!(name("decoder.conv_in.weight"), None);
    }
}
