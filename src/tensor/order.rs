//! Commands in another order with the same results: work on a band of a picture while it is there.

use std::collections::HashMap;

use super::{BufferRef, Command, Recorder};

impl Recorder {
    /// Has `body` record, and moves each of its commands forward, to right behind the last one before it that names one
    /// of its buffers. Where a picture is in bands, what is done to it goes on band by band then, and a band that is done
    /// with leaves its memory to others.
    pub fn early<T>(&self, body: impl FnOnce() -> T) -> T {
        let from = self.inner.borrow().commands.len();
        let result = body();
        // Flags are only ever raised, so their order is no matter.
        let flags = self.f16_range.as_ref().map(|range| range.flags().id);
        let counts = |buffer: &BufferRef| match buffer {
            BufferRef::Temp(_) => true,
            BufferRef::Resident(id, _) => Some(*id) != flags,
        };
        let mut inner = self.inner.borrow_mut();
        let late = inner.commands.split_off(from);
        let commands = std::mem::take(&mut inner.commands);
        inner.commands = merge(commands, late, counts);
        result
    }
}

/// `late` moved forward into `commands`. Neither changes its own order.
fn merge(
    commands: Vec<Command>,
    late: Vec<Command>,
    counts: impl Fn(&BufferRef) -> bool,
) -> Vec<Command> {
    let named = |command: &Command| -> Vec<BufferRef> {
        command.buffers().into_iter().map(|(buffer, _)| buffer).filter(&counts).collect()
    };
    // How many commands there are up to the last one that names a buffer.
    let mut last: HashMap<BufferRef, usize> = HashMap::new();
    for (i, command) in commands.iter().enumerate() {
        last.extend(named(command).into_iter().map(|buffer| (buffer, i + 1)));
    }
    let mut merged = Vec::with_capacity(commands.len() + late.len());
    let mut commands = commands.into_iter();
    let mut taken = 0;
    for command in late {
        let after = named(&command).iter().filter_map(|buffer| last.get(buffer)).max();
        let missing = after.map_or(0, |after| after.saturating_sub(taken));
        merged.extend(commands.by_ref().take(missing));
        taken += missing;
        merged.push(command);
    }
    merged.extend(commands);
    merged
}
