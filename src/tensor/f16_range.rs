//! Numbers that are too large for f16: where kernels that round to it say so, and which blocks must not round.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::Resident;
use crate::sync::Locked;

/// The names of blocks, as [`super::Recorder::scope`] has them: `double.3`.
pub type Blocks = BTreeSet<String>;

/// What becomes of a block that met numbers beyond f16. Each is for where the one before it does not help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fallback {
    /// The x of linear layers and the values of attention are multiplied by [`Fallback::SCALE`] before they are rounded,
    /// and results divided by it. That costs no time, and no bits of numbers that stay normal in f16, as those from
    /// 2^-6 = 0.016 on do. Smaller ones are rounded to multiples of 2^-16, so they are off by 8e-6 at most, or by 0.016, all
    /// that they are, where a chip takes subnormal numbers for zero; next to a number beyond 65504 = 2^16 either is less
    /// than a rounding. Queries and keys, which models norm, are as they were: their small numbers matter in a softmax.
    Scaled,
    /// Its products do not round.
    F32,
}

impl Fallback {
    /// 2^-8: numbers up to 1.6e7 fit. A power of two, so that it changes nothing else.
    pub const SCALE: f32 = 1.0 / 256.0;
}

/// The blocks that met numbers beyond f16, and what has become of each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fallbacks(BTreeMap<String, Fallback>);

impl Fallbacks {
    /// What has become of a block, if it met such numbers.
    pub fn of(&self, block: &str) -> Option<Fallback> {
        self.0.get(block).copied()
    }

    /// The names of the blocks of one kind, in their order.
    pub fn of_kind(&self, kind: Fallback) -> Vec<String> {
        let blocks = self.0.iter().filter(|(_, fallback)| **fallback == kind);
        blocks.map(|(block, _)| block.clone()).collect()
    }

    /// Gives each of `blocks`, which met numbers beyond f16, the next fallback. What has changed: nothing, if all of them
    /// are in f32 already.
    pub fn raise(&mut self, blocks: &Blocks) -> Fallbacks {
        let mut raised = Fallbacks::default();
        for block in blocks {
            let next = match self.of(block) {
                None => Fallback::Scaled,
                Some(Fallback::Scaled) => Fallback::F32,
                Some(Fallback::F32) => continue,
            };
            self.0.insert(block.clone(), next);
            raised.0.insert(block.clone(), next);
        }
        raised
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The flags of the blocks of one or more recordings. Kernels that round to f16 raise their block's flag if a number lies
/// beyond it.
#[derive(Debug)]
pub struct F16Range {
    flags: Resident,
    /// Those that have a flag, in the order of the flags.
    flagged: Locked<Vec<String>>,
    fallbacks: Fallbacks,
}

impl F16Range {
    /// The number of flags; if there are more blocks, the last flag is for all others.
    pub const FLAGS: usize = 128;
    /// The name of the block of all that is outside of blocks.
    pub const AROUND: &'static str = "the layers around the blocks";

    /// `flags` is `[1, FLAGS]`, of u32 and zero.
    pub fn new(flags: Resident, fallbacks: Fallbacks) -> Self {
        assert_eq!(flags.rows * flags.cols, F16Range::FLAGS);
        F16Range { flags, flagged: Locked::default(), fallbacks }
    }

    /// Where the flags are.
    pub fn flags(&self) -> &Resident {
        &self.flags
    }

    /// What has become of a block that met numbers beyond f16.
    pub fn fallback(&self, block: &str) -> Option<Fallback> {
        self.fallbacks.of(block)
    }

    /// Whether any kernel was recorded that rounds.
    pub fn is_used(&self) -> bool {
        !self.flagged.lock().is_empty()
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
