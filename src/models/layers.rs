//! What networks are built from: loading of layers, and the packing of their weights.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt::Display;
use std::rc::Rc;

use super::weights::{StoredDType, TensorInfo, WeightError, WeightPath, Weights, append_f32};
use crate::ops::{Activation, Conv2d, Epilogue, LinearLayer, Write, linear, linear_into};
use crate::tensor::{PackedWeight, Resident, ResidentIds, Storage, Tensor};

/// How weights are kept on the GPU. Sums are always f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// As they are stored in the checkpoint.
    #[default]
    Auto,
    /// As they are stored, and never narrower than they are: 16-bit weights widen exactly as they are read.
    F32,
    /// 32-bit weights are rounded to f16: half the memory.
    F16,
}

impl Precision {
    /// How a matrix of a checkpoint is kept.
    pub fn storage(self, dtype: &StoredDType) -> Storage {
        match (dtype, self) {
            (StoredDType::F16, _) => Storage::F16,
            (StoredDType::BF16, _) => Storage::Bf16,
            (_, Precision::F16) => Storage::F16,
            _ => Storage::F32,
        }
    }
}

/// A weight that has to get from the checkpoint to the GPU.
#[derive(Clone, Debug)]
pub enum Upload {
    /// A matrix or convolution, packed.
    Packed {
        /// Where to.
        weight: PackedWeight,
        /// Where from: `[N, K]` or `[N, C, 3, 3]`.
        tensor: TensorInfo,
        /// Which row of the checkpoint each output is; `None` is as stored.
        rows: Option<Rc<[usize]>>,
    },
    /// A vector as f32, padded with zeros.
    Vector {
        /// Where to: `[1, n]`.
        resident: Resident,
        /// Where from: `[n]`.
        tensor: TensorInfo,
        /// Which number of the checkpoint each number is; `None` is as stored.
        rows: Option<Rc<[usize]>>,
    },
}

impl Upload {
    /// Bytes on the GPU.
    pub fn bytes(&self) -> u64 {
        match self {
            Upload::Packed { weight, .. } => weight.shard_bytes().sum(),
            Upload::Vector { resident, .. } => resident.band_bytes().sum(),
        }
    }
}

/// What loading needs beside the names.
pub struct LoadContext<'c> {
    /// Where handles come from.
    pub ids: &'c ResidentIds,
    /// How weights are kept.
    pub precision: Precision,
    /// Bytes that one storage binding may cover.
    pub max_binding_bytes: u64,
    /// What has to be uploaded.
    pub uploads: RefCell<Vec<Upload>>,
}

impl<'c> LoadContext<'c> {
    /// Nothing to upload yet.
    pub fn new(ids: &'c ResidentIds, precision: Precision, max_binding_bytes: u64) -> Self {
        LoadContext { ids, precision, max_binding_bytes, uploads: RefCell::default() }
    }
}

/// A cursor over a checkpoint's names that makes layers: `loader.pp("ff").linear("net.2", 3072, 12288)`.
#[derive(Clone)]
pub struct Loader<'m> {
    path: WeightPath<'m>,
    context: &'m LoadContext<'m>,
}

impl<'m> Loader<'m> {
    /// A cursor at `path`.
    pub fn new(path: WeightPath<'m>, context: &'m LoadContext<'m>) -> Self {
        Loader { path, context }
    }

    /// One level down.
    pub fn pp(&self, part: impl Display) -> Self {
        Loader { path: self.path.pp(part), context: self.context }
    }

    /// One level down if anything is there.
    pub fn pp_if_present(&self, part: &str) -> Self {
        Loader { path: self.path.pp_if_present(part), context: self.context }
    }

