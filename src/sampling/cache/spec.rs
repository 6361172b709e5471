//! Names and parameters of the cache rules, and what they ask of an engine.
//!
//! A cache is written `NAME` or `NAME:key=value,key=value`; keys left out have the defaults below.
//!
//! | name | keys | reuses |
//! | --- | --- | --- |
//! | `fbc`, `first-block` | `threshold=0.05` | what all blocks but the first add |
//! | `teacache` | `threshold=0.25`, `coefficients=a/b/c` | what all blocks add |
//! | `taylorseer` | `order=1`, `interval=3`, `warmup=order+1`, `mode=output` | an extrapolation |
//! | `fora` | `interval=2` | each block's attention and MLP outputs |
//! | `magcache` | `threshold=0.06`, `max_skips=3`, `retention=0.2`, `ratios=a/b` | as `teacache` |
//!
//! ```
//! use ralu::sampling::cache::{CacheSpec, Cached, Probe};
//!
//! let spec: CacheSpec = "fbc:threshold=0.1".parse()?;
//! assert_eq!(spec, CacheSpec::FirstBlock { threshold: 0.1 });
//! assert_eq!((spec.cached(), spec.probe()), (Cached::BlocksTail, Some(Probe::FirstBlock)));
//! assert_eq!(CacheSpec::parse_option("off")?, None);
//! # Ok::<(), ralu::sampling::cache::CacheError>(())
//! ```

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::CacheError;
use crate::names::by_serde;
use crate::sampling::schedule::MAX_STEPS;

/// TeaCache's polynomial for FLUX.1-dev, highest power first (authors' code, `TeaCache4FLUX`).
pub const TEACACHE_FLUX: [f64; 5] = [498.651651, -283.781631, 55.8554382, -3.82021401, 0.264230861];

/// MagCache's ratios for FLUX.1-dev, measured over 28 plain steps (authors' code, `MagCache4FLUX`).
pub const MAGCACHE_FLUX: [f64; 28] = [
    1.0, 1.21094, 1.11719, 1.07812, 1.0625, 1.03906, 1.03125, 1.03906, 1.02344, 1.03125, 1.02344,
    0.98047, 1.01562, 1.00781, 1.0, 1.00781, 1.0, 1.00781, 1.0, 1.0, 0.99609, 0.99609, 0.98047,
    0.98828, 0.96484, 0.95703, 0.93359, 0.89062,
];

/// The longest polynomial accepted. Far beyond any fit; higher powers only overflow.
const MAX_COEFFICIENTS: usize = 16;

/// A cache rule with its parameters.
///
/// Fields may be set freely; [`CacheSpec::check`] says whether they are in range, and
/// [`CacheRule::new`](super::CacheRule::new) insists on it.
#[derive(Debug, Clone, PartialEq)]
pub enum CacheSpec {
    /// First-block cache (ParaAttention; diffusers' `FirstBlockCacheConfig`).
    FirstBlock {
        /// Reuse while the first block's residual has changed by less than this, relatively.
        /// 0 never reuses. 0.05 is diffusers' value.
        threshold: f64,
    },
    /// TeaCache (arXiv 2411.19108).
    TeaCache {
        /// Reuse while the summed, rescaled changes stay below this. 0 never reuses. The authors'
        /// 0.25, 0.4, 0.6, 0.8 are about 1.5, 1.8, 2, 2.25 times as fast in 28 steps.
        threshold: f64,
        /// Polynomial that rescales a change, highest power first, fitted to a model.
        coefficients: Vec<f64>,
    },
    /// TaylorSeer (arXiv 2503.06923).
    TaylorSeer {
        /// Highest derivative of the extrapolation: 0, 1 or 2.
        order: usize,
        /// Full steps are this far apart; 1 never reuses.
        interval: usize,
        /// Steps at the start of each stage that are full. The authors have 3, for 50 steps. The
        /// stages of RALU are 2 to 7 steps long, so the default here is `order + 1`: the fewest
        /// after which every reused step has all its orders.
        warmup: usize,
        /// What is extrapolated.
        mode: TaylorMode,
    },
    /// FORA (arXiv 2407.01425), which is TaylorSeer in blocks at order 0 without a warm-up.
    Fora {
        /// Full steps are those divisible by it; 1 never reuses. The default is 2: a value that is
        /// only repeated ages quickly in runs of few steps.
        interval: usize,
    },
    /// MagCache (arXiv 2506.09045).
    MagCache {
        /// Reuse while the summed errors of magnitude stay within this. 0 never reuses.
        threshold: f64,
        /// Reuse at most so many steps in a row.
        max_skips: usize,
        /// This share of a stage's steps, from its start, is full (rounded down, at least one).
        retention: f64,
        /// The residual's magnitude at each step over that at the step before, measured in a plain
        /// run of as many steps as there are ratios.
        ratios: Vec<f64>,
    },
}

