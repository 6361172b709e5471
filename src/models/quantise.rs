//! Which parts of a model are quantised, and to what.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::checkpoint::export::{is_large_matrix_of_block, is_wide};
use crate::checkpoint::pack::Quantised;
use crate::checkpoint::quantise::QuantFormat;
use crate::checkpoint::weights::TensorInfo;
use crate::names::UnknownName;

/// What is quantised to which format. Written `q4_k`, or with parts `q4_k:denoiser,t5`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Quantise {
    /// The format.
    pub format: QuantFormat,
    /// The parts.
    pub parts: QuantisedParts,
}

/// What to quantise, as users say it: a [`Quantise`], `auto` or `off`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum QuantiseChoice {
    /// Nothing: weights stay as they are stored.
    #[default]
    Off,
    /// As little as lets these parts fit into the memory, which the host knows.
    Auto(QuantisedParts),
    /// This.
    To(Quantise),
}

/// Parts of a model that are quantised: a set. Written as names with commas between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct QuantisedParts(u8);

/// The denoiser's bit; each kind of text encoders has one of its own.
const DENOISER: u8 = 1;
const TEXT_ENCODERS: u8 = 0b1110;
/// What options call parts. Kinds of text encoders are called by their titles.
const PARTS: &[(&str, u8); 6] = &[
    ("denoiser", DENOISER),
    ("clip", 0b10),
    ("t5", 0b100),
    ("qwen3", 0b1000),
    ("text-encoders", TEXT_ENCODERS),
    ("all", DENOISER | TEXT_ENCODERS),
];
/// What diffusers calls the denoiser.
const TRANSFORMER: &str = "transformer";
const NAMES: [&str; PARTS.len()] = {
    let mut names = [""; PARTS.len()];
    let mut i = 0;
    while i < names.len() {
        names[i] = PARTS[i].0;
        i += 1;
    }
    names
};

/// The denoiser, which has most of the weights and stays on the GPU for the longest time.
impl Default for QuantisedParts {
    fn default() -> Self {
        QuantisedParts(DENOISER)
    }
}

impl QuantisedParts {
    /// Whether the denoiser is among them.
    pub fn has_denoiser(self) -> bool {
        self.0 & DENOISER != 0
    }

    /// Whether text encoders of any kind are among them.
    pub fn has_text_encoders(self) -> bool {
        self.0 & TEXT_ENCODERS != 0
    }

    /// The kinds of text encoders that are among them by name: none if all are.
    pub fn named_encoders(self) -> impl Iterator<Item = &'static str> {
        let bits = self.0 & TEXT_ENCODERS;
        let some =
            PARTS.iter().filter(move |(_, part)| bits != TEXT_ENCODERS && bits & part == *part);
        some.map(|(name, _)| *name)
    }

    /// Whether text encoders of that [title](super::encoders::TextEncoderConfig::title) are among them.
    pub fn has_encoder(self, title: &str) -> bool {
        PARTS.iter().any(|(name, bits)| name.eq_ignore_ascii_case(title) && self.0 & bits != 0)
    }
}

impl fmt::Display for QuantisedParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((name, _)) = PARTS.iter().find(|(_, bits)| *bits == self.0) {
            return f.write_str(name);
        }
        let single = PARTS.iter().filter(|(_, bits)| bits.is_power_of_two() && self.0 & bits != 0);
        let names: Vec<&str> = single.map(|(name, _)| *name).collect();
        f.write_str(&names.join(","))
    }
}

impl FromStr for QuantisedParts {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        let bits =
            text.split(',').map(|name| {
                let name = name.trim();
                let is_it = |known: &str| name.eq_ignore_ascii_case(known);
                let known = PARTS.iter().find(|(known, _)| is_it(known)).map(|(_, bits)| *bits);
                known.or_else(|| is_it(TRANSFORMER).then_some(DENOISER)).ok_or_else(|| {
                    UnknownName { what: "part", found: name.to_owned(), expected: &NAMES }
                })
            });
        let all = bits.reduce(|all, bits| Ok(all? | bits?));
        all.unwrap_or(Ok(DENOISER)).map(QuantisedParts)
    }
}

/// Writes `name` and, unless they are the default, `parts`.
fn write_with_parts(f: &mut fmt::Formatter<'_>, name: &str, parts: QuantisedParts) -> fmt::Result {
    f.write_str(name)?;
    if parts == QuantisedParts::default() { Ok(()) } else { write!(f, ":{parts}") }
}

