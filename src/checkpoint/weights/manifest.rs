//! What a model needs of a checkpoint: names and shapes, asked for one by one, judged together.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

use super::error::merged;
use super::scaling::foreign;
use super::{Result, TensorInfo, WeightError, Weights, unsupported};
use crate::checkpoint::changes::LowRank;

/// What a model needs of a checkpoint, collected while the model is built.
pub struct Manifest<'w> {
    weights: &'w Weights,
    report: RefCell<Report>,
}

#[derive(Default)]
struct Report {
    problems: Vec<WeightError>,
    used: BTreeSet<Arc<str>>,
    order: Vec<TensorInfo>,
    /// Numbers of each parameter that was asked for, found or not, if they are to be counted.
    parameters: Option<BTreeMap<String, u64>>,
}

impl<'w> Manifest<'w> {
    /// Nothing asked for yet.
    pub fn new(weights: &'w Weights) -> Self {
        Self { weights, report: RefCell::default() }
    }

    /// Like [`Manifest::new`], for [`Manifest::n_parameters`], which takes the memory of all names.
    pub fn counting(weights: &'w Weights) -> Self {
        let manifest = Manifest::new(weights);
        manifest.report.borrow_mut().parameters = Some(BTreeMap::new());
        manifest
    }

    /// The cursor at the top of the names.
    pub fn root(&self) -> WeightPath<'_> {
        WeightPath { manifest: self, prefix: String::new() }
    }

    /// The checkpoint.
    pub fn weights(&self) -> &'w Weights {
        self.weights
    }

    /// The tensors found so far, each once, in the order they were first asked for.
    pub fn tensors(&self) -> Vec<TensorInfo> {
        self.report.borrow().order.clone()
    }

    /// Bytes in the file of the tensors found so far, each counted once.
    pub fn total_bytes(&self) -> u64 {
        self.report.borrow().order.iter().map(TensorInfo::n_bytes).sum()
    }

    /// Numbers of all parameters that were asked for, found or not, each counted once; 0 if they are not counted.
    pub fn n_parameters(&self) -> u64 {
        self.report.borrow().parameters.iter().flat_map(BTreeMap::values).sum()
    }

    /// Ends the collection: an error that lists everything missing, misshapen or of an unsupported type; or the
    /// names nobody asked for, which a caller may want to warn about.
    ///
    /// Names covered by `ignored` are not reported. `"encoder."` covers names that start so, and a name without
    /// final dot such as `"position_ids"` also covers names that end in `.position_ids`.
    pub fn finish(&self, ignored: &[&str]) -> Result<Vec<String>> {
        let mut report = self.report.borrow_mut();
        let problems = std::mem::take(&mut report.problems);
        let quantised = || (!problems.is_empty()).then(|| foreign(self.weights)).flatten();
        if let Some((info, sign)) = quantised() {
            return Err(WeightError::Quantised { file: info.file.to_string(), sign });
        }
        let mut problems = merged(problems);
        match problems.len() {
            0 => {}
            1 => return Err(problems.remove(0)),
            _ => return Err(WeightError::Many { problems }),
        }
        let covered = |name: &str| {
            ignored.iter().any(|entry| {
                name.starts_with(entry)
                    || name
                        .strip_suffix(entry)
                        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            })
        };
        let extra =
            self.weights.names().filter(|name| !report.used.contains(*name) && !covered(name));
        Ok(extra.map(str::to_string).collect())
    }
}

/// A cursor over a checkpoint's names, as in `w.pp("transformer_blocks").pp(0).require("norm1.linear.weight", ..)`.
#[derive(Clone)]
pub struct WeightPath<'m> {
    manifest: &'m Manifest<'m>,
    prefix: String,
}

