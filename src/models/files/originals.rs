//! The other way round: a network's tensors under the names of the file that its makers published, which other programs
//! read.

use std::collections::BTreeMap;

use super::rules::{How, Rule, filled, numbers};
use crate::checkpoint::weights::{TensorInfo, Weights};
use crate::models::family::Original;

/// The layers of `denoiser` that rules name, each with the tensors whose rows it consists of, in order; all other tensors
/// under their own names. `width` is the network's. `None` if a layer is there in part.
pub fn originals(denoiser: &Weights, rules: &[Rule], width: usize) -> Option<Vec<Original>> {
    let mut layers: BTreeMap<String, Vec<Option<TensorInfo>>> = BTreeMap::new();
    for info in denoiser.iter() {
        let Some((rule, at, numbers, suffix)) = named(&info.name, rules) else {
            layers.insert(info.name.to_string(), vec![Some(info.clone())]);
            continue;
        };
        let rows = info.shape.first().copied().unwrap_or(0);
        let is_swapped =
            rule.how == How::Swapped || rule.how == How::SwappedIfTwo && rows == 2 * width;
        let part = if is_swapped { info.with_halves_swapped()? } else { info.clone() };
        let layer = filled(rule.from, &numbers);
        // The factors of norms have a name of their own there.
        let is_norm = layer.ends_with("_norm");
        let suffix = if is_norm && suffix == ".weight" { ".scale" } else { suffix };
        let parts = layers.entry(layer + suffix).or_insert_with(|| vec![None; rule.to.len()]);
        *parts.get_mut(at)? = Some(part);
    }
    let whole = |(name, parts): (String, Vec<Option<TensorInfo>>)| {
        Some((name, parts.into_iter().collect::<Option<Vec<_>>>()?))
    };
    layers.into_iter().map(whole).collect()
}

/// The rule that a tensor of the network is in, its place there, the numbers in its name, and what follows the layer's
/// name.
fn named<'n, 'r>(
    name: &'n str,
    rules: &'r [Rule],
) -> Option<(&'r Rule, usize, Vec<&'n str>, &'static str)> {
    let (layer, suffix) = match name.rsplit_once('.') {
        Some((layer, "weight")) => (layer, ".weight"),
        Some((layer, "bias")) => (layer, ".bias"),
        _ => (name, ""),
    };
    rules.iter().find_map(|rule| {
        let mut places = rule.to.iter().enumerate();
        let (at, numbers) = places.find_map(|(at, to)| Some((at, numbers(layer, to)?)))?;
        Some((rule, at, numbers, suffix))
    })
}
