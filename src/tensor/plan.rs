//! The memory plan: which temporaries may share a buffer.

use super::{BufferRef, Recording};

/// Temporaries assigned to slots: a pure function of a recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Size of each slot in bytes, largest first.
    pub slots: Vec<u64>,
    /// For every temporary: its slot, or `None` if nothing uses it.
    pub slot_of: Vec<Option<usize>>,
}

impl MemoryPlan {
    /// Sum of all slots.
    pub fn total_bytes(&self) -> u64 {
        self.slots.iter().sum()
    }
}

/// Gives temporaries whose lifetimes overlap different slots, greedily from the largest to the smallest.
///
/// A temporary lives from the first command that names it to the last. Slots are whole buffers, as WebGPU
/// forbids reading and writing one buffer in the same dispatch even in disjoint ranges.
pub fn plan_memory(recording: &Recording) -> MemoryPlan {
    let sizes = &recording.temp_bytes;
    let mut lives: Vec<Option<(usize, usize)>> = vec![None; sizes.len()];
    let mut touch = |buffer: BufferRef, at: usize| {
        if let BufferRef::Temp(id) = buffer {
            let life = &mut lives[id.0 as usize];
            *life = Some(life.map_or((at, at), |(first, _)| (first, at)));
        }
    };
    for (at, command) in recording.commands.iter().enumerate() {
        command.buffers().into_iter().for_each(|(buffer, _)| touch(buffer, at));
    }

    let mut order: Vec<usize> = (0..sizes.len()).filter(|&i| lives[i].is_some()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(sizes[i]), i));

    let mut slots: Vec<(u64, Vec<(usize, usize)>)> = Vec::new();
    let mut slot_of = vec![None; sizes.len()];
    for i in order {
        let Some((first, last)) = lives[i] else { continue };
        let free =
            slots.iter().position(|(_, taken)| taken.iter().all(|&(f, l)| last < f || l < first));
        // Sizes come in descending order, so any slot that is free in time is also large enough.
        let slot = free.unwrap_or_else(|| {
            slots.push((sizes[i], Vec::new()));
            slots.len() - 1
        });
        slots[slot].1.push((first, last));
        slot_of[i] = Some(slot);
    }
    MemoryPlan { slots: slots.into_iter().map(|(bytes, _)| bytes).collect(), slot_of }
}

/// Sizes of buffers that several groups of buffers use one after the other: the i-th largest of each group lies in the i-th of
/// them. Largest first.
pub fn overlay<'a>(groups: impl IntoIterator<Item = &'a [u64]>) -> Vec<u64> {
    let mut sizes: Vec<u64> = Vec::new();
    for group in groups {
        let mut group = group.to_vec();
        group.sort_unstable_by(|a, b| b.cmp(a));
        sizes.resize(sizes.len().max(group.len()), 0);
        sizes.iter_mut().zip(group).for_each(|(size, own)| *size = own.max(*size));
    }
    sizes
}
