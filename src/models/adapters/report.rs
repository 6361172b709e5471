//! What is said of a file of changes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use super::{FewSteps, LoraWeight, keys};
use crate::escape::Escaped;

/// More unused keys than this are told by their layers.
const MANY: usize = 40;
/// Weights beyond this are unusual.
const USUAL: f64 = 10.0;

/// What a file changes, and what of it is not used.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct AdapterReport {
    /// The file.
    pub file: String,
    /// The family of models that it changes.
    pub family: &'static str,
    /// The program, or kind of programs, that writes such names.
    pub form: &'static str,
    /// What its changes are multiplied by.
    pub weight: LoraWeight,
    /// Layers of the denoiser that change, as the file has them.
    pub layers: usize,
    /// Layers of text encoders that change.
    pub text_layers: usize,
    /// Ranks of its products.
    pub ranks: BTreeSet<usize>,
    /// How many layers there are of each kind: `lora`, `loha`, `lokr`, `dora`, `diff`, `bias`, `replaced`.
    pub kinds: BTreeMap<&'static str, usize>,
    /// Keys that nothing in the model is for.
    pub unused: Vec<String>,
    /// Layers that it has under a second name, with the same numbers.
    pub repeated: Vec<String>,
    /// Layers without effect: untrained ones, or with an alpha of 0.
    pub without_effect: usize,
    /// Whether changes are merged into weights: then its weight is fixed.
    pub has_merged: bool,
    /// How it is meant to be used, if it is for few steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub few_steps: Option<FewSteps>,
    /// Bytes of its tensors.
    pub bytes: u64,
}

impl AdapterReport {
    /// What the user should know of it, in sentences.
    pub fn warnings(&self) -> Vec<String> {
        let file = Escaped(&self.file);
        let mut warnings = vec![];
        if !self.unused.is_empty() {
            let n = self.unused.len();
            let s = if n == 1 { "" } else { "s" };
            let names: BTreeSet<&str> = match n {
                ..=MANY => self.unused.iter().map(String::as_str).collect(),
                _ => self.unused.iter().map(|key| layer_of(key)).collect(),
            };
            let names: Vec<String> =
                names.into_iter().map(|key| Escaped(key).to_string()).collect();
            let of = if n > MANY { ", of the layers " } else { ": " };
            warnings.push(format!("{file}: {n} unused key{s}{of}{}", names.join(", ")));
        }
        if !self.repeated.is_empty() {
            let names: Vec<String> =
                self.repeated.iter().take(MANY).map(|name| Escaped(name).to_string()).collect();
            warnings.push(format!(
                "{file}: {} layers are in it under two names with the same numbers, and count once: {}",
                self.repeated.len(),
                names.join(", ")
            ));
        }
        if self.without_effect > 0 {
            warnings.push(format!(
                "{file}: {} of its layers have no effect (factors of zeros, or an alpha of 0)",
                self.without_effect
            ));
        }
        if self.weight.stages().iter().any(|weight| weight.abs() > USUAL) {
            warnings.push(format!(
                "{file}: the weight {} is unusually large; most files are made for 1",
                self.weight
            ));
        }
        warnings
    }
}

/// The layer of a key, whether it is known or not.
fn layer_of(key: &str) -> &str {
    match keys::candidates(key).first() {
        Some((layer, _)) => layer,
        None => key,
    }
}

impl fmt::Display for AdapterReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AdapterReport { file, family, form, weight, layers, text_layers, ranks, kinds, .. } =
            self;
        let kinds: Vec<&str> = kinds.keys().copied().collect();
        write!(
            f,
            "{}: {} for {family} ({form}), weight {weight}, {layers} layers of the denoiser",
            Escaped(file),
            kinds.join(" + ")
        )?;
        if *text_layers > 0 {
            write!(f, " and {text_layers} of text encoders")?;
        }
        match (ranks.first(), ranks.last()) {
            (Some(least), Some(most)) if least == most => write!(f, ", rank {least}")?,
            (Some(least), Some(most)) => write!(f, ", ranks {least} to {most}")?,
            _ => {}
        }
        match &self.few_steps {
            Some(few_steps) => write!(f, "; {few_steps}"),
            None => Ok(()),
        }
    }
}
