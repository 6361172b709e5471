//! Numbers that are too large for f16: where kernels that round to it say so, and which blocks must not round.

use std::collections::BTreeSet;

use super::Resident;
use crate::sync::Locked;

/// The names of blocks, as [`super::Recorder::scope`] has them: `double.3`.
pub type Blocks = BTreeSet<String>;

/// The flags of the blocks of one or more recordings. Kernels that round to f16 raise their block's flag if a number lies
/// beyond it.
#[derive(Debug)]
pub struct F16Range {
    flags: Resident,
    /// Those that have a flag, in the order of the flags.
    flagged: Locked<Vec<String>>,
    in_f32: Blocks,
}

impl F16Range {
    /// The number of flags; if there are more blocks, the last flag is for all others.
    pub const FLAGS: usize = 128;

    /// `flags` is `[1, FLAGS]`, of u32 and zero; blocks of `in_f32` do not round.
    pub fn new(flags: Resident, in_f32: Blocks) -> Self {
        assert_eq!(flags.rows * flags.cols, F16Range::FLAGS);
        F16Range { flags, flagged: Locked::default(), in_f32 }
    }

    /// Where the flags are.
    pub fn flags(&self) -> &Resident {
        &self.flags
    }

    /// Whether a block must not round.
    pub fn is_in_f32(&self, block: &str) -> bool {
        self.in_f32.contains(block)
    }

    /// The number of a block's flag.
    pub fn flag(&self, block: &str) -> usize {
        let mut flagged = self.flagged.lock();
        let at = flagged.iter().position(|known| known == block).unwrap_or_else(|| {
            flagged.push(block.to_owned());
            flagged.len() - 1
        });
        at.min(F16Range::FLAGS - 1)
    }

    /// The blocks whose flags are raised in `flags`, which were read back.
    pub fn beyond(&self, flags: &[f32]) -> Blocks {
        let raised =
            |block: &&String| flags.get(self.flag(block)).is_some_and(|f| f.to_bits() != 0);
        let flagged = self.flagged.lock().clone();
        flagged.iter().filter(raised).cloned().collect()
    }
}
