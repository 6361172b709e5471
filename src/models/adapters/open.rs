//! A model's weights with all changes of some files.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::changes::{FileChanges, PartChanges};
use super::factors::{Change, Factors};
use super::keys::{self, Slot};
use super::metadata::Configuration;
use super::names::{AdapterNames, NamedLayer, PartNames};
use super::{AdapterError, AdapterReport, FewSteps, LoraWeight, origin};
use crate::checkpoint::changes::Delta;
use crate::checkpoint::source::Source;
use crate::checkpoint::weights::{TensorInfo, Weights};
use crate::models::config::{ModelConfig, folder, stem};
use crate::models::family::Family;
use crate::models::files::FilesError;

/// Keys that a message shows of a file in which nothing is known.
const SHOWN_KEYS: usize = 5;

/// A file of changes whose header is read.
#[derive(Clone)]
pub struct AdapterFile {
    /// What messages call it.
    pub shown: String,
    /// What its changes are multiplied by.
    pub weight: LoraWeight,
    /// Its tensors.
    pub weights: Weights,
}

/// Weights of the parts that change, by their folders, and what is to be said of each file.
type Adapted = (Vec<(&'static str, Weights)>, Vec<AdapterReport>);

/// The weights of a model with all changes of `files`. They are all worked out against the model's own weights.
pub fn adapt(model: &dyn Source, files: &[AdapterFile]) -> Result<Adapted, FilesError> {
    let config = ModelConfig::load(model)?;
    let family = config.family();
    let Some(names) = family.adapter_names() else {
        let file = files.first().map_or(String::new(), |file| file.shown.clone());
        return Err(AdapterError::Family { file, model: family.examples() }.into());
    };
    let parts = parts_of(model, &config, names)?;
    let adapting = Adapting { family, names, parts: &parts };
    let bases: Vec<Arc<Weights>> =
        parts.iter().map(|part| Arc::new(part.weights.clone())).collect();
    let mut changes: Vec<PartChanges> = parts.iter().map(|_| PartChanges::default()).collect();
    let mut reports = Vec::new();
    for (number, file) in files.iter().enumerate() {
        reports.push(adapting.add(file, number, &bases, &mut changes)?);
    }
    let changed = parts.iter().zip(&bases).zip(changes).filter(|(_, part)| !part.is_empty());
    let changed = changed.map(|((part, base), changes)| (part.folder, changes.apply(base)));
    Ok((changed.collect(), reports))
}

/// The parts that files of changes may be about: the denoiser first.
fn parts_of(
    model: &dyn Source,
    config: &ModelConfig,
    names: &AdapterNames,
) -> Result<Vec<PartNames>, FilesError> {
    let weights = Weights::open(model, folder::TRANSFORMER, stem::DIFFUSERS)?;
    let mut parts = vec![PartNames::denoiser(folder::TRANSFORMER, weights, names)];
    for encoder in &config.text_encoders {
        let slots = config.family().text_encoders().iter();
        let slot = slots.filter(|slot| slot.folder == encoder.folder);
        let Some(role) = slot.filter_map(|slot| slot.role).next() else { continue };
        let weights = Weights::open(model, encoder.folder, stem::TRANSFORMERS)?;
        parts.extend(PartNames::encoder(encoder.folder, weights, role));
    }
    Ok(parts)
}

/// A layer of a file, of which part of the model, and how the file's names begin there.
struct Layer<'p> {
    part: usize,
    prefix: String,
    named: &'p NamedLayer,
    tensors: BTreeMap<Slot, TensorInfo>,
}

struct Adapting<'p> {
    family: &'static dyn Family,
    names: &'static AdapterNames,
    parts: &'p [PartNames],
}

impl<'p> Adapting<'p> {
    fn find(&self, layer: &str) -> Option<(usize, &'p str, &'p NamedLayer)> {
        self.parts.iter().enumerate().find_map(|(i, part)| {
            let (prefix, named) = part.find(layer)?;
            Some((i, prefix, named))
        })
    }

