//! How keys begin, and what the model's layers are called in all forms.
//!
//! Names are made from the model's own: those of its makers by the family's tables, those without dots by putting `_` for
//! each. Undoing that by rules would not do: names have `_` themselves.

use std::collections::HashMap;

use super::KnownFewSteps;
use crate::checkpoint::changes::Rows;
use crate::checkpoint::weights::{TensorInfo, Weights};
use crate::models::files::Role;
use crate::models::files::rules::{How, Rule, filled, numbers};

/// What a family says of the names in files of changes.
pub struct AdapterNames {
    /// The makers' names, as in files of whole models, and those that only files of changes have.
    pub rules: &'static [&'static [Rule]],
    /// A layer with as many outputs as the network is wide, which reads latents.
    pub input: &'static str,
    /// Parts of names that are the family's alone.
    pub marks: &'static [&'static str],
    /// Parts of names with one of which a file is the family's, whatever else is in it.
    pub sure_marks: &'static [&'static str],
    /// Published files that make a model one of a few steps.
    pub few_steps: &'static [KnownFewSteps],
}

/// The weight of a layer of the network, and which rows of the file's layer are its.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// Its name, without `.weight`.
    pub module: String,
    /// The shape of its weight.
    pub shape: Vec<usize>,
    /// Where it is in the file's layer.
    pub rows: Rows,
}

impl Target {
    /// Numbers in a row of its weight.
    pub fn inputs(&self) -> usize {
        self.shape.iter().skip(1).product()
    }

    /// The layer's bias, as a matrix of one column.
    pub fn of_bias(&self) -> Target {
        Target { shape: self.shape.first().copied().into_iter().collect(), ..self.clone() }
    }
}

/// A layer as files call it.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedLayer {
    /// The network's layers that it consists of.
    pub targets: Vec<Target>,
}

/// The layers of one part of a model.
pub struct PartNames {
    /// The part's folder.
    pub folder: &'static str,
    /// The part's weights.
    pub weights: Weights,
    dotted_prefixes: Vec<String>,
    flat_prefixes: &'static [&'static str],
    dotted: HashMap<String, NamedLayer>,
    flat: HashMap<String, NamedLayer>,
}

/// In front of a denoiser's names, the longest first.
const DENOISER: [&str; 7] = [
    "transformer.base_model.model.",
    "model.diffusion_model.",
    "base_model.model.",
    "diffusion_model.",
    "transformer.",
    "unet.",
    "",
];
/// The same in front of names without dots.
const FLAT_DENOISER: &[&str] = &["lora_transformer_", "lora_unet_", "lycoris_"];

impl PartNames {
    /// The layers of a denoiser whose family has `names`.
    pub fn denoiser(folder: &'static str, weights: Weights, names: &AdapterNames) -> Self {
        let width = weights.info(&format!("{}.weight", names.input));
        let width = width.and_then(|info| info.shape.first().copied()).unwrap_or(0);
        let prefixes = DENOISER.map(str::to_owned).into();
        PartNames::new(folder, weights, names.rules, width, prefixes, FLAT_DENOISER)
    }

