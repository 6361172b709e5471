//! Finds the tensors that belong to quantised weights, once all headers are read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::{Result, TensorInfo, WeightError, Weights};
use super::layers::{MAX_JSON_BYTES, dtype_of, format_of};
use super::nf4::{Companions, Nf4Scales, State};
use super::{Scales, Scaling, check_scales};
use crate::checkpoint::dtype::{DType, StoredDType};
use crate::checkpoint::source::SourceError;

/// What there is for the weight of one layer, in addition to it.
#[derive(Default)]
struct Layer {
    /// The format that ComfyUI's descriptions give.
    format: Option<String>,
    scales: Vec<TensorInfo>,
    /// Why its format is not read: the format's name.
    refused: Option<String>,
}

/// Levels of names that a layer's name may lack in a header: `text_encoders.t5xxl.transformer.`.
const MAX_PREFIX: usize = 3;

impl Weights {
    /// Joins quantised weights with the tensors that they need, which are no longer listed.
    ///
    /// Reads scales of whole tensors, tables and descriptions: a few bytes of each. Those that have to be fetched are all
    /// asked for before the first of them is an error.
    pub(in super::super) fn join_scales(&mut self) -> Result<()> {
        let mut join = Join::new(self);
        join.collect()?;
        join.name_declared();
        join.scaled()?;
        join.four_bits()?;
        let Join { hidden, changed, absent, .. } = join;
        if let Some(absent) = absent {
            return Err(absent);
        }
        hidden.iter().for_each(|name| drop(self.tensors.remove(name)));
        self.tensors.extend(changed.into_iter().map(|info| (info.name.clone(), info)));
        self.declared = Vec::new();
        Ok(())
    }
}

struct Join<'w> {
    weights: &'w Weights,
    layers: BTreeMap<String, Layer>,
    /// Prefixes of names under which weights are scaled fp8, and the type's name.
    signs: BTreeMap<&'w str, &'static str>,
    /// Weights of four bits, and what belongs to them.
    four_bits: BTreeMap<String, Companions<'w>>,
    /// Their descriptions.
    states: BTreeMap<String, &'w TensorInfo>,
    hidden: BTreeSet<Arc<str>>,
    changed: Vec<TensorInfo>,
    /// Something has to be fetched.
    absent: Option<WeightError>,
}

impl<'w> Join<'w> {
    fn new(weights: &'w Weights) -> Self {
        Join {
            weights,
            layers: BTreeMap::new(),
            signs: BTreeMap::new(),
            four_bits: BTreeMap::new(),
            states: BTreeMap::new(),
            hidden: BTreeSet::new(),
            changed: vec![],
            absent: None,
        }
    }

    /// What was read, unless it has to be fetched first.
    fn here<T>(&mut self, read: Result<T>) -> Result<Option<T>> {
        match read {
            Err(error @ WeightError::Source(SourceError::Absent { .. })) => {
                self.absent = Some(error);
                Ok(None)
            }
            read => read.map(Some),
        }
    }

    /// The text of a tensor of bytes.
    fn text(&mut self, info: &TensorInfo) -> Result<Option<String>> {
        if info.dtype.name() != "U8" || info.n_bytes() > MAX_JSON_BYTES {
            let (dtype, bytes) = (info.dtype.name(), info.n_bytes());
            let expected = format!("expected JSON as at most {MAX_JSON_BYTES} bytes of type U8");
            return Err(wrong(info, format!("it is {bytes} bytes of type {dtype}; {expected}")));
        }
        let weights = self.weights;
        let Some(bytes) = self.here(weights.bytes(info, 0..info.n_bytes()))? else {
            return Ok(None);
        };
        match String::from_utf8(bytes.into_owned()) {
            // Some writers end it with zeros.
            Ok(text) => Ok(Some(text.trim_end_matches('\0').to_owned())),
            Err(_) => Err(wrong(info, "it is not UTF-8; expected JSON".into())),
        }
    }

