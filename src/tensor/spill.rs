//! Recordings whose temporaries take less memory than there are of them: some wait on the host until they are needed again.

use std::collections::HashMap;

use super::{BufferRef, Command, Recording, TempId, plan_memory};

/// How often a smaller capacity is tried where slots leave gaps.
const TRIES: usize = 6;

/// `recording` with temporaries that the memory plan puts into at most `most` bytes, to the same bits: where there are more,
/// those that are needed last are saved on the host and restored. `None` if a single command needs more.
pub fn spill(recording: &Recording, most: u64) -> Option<Recording> {
    if plan_memory(recording).total_bytes() <= most {
        return Some(recording.clone());
    }
    let mut capacity = most;
    for _ in 0..TRIES {
        let spilled = with_capacity(recording, capacity)?;
        let total = plan_memory(&spilled).total_bytes();
        if total <= most {
            return Some(spilled);
        }
        // Temporaries of different sizes leave gaps in each other's slots.
        capacity = (capacity as f64 * most as f64 / total as f64 * 0.98) as u64;
    }
    None
}

/// Temporaries stay on the GPU that are that many times smaller than the largest: to move one would win nothing.
const SMALL: u64 = 64;

/// A temporary while commands are gone through.
struct Temp {
    bytes: u64,
    /// The commands that name it.
    uses: Vec<usize>,
    /// How many of them are over.
    used: usize,
    /// What it is called now, while it is on the GPU.
    now: Option<TempId>,
    /// Whether the host has what is in it.
    is_saved: bool,
}

impl Temp {
    fn next_use(&self) -> Option<usize> {
        self.uses.get(self.used).copied()
    }
}

/// Has at most `capacity` bytes of temporaries on the GPU together: the temporary that is needed last leaves first (Belady, A
/// study of replacement algorithms, 1966).
fn with_capacity(recording: &Recording, capacity: u64) -> Option<Recording> {
    let new =
        |bytes: &u64| Temp { bytes: *bytes, uses: vec![], used: 0, now: None, is_saved: false };
    let mut temps: Vec<Temp> = recording.temp_bytes.iter().map(new).collect();
    for (at, command) in recording.commands.iter().enumerate() {
        for (id, _) in temps_of(command) {
            let uses = &mut temps[id].uses;
            if uses.last() != Some(&at) {
                uses.push(at);
            }
        }
    }

    let mut spilled = Recording {
        commands: vec![],
        temp_bytes: vec![],
        temp_labels: vec![],
        ..recording.clone()
    };
    let largest = recording.temp_bytes.iter().copied().max().unwrap_or(0);
    let mut on_gpu: Vec<usize> = Vec::new();
    let mut bytes = 0;
    for command in &recording.commands {
        let named = temps_of(command);
        let is_named = |id: &usize| named.iter().any(|(named, _)| named == id);
        let mut missing: Vec<usize> =
            named.iter().map(|(id, _)| *id).filter(|id| temps[*id].now.is_none()).collect();
        missing.sort_unstable();
        missing.dedup();
        let incoming: u64 = missing.iter().map(|id| temps[*id].bytes).sum();
        while bytes + incoming > capacity {
            let may_leave = |i: &usize| {
                let id = on_gpu[*i];
                !is_named(&id) && temps[id].bytes > largest / SMALL
            };
            let others = (0..on_gpu.len()).filter(may_leave);
            let last = others.max_by_key(|i| (temps[on_gpu[*i]].next_use(), on_gpu[*i]))?;
            let id = on_gpu.swap_remove(last);
            let temp = &mut temps[id];
            bytes -= temp.bytes;
            let now = temp.now.take();
            if !temp.is_saved
                && let Some(now) = now
            {
                let src = BufferRef::Temp(now);
                spilled.commands.push(Command::Save { src, bytes: temp.bytes, copy: id as u32 });
                temp.is_saved = true;
            }
        }
        for id in missing {
            let temp = &mut temps[id];
            let now = TempId(spilled.temp_bytes.len() as u32);
            spilled.temp_bytes.push(temp.bytes);
            spilled.temp_labels.push(recording.temp_labels[id].clone());
            if temp.is_saved {
                let (dst, bytes) = (BufferRef::Temp(now), temp.bytes);
                let copy = id as u32;
                spilled.commands.push(Command::Restore { copy, dst, bytes, is_last: false });
            }
            temp.now = Some(now);
            bytes += temp.bytes;
            on_gpu.push(id);
        }
        spilled.commands.push(renamed(command, &temps));
        for (id, is_written) in &named {
            temps[*id].is_saved &= !is_written;
        }
        let mut over: Vec<usize> = named.into_iter().map(|(id, _)| id).collect();
        over.sort_unstable();
        over.dedup();
        for id in over {
            let temp = &mut temps[id];
            temp.used += 1;
            if temp.next_use().is_none() {
                bytes -= temp.bytes;
                on_gpu.retain(|other| *other != id);
            }
        }
    }
    mark_last(&mut spilled.commands);
    Some(spilled)
}

/// The temporaries that a command names, with whether it writes them.
fn temps_of(command: &Command) -> Vec<(usize, bool)> {
    let temps = command.buffers().into_iter().filter_map(|(buffer, is_written)| match buffer {
        BufferRef::Temp(id) => Some((id.0 as usize, is_written)),
        BufferRef::Resident(..) => None,
    });
    temps.collect()
}

/// A command with the names that temporaries have now.
fn renamed(command: &Command, temps: &[Temp]) -> Command {
    let rename = |buffer: &mut BufferRef| {
        if let BufferRef::Temp(id) = buffer
            && let Some(now) = temps[id.0 as usize].now
        {
            *id = now;
        }
    };
    let mut command = command.clone();
    match &mut command {
        Command::Dispatch(dispatch) => {
            dispatch.bindings.iter_mut().for_each(|binding| rename(&mut binding.buffer));
        }
        Command::Copy { src, dst, .. } => {
            rename(src);
            rename(dst);
        }
        Command::Save { src, .. } => rename(src),
        Command::Restore { dst, .. } => rename(dst),
    }
    command
}

/// Says of each copy when it is restored for the last time, so that the host need not keep it.
fn mark_last(commands: &mut [Command]) {
    let mut restored_again: HashMap<u32, bool> = HashMap::new();
    for command in commands.iter_mut().rev() {
        match command {
            Command::Restore { copy, is_last, .. } => {
                *is_last = !restored_again.insert(*copy, true).unwrap_or(false);
            }
            Command::Save { copy, .. } => {
                restored_again.insert(*copy, false);
            }
            Command::Dispatch(_) | Command::Copy { .. } => {}
        }
    }
}
