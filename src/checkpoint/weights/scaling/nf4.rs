//! NF4 of bitsandbytes: 16 levels, blocks of 64 numbers with the largest of each, which may be quantised as well.
//! <https://github.com/bitsandbytes-foundation/bitsandbytes/blob/main/bitsandbytes/functional.py>

use std::ops::Range;

use super::super::{Result, TensorInfo, Weights};
use crate::checkpoint::dtype::nf4::{BLOCK_NUMBERS, LEVELS, dynamic_map};
use crate::checkpoint::json;
use crate::tensor::Storage;

/// What NF4's codes need to become numbers.
#[derive(Debug, PartialEq)]
pub struct Nf4Scales {
    /// The number of each code, in units of the block's largest number.
    pub levels: [f32; 16],
    /// The largest number of each block, f32; or its code, one byte, if they are quantised as well.
    absmax: TensorInfo,
    nested: Option<NestedScales>,
}

/// How the largest numbers of blocks are quantised: `levels[code] * absmax + offset`.
#[derive(Debug, PartialEq)]
pub struct NestedScales {
    levels: [f32; 256],
    /// One f32 for every `block` blocks.
    absmax: TensorInfo,
    block: u64,
    offset: f32,
}

impl NestedScales {
    /// The scales of the scales of `blocks`, and which of all the first of them is.
    fn of_blocks(&self, weights: &Weights, blocks: &Range<u64>) -> Result<(u64, Vec<f32>)> {
        let first = blocks.start / self.block;
        let mut absmax = Vec::new();
        let of_blocks = first..blocks.end.div_ceil(self.block).max(first);
        weights.read_f32(&self.absmax, of_blocks, &mut absmax)?;
        Ok((first, absmax))
    }
}

/// The tensors that belong to a weight of codes, as far as they are there.
#[derive(Clone, Copy, Default)]
pub(super) struct Companions<'w> {
    pub absmax: Option<&'w TensorInfo>,
    pub levels: Option<&'w TensorInfo>,
    pub nested_absmax: Option<&'w TensorInfo>,
    pub nested_levels: Option<&'w TensorInfo>,
}

/// What the JSON of a weight says.
pub(super) struct State {
    pub shape: Vec<usize>,
    /// Blocks of a nested block, and the offset.
    nested: Option<(u64, f32)>,
}

impl State {
    /// Reads the JSON of a weight of `bytes` bytes; `Err` is a reason.
    pub fn parse(text: &str, bytes: u64) -> std::result::Result<Self, String> {
        const FIELDS: [&str; 5] =
            ["quant_type", "blocksize", "shape", "nested_blocksize", "nested_offset"];
        let fields = json::fields(text, |name| FIELDS.contains(&name))
            .map_err(|error| format!("its quant_state is not the JSON it should be: {error}"))?;
        let number = |name: &str| fields.get(name).and_then(|raw| json::value::<u64>(raw));
        let shown = |name: &str| {
            let found = fields.get(name).map_or("missing", |raw| raw.get());
            found.chars().take(60).collect::<String>()
        };
        let kind = fields.get("quant_type").and_then(|raw| json::value::<String>(raw));
        if kind.as_deref() != Some("nf4") {
            return Err(format!("\"quant_type\" is {}; expected \"nf4\"", shown("quant_type")));
        }
        if number("blocksize") != Some(BLOCK_NUMBERS) {
            let found = shown("blocksize");
            return Err(format!("\"blocksize\" is {found}; expected {BLOCK_NUMBERS}"));
        }
        let shape = fields.get("shape").and_then(|raw| json::list::<u32>(raw, 4));
        let Some(shape) = shape.filter(|shape| !shape.is_empty()) else {
            let found = shown("shape");
            return Err(format!("\"shape\" is {found}; expected one to four whole numbers"));
        };
        let numbers = shape.iter().try_fold(1u64, |n, side| n.checked_mul((*side).into()));
        if numbers != bytes.checked_mul(2) {
            return Err(format!("\"shape\" {shape:?} does not make {bytes} bytes of two numbers"));
        }
        let row: u64 = match &shape[..] {
            [n] => u64::from(*n),
            [_, rest @ ..] => rest.iter().map(|side| u64::from(*side)).product(),
            [] => 0,
        };
        if !row.is_multiple_of(BLOCK_NUMBERS) {
            return Err(format!(
                "its rows have {row} numbers; expected a multiple of {BLOCK_NUMBERS}"
            ));
        }
        let nested = match fields.contains_key("nested_blocksize") {
            false => None,
            true => {
                let offset = fields.get("nested_offset").and_then(|raw| json::value::<f64>(raw));
                let offset = offset.map(|offset| offset as f32).filter(|offset| offset.is_finite());
                match (number("nested_blocksize"), offset) {
                    (Some(block @ 1..), Some(offset)) => Some((block, offset)),
                    _ => {
                        return Err(format!(
                            "\"nested_blocksize\" is {} and \"nested_offset\" {}; expected a positive whole number and a number",
                            shown("nested_blocksize"),
                            shown("nested_offset")
                        ));
                    }
                }
            }
        };
        Ok(State { shape: shape.into_iter().map(|side| side as usize).collect(), nested })
    }
}

impl Nf4Scales {
    /// Whether the levels are those that bitsandbytes has, which kernels know.
    pub fn has_usual_levels(&self) -> bool {
        self.levels == LEVELS
    }