/// What TaylorSeer extrapolates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TaylorMode {
    /// The network's output: little memory, nothing computed in a reused step ("TaylorSeer Lite").
    #[default]
    Output,
    /// Each block's attention and MLP outputs before their gates, as in the paper.
    Blocks,
}

/// What a full step stores and a reused one takes instead of computing it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cached {
    /// What all blocks but the first add to the image stream. (What they add to the text stream is
    /// read by nobody after them.) A reused step computes the first block.
    BlocksTail,
    /// What all blocks add to the image stream: one residual, to be added before the last layer.
    AllBlocks,
    /// The network's output, as that many Taylor factors (order + 1).
    Output {
        /// `F0` and as many differences as the order says.
        factors: usize,
    },
    /// The output of each attention and each MLP of each block, before its gate, as that many
    /// Taylor factors (order + 1). A reused step applies its own gates.
    Modules {
        /// `F0` and as many differences as the order says.
        factors: usize,
    },
}

/// What is measured before a decision. The change is `mean|new - old| / mean|old|`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Probe {
    /// What the first block adds to the image stream. Old: that of the last *full* step, so it is
    /// stored at full steps only.
    FirstBlock,
    /// The first block's modulated input of the image stream, `(1 + scale) * norm(x) + shift`.
    /// Old: that of the *previous* step, so it is stored at every step, full or reused.
    ModulatedInput,
}

impl CacheSpec {
    /// Every rule with its default parameters, which are FLUX.1-dev's where they depend on a model.
    pub fn defaults() -> [CacheSpec; 5] {
        [
            CacheSpec::FirstBlock { threshold: 0.05 },
            CacheSpec::TeaCache { threshold: 0.25, coefficients: TEACACHE_FLUX.to_vec() },
            CacheSpec::TaylorSeer { order: 1, interval: 3, warmup: 2, mode: TaylorMode::Output },
            CacheSpec::Fora { interval: 2 },
            CacheSpec::MagCache {
                threshold: 0.06,
                max_skips: 3,
                retention: 0.2,
                ratios: MAGCACHE_FLUX.to_vec(),
            },
        ]
    }

    /// Reads a cache, or `None` from `off` or `none`.
    pub fn parse_option(s: &str) -> Result<Option<CacheSpec>, CacheError> {
        match s.trim().to_ascii_lowercase().as_str() {
            "off" | "none" => Ok(None),
            _ => s.parse().map(Some),
        }
    }

