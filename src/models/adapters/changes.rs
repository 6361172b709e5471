//! From what a file says of its layers to changes of the network's.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::factors::Change;
use super::names::{NamedLayer, Target};
use super::{AdapterError, LoraWeight};
use crate::checkpoint::changes::{
    Delta, LowRank, Magnitudes, Matrix, Merged, MergedChange, MergedKind, Norms,
};
use crate::checkpoint::weights::Weights;

/// Types to which a change can be added without losing it.
const WIDE: [&str; 4] = ["F32", "F16", "BF16", "F64"];
/// Ends of layers whose weights are read row by row and not multiplied by.
const TABLES: [&str; 5] =
    ["token_embedding", "position_embedding", "shared", "embed_tokens", "relative_attention_bias"];

/// The changes of one part of a model, by all files.
#[derive(Default)]
pub struct PartChanges {
    /// Products, by the layer's name.
    low_rank: BTreeMap<String, Vec<LowRank>>,
    /// What is merged into tensors, by their names.
    merged: BTreeMap<String, Vec<MergedChange>>,
    /// What each file has changed, by its number and the tensor's name.
    made: BTreeMap<(usize, String), Made>,
}

/// A change that one file has made: to see whether it comes again under another name.
struct Made {
    layer: String,
    delta: Arc<Delta>,
    target: Target,
}

/// The changes of one file.
pub struct FileChanges<'f> {
    /// The file, for messages.
    pub file: &'f str,
    /// Its number among all files.
    pub number: usize,
    /// What its changes are multiplied by.
    pub weight: LoraWeight,
    /// Whether some of them are merged into weights.
    pub has_merged: bool,
    /// The layer that reads latents.
    pub input: &'f str,
}

impl<'f> FileChanges<'f> {
    /// Nothing yet.
    pub fn new(file: &'f str, number: usize, weight: LoraWeight, input: &'f str) -> Self {
        FileChanges { file, number, weight, has_merged: false, input }
    }

    /// Adds what the file says of `layer`, whose targets are in `base`. False if the same was said before under another name.
    pub fn add(
        &mut self,
        layer: &str,
        named: &NamedLayer,
        change: Change,
        base: &Arc<Weights>,
        part: &mut PartChanges,
    ) -> Result<bool, AdapterError> {
        let Change { delta, magnitudes, bias, replaced, kind } = change;
        let mut is_new = false;
        if let Some(delta) = delta {
            let delta = self.fitted(layer, named, delta)?;
            let magnitudes = magnitudes
                .map(|magnitudes| self.magnitudes(layer, named, magnitudes, &delta, base))
                .transpose()?;
            for target in &named.targets {
                let name = format!("{}.weight", target.module);
                if !self.is_first(part, layer, (&name, target), &delta)? {
                    continue;
                }
                is_new = true;
                let is_table = TABLES.iter().any(|table| target.module.ends_with(table));
                if let (Delta::Product { up, down, scale }, None, false) =
                    (&*delta, &magnitudes, is_table)
                {
                    let changes = part.low_rank.entry(target.module.clone()).or_default();
                    let (down, up) = (down.clone(), up.clone());
                    let (rows, scale, file) = (target.rows, *scale, self.number);
                    self.keep(changes, LowRank { down, up, rows, scale, file });
                    continue;
                }
                self.check_wide(layer, kind, base, &name)?;
                let weight = self.merged_weight(layer, kind)?;
                let kind = magnitudes.clone().map_or(MergedKind::Added, MergedKind::Scaled);
                let rows = target.rows;
                let merged = MergedChange { delta: delta.clone(), rows, weight, kind };
                self.keep(part.merged.entry(name).or_default(), merged);
            }
        }
        for (matrix, is_bias) in [(bias, true), (replaced, false)] {
            let Some(matrix) = matrix else { continue };
            let delta = Arc::new(Delta::Dense(matrix));
            for target in &named.targets {
                let (name, target) = match is_bias {
                    true => (format!("{}.bias", target.module), target.of_bias()),
                    false => (format!("{}.weight", target.module), target.clone()),
                };
                self.check_shape(layer, &target, delta.shape())?;
                if base.info(&name).is_none() {
                    let found = delta.shape().into();
                    let (file, layer) = (self.file.into(), layer.into());
                    return Err(AdapterError::Shape {
                        file,
                        layer,
                        found,
                        expected: vec![],
                        target: name,
                    });
                }
                if !self.is_first(part, layer, (&name, &target), &delta)? {
                    continue;
                }
                is_new = true;
                let what = if is_bias { "a bias" } else { "replaced" };
                self.check_wide(layer, what, base, &name)?;
                let weight = self.merged_weight(layer, what)?;
                let (weight, kind) = match is_bias {
                    true => (weight, MergedKind::Added),
                    false => (1.0, MergedKind::Replacing),
                };
                let merged = MergedChange { delta: delta.clone(), rows: target.rows, weight, kind };
                self.keep(part.merged.entry(name).or_default(), merged);
            }
        }
        Ok(is_new)
    }

    /// Nothing is done for a weight of 0: that is the model as it is, bit for bit.
    fn keep<T>(&self, changes: &mut Vec<T>, change: T) {
        if self.weight.whole() != Some(0.0) {
            changes.push(change);
        }
    }

    /// What a change is multiplied by that is merged into a weight.
    fn merged_weight(&mut self, layer: &str, kind: &'static str) -> Result<f64, AdapterError> {
        self.has_merged = true;
        self.weight.whole().ok_or_else(|| {
            let (file, layer) = (self.file.into(), layer.into());
            AdapterError::StageWeights { file, layer, kind }
        })
    }