    /// The cursor over the names alone.
    pub fn path(&self) -> &WeightPath<'m> {
        &self.path
    }

    /// `{name}.weight` `[n, k]` and `{name}.bias` `[n]`.
    pub fn linear(&self, name: &str, n: usize, k: usize) -> LinearLayer {
        let weight = self.packed(&format!("{name}.weight"), n, k, &[n, k]);
        LinearLayer { weight, bias: Some(self.vector(&format!("{name}.bias"), n)) }
    }

    /// `{name}.weight` `[n, k]`.
    pub fn linear_no_bias(&self, name: &str, n: usize, k: usize) -> LinearLayer {
        LinearLayer { weight: self.packed(&format!("{name}.weight"), n, k, &[n, k]), bias: None }
    }

    /// [`Loader::linear`] whose output `i` is row `row(i)` of the checkpoint.
    pub fn linear_with_rows(
        &self,
        name: &str,
        n: usize,
        k: usize,
        row: impl Fn(usize) -> usize,
    ) -> LinearLayer {
        let order: Rc<[usize]> = (0..n).map(row).collect();
        let layer = self.linear(name, n, k);
        for upload in self.context.uploads.borrow_mut().iter_mut().rev().take(2) {
            let (Upload::Packed { rows, .. } | Upload::Vector { rows, .. }) = upload;
            *rows = Some(order.clone());
        }
        layer
    }

    /// A 2x2 convolution of stride 2 as a linear layer over packed patches `[M, 4 * c]`, number
    /// `channel * 4 + row * 2 + column`: `{name}.weight` `[n, c, 2, 2]`, `{name}.bias` `[n]`.
    pub fn patch_embed(&self, name: &str, n: usize, c: usize) -> LinearLayer {
        let mut tensor = self.path.require(&format!("{name}.weight"), &[n, c, 2, 2]);
        // Stored in the order that the patches have.
        tensor.shape = vec![n, 4 * c];
        let weight = self.packed_from(tensor, n, 4 * c);
        LinearLayer { weight, bias: Some(self.vector(&format!("{name}.bias"), n)) }
    }

    /// A 1x1 convolution as a linear layer over pixels: `{name}.weight` `[n, k, 1, 1]`, `{name}.bias` `[n]`.
    pub fn conv1x1(&self, name: &str, n: usize, k: usize) -> LinearLayer {
        let weight = self.packed(&format!("{name}.weight"), n, k, &[n, k, 1, 1]);
        LinearLayer { weight, bias: Some(self.vector(&format!("{name}.bias"), n)) }
    }

    /// `{name}.weight` `[n, c, 3, 3]` and `{name}.bias` `[n]`.
    pub fn conv3x3(&self, name: &str, n: usize, c: usize) -> Conv2d {
        let weight = self.packed(&format!("{name}.weight"), n, 9 * c, &[n, c, 3, 3]);
        Conv2d { weight, bias: self.vector(&format!("{name}.bias"), n) }
    }

    /// A vector `[n]`, padded to a multiple of 4.
    pub fn vector(&self, name: &str, n: usize) -> Resident {
        let tensor = self.path.require(name, &[n]);
        let label = tensor.name.to_string();
        let resident = self.context.ids.matrix(&label, 1, n.next_multiple_of(4), u64::MAX);
        let upload = Upload::Vector { resident: resident.clone(), tensor, rows: None };
        self.context.uploads.borrow_mut().push(upload);
        resident
    }

    fn packed(&self, name: &str, n: usize, k: usize, shape: &[usize]) -> PackedWeight {
        self.packed_from(self.path.require(name, shape), n, k)
    }

    fn packed_from(&self, tensor: TensorInfo, n: usize, k: usize) -> PackedWeight {
        let context = self.context;
        let storage = context.precision.storage(&tensor.dtype);
        let weight =
            PackedWeight::new(context.ids, &tensor.name, n, k, storage, context.max_binding_bytes);
        let upload = Upload::Packed { weight: weight.clone(), tensor, rows: None };
        context.uploads.borrow_mut().push(upload);
        weight
    }
}