    /// The layers of a text encoder, if files of changes have those of its kind.
    pub fn encoder(folder: &'static str, weights: Weights, role: Role) -> Option<Self> {
        let (name, flat): (&str, &'static [&'static str]) = match role {
            Role::ClipL => ("clip_l", &["lora_te1_", "lora_te_"]),
            Role::ClipG => ("clip_g", &["lora_te2_"]),
            // Its layers' names are no CLIP's: the number says nothing.
            Role::T5 => ("t5xxl", &["lora_te3_", "lora_te2_"]),
            Role::Denoiser | Role::Vae => return None,
        };
        let prefixes = vec![
            format!("text_encoders.{name}.transformer."),
            format!("{name}."),
            format!("{folder}."),
        ];
        Some(PartNames::new(folder, weights, &[], 0, prefixes, flat))
    }

    /// How many of its tensors are matrices.
    pub fn matrices(&self) -> usize {
        self.weights.iter().filter(|info| info.shape.len() > 1).count()
    }

    fn new(
        folder: &'static str,
        weights: Weights,
        rules: &[&[Rule]],
        width: usize,
        dotted_prefixes: Vec<String>,
        flat_prefixes: &'static [&'static str],
    ) -> Self {
        let mut dotted = HashMap::new();
        for info in weights.iter() {
            let Some(module) = info.name.strip_suffix(".weight") else { continue };
            for name in own_names(module) {
                dotted.insert(name, NamedLayer { targets: vec![target(module, info, 0)] });
            }
        }
        let parts = dotted.clone();
        for rule in rules.iter().copied().flatten() {
            add_rule(rule, &parts, width, &mut dotted);
        }
        let flat = dotted.iter().map(|(name, layer)| (name.replace('.', "_"), layer.clone()));
        let flat = flat.collect();
        PartNames { folder, weights, dotted_prefixes, flat_prefixes, dotted, flat }
    }

    /// The layer of that name, and the prefix that it has in the file.
    pub fn find(&self, name: &str) -> Option<(&str, &NamedLayer)> {
        for prefix in &self.dotted_prefixes {
            if let Some(layer) = name.strip_prefix(prefix.as_str()).and_then(|n| self.dotted.get(n))
            {
                return Some((prefix.as_str(), layer));
            }
        }
        self.flat_prefixes.iter().find_map(|prefix| {
            let own = name.strip_prefix(prefix)?;
            let layer = self.flat.get(own).or_else(|| self.flat.get(own.strip_suffix('_')?))?;
            Some((*prefix, layer))
        })
    }
}

/// A module's name, and those that older versions of diffusers and transformers had for it.
fn own_names(module: &str) -> Vec<String> {
    let mut names = vec![module.to_owned()];
    match module.strip_prefix("text_model.") {
        Some(rest) => names.push(rest.into()),
        None if module.starts_with("encoder.layers.") => names.push(format!("text_model.{module}")),
        None => {}
    }
    if let Some(short) = module.strip_suffix(".to_out.0") {
        names.push(format!("{short}.to_out"));
    }
    if let Some((block, layer)) = module.rsplit_once(".attn.") {
        names.push(format!("{block}.attn.processor.{layer}"));
    }
    names
}

/// All rows of a tensor, from row `first` of the file's layer on.
fn target(module: &str, info: &TensorInfo, first: usize) -> Target {
    let n = info.shape.first().copied().unwrap_or(0);
    let rows = Rows { first, of: n, are_swapped: false };
    Target { module: module.into(), shape: info.shape.clone(), rows }
}

/// Adds the layers that a rule names, of which `parts` are there, and their parts by number.
fn add_rule(
    rule: &Rule,
    parts: &HashMap<String, NamedLayer>,
    width: usize,
    layers: &mut HashMap<String, NamedLayer>,
) {
    let Some((first, others)) = rule.to.split_first() else { return };
    for (name, part) in parts {
        let Some(numbers) = numbers(name, first) else { continue };
        let others = others.iter().map(|to| parts.get(&filled(to, &numbers)));
        let Some(all) = std::iter::once(Some(part)).chain(others).collect::<Option<Vec<_>>>()
        else {
            continue;
        };
        let mut targets: Vec<Target> =
            all.iter().flat_map(|part| part.targets.iter().cloned()).collect();
        let from = filled(rule.from, &numbers);
        if targets.len() > 1 {
            for (i, part) in targets.iter().enumerate() {
                layers.insert(format!("{from}.{i}"), NamedLayer { targets: vec![part.clone()] });
            }
        }
        let of = targets.iter().map(|target| target.rows.of).sum();
        let mut start = 0;
        for target in &mut targets {
            let n = target.rows.of;
            let are_swapped =
                rule.how == How::Swapped || rule.how == How::SwappedIfTwo && n == 2 * width;
            target.rows = Rows { first: start, of, are_swapped };
            start += n;
        }
        layers.insert(from, NamedLayer { targets });
    }
}