    /// A change that fits its layer: one of fewer inputs is made for a network that reads no control image.
    fn fitted(
        &self,
        layer: &str,
        named: &NamedLayer,
        delta: Arc<Delta>,
    ) -> Result<Arc<Delta>, AdapterError> {
        let Some(target) = named.targets.first() else { return Ok(delta) };
        let ([_, found], expected) = (delta.shape(), target.inputs());
        if target.module == self.input && found > expected {
            let (file, layer) = (self.file.into(), layer.into());
            return Err(AdapterError::Control { file, layer, found, expected });
        }
        if let (true, Delta::Product { up, down, scale }) =
            (target.module == self.input && found < expected, &*delta)
        {
            let mut values = vec![0.0; down.rows * expected];
            for (i, row) in values.chunks_exact_mut(expected).enumerate() {
                row[..found].copy_from_slice(down.row(i));
            }
            let down = Arc::new(Matrix::new(down.rows, values));
            let padded = Delta::Product { up: up.clone(), down, scale: *scale };
            self.check_shape(layer, target, padded.shape())?;
            return Ok(Arc::new(padded));
        }
        named.targets.iter().try_for_each(|t| self.check_shape(layer, t, delta.shape()))?;
        Ok(delta)
    }

    fn check_shape(
        &self,
        layer: &str,
        target: &Target,
        found: [usize; 2],
    ) -> Result<(), AdapterError> {
        let expected = [target.rows.of, target.inputs()];
        if found == expected {
            return Ok(());
        }
        let (file, layer, target) = (self.file.into(), layer.into(), target.module.clone());
        let (found, expected) = (found.into(), expected.into());
        Err(AdapterError::Shape { file, layer, found, expected, target })
    }

    fn check_wide(
        &self,
        layer: &str,
        kind: &'static str,
        base: &Weights,
        name: &str,
    ) -> Result<(), AdapterError> {
        let Some(info) = base.info(name) else { return Ok(()) };
        let dtype = info.dtype.name();
        if WIDE.contains(&dtype) && info.scaling.is_none() {
            return Ok(());
        }
        let (file, layer, dtype) = (self.file.into(), layer.into(), dtype.to_owned());
        Err(AdapterError::Quantised { file, layer, kind, dtype })
    }

    fn magnitudes(
        &self,
        layer: &str,
        named: &NamedLayer,
        (shape, norms): (Vec<usize>, Arc<[f32]>),
        delta: &Arc<Delta>,
        base: &Arc<Weights>,
    ) -> Result<Magnitudes, AdapterError> {
        let [rows, cols] = delta.shape();
        let of_rows = shape.first() == Some(&rows) && norms.len() == rows;
        if of_rows {
            return Ok(Magnitudes { norms, columns: None });
        }
        if norms.len() != cols {
            let (file, layer) = (self.file.into(), layer.into());
            let (found, expected) = (shape, vec![rows, 1]);
            let target = format!("{layer} (dora_scale)");
            return Err(AdapterError::Shape { file, layer, found, expected, target });
        }
        let parts = named.targets.iter().filter_map(|target| {
            Some((base.info(&format!("{}.weight", target.module))?.clone(), target.rows))
        });
        let columns = Norms::new(base.clone(), parts.collect(), delta.clone());
        Ok(Magnitudes { norms, columns: Some(Arc::new(columns)) })
    }

    /// Whether this is the file's first change of the tensor `name`. An error if there was another one with other numbers.
    fn is_first(
        &self,
        part: &mut PartChanges,
        layer: &str,
        (name, target): (&str, &Target),
        delta: &Arc<Delta>,
    ) -> Result<bool, AdapterError> {
        let key = (self.number, name.to_owned());
        let Some(before) = part.made.get(&key) else {
            let (layer, delta, target) = (layer.into(), delta.clone(), target.clone());
            part.made.insert(key, Made { layer, delta, target });
            return Ok(true);
        };
        let (mut difference, mut size) = (0.0, 0.0);
        for i in 0..target.shape.first().copied().unwrap_or(0) {
            let a = before.delta.row(before.target.rows.of_file(i));
            let b = delta.row(target.rows.of_file(i));
            for (a, b) in a.iter().zip(b) {
                difference += (a - b) * (a - b);
                size += a * a + b * b;
            }
        }
        if difference <= SAME * SAME * size {
            return Ok(false);
        }
        let (file, first) = (self.file.into(), before.layer.clone());
        Err(AdapterError::Twice { file, first, second: layer.into() })
    }
}

/// Relative distance of changes that are the same, stored in 16 bits perhaps.
const SAME: f64 = 1e-3;

impl PartChanges {
    /// The weights with all changes; those of a part without any are as they were.
    pub fn apply(self, base: &Arc<Weights>) -> Weights {
        let mut weights = Weights::clone(base);
        for (name, changes) in self.merged {
            let Some(info) = base.info(&name).cloned() else { continue };
            if changes.is_empty() {
                continue;
            }
            let (shape, file) = (info.shape.clone(), info.file.to_string());
            let merged = Merged::new(base.clone(), info, changes);
            weights.insert_computed(&name, &shape, Arc::new(merged), &file);
        }
        let low_rank = self.low_rank.into_iter().filter(|(_, changes)| !changes.is_empty());
        weights.with_low_rank(low_rank.collect())
    }

    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.low_rank.values().all(Vec::is_empty) && self.merged.values().all(Vec::is_empty)
    }
}
