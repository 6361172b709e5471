//! LoRAs that make a model one of a few steps, and how their makers draw with them.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::sampling::presets::LATE;

/// How a file is meant to be used. What its makers do not say is `None`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct FewSteps {
    /// Steps of plain sampling.
    pub steps: usize,
    /// What its changes are multiplied by.
    pub weight: Option<f64>,
    /// The guidance scale.
    pub guidance: Option<f64>,
}

/// A published file of that kind.
pub struct KnownFewSteps {
    /// Words that are in its name, in lower case.
    pub words: &'static [&'static str],
    /// How it is used.
    pub settings: FewSteps,
}

/// Words in names of files of that kind.
const WORDS: [&str; 5] = ["turbo", "hyper", "lightning", "schnell", "lcm"];
/// Steps where neither a name nor a maker says them.
const USUAL: usize = 8;
/// More are no few.
const MOST: usize = 16;
/// Texts in headers that name a file.
const TITLES: [&str; 2] = ["modelspec.title", "ss_output_name"];

impl FewSteps {
    /// What the name of a file, or a name in the texts of its header, says. Only files that `changes_all` layers are of that kind.
    pub fn of(
        file: &str,
        texts: &BTreeMap<String, String>,
        known: &[KnownFewSteps],
        changes_all: bool,
    ) -> Option<FewSteps> {
        let file = file.rsplit(['/', '\\']).next().unwrap_or(file);
        let titles = TITLES.iter().filter_map(|title| texts.get(*title)).map(String::as_str);
        let names: Vec<String> =
            std::iter::once(file).chain(titles).map(str::to_ascii_lowercase).collect();
        let known = names.iter().find_map(|name| {
            let is = |known: &&KnownFewSteps| known.words.iter().all(|word| name.contains(word));
            known.iter().find(is)
        });
        if let Some(known) = known {
            return Some(known.settings);
        }
        let found = names.iter().find_map(|name| match said_steps(name) {
            Some(steps) => Some(steps),
            None => WORDS.iter().any(|word| name.contains(word)).then_some(USUAL),
        })?;
        changes_all.then_some(FewSteps { steps: found, weight: None, guidance: None })
    }

    /// RALU's stages in as many steps: half of them at full size. Not tested on published files.
    fn stages(self) -> Option<[usize; 3]> {
        let quarter = self.steps / 4;
        (self.steps > 0 && self.steps.is_multiple_of(4)).then_some([quarter, quarter, 2 * quarter])
    }
}

/// The number in `8steps`, `8-step` or `8_steps`, if it is that of a few steps.
fn said_steps(name: &str) -> Option<usize> {
    let (before, _) = name.split_once("step")?;
    let before = before.trim_end_matches(['-', '_', ' ']);
    let digits = before.len() - before.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    let steps = before[before.len() - digits..].parse().ok()?;
    (1..=MOST).contains(&steps).then_some(steps)
}

impl fmt::Display for FewSteps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FewSteps { steps, weight, guidance } = self;
        write!(f, "by its name it is for few steps: try {steps}")?;
        if let Some(weight) = weight {
            write!(f, ", a weight of {weight}")?;
        }
        if let Some(guidance) = guidance {
            write!(f, ", guidance {guidance}")?;
        }
        if let Some(stages) = self.stages() {
            write!(
                f,
                "; under RALU stages of {stages:?} steps that end at {LATE:?}, with an up ratio of 0.3 (not tested on published \
                 files)"
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EIGHT: FewSteps = FewSteps { steps: 8, weight: Some(0.125), guidance: None };
    const KNOWN: &[KnownFewSteps] =
        &[KnownFewSteps { words: &["hyper", "8step"], settings: EIGHT }];

    #[test]
    fn names_say_how_files_are_used() {
        let of = |file: &str, changes_all| FewSteps::of(file, &BTreeMap::new(), KNOWN, changes_all);
        assert_eq!(of("a/Hyper-X.1-dev-8steps-lora.safetensors", false), Some(EIGHT));
        let plain = |steps| Some(FewSteps { steps, weight: None, guidance: None });
        assert_eq!(of("hyper-4_steps.safetensors", true), plain(4));
        assert_eq!(of("X-Turbo-Alpha.safetensors", true), plain(8));
        assert_eq!(of("turbo/cats.safetensors", true), None);
        // A style that has such a name.
        assert_eq!(of("lightning-storm.safetensors", false), None);
        assert_eq!(of("trained-for-3000steps.safetensors", true), None);
        assert_eq!(of("cats.safetensors", true), None);
    }

    #[test]
    fn a_header_names_a_file_too() {
        let texts = BTreeMap::from([("modelspec.title".to_owned(), "Cats 4-step".to_owned())]);
        let found = FewSteps::of("a.safetensors", &texts, KNOWN, true).expect("few steps");
        assert_eq!(found.steps, 4);
        let said = found.to_string();
        assert!(said.contains("try 4") && said.contains("[1, 1, 2]"), "{said}");
        assert!(said.contains("not tested"), "{said}");
    }
}