/// The name in front of a colon, and the parts behind it.
fn split_parts(text: &str) -> Result<(&str, QuantisedParts), UnknownName> {
    Ok(match text.split_once(':') {
        Some((name, parts)) => (name.trim(), parts.parse()?),
        None => (text.trim(), QuantisedParts::default()),
    })
}

impl fmt::Display for Quantise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_with_parts(f, self.format.name(), self.parts)
    }
}

impl FromStr for Quantise {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        let (name, parts) = split_parts(text)?;
        let format = QuantFormat::named(name).ok_or_else(|| UnknownName {
            what: "number format",
            found: name.to_owned(),
            expected: &QuantFormat::NAMES,
        })?;
        Ok(Quantise { format, parts })
    }
}

impl fmt::Display for QuantiseChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            QuantiseChoice::Off => f.write_str(OFF),
            QuantiseChoice::Auto(parts) => write_with_parts(f, AUTO, *parts),
            QuantiseChoice::To(quantise) => quantise.fmt(f),
        }
    }
}

const AUTO: &str = "auto";
const OFF: &str = "off";
/// What options call the formats, and what else they take.
const CHOICES: [&str; QuantFormat::NAMES.len() + 2] = {
    let mut names = [AUTO; QuantFormat::NAMES.len() + 2];
    let mut i = 0;
    while i < QuantFormat::NAMES.len() {
        names[i] = QuantFormat::NAMES[i];
        i += 1;
    }
    names[i + 1] = OFF;
    names
};

impl FromStr for QuantiseChoice {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        let (name, parts) = split_parts(text)?;
        if name.eq_ignore_ascii_case(OFF) {
            return Ok(QuantiseChoice::Off);
        }
        if name.eq_ignore_ascii_case(AUTO) {
            return Ok(QuantiseChoice::Auto(parts));
        }
        let quantise: Quantise =
            text.parse().map_err(|error| UnknownName { expected: &CHOICES, ..error })?;
        Ok(QuantiseChoice::To(quantise))
    }
}

impl Serialize for Quantise {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Quantise {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

/// What is done to the matrices of a part.
#[derive(Clone, Copy, Debug)]
pub struct Quantising {
    /// The format.
    pub format: QuantFormat,
    /// Whether layers of one input are one tensor in the files of the model's makers, as `ralu convert` writes them: then
    /// they share the scale of fp8, and their size counts together.
    pub is_fused: bool,
}

/// What becomes of a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is not of a block, or too small to be worth it.
    Apart,
    /// It is quantised to that.
    Quantised(Quantised),
    /// It is quantised already, or of a type of 8 bits.
    Packed,
    /// Its rows are whole blocks of no fitting format.
    Narrow,
}

impl Quantising {
    /// What becomes of a matrix `[rows, k]`. `rows` are those of all layers of the input together.
    pub fn fate(&self, tensor: &TensorInfo, rows: usize, k: usize) -> Fate {
        let own_rows = tensor.shape.first().copied().unwrap_or(0);
        let rows = if self.is_fused { rows } else { own_rows };
        if tensor.taps() != 1 || !is_large_matrix_of_block(&tensor.name, &[rows, k]) {
            return Fate::Apart;
        }
        if !is_wide(tensor) {
            return Fate::Packed;
        }
        match self.format.for_rows(k) {
            None => Fate::Narrow,
            Some(format) => Fate::Quantised(Quantised { format, shares_scale: self.is_fused }),
        }
    }
}

/// How many weights of a part had which fate.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Those that are quantised.
    pub quantised: usize,
    /// Those whose rows are whole blocks of no fitting format.
    pub narrow: usize,
    /// Those that are quantised already.
    pub packed: usize,
    /// What the first of those is stored in.
    pub packed_in: String,
    /// Numbers of a row of the first that is narrow.
    pub narrow_rows: usize,
}

impl Tally {
    /// Counts a weight whose rows are of `tensor`.
    pub(super) fn count(&mut self, fate: Fate, tensor: &TensorInfo, k: usize) {
        match fate {
            Fate::Apart => {}
            Fate::Quantised(_) => self.quantised += 1,
            Fate::Packed => {
                if self.packed == 0 {
                    self.packed_in = tensor.dtype.name().to_owned();
                }
                self.packed += 1;
            }
            Fate::Narrow => {
                if self.narrow == 0 {
                    self.narrow_rows = k;
                }
                self.narrow += 1;
            }
        }
    }
}
