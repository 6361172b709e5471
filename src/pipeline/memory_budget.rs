//! How much memory runs may take, and how that is written.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

/// How much GPU memory runs may take. Written `auto`, `off`, or as a size: `6GiB`, `1.5 GB`, `800M`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
#[non_exhaustive]
pub enum MemoryBudget {
    /// As much as it takes. Where the adapter says what it has free ([`Gpu::free_memory`](crate::gpu::Gpu::free_memory)) and a
    /// run needs more, that less what others need ([`usable_memory`]). If an allocation fails all the same, the run goes on
    /// within four fifths of what there was.
    #[default]
    Auto,
    /// As much as it takes. If an allocation fails, the run fails.
    Off,
    /// That many bytes, staging memory of uploads included.
    Bytes(u64),
}

impl MemoryBudget {
    /// The number of bytes, if there is one.
    pub fn bytes(self) -> Option<u64> {
        match self {
            MemoryBudget::Bytes(bytes) => Some(bytes),
            MemoryBudget::Auto | MemoryBudget::Off => None,
        }
    }
}

/// What others need of an adapter's memory, at least: the screen, and programs that draw on it.
const LEAST_FOR_OTHERS: u64 = 512 << 20;

/// What runs may take of `bytes` that they could have: a tenth, and half a GiB at least, is for the screen and other programs.
pub fn usable_memory(bytes: u64) -> u64 {
    bytes.saturating_sub(LEAST_FOR_OTHERS.max(bytes / 10))
}

/// What limits the memory of runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limit {
    /// The most that a run may take.
    pub bytes: u64,
    /// Whether it is what the adapter had free when it was asked, rather than what the host asked for or what there was when
    /// memory was full.
    pub is_told: bool,
}

impl Limit {
    /// A limit that is not looked at again.
    pub fn fixed(bytes: u64) -> Self {
        Limit { bytes, is_told: false }
    }

    /// A limit by what the adapter has free.
    pub fn told(bytes: u64) -> Self {
        Limit { bytes, is_told: true }
    }

    /// This limit, or `usable` bytes if that is less or much more: a run with the same limit as the one before finds its weights
    /// where they were. A little less does not count: drivers also count what lies between our buffers.
    pub fn renewed(self, usable: u64) -> Self {
        match (self.bytes - self.bytes / 16..=self.bytes / 4 * 5).contains(&usable) {
            true => self,
            false => Limit::told(usable),
        }
    }
}

/// Units in lower case, and how many bytes they are. A letter alone is a power of 1024.
const UNITS: [(&str, f64); 10] = [
    ("gib", 1_073_741_824.0),
    ("mib", 1_048_576.0),
    ("kib", 1024.0),
    ("gb", 1e9),
    ("mb", 1e6),
    ("kb", 1e3),
    ("g", 1_073_741_824.0),
    ("m", 1_048_576.0),
    ("k", 1024.0),
    ("b", 1.0),
];

impl FromStr for MemoryBudget {
    type Err = MemoryBudgetError;

    fn from_str(text: &str) -> Result<Self, MemoryBudgetError> {
        let lower = text.trim().to_ascii_lowercase();
        match lower.as_str() {
            "auto" => return Ok(MemoryBudget::Auto),
            "off" => return Ok(MemoryBudget::Off),
            _ => {}
        }
        let (number, unit) = UNITS
            .iter()
            .find_map(|(unit, bytes)| Some((lower.strip_suffix(unit)?, *bytes)))
            .unwrap_or((&lower, 1.0));
        let number: f64 = number.trim().parse().map_err(|_| MemoryBudgetError)?;
        let bytes = number * unit;
        match bytes.is_finite() && (1.0..=1e18).contains(&bytes) {
            true => Ok(MemoryBudget::Bytes(bytes as u64)),
            false => Err(MemoryBudgetError),
        }
    }
}

impl TryFrom<String> for MemoryBudget {
    type Error = MemoryBudgetError;

    fn try_from(text: String) -> Result<Self, MemoryBudgetError> {
        text.parse()
    }
}

impl fmt::Display for MemoryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MemoryBudget::Auto => f.write_str("auto"),
            MemoryBudget::Off => f.write_str("off"),
            MemoryBudget::Bytes(bytes) => write!(f, "{bytes}B"),
        }
    }
}

/// A text that is no [`MemoryBudget`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no budget of memory: expected auto, off, or a size such as 6GiB or 800MiB")]
pub struct MemoryBudgetError;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_are_read_and_written() {
        let read = |text: &str| text.parse::<MemoryBudget>();
        let bytes = |bytes| Ok(MemoryBudget::Bytes(bytes));
        assert_eq!(read(" Auto"), Ok(MemoryBudget::Auto));
        assert_eq!(read("off"), Ok(MemoryBudget::Off));
        for (text, expected) in [
            ("6GiB", 6 << 30),
            ("6 g", 6 << 30),
            ("1.5GB", 1_500_000_000),
            ("800M", 800 << 20),
            ("123", 123),
            ("64kb", 64_000),
        ] {
            assert_eq!(read(text), bytes(expected), "{text}");
        }
        for text in ["", "GiB", "-1G", "0", "1e300G", "nanG", "infinity", "6GiBs", "six"] {
            assert_eq!(read(text), Err(MemoryBudgetError), "{text}");
        }
        for budget in [MemoryBudget::Auto, MemoryBudget::Off, MemoryBudget::Bytes(12_345)] {
            assert_eq!(read(&budget.to_string()), Ok(budget));
        }
    }

    #[test]
    fn the_screen_has_its_share() {
        assert_eq!(usable_memory(10_000_000_000), 9_000_000_000);
        assert_eq!(usable_memory(4 << 30), (4 << 30) - (512 << 20));
        assert_eq!(usable_memory(100), 0);
    }

    #[test]
    fn a_limit_stays_while_there_is_about_as_much() {
        let limit = Limit::told(1000);
        for usable in [938, 1000, 1250] {
            assert_eq!(limit.renewed(usable), limit);
        }
        for usable in [937, 1251] {
            assert_eq!(limit.renewed(usable), Limit::told(usable));
        }
    }
}
