//! Tables of names: what the tensors of a file are called by the network, and how they are cut.

use crate::checkpoint::weights::{TensorInfo, Viewed, WeightError, Weights, not_split};

/// A layer of a file: its name, and the names of what it consists of. `*` stands for a whole number.
///
/// A name stands for the layer's `.weight` and `.bias`, or for a tensor of that very name.
pub struct Rule {
    /// As the file has it.
    pub from: &'static str,
    /// As the network asks for it: one name, or several whose rows lie one below the other.
    pub to: &'static [&'static str],
    /// How it is cut.
    pub how: How,
}

/// How a layer of a file becomes those of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// As it is, or cut into equal parts if there are several names.
    Parts,
    /// Cut so that all parts but the last have as many rows as the network is wide.
    WidthsAndRest,
    /// The halves of the rows change places.
    Swapped,
    /// So if there are two rows for each of the network's width, else as it is.
    SwappedIfTwo,
}

/// A layer with the same numbers and another name, or cut into equal parts.
pub const fn rule(from: &'static str, to: &'static [&'static str]) -> Rule {
    Rule { from, to, how: How::Parts }
}

/// The tensors of a file under the network's names; those that no rule names keep theirs. `width` is the network's.
pub fn views(tensors: &Weights, rules: &[Rule], width: usize) -> Viewed {
    let mut all = Vec::new();
    for info in tensors.iter() {
        match named(&info.name, rules) {
            None => all.push(info.clone()),
            Some((rule, numbers, suffix)) => {
                let names = rule.to.iter().map(|to| filled(to, &numbers) + suffix).collect();
                all.extend(cut(info, names, rule.how, width)?);
            }
        }
    }
    Ok(all)
}

/// The rule for a tensor, the numbers in its name, and what follows the layer's name.
fn named<'n, 'r>(
    name: &'n str,
    rules: &'r [Rule],
) -> Option<(&'r Rule, Vec<&'n str>, &'static str)> {
    let (layer, suffix) = match name.rsplit_once('.') {
        Some((layer, "weight" | "scale")) => (layer, ".weight"),
        Some((layer, "bias")) => (layer, ".bias"),
        _ => (name, ""),
    };
    rules.iter().find_map(|rule| Some((rule, numbers(layer, rule.from)?, suffix)))
}

/// The numbers that stand in `name` for the stars of `pattern`, if the rest is equal.
pub fn numbers<'n>(name: &'n str, pattern: &str) -> Option<Vec<&'n str>> {
    let mut names = name.split('.');
    let mut found = Vec::new();
    for part in pattern.split('.') {
        let word = names.next()?;
        match part {
            "*" if !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit()) => found.push(word),
            _ if part == word => {}
            _ => return None,
        }
    }
    names.next().is_none().then_some(found)
}

/// `pattern` with its stars replaced.
pub fn filled(pattern: &str, numbers: &[&str]) -> String {
    let mut numbers = numbers.iter();
    let parts = pattern.split('.').map(|part| match part {
        "*" => numbers.next().copied().unwrap_or(part),
        _ => part,
    });
    parts.collect::<Vec<_>>().join(".")
}

/// Cuts a tensor into the rows of `names`.
pub fn cut(
    info: &TensorInfo,
    names: Vec<String>,
    how: How,
    width: usize,
) -> Result<Vec<TensorInfo>, WeightError> {
    let rows = info.shape.first().copied().unwrap_or(0);
    let parts = names.len();
    if how == How::Swapped || how == How::SwappedIfTwo && rows == 2 * width {
        let swapped = info.with_halves_swapped().ok_or_else(|| {
            not_split(info, "an even number of rows, in whole blocks of its number format")
        })?;
        return Ok(names.into_iter().map(|name| swapped.renamed(name)).collect());
    }
    if parts == 1 {
        return Ok(names.into_iter().map(|name| info.renamed(name)).collect());
    }
    let part = match how {
        How::WidthsAndRest if rows > (parts - 1) * width => width,
        How::WidthsAndRest => {
            return Err(not_split(info, format!("more than {} x {width} rows", parts - 1)));
        }
        _ if rows % parts == 0 => rows / parts,
        _ => return Err(not_split(info, format!("a multiple of {parts} rows"))),
    };
    let mut views = Vec::new();
    for (i, name) in names.into_iter().enumerate() {
        let end = if i + 1 == parts { rows } else { (i + 1) * part };
        let view = info
            .rows(i * part..end)
            .ok_or_else(|| not_split(info, "rows of whole blocks of its number format"))?;
        views.push(view.renamed(name));
    }
    Ok(views)
}

/// Side `axis` of the tensor `name`, which has to be there with `rank` sides.
pub fn side(tensors: &Weights, name: &str, rank: usize, axis: usize) -> Result<usize, WeightError> {
    let Some(info) = tensors.info(name) else {
        return Err(WeightError::Missing { name: name.into(), file: tensors.place().into() });
    };
    match info.shape.get(axis) {
        Some(side) if info.shape.len() == rank && *side > 0 => Ok(*side),
        _ => Err(not_split(info, format!("{rank} sides, none of them 0"))),
    }
}

/// How many blocks `PREFIX.N.` there are. An error if one before the last is missing.
pub fn blocks(tensors: &Weights, prefix: &str) -> Result<usize, WeightError> {
    let numbers = tensors.names().filter_map(|name| {
        let (number, _) = name.strip_prefix(prefix)?.strip_prefix('.')?.split_once('.')?;
        number.parse::<usize>().ok()
    });
    let found: std::collections::BTreeSet<usize> = numbers.collect();
    let gap = found.iter().enumerate().find(|(i, number)| i != *number);
    match gap {
        None => Ok(found.len()),
        Some((missing, _)) => Err(WeightError::Gap {
            file: tensors.place().into(),
            missing: format!("{prefix}.{missing}"),
            last: found.last().copied().unwrap_or(0),
        }),
    }
}
