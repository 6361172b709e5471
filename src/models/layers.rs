//! What networks are built from, and how layers are loaded.

use std::cell::RefCell;
use std::fmt::Display;
use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::checkpoint::dtype::StoredDType;
use crate::checkpoint::weights::{TensorInfo, WeightPath};
use crate::names::by_serde;
use crate::ops::{Conv2d, LinearLayer};
use crate::tensor::{PackedWeight, Resident, ResidentIds, Storage};

/// How weights are kept on the GPU. Sums are always f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// As they are stored in the checkpoint.
    #[default]
    Auto,
    /// As they are stored, and never narrower than they are: 8-bit and 16-bit weights widen exactly as they are read.
    F32,
    /// 32-bit weights are rounded to f16: half the memory.
    F16,
}

by_serde!(Precision, "precision");

impl Precision {
    /// How the weight of a linear layer is kept on the GPU.
    pub fn matrix(self, dtype: &StoredDType) -> Storage {
        self.apply(dtype.known().map_or(Storage::F32, |row| row.matrix))
    }

    /// How the weight of a 3x3 convolution is kept on the GPU.
    pub fn convolution(self, dtype: &StoredDType) -> Storage {
        self.apply(dtype.known().map_or(Storage::F32, |row| row.convolution))
    }

    fn apply(self, stored: Storage) -> Storage {
        match (self, stored) {
            (Precision::F16, Storage::F32) => Storage::F16,
            _ => stored,
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
        rows: Option<Arc<[usize]>>,
    },
    /// What a batch norm of D numbers did, to be undone: its standard deviations `sqrt(variance + eps)` in the first row and
    /// its means in the second, both as f32.
    BatchNorm {
        /// Where to: `[2, D]`.
        resident: Resident,
        /// Where the means are from: `[D]`.
        mean: TensorInfo,
        /// Where the variances are from: `[D]`.
        variance: TensorInfo,
        /// What was added to the variances.
        eps: f64,
    },
    /// A vector as f32, padded with zeros.
    Vector {
        /// Where to: `[1, n]`.
        resident: Resident,
        /// Where from: `[n]`.
        tensor: TensorInfo,
        /// Which number of the checkpoint each number is; `None` is as stored.
        rows: Option<Arc<[usize]>>,
    },
}

impl Upload {
    /// Bytes on the GPU.
    pub fn bytes(&self) -> u64 {
        match self {
            Upload::Packed { weight, .. } => weight.shard_bytes().sum(),
            Upload::Vector { resident, .. } | Upload::BatchNorm { resident, .. } => {
                resident.band_bytes().sum()
            }
        }
    }
}

/// What loading needs besides the names.
pub struct LoadContext<'c> {
    /// Where handles come from.
    pub ids: &'c ResidentIds,
    /// How weights are kept.
    pub precision: Precision,
    /// Bytes that one storage binding may cover.
    pub max_binding_bytes: u64,
    /// What has to be uploaded, but for what [`Loader::modulation`] asks for.
    pub uploads: RefCell<Vec<Upload>>,
    /// What that asks for.
    pub modulation_uploads: RefCell<Vec<Upload>>,
}

impl<'c> LoadContext<'c> {
    /// Nothing to upload yet.
    pub fn new(ids: &'c ResidentIds, precision: Precision, max_binding_bytes: u64) -> Self {
        LoadContext {
            ids,
            precision,
            max_binding_bytes,
            uploads: RefCell::default(),
            modulation_uploads: RefCell::default(),
        }
    }
}

/// A cursor over a checkpoint's names that makes layers: `loader.pp("ff").linear("net.2", 3072, 12288)`.
#[derive(Clone)]
pub struct Loader<'m> {
    path: WeightPath<'m>,
    context: &'m LoadContext<'m>,
    uploads: &'m RefCell<Vec<Upload>>,
}