    /// The rule's name, as it is read and printed.
    pub fn name(&self) -> &'static str {
        match self {
            CacheSpec::FirstBlock { .. } => "fbc",
            CacheSpec::TeaCache { .. } => "teacache",
            CacheSpec::TaylorSeer { .. } => "taylorseer",
            CacheSpec::Fora { .. } => "fora",
            CacheSpec::MagCache { .. } => "magcache",
        }
    }

    /// What the engine keeps for this rule.
    pub fn cached(&self) -> Cached {
        match *self {
            CacheSpec::FirstBlock { .. } => Cached::BlocksTail,
            CacheSpec::TeaCache { .. } | CacheSpec::MagCache { .. } => Cached::AllBlocks,
            CacheSpec::TaylorSeer { order, mode: TaylorMode::Output, .. } => {
                Cached::Output { factors: order + 1 }
            }
            CacheSpec::TaylorSeer { order, mode: TaylorMode::Blocks, .. } => {
                Cached::Modules { factors: order + 1 }
            }
            CacheSpec::Fora { .. } => Cached::Modules { factors: 1 },
        }
    }

    /// What the engine measures for this rule; `None` for rules that only count steps.
    pub fn probe(&self) -> Option<Probe> {
        match self {
            CacheSpec::FirstBlock { .. } => Some(Probe::FirstBlock),
            CacheSpec::TeaCache { .. } => Some(Probe::ModulatedInput),
            _ => None,
        }
    }

    /// Steps of the plain schedule that [`CacheRule::new`](super::CacheRule::new) wants to know;
    /// `None` for rules that need none.
    pub fn plain_steps(&self) -> Option<usize> {
        match self {
            CacheSpec::MagCache { ratios, .. } => Some(ratios.len()),
            _ => None,
        }
    }

    /// Whether all parameters are in range; the error names the first that is not.
    pub fn check(&self) -> Result<(), CacheError> {
        let refuse = |key: &Key, found: String| Err(self.refused(key, found));
        let number = |key: &Key, value: f64, fits: bool| {
            if value.is_finite() && fits { Ok(()) } else { refuse(key, value.to_string()) }
        };
        let count = |key: &Key, value: usize, fits: bool| {
            if fits { Ok(()) } else { refuse(key, value.to_string()) }
        };
        let list = |key: &Key, values: &[f64], fits: bool| {
            if fits && values.iter().all(|v| v.is_finite()) {
                Ok(())
            } else {
                refuse(key, join(values))
            }
        };
        match self {
            CacheSpec::FirstBlock { threshold } => {
                number(&THRESHOLD, *threshold, *threshold >= 0.0)
            }
            CacheSpec::TeaCache { threshold, coefficients } => {
                number(&THRESHOLD, *threshold, *threshold >= 0.0)?;
                let fits = (1..=MAX_COEFFICIENTS).contains(&coefficients.len());
                list(&COEFFICIENTS, coefficients, fits)
            }
            CacheSpec::TaylorSeer { order, interval, warmup: _, mode: _ } => {
                count(&ORDER, *order, *order <= 2)?;
                count(&INTERVAL, *interval, *interval >= 1)
            }
            CacheSpec::Fora { interval } => count(&INTERVAL, *interval, *interval >= 1),
            CacheSpec::MagCache { threshold, max_skips, retention, ratios } => {
                number(&THRESHOLD, *threshold, *threshold >= 0.0)?;
                count(&MAX_SKIPS, *max_skips, *max_skips >= 1)?;
                number(&RETENTION, *retention, (0.0..=1.0).contains(retention))?;
                let fits = (1..=MAX_STEPS).contains(&ratios.len());
                list(&RATIOS, ratios, fits && ratios.iter().all(|r| *r > 0.0))
            }
        }
    }

    fn keys(&self) -> &'static str {
        match self {
            CacheSpec::FirstBlock { .. } => "threshold",
            CacheSpec::TeaCache { .. } => "threshold, coefficients",
            CacheSpec::TaylorSeer { .. } => "order, interval, warmup, mode",
            CacheSpec::Fora { .. } => "interval",
            CacheSpec::MagCache { .. } => "threshold, max_skips, retention, ratios",
        }
    }

    fn refused(&self, key: &Key, found: String) -> CacheError {
        let Key { name: key, expected, example } = *key;
        CacheError::Value { cache: self.name(), key, found, expected, example }
    }

    /// Sets one parameter from its text; `None` if this rule lacks the key.
    fn set(&mut self, key: &str, text: &str) -> Option<Result<(), CacheError>> {
        // What the value is read as follows from the field's type.
        let (key, read) = match (&mut *self, key) {
            (
                CacheSpec::FirstBlock { threshold }
                | CacheSpec::TeaCache { threshold, .. }
                | CacheSpec::MagCache { threshold, .. },
                "threshold",
            ) => (&THRESHOLD, read_into(threshold, text.parse().ok())),
            (CacheSpec::TeaCache { coefficients, .. }, "coefficients") => {
                (&COEFFICIENTS, read_into(coefficients, split(text)))
            }
            (CacheSpec::TaylorSeer { order, .. }, "order") => {
                (&ORDER, read_into(order, text.parse().ok()))
            }
            (CacheSpec::TaylorSeer { interval, .. } | CacheSpec::Fora { interval }, "interval") => {
                (&INTERVAL, read_into(interval, text.parse().ok()))
            }
            (CacheSpec::TaylorSeer { warmup, .. }, "warmup") => {
                (&WARMUP, read_into(warmup, text.parse().ok()))
            }
            (CacheSpec::TaylorSeer { mode, .. }, "mode") => {
                (&MODE, read_into(mode, text.parse().ok()))
            }
            (CacheSpec::MagCache { max_skips, .. }, "max_skips") => {
                (&MAX_SKIPS, read_into(max_skips, text.parse().ok()))
            }
            (CacheSpec::MagCache { retention, .. }, "retention") => {
                (&RETENTION, read_into(retention, text.parse().ok()))
            }
            (CacheSpec::MagCache { ratios, .. }, "ratios") => {
                (&RATIOS, read_into(ratios, split(text)))
            }
            _ => return None,
        };
        Some(read.ok_or_else(|| self.refused(key, text.to_string())))
    }
}