    /// Whether the scales are quantised as bitsandbytes does it by default, and rows of `width` numbers, the first of which is
    /// number `first`, are whole blocks of [`Storage::Nf4Double`]: then none of these has two scales of its scales.
    pub fn stay_quantised(&self, first: u64, width: usize) -> bool {
        let numbers = Storage::Nf4Double.block().numbers as u64;
        let is_usual = |nested: &NestedScales| {
            // They are the result of a few roundings to f32.
            let is_near = |(found, usual): (&f32, f64)| {
                (f64::from(*found) - usual).abs() <= usual.abs() / f64::from(1u32 << 21)
            };
            nested.block.is_multiple_of(numbers / BLOCK_NUMBERS)
                && nested.levels.iter().zip(dynamic_map()).all(is_near)
        };
        self.has_usual_levels()
            && Storage::Nf4Double.holds_rows_of(width)
            && first.is_multiple_of(numbers)
            && self.nested.as_ref().is_some_and(is_usual)
    }

    /// The words of scales of the blocks of [`Storage::Nf4Double`] that numbers `numbers` are: four for each. Only where they
    /// [stay quantised](Nf4Scales::stay_quantised).
    pub(super) fn words_of_numbers(
        &self,
        weights: &Weights,
        numbers: Range<u64>,
    ) -> Result<Vec<u32>> {
        let Some(nested) = &self.nested else { return Ok(vec![]) };
        let blocks = numbers.start / BLOCK_NUMBERS..numbers.end / BLOCK_NUMBERS;
        let codes = weights.bytes(&self.absmax, blocks.clone())?;
        let (first, absmax) = nested.of_blocks(weights, &blocks)?;
        let mut words = Vec::new();
        for (codes, block) in codes.chunks_exact(8).zip(blocks.step_by(8)) {
            let scale = absmax[(block / nested.block - first) as usize];
            words.extend([scale.to_bits(), nested.offset.to_bits()]);
            words.extend(
                codes
                    .chunks_exact(4)
                    .map(|codes| u32::from_le_bytes([codes[0], codes[1], codes[2], codes[3]])),
            );
        }
        Ok(words)
    }

    /// Joins the tensors of a weight. The outer result is of reading, the inner one says what does not fit.
    pub(super) fn join(
        weights: &Weights,
        state: &State,
        found: Companions<'_>,
    ) -> Result<std::result::Result<Self, String>> {
        let blocks = state.shape.iter().map(|side| *side as u64).product::<u64>() / BLOCK_NUMBERS;
        let absmax_dtype = if state.nested.is_some() { "U8" } else { "F32" };
        let tensors = [
            (found.absmax, "absmax", absmax_dtype, blocks),
            (found.levels, "quant_map", "F32", 16),
        ];
        let nested = state.nested.map(|(block, _)| {
            [
                (found.nested_absmax, "nested_absmax", "F32", blocks.div_ceil(block)),
                (found.nested_levels, "nested_quant_map", "F32", 256),
            ]
        });
        for (info, name, dtype, numbers) in tensors.into_iter().chain(nested.into_iter().flatten())
        {
            let Some(info) = info else { return Ok(Err(format!("its {name} is missing"))) };
            let (found, n_elements) = (info.dtype.name(), info.n_elements());
            if found != dtype || n_elements != numbers || info.n_bytes() < numbers {
                return Ok(Err(format!(
                    "its {name} has {n_elements} numbers of type {found}; expected {numbers} of {dtype}"
                )));
            }
        }
        let (Some(absmax), Some(levels)) = (found.absmax, found.levels) else {
            return Ok(Err("its absmax and quant_map are missing".into()));
        };
        let nested = match (state.nested, found.nested_absmax, found.nested_levels) {
            (Some((block, offset)), Some(absmax), Some(levels)) => Some(NestedScales {
                levels: self::levels(weights, levels)?,
                absmax: absmax.clone(),
                block,
                offset,
            }),
            _ => None,
        };
        let levels = self::levels(weights, levels)?;
        Ok(Ok(Nf4Scales { levels, absmax: absmax.clone(), nested }))
    }

    /// The largest numbers of the blocks that numbers `numbers` lie in, which begin and end between blocks.
    pub(super) fn of_numbers(&self, weights: &Weights, numbers: Range<u64>) -> Result<Vec<f32>> {
        let blocks = numbers.start / BLOCK_NUMBERS..numbers.end / BLOCK_NUMBERS;
        let Some(nested) = &self.nested else {
            let mut absmax = Vec::new();
            weights.read_f32(&self.absmax, blocks, &mut absmax)?;
            return Ok(absmax);
        };
        let codes = weights.bytes(&self.absmax, blocks.clone())?;
        let (first, absmax) = nested.of_blocks(weights, &blocks)?;
        let scales = codes.iter().zip(blocks).map(|(code, block)| {
            let absmax = absmax[(block / nested.block - first) as usize];
            nested.levels[usize::from(*code)] * absmax + nested.offset
        });
        Ok(scales.collect())
    }

    /// Appends the numbers of whole blocks from number `start` on.
    pub(super) fn widen(
        &self,
        weights: &Weights,
        start: u64,
        bytes: &[u8],
        out: &mut Vec<f32>,
    ) -> Result<()> {
        let scales = self.of_numbers(weights, start..start + 2 * bytes.len() as u64)?;
        let blocks = bytes.chunks_exact(BLOCK_NUMBERS as usize / 2);
        for (block, scale) in blocks.zip(scales) {
            let codes = block.iter().flat_map(|byte| [byte >> 4, byte & 15]);
            out.extend(codes.map(|code| self.levels[usize::from(code)] * scale));
        }
        Ok(())
    }
}

/// A small table of `N` numbers.
fn levels<const N: usize>(weights: &Weights, info: &TensorInfo) -> Result<[f32; N]> {
    let values = weights.tensor_f32(info)?;
    let mut levels = [0.0; N];
    levels.iter_mut().zip(values).for_each(|(level, value)| *level = value);
    Ok(levels)
}