impl<'m> Loader<'m> {
    /// A cursor at `path`.
    pub fn new(path: WeightPath<'m>, context: &'m LoadContext<'m>) -> Self {
        Loader { path, context, uploads: &context.uploads }
    }

    /// One level down.
    pub fn pp(&self, part: impl Display) -> Self {
        Loader { path: self.path.pp(part), ..self.clone() }
    }

    /// One level down if anything is there.
    pub fn pp_if_present(&self, part: &str) -> Self {
        Loader { path: self.path.pp_if_present(part), ..self.clone() }
    }

    /// The same place, for weights that only modulations need: they are not on the GPU while it draws.
    pub fn modulation(&self) -> Self {
        Loader { uploads: &self.context.modulation_uploads, ..self.clone() }
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
        let layer = self.linear(name, n, k);
        self.reorder(2, (0..n).map(row).collect());
        layer
    }

    /// [`Loader::linear_no_bias`] whose output `i` is row `row(i)` of the checkpoint.
    pub fn linear_no_bias_with_rows(
        &self,
        name: &str,
        n: usize,
        k: usize,
        row: impl Fn(usize) -> usize,
    ) -> LinearLayer {
        let layer = self.linear_no_bias(name, n, k);
        self.reorder(1, (0..n).map(row).collect());
        layer
    }

    /// Outputs `part` of `{name}.weight` `[n, k]`, which holds several layers one after the other.
    pub fn linear_no_bias_part(
        &self,
        name: &str,
        [n, k]: [usize; 2],
        part: Range<usize>,
    ) -> LinearLayer {
        let tensor = self.path.require(&format!("{name}.weight"), &[n, k]);
        let weight = self.packed_from(tensor, part.len(), k);
        self.reorder(1, part.collect());
        LinearLayer { weight, bias: None }
    }

    /// [`Loader::vector`] whose number `i` is number `row(i)` of the checkpoint.
    pub fn vector_with_rows(&self, name: &str, n: usize, row: impl Fn(usize) -> usize) -> Resident {
        let vector = self.vector(name, n);
        self.reorder(1, (0..n).map(row).collect());
        vector
    }

    /// Has the last `count` weights that were asked for read in another order.
    fn reorder(&self, count: usize, order: Arc<[usize]>) {
        for upload in self.uploads.borrow_mut().iter_mut().rev().take(count) {
            if let Upload::Packed { rows, .. } | Upload::Vector { rows, .. } = upload {
                *rows = Some(order.clone());
            }
        }
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
        self.uploads.borrow_mut().push(upload);
        resident
    }

    /// Standard deviations and means of a batch norm of `n` numbers, `[2, n]`: `{name}.running_var` and
    /// `{name}.running_mean` `[n]`. `n` is a multiple of 4.
    pub fn batch_norm(&self, name: &str, n: usize, eps: f64) -> Resident {
        let [mean, variance] = ["running_mean", "running_var"]
            .map(|part| self.path.require_buffer(&format!("{name}.{part}"), &[n]));
        let resident = self.context.ids.matrix(&variance.name, 2, n, u64::MAX);
        let upload = Upload::BatchNorm { resident: resident.clone(), mean, variance, eps };
        self.uploads.borrow_mut().push(upload);
        resident
    }

    fn packed(&self, name: &str, n: usize, k: usize, shape: &[usize]) -> PackedWeight {
        self.packed_from(self.path.require(name, shape), n, k)
    }

    fn packed_from(&self, tensor: TensorInfo, n: usize, k: usize) -> PackedWeight {
        let context = self.context;
        let storage = match tensor.taps() {
            1 => context.precision.matrix(&tensor.dtype),
            _ => context.precision.convolution(&tensor.dtype),
        };
        let weight =
            PackedWeight::new(context.ids, &tensor.name, n, k, storage, context.max_binding_bytes);
        let upload = Upload::Packed { weight: weight.clone(), tensor, rows: None };
        self.uploads.borrow_mut().push(upload);
        weight
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