impl WeightPath<'_> {
    /// One level down: a name or an index. May hold dots.
    #[must_use]
    pub fn pp(&self, part: impl fmt::Display) -> Self {
        Self { manifest: self.manifest, prefix: self.full(&part.to_string()) }
    }

    /// One level down if any name lies there, else where we are: CLIP checkpoints have `text_model.` before every
    /// name, or not, depending on the version of transformers that wrote them.
    #[must_use]
    pub fn pp_if_present(&self, part: &str) -> Self {
        let below = self.full(part) + ".";
        let mut after = self
            .manifest
            .weights
            .tensors
            .range::<str, _>((Bound::Included(below.as_str()), Bound::Unbounded));
        match after.next().is_some_and(|(name, _)| name.starts_with(&below)) {
            true => self.pp(part),
            false => self.clone(),
        }
    }

    /// The names above, joined by dots.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// What is added to the layer `name` while the network runs.
    pub fn low_rank(&self, name: &str) -> &[LowRank] {
        self.manifest.weights.low_rank(&self.full(name))
    }

    /// Whether a tensor is there; asks for nothing.
    pub fn has(&self, name: &str) -> bool {
        self.manifest.weights.info(&self.full(name)).is_some()
    }

    /// The tensor `name`, which must have `shape` and a type we read.
    ///
    /// If it has not, that is noted for [`Manifest::finish`] and a stand-in with the expected shape comes back, which
    /// cannot be read: building goes on, so that all problems are found together.
    pub fn require(&self, name: &str, shape: &[usize]) -> TensorInfo {
        self.require_any(&[name], shape)
    }

    /// Like [`require`](Self::require), for a tensor that may be stored under several names; takes the first that is
    /// there, and counts all as asked for. (T5: `shared.weight` is `encoder.embed_tokens.weight`.)
    pub fn require_any(&self, names: &[&str], shape: &[usize]) -> TensorInfo {
        if let Some(parameters) = &mut self.manifest.report.borrow_mut().parameters {
            let numbers = shape.iter().map(|side| *side as u64).product();
            parameters.insert(self.full(names[0]), numbers);
        }
        self.find(names, shape)
    }

    /// Like [`require`](Self::require), for what is stored with a model but not learned: PyTorch's buffers.
    pub fn require_buffer(&self, name: &str, shape: &[usize]) -> TensorInfo {
        self.find(&[name], shape)
    }

    fn find(&self, names: &[&str], shape: &[usize]) -> TensorInfo {
        let weights = self.manifest.weights;
        let names: Vec<String> = names.iter().map(|name| self.full(name)).collect();
        let report = &mut *self.manifest.report.borrow_mut();
        let found = names.iter().find_map(|name| weights.info(name));
        let is_new = found.is_some_and(|info| !report.used.contains(&info.name));
        for info in names.iter().filter_map(|name| weights.info(name)) {
            report.used.insert(info.name.clone());
        }
        let Some(info) = found else {
            let name = names.join(" or ");
            report
                .problems
                .push(WeightError::Missing { name: name.clone(), file: weights.place.clone() });
            let dtype = weights.missing.clone();
            let (name, shape, file) = (name.into(), shape.to_vec(), "".into());
            return TensorInfo::stored(name, dtype, shape, file, 0..0, usize::MAX);
        };
        if info.dtype.known().is_none() {
            report.problems.push(unsupported(info));
        }
        if info.shape != shape {
            report.problems.push(WeightError::Shape {
                name: info.name.to_string(),
                expected: shape.to_vec(),
                found: info.shape.clone(),
                file: info.file.to_string(),
            });
            return TensorInfo {
                shape: shape.to_vec(),
                file: "".into(),
                shard: usize::MAX,
                ..info.clone()
            };
        }
        if is_new {
            report.order.push(info.clone());
        }
        info.clone()
    }

    /// The tensor `name` if it is there (then like [`require`](Self::require)), else nothing.
    pub fn optional(&self, name: &str, shape: &[usize]) -> Option<TensorInfo> {
        self.has(name).then(|| self.require(name, shape))
    }

    fn full(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.to_string() } else { format!("{}.{name}", self.prefix) }
    }
}