impl FromStr for CacheSpec {
    type Err = CacheError;

    /// Reads `NAME` or `NAME:key=value,...`, as the module's table has them.
    fn from_str(s: &str) -> Result<Self, CacheError> {
        let (name, settings) = match s.split_once(':') {
            Some((name, settings)) => (name, Some(settings)),
            None => (s, None),
        };
        let name = match name.trim().to_ascii_lowercase() {
            alias if alias == "first-block" => "fbc".to_string(),
            name => name,
        };
        let mut spec = CacheSpec::defaults()
            .into_iter()
            .find(|spec| spec.name() == name)
            .ok_or_else(|| CacheError::Name { found: s.trim().to_string() })?;
        let mut seen = Vec::new();
        for setting in settings.into_iter().flat_map(|all| all.split(',')) {
            let unknown = CacheError::Key {
                cache: spec.name(),
                found: setting.trim().to_string(),
                expected: spec.keys(),
            };
            let Some((key, value)) = setting.split_once('=') else { return Err(unknown) };
            let key = key.trim().to_ascii_lowercase();
            spec.set(&key, value.trim()).ok_or(unknown)??;
            if seen.contains(&key) {
                return Err(CacheError::Twice { cache: spec.name(), key });
            }
            seen.push(key);
        }
        if let CacheSpec::TaylorSeer { order, warmup, .. } = &mut spec
            && !seen.iter().any(|key| key == "warmup")
        {
            *warmup = order.saturating_add(1);
        }
        spec.check()?;
        Ok(spec)
    }
}

impl fmt::Display for CacheSpec {
    /// Prints the name and every parameter, as [`FromStr`] reads them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.name())?;
        match self {
            CacheSpec::FirstBlock { threshold } => write!(f, "threshold={threshold}"),
            CacheSpec::TeaCache { threshold, coefficients } => {
                write!(f, "threshold={threshold},coefficients={}", join(coefficients))
            }
            CacheSpec::TaylorSeer { order, interval, warmup, mode } => {
                write!(f, "order={order},interval={interval},warmup={warmup},mode={mode}")
            }
            CacheSpec::Fora { interval } => write!(f, "interval={interval}"),
            CacheSpec::MagCache { threshold, max_skips, retention, ratios } => write!(
                f,
                "threshold={threshold},max_skips={max_skips},retention={retention},ratios={}",
                join(ratios)
            ),
        }
    }
}

by_serde!(TaylorMode, "mode");

/// As its text: see [`FromStr`].
impl Serialize for CacheSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for CacheSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for CacheSpec {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "CacheSpec".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string" })
    }
}

/// A parameter as it is written, and what its error says.
struct Key {
    name: &'static str,
    expected: &'static str,
    example: &'static str,
}

const THRESHOLD: Key =
    Key { name: "threshold", expected: "a number from 0 up, 0 for no reuse", example: "0.1" };
const COEFFICIENTS: Key = Key {
    name: "coefficients",
    expected: "1 to 16 numbers with / between, highest power first",
    example: "1.5/0.1",
};
const ORDER: Key = Key { name: "order", expected: "0, 1 or 2", example: "1" };
const INTERVAL: Key =
    Key { name: "interval", expected: "a whole number from 1 up, 1 for no reuse", example: "3" };
const WARMUP: Key = Key { name: "warmup", expected: "a whole number from 0 up", example: "2" };
const MODE: Key = Key { name: "mode", expected: "output or blocks", example: "output" };
const MAX_SKIPS: Key =
    Key { name: "max_skips", expected: "a whole number from 1 up", example: "3" };
const RETENTION: Key = Key { name: "retention", expected: "a number from 0 to 1", example: "0.2" };
const RATIOS: Key = Key {
    name: "ratios",
    expected: "1 to 10000 numbers above 0 with / between, one per plain step",
    example: "1/1.1/0.9",
};

/// Stores a value that could be read.
fn read_into<T>(field: &mut T, value: Option<T>) -> Option<()> {
    *field = value?;
    Some(())
}

fn split(text: &str) -> Option<Vec<f64>> {
    text.split('/').map(|number| number.trim().parse().ok()).collect()
}

fn join(values: &[f64]) -> String {
    values.iter().map(f64::to_string).collect::<Vec<_>>().join("/")
}