/// Packs outputs `first..first + tile` of a weight as [`PackedWeight`] describes: `[K][tile]`.
///
/// Reads only those rows of the checkpoint, or, with `order`, the rows that it names for these outputs. Fails on NaN
/// and infinity.
pub fn pack_tile(
    weights: &Weights,
    tensor: &TensorInfo,
    weight: &PackedWeight,
    first: usize,
    order: Option<&[usize]>,
) -> Result<Vec<u8>, WeightError> {
    let (k, tile) = (weight.k, weight.tile);
    let rows = tile.min(weight.n.saturating_sub(first));
    let unit = tensor.dtype.bytes().unwrap_or(4);
    let bytes_of =
        |row: usize, rows: usize| (row * k * unit) as u64..((row + rows) * k * unit) as u64;
    let ranges: Vec<_> = match order {
        None => vec![bytes_of(first, rows)],
        Some(order) => order[first..first + rows].iter().map(|row| bytes_of(*row, 1)).collect(),
    };
    let mut raw = Cow::Borrowed(&[][..]);
    for range in &ranges {
        let bytes = weights.bytes(tensor, range.clone())?;
        weights.check_finite(tensor, range.start, &bytes)?;
        match ranges.len() {
            1 => raw = bytes,
            _ => raw.to_mut().extend_from_slice(&bytes),
        }
    }
    // A 3x3 kernel is stored [N, C, 3, 3] and wanted as (ky, kx, c).
    let taps = if tensor.shape.len() == 4 { tensor.shape[2] * tensor.shape[3] } else { 1 };
    let channels = k / taps;
    let source_index = |k_index: usize| k_index % channels * taps + k_index / channels;

    let same = matches!(
        (&tensor.dtype, weight.storage),
        (StoredDType::F32, Storage::F32)
            | (StoredDType::F16, Storage::F16)
            | (StoredDType::BF16, Storage::Bf16)
    );
    let width = weight.storage.bytes() as usize;
    let mut packed = vec![0; k * tile * width];
    if same {
        for row in 0..rows {
            let row_bytes = &raw[row * k * width..(row + 1) * k * width];
            for k_index in 0..k {
                let from = source_index(k_index) * width;
                let to = (k_index * tile + row) * width;
                packed[to..to + width].copy_from_slice(&row_bytes[from..from + width]);
            }
        }
    } else {
        let mut values = Vec::with_capacity(rows * k);
        append_f32(&tensor.dtype, &raw, &mut values);
        for row in 0..rows {
            for k_index in 0..k {
                let value = values[row * k + source_index(k_index)];
                let to = (k_index * tile + row) * width;
                match weight.storage {
                    Storage::F32 => packed[to..to + 4].copy_from_slice(&value.to_le_bytes()),
                    Storage::F16 => {
                        // 65504 is the largest f16: a weight beyond it would become infinite.
                        let value = half::f16::from_f32(value.clamp(-65504.0, 65504.0));
                        packed[to..to + 2].copy_from_slice(&value.to_le_bytes());
                    }
                    Storage::Bf16 => packed[to..to + 2]
                        .copy_from_slice(&half::bf16::from_f32(value).to_le_bytes()),
                }
            }
        }
    }
    ranges.into_iter().for_each(|range| weights.release(tensor, range));
    Ok(packed)
}

/// Two linear layers with SiLU between them: FLUX's `MLPEmbedder`, diffusers' `TimestepEmbedding`.
pub struct MlpEmbedder {
    linear_1: LinearLayer,
    linear_2: LinearLayer,
}

impl MlpEmbedder {
    /// `linear_1` `[hidden, input]`, `linear_2` `[hidden, hidden]`.
    pub fn load(loader: &Loader<'_>, input: usize, hidden: usize) -> Self {
        MlpEmbedder {
            linear_1: loader.linear("linear_1", hidden, input),
            linear_2: loader.linear("linear_2", hidden, hidden),
        }
    }

    /// Writes or adds the embedding of `x` `[1, input]` to `y` `[1, hidden]`.
    pub fn forward_into<'r>(&self, x: Tensor<'r>, y: Tensor<'r>, write: Write) {
        let h = linear("linear_1", x, &self.linear_1, Activation::Silu);
        linear_into("linear_2", h, &self.linear_2, y, Epilogue { write, ..Default::default() });
    }
}

/// Numbers in a sinusoidal timestep embedding.
pub const TIME_CHANNELS: usize = 256;

/// Sinusoidal embedding of a timestep (0 to 1000) or of 1000 times a guidance scale: `[cos.., sin..]`.
///
/// 128 frequencies `exp(-ln(10000) i / 128)`. Frequencies and angles are rounded to f32 as in the reference (diffusers'
/// `get_timestep_embedding`): at angles up to 1000 that moves a sine by up to 6e-5, which a model without q/k norms
/// can turn into a per cent of its output. Made on the host, as some adapters' sines are off by 2e-4.
pub fn timestep_embedding(timestep: f64) -> [f32; TIME_CHANNELS] {
    let half = TIME_CHANNELS / 2;
    let angle = |i: usize| {
        let exponent = -(libm::log(10_000.0) as f32) * i as f32 / half as f32;
        let frequency = libm::exp(f64::from(exponent)) as f32;
        f64::from(timestep as f32 * frequency)
    };
    std::array::from_fn(|i| {
        if i < half { libm::cos(angle(i)) as f32 } else { libm::sin(angle(i - half)) as f32 }
    })
}