    /// Sorts all tensors that are no weights themselves by the layers they belong to.
    fn collect(&mut self) -> Result<()> {
        for info in self.weights.iter() {
            let (layer, last) = info.name.rsplit_once('.').unwrap_or(("", &info.name));
            match last {
                "scaled_fp8" => {
                    let dtype = match info.dtype.name() {
                        "F8_E5M2" => "F8_E5M2",
                        _ => "F8_E4M3",
                    };
                    let prefix = &info.name[..info.name.len() - last.len()];
                    self.signs.insert(prefix, dtype);
                    self.hidden.insert(info.name.clone());
                }
                "comfy_quant" => {
                    if let Some(text) = self.text(info)? {
                        let format = format_of(&text).map_err(|reason| wrong(info, reason))?;
                        self.layer(layer, info).format = Some(format);
                    }
                }
                "scale_weight" | "weight_scale" => {
                    self.layer(layer, info).scales.push(info.clone())
                }
                // For products in fp8, which there are none of here.
                "scale_input" | "input_scale" => drop(self.layer(layer, info)),
                "weight_scale_2" | "weight_scale_inv" | "pre_quant_scale" => {
                    let refused = &mut self.layer(layer, info).refused;
                    *refused = Some(format!("fp8 or fp4 with {last}"));
                }
                "SCB" | "weight_format" => {
                    self.layer(layer, info).refused = Some("int8 of bitsandbytes".into());
                }
                "absmax" | "quant_map" | "nested_absmax" | "nested_quant_map" => {
                    let found = self.companions(layer, info);
                    let place = match last {
                        "absmax" => &mut found.absmax,
                        "quant_map" => &mut found.levels,
                        "nested_absmax" => &mut found.nested_absmax,
                        _ => &mut found.nested_levels,
                    };
                    *place = Some(info);
                }
                _ if last.starts_with("bitsandbytes__") => {
                    if let Some(weight) = layer.strip_suffix(".quant_state") {
                        self.companions(weight, info);
                        self.states.insert(weight.to_owned(), info);
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The layer of that name, whose weight `info` belongs to; without a weight, `info` stays listed.
    fn layer(&mut self, layer: &str, info: &TensorInfo) -> &mut Layer {
        if self.weights.info(&weight_of(layer)).is_some() {
            self.hidden.insert(info.name.clone());
        }
        self.layers.entry(layer.to_owned()).or_default()
    }

    fn companions(&mut self, weight: &str, info: &TensorInfo) -> &mut Companions<'w> {
        if self.weights.info(weight).is_some() {
            self.hidden.insert(info.name.clone());
        }
        self.four_bits.entry(weight.to_owned()).or_default()
    }

    /// Gives the formats that headers declare to their layers. Names there may lack the prefix of the tensors' names.
    fn name_declared(&mut self) {
        let declared: BTreeMap<&str, &str> =
            self.weights.declared.iter().map(|(layer, format)| (&**layer, &**format)).collect();
        if declared.is_empty() {
            return;
        }
        for name in self.weights.names() {
            let Some(layer) = name.strip_suffix(".weight") else { continue };
            let ends = layer.match_indices('.').take(MAX_PREFIX).map(|(at, _)| &layer[at + 1..]);
            let format = [layer].into_iter().chain(ends).find_map(|name| declared.get(name));
            if let Some(format) = format {
                let format_of = &mut self.layers.entry(layer.to_owned()).or_default().format;
                format_of.get_or_insert_with(|| (*format).to_owned());
            }
        }
    }

    /// Gives weights the types and scales of their layers.
    fn scaled(&mut self) -> Result<()> {
        for (layer, Layer { format, scales, refused }) in std::mem::take(&mut self.layers) {
            let Some(weight) = self.weights.info(&weight_of(&layer)) else { continue };
            let mut info = weight.clone();
            let declared = format.as_deref().and_then(dtype_of);
            let refused = refused.or(format.clone().filter(|_| declared.is_none()));
            if let Some(format) = refused {
                info.dtype = StoredDType::Other(format);
                self.changed.push(info);
                continue;
            }
            let signed = self.sign(&info.name).filter(|_| !scales.is_empty());
            if let Some(dtype) = declared.or(signed) {
                match (info.dtype.name(), DType::named(dtype)) {
                    ("U8", Some(row)) if info.n_bytes() == info.n_elements() => {
                        info.dtype = StoredDType::Known(row);
                    }
                    ("F8_E4M3" | "F8_E5M2", _)
                        if declared.is_some_and(|d| d != info.dtype.name()) =>
                    {
                        let found = info.dtype.name();
                        let reason =
                            format!("it is declared to be {dtype}, but its type is {found}");
                        return Err(wrong(&info, reason));
                    }
                    _ => {}
                }
            }
            match &scales[..] {
                [] if declared.is_some() && is_f8(&info) => return Err(unscaled(&info)),
                [] => {}
                [scale] => info.scaling = self.scaling(&info, scale)?,
                [a, b, ..] => {
                    let reason =
                        format!("it has two scales, {} and {}; expected one", a.name, b.name);
                    return Err(wrong(&info, reason));
                }
            }
            self.changed.push(info);
        }
        // A layer may be left wide in a scaled file, but not in fp8 without a scale.
        let changed: BTreeSet<&str> = self.changed.iter().map(|info| &*info.name).collect();
        let unscaled_weight = |info: &&TensorInfo| {
            let is_weight = &*info.name == "weight" || info.name.ends_with(".weight");
            is_weight && info.shape.len() >= 2 && is_f8(info) && self.sign(&info.name).is_some()
        };
        let left = self.weights.iter().filter(|info| !changed.contains(&*info.name));
        let of_layers = self.changed.iter().filter(|info| info.scaling.is_none());
        match left.chain(of_layers).find(unscaled_weight) {
            // Scales that are not here yet are no missing ones.
            Some(info) if self.absent.is_none() => Err(unscaled(info)),
            _ => Ok(()),
        }
    }

    /// The type that the sign above a weight's name says.
    fn sign(&self, name: &str) -> Option<&'static str> {
        let above = name.rmatch_indices('.').map(|(at, _)| &name[..=at]).chain([""]);
        above.filter_map(|prefix| self.signs.get(prefix)).copied().next()
    }

    /// A scale, or one for each row.
    fn scaling(&mut self, info: &TensorInfo, scale: &TensorInfo) -> Result<Option<Scaling>> {
        if scale.dtype.known().is_none_or(|dtype| dtype.block.numbers > 1) {
            let dtype = scale.dtype.name();
            return Err(wrong(scale, format!("it has type {dtype}; expected F32")));
        }
        let rows = info.shape.first().copied().unwrap_or(1);
        match scale.shape[..] {
            _ if scale.n_elements() == 1 => {
                let weights = self.weights;
                let Some(value) = self.here(weights.tensor_f32(scale))? else { return Ok(None) };
                check_scales(scale, 0, &value)?;
                Ok(Some(Scaling::of(Scales::Tensor(value[0]))))
            }
            [n] | [n, 1] if n == rows => Ok(Some(Scaling::of(Scales::Rows(scale.clone())))),
            _ => {
                let (found, of) = (&scale.shape, &info.shape);
                let reason = format!(
                    "it has shape {found:?} for a weight {of:?}; expected one scale, or one for each of {rows} rows"
                );
                Err(wrong(scale, reason))
            }
        }
    }

    /// Joins weights of four bits with their blocks' scales.
    fn four_bits(&mut self) -> Result<()> {
        for (name, found) in std::mem::take(&mut self.four_bits) {
            let Some(weight) = self.weights.info(&name) else { continue };
            let Some(state) = self.states.get(&name).copied() else {
                if weight.dtype.name() != "U8" {
                    continue;
                }
                let expected = format!("{name}.quant_state.bitsandbytes__nf4");
                return Err(wrong(weight, format!("{expected}, which describes it, is missing")));
            };
            let mut info = weight.clone();
            if !state.name.ends_with("bitsandbytes__nf4") {
                let kind = state.name.rsplit_once("__").map_or("", |(_, kind)| kind);
                info.dtype = StoredDType::Other(format!("{kind} of bitsandbytes"));
                self.changed.push(info);
                continue;
            }
            if info.dtype.name() != "U8" {
                let reason =
                    format!("its type is {}; expected U8, two numbers a byte", info.dtype.name());
                return Err(wrong(&info, reason));
            }
            let Some(text) = self.text(state)? else { continue };
            let state =
                State::parse(&text, info.n_bytes()).map_err(|reason| wrong(&info, reason))?;
            let joined = Nf4Scales::join(self.weights, &state, found);
            let Some(joined) = self.here(joined)? else { continue };
            let scales = joined.map_err(|reason| wrong(&info, reason))?;
            info.shape = state.shape;
            info.scaling = Some(Scaling::of(Scales::Nf4(Box::new(scales))));
            info.dtype = StoredDType::of_row("NF4");
            self.changed.push(info);
        }
        Ok(())
    }
}

/// The name of a layer's weight.
fn weight_of(layer: &str) -> String {
    if layer.is_empty() { "weight".into() } else { format!("{layer}.weight") }
}

fn is_f8(info: &TensorInfo) -> bool {
    matches!(info.dtype.name(), "F8_E4M3" | "F8_E5M2")
}

fn unscaled(info: &TensorInfo) -> WeightError {
    let reason = "it has no scale, in a file that says its layers of 8-bit floats have one";
    wrong(info, reason.into())
}

fn wrong(info: &TensorInfo, reason: String) -> WeightError {
    let (name, file) = (info.name.to_string(), info.file.to_string());
    WeightError::Scaling { name, reason, file }
}
