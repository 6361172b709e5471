//! LoRA and its relatives: files with changes to the layers of a model, as many programs write them.
//!
//! - `keys.rs`: how keys end. Each key is resolved for itself: files mix forms.
//! - `names.rs`: how keys begin, and the names of the model's layers in all forms. Families have tables of their makers' names.
//! - `origin.rs`: which family a file is for, and which program wrote it.
//! - `metadata.rs`: what PEFT says in a header.
//! - `factors.rs`: the tensors of one layer, read and checked.
//! - `changes.rs`: from them to changes of the network's layers.
//! - `open.rs`: a model's files with all changes.
//! - `few_steps.rs`: files that are meant for few steps.
//! - `report.rs`: what is said of a file.
//!
//! Products of narrow matrices are added while networks run; what is not such a product, and what is added to vectors, is
//! merged into tensors as they are read ([`checkpoint::changes`](crate::checkpoint::changes)).

mod changes;
mod error;
mod factors;
mod few_steps;
mod keys;
mod metadata;
mod names;
mod open;
mod origin;
mod report;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use error::AdapterError;
pub use few_steps::{FewSteps, KnownFewSteps};
pub use names::AdapterNames;
pub(super) use open::{AdapterFile, adapt};
pub use report::AdapterReport;

/// A file with changes to a model, and how strong they are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lora {
    /// Its path, as that of other files of a model.
    pub file: String,
    /// What its changes are multiplied by.
    #[serde(default)]
    pub weight: LoraWeight,
    /// The SHA-256 of the file, where the host knows it: 64 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// What the changes of a file are multiplied by: finite numbers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum LoraWeight {
    /// Throughout a run.
    Whole(f64),
    /// In the first, second and third stage of RALU; plain sampling takes the last. Text encoders, which work once, take the
    /// largest.
    Stages([f64; 3]),
}

impl LoraWeight {
    /// The weights in the three stages.
    pub fn stages(self) -> [f64; 3] {
        match self {
            LoraWeight::Whole(weight) => [weight; 3],
            LoraWeight::Stages(weights) => weights,
        }
    }

    /// The one weight, if it is the same in all stages.
    pub fn whole(self) -> Option<f64> {
        let [first, second, third] = self.stages();
        (first == second && second == third).then_some(first)
    }

    fn is_finite(self) -> bool {
        self.stages().iter().all(|weight| weight.is_finite())
    }
}

impl Default for LoraWeight {
    fn default() -> Self {
        LoraWeight::Whole(1.0)
    }
}

impl fmt::Display for LoraWeight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoraWeight::Whole(weight) => write!(f, "{weight}"),
            LoraWeight::Stages([first, second, third]) => write!(f, "{first},{second},{third}"),
        }
    }
}

/// A number, or three with commas.
impl FromStr for LoraWeight {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers: Option<Vec<f64>> =
            text.split(',').map(|number| number.trim().parse().ok()).collect();
        let weight = match numbers.as_deref() {
            Some([weight]) => Some(LoraWeight::Whole(*weight)),
            Some([first, second, third]) => Some(LoraWeight::Stages([*first, *second, *third])),
            _ => None,
        };
        weight.filter(|weight| weight.is_finite()).ok_or_else(|| {
            format!(
                "the weight of the LoRA is {:?}; expected a finite number, as in cats.safetensors:0.8, or one for each of \
                 RALU's stages, as in cats.safetensors:0,0.5,1",
                text.chars().take(40).collect::<String>()
            )
        })
    }
}

/// Ends of paths, which are no weights.
const FILE_ENDS: [&str; 2] = [".safetensors", ".sft"];

/// `FILE` or `FILE:WEIGHT`: the last colon parts them, unless what follows belongs to a path.
impl FromStr for Lora {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let lora = |file: &str, weight| Lora { file: file.to_owned(), weight, sha256: None };
        let whole = || lora(text, LoraWeight::default());
        let Some((file, tail)) = text.rsplit_once(':') else { return Ok(whole()) };
        if tail.contains(['/', '\\']) || FILE_ENDS.iter().any(|end| tail.ends_with(end)) {
            return Ok(whole());
        }
        Ok(lora(file, tail.parse()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_colon_parts_file_and_weight() {
        let read = |text: &str| text.parse::<Lora>().map(|lora| (lora.file, lora.weight.stages()));
        assert_eq!(read("a.safetensors"), Ok(("a.safetensors".into(), [1.0; 3])));
        assert_eq!(read("a.safetensors:-0.125"), Ok(("a.safetensors".into(), [-0.125; 3])));
        assert_eq!(read("C:\\a.safetensors"), Ok(("C:\\a.safetensors".into(), [1.0; 3])));
        assert_eq!(read("C:\\a.safetensors:0"), Ok(("C:\\a.safetensors".into(), [0.0; 3])));
        assert_eq!(read("x:a.safetensors"), Ok(("x:a.safetensors".into(), [1.0; 3])));
        assert_eq!(read("a:0,0.5,1"), Ok(("a".into(), [0.0, 0.5, 1.0])));
        for wrong in ["a.safetensors:abc", "a:nan", "a:inf", "a:-inf", "a:", "a:1,2", "a:1,nan,1"] {
            assert!(read(wrong).unwrap_err().contains("weight"), "{wrong}");
        }
    }
}