    /// Adds the changes of one file.
    fn add(
        &self,
        AdapterFile { shown, weight, weights }: &AdapterFile,
        number: usize,
        bases: &[Arc<Weights>],
        parts: &mut [PartChanges],
    ) -> Result<AdapterReport, AdapterError> {
        let (file, weight) = (shown.clone(), *weight);
        if weights.is_empty() {
            return Err(AdapterError::Empty { file });
        }
        if !weight.is_finite() {
            return Err(AdapterError::Weight { file, weight });
        }
        let (layers, mut unused) = self.layers(weights, &file)?;
        let keys: Vec<&str> = weights.names().collect();
        if let Some(other) = origin::other_family(&keys, self.family, !layers.is_empty()) {
            let model = self.family.examples();
            let (made_for, key) = (other.made_for, other.key);
            return Err(AdapterError::OtherFamily { file, made_for, key, model });
        }
        for key in &unused {
            if let Some((layer, kind)) = keys::unsupported(key)
                && self.find(layer).is_some()
            {
                return Err(AdapterError::Kind { file, key: key.clone(), kind });
            }
        }
        if layers.is_empty() {
            let first = unused.iter().take(SHOWN_KEYS).cloned().collect();
            let (n, model) = (unused.len(), self.family.examples());
            return Err(AdapterError::NothingKnown { file, n, first, model });
        }
        let texts = weights.metadata()?;
        let configuration = Configuration::read(&texts, &file)?;
        let mut report = AdapterReport {
            family: self.family.examples(),
            weight,
            bytes: weights.total_bytes(),
            ..AdapterReport::default()
        };
        let mut changes = FileChanges::new(shown, number, weight, self.names.input);
        for (name, Layer { part, prefix, named, tensors }) in layers {
            let module = named.targets.first().map_or("", |target| target.module.as_str());
            let folder = self.parts[part].folder;
            let scale = |rank| configuration.scale(folder, module, rank);
            let keys: Vec<String> = tensors.values().map(|info| info.name.to_string()).collect();
            if report.form.is_empty() {
                report.form = origin::form(&prefix, &name);
            }
            let factors = Factors { file: shown, layer: name.clone(), tensors };
            let change = factors.read(weights, scale)?;
            if change.is_nothing() {
                unused.extend(keys);
                continue;
            }
            let kind = change.kind;
            let (rank, is_zero) = (change.rank(), change.is_zero());
            if !changes.add(&name, named, change, &bases[part], &mut parts[part])? {
                report.repeated.push(name);
                continue;
            }
            report.ranks.extend(rank);
            report.without_effect += usize::from(is_zero);
            *report.kinds.entry(kind).or_default() += 1;
            match part {
                0 => report.layers += 1,
                _ => report.text_layers += 1,
            }
        }
        unused.sort();
        let has_merged = changes.has_merged;
        // As files do that teach a model to draw, not what to draw. Fused layers count once.
        let changes_all = 2 * report.layers >= self.parts[0].matrices();
        let few_steps = FewSteps::of(&file, &texts, self.names.few_steps, changes_all);
        Ok(AdapterReport { file, unused, has_merged, few_steps, ..report })
    }

    /// The layers of a file by the names that it has for them, and the keys that nothing in the model is for.
    fn layers(
        &self,
        weights: &Weights,
        file: &str,
    ) -> Result<(BTreeMap<String, Layer<'p>>, Vec<String>), AdapterError> {
        let mut layers: BTreeMap<String, Layer<'p>> = BTreeMap::new();
        let mut unused = Vec::new();
        for info in weights.iter() {
            let candidates = keys::candidates(&info.name);
            let known = candidates.into_iter().find_map(|(layer, slot)| {
                let (part, prefix, named) = self.find(layer)?;
                Some((layer, slot, part, prefix, named))
            });
            let Some((layer, slot, part, prefix, named)) = known else {
                unused.push(info.name.to_string());
                continue;
            };
            let entry = layers.entry(layer.to_owned()).or_insert_with(|| Layer {
                part,
                prefix: prefix.to_owned(),
                named,
                tensors: BTreeMap::new(),
            });
            if let Some(before) = entry.tensors.insert(slot, info.clone()) {
                let (first, second) = (before.name.to_string(), info.name.to_string());
                return Err(AdapterError::Twice { file: file.to_owned(), first, second });
            }
        }
        Ok((layers, unused))
    }
}

impl Change {
    /// Whether there was nothing but what is said of factors.
    fn is_nothing(&self) -> bool {
        self.delta.is_none() && self.bias.is_none() && self.replaced.is_none()
    }

    /// The rank of its product.
    fn rank(&self) -> Option<usize> {
        match self.delta.as_deref()? {
            Delta::Product { down, .. } => Some(down.rows),
            Delta::Hadamard { factors, .. } => Some(factors[1].rows),
            Delta::Kronecker { .. } | Delta::Dense(_) => None,
        }
    }

    /// Whether it does nothing.
    fn is_zero(&self) -> bool {
        let only = self.bias.is_none() && self.replaced.is_none() && self.magnitudes.is_none();
        only && self.delta.as_deref().is_some_and(Delta::is_zero)
    }
}
