//! What networks are built from, and how layers are loaded.

use std::cell::RefCell;
use std::fmt::Display;
use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::checkpoint::changes::{Layer, Stack};
use crate::checkpoint::dtype::StoredDType;
use crate::checkpoint::pack::{Quantised, RowSource};
use crate::checkpoint::quantise::QuantFormat;
use crate::checkpoint::weights::{Scales, TensorInfo, WeightPath};
use crate::models::quantise::{Fate, Quantise, Quantising, Tally};
pub use crate::models::uploads::{Factor, Upload};
use crate::names::by_serde;
use crate::ops::{
    Activation, Conv2d, Epilogue, Input, LinearLayer, LowRank, linear_into, linear_split,
};
use crate::tensor::{Caps, PackedWeight, Recorder, Resident, ResidentIds, Storage, Tensor};

/// How weights are kept on the GPU, and whether products round their factors to f16. Sums are always f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// Weights as they are stored in the checkpoint; products in f16 on chips with units for them, in f32 elsewhere.
    #[default]
    Auto,
    /// Weights as they are stored, and products in f32: 8-bit and 16-bit weights widen exactly as they are read.
    F32,
    /// 32-bit weights are rounded to f16: half the memory. Products as for `auto`.
    F16,
    /// Weights as they are stored; what meets weights in blocks of 8, 5 and 4 bits (Q8_0, Q5_0, Q5_1, Q5_K, Q4_0, Q4_1, Q4_K) is
    /// rounded to 8 bits in blocks of 32 numbers, on chips with an instruction for dot products of bytes and without units
    /// that multiply f16. Elsewhere as `auto`. Pictures change more than by f16.
    Int8,
}

by_serde!(Precision, "precision");

impl Precision {
    /// How the weight of a linear layer is kept on the GPU.
    pub fn matrix(self, dtype: &StoredDType) -> Storage {
        self.apply(dtype.known().map_or(Storage::F32, |row| row.matrix))
    }

    /// How the weight of a linear layer of `k` inputs is kept: blocks of more numbers than the file's, which a row may not
    /// be whole ones of, are widened.
    pub fn matrix_of_rows(self, dtype: &StoredDType, k: usize) -> Storage {
        let storage = self.matrix(dtype);
        if storage.holds_rows_of(k) { storage } else { self.convolution(dtype) }
    }

    /// How the weight of a 3x3 convolution is kept on the GPU.
    pub fn convolution(self, dtype: &StoredDType) -> Storage {
        self.apply(dtype.known().map_or(Storage::F32, |row| row.convolution))
    }

    /// How a weight with rows of `k` numbers is kept on the GPU. Levels of NF4 that are not the usual ones are in no kernel, and
    /// a convolution's scales in none either: these weights are kept as the numbers that they stand for.
    pub fn weight(self, tensor: &TensorInfo, k: usize) -> Storage {
        let Some(scaling) = &tensor.scaling else {
            return match tensor.taps() {
                1 => self.matrix_of_rows(&tensor.dtype, k),
                _ => self.convolution(&tensor.dtype),
            };
        };
        let is_widened = match scaling.scales() {
            Scales::Nf4(scales) => !scales.has_usual_levels(),
            Scales::Tensor(_) | Scales::Rows(_) => false,
        };
        if is_widened || tensor.taps() > 1 {
            return self.matrix(&StoredDType::default());
        }
        if scaling.stays_quantised(k) {
            return Storage::Nf4Double;
        }
        self.matrix_of_rows(&tensor.dtype, k)
    }

    /// What recordings may rely on of `caps`: products that round to f16 only if that is allowed, and to bytes only if that is
    /// asked for.
    pub fn limit(self, caps: Caps) -> Caps {
        let caps = Caps { f16: caps.f16 && self != Precision::F32, ..caps };
        let int8 = self == Precision::Int8 && caps.int8_dot && !caps.rounds_to_f16();
        Caps { int8, ..caps }
    }

    fn apply(self, stored: Storage) -> Storage {
        match (self, stored) {
            (Precision::F16, Storage::F32) => Storage::F16,
            _ => stored,
        }
    }
}

/// What loading needs besides the names.
pub struct LoadContext<'c> {
    /// Where handles come from.
    pub ids: &'c ResidentIds,
    /// How weights are kept.
    pub precision: Precision,
    /// What is quantised on the way to the GPU.
    pub quantise: Option<Quantise>,
    /// Bytes that one storage binding may cover.
    pub max_binding_bytes: u64,
    /// What has to be uploaded, but for what [`Loader::modulation`] asks for.
    pub uploads: RefCell<Vec<Upload>>,
    /// What that asks for.
    pub modulation_uploads: RefCell<Vec<Upload>>,
    /// What became of the weights that were to be quantised.
    pub tally: RefCell<Tally>,
}

impl<'c> LoadContext<'c> {
    /// Nothing to upload yet.
    pub fn new(ids: &'c ResidentIds, precision: Precision, max_binding_bytes: u64) -> Self {
        LoadContext {
            ids,
            precision,
            quantise: None,
            max_binding_bytes,
            uploads: RefCell::default(),
            modulation_uploads: RefCell::default(),
            tally: RefCell::default(),
        }
    }

    /// The same with weights that are quantised on their way.
    #[must_use]
    pub fn quantised(self, quantise: Option<Quantise>) -> Self {
        LoadContext { quantise, ..self }
    }
}

/// A cursor over a checkpoint's names that makes layers: `loader.pp("ff").linear("net.2", 3072, 12288)`.
#[derive(Clone)]
pub struct Loader<'m> {
    path: WeightPath<'m>,
    context: &'m LoadContext<'m>,
    /// What is done to the matrices of this part.
    quantising: Option<Quantising>,
    uploads: &'m RefCell<Vec<Upload>>,
}

impl<'m> Loader<'m> {
    /// A cursor at `path`.
    pub fn new(path: WeightPath<'m>, context: &'m LoadContext<'m>) -> Self {
        Loader { path, context, quantising: None, uploads: &context.uploads }
    }

    /// The same place, in a part whose matrices are quantised.
    pub fn quantising(&self, quantising: Option<Quantising>) -> Self {
        Loader { quantising, ..self.clone() }
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
        let layer = self.stored(name, n, k, true);
        LinearLayer { low_rank: self.low_rank(&[(name, n)], k, None), ..layer }
    }

    /// `{name}.weight` `[n, k]`.
    pub fn linear_no_bias(&self, name: &str, n: usize, k: usize) -> LinearLayer {
        let layer = self.stored(name, n, k, false);
        LinearLayer { low_rank: self.low_rank(&[(name, n)], k, None), ..layer }
    }

    /// A layer without what is added to it.
    fn stored(&self, name: &str, n: usize, k: usize, has_bias: bool) -> LinearLayer {
        let weight = self.packed(&format!("{name}.weight"), n, k, &[n, k]);
        let bias = has_bias.then(|| self.vector(&format!("{name}.bias"), n));
        LinearLayer { weight, bias, low_rank: None }
    }

    /// What is added to the layers `parts` of `k` inputs, whose outputs lie one after the other; `order` says which row of the
    /// checkpoint each output is.
    fn low_rank(
        &self,
        parts: &[(&str, usize)],
        k: usize,
        order: Option<&Arc<[usize]>>,
    ) -> Option<Box<LowRank>> {
        let layer = |(name, n): &(&str, usize)| Layer {
            n: *n,
            order: order.cloned(),
            changes: self.path.low_rank(name).to_vec(),
        };
        let stack = Arc::new(Stack::new(parts.iter().map(layer).collect(), k)?);
        let LoadContext { ids, max_binding_bytes, .. } = self.context;
        let names: Vec<&str> = parts.iter().map(|(name, _)| *name).collect();
        let names = names.join(" + ");
        let factor = |what: &str, n, k, factor| {
            let label = format!("{what} of {names}");
            let weight = PackedWeight::new(ids, &label, n, k, Storage::F32, *max_binding_bytes);
            let upload = Upload::Factor { weight: weight.clone(), stack: stack.clone(), factor };
            self.uploads.borrow_mut().push(upload);
            weight
        };
        let down = factor("down", stack.rank(), k, Factor::Down);
        let up = factor("up", stack.n(), stack.rank(), Factor::Up);
        let scales = ids.matrix(&format!("scales of {names}"), 1, stack.rank(), u64::MAX);
        let parts = stack.parts();
        let upload = Upload::FactorScales { resident: scales.clone(), stack };
        self.uploads.borrow_mut().push(upload);
        Some(Box::new(LowRank { down, up, scales, parts }))
    }

    /// Layers of the same input, one after the other: `{name}.weight` `[n, k]` and `{name}.bias` `[n]` for each of `parts`.
    /// They are one layer if all weights are kept in the same type.
    pub fn linear_group(&self, parts: &[(&str, usize)], k: usize) -> LinearGroup {
        self.group(parts, k, true)
    }

    /// [`Loader::linear_group`] without biases.
    pub fn linear_group_no_bias(&self, parts: &[(&str, usize)], k: usize) -> LinearGroup {
        self.group(parts, k, false)
    }

    fn group(&self, parts: &[(&str, usize)], k: usize, has_bias: bool) -> LinearGroup {
        let of = |suffix: &str, shape: &dyn Fn(usize) -> Vec<usize>| -> Vec<RowSource> {
            let source = |&(name, n): &(&str, usize)| {
                let tensor = self.path.require(&format!("{name}.{suffix}"), &shape(n));
                RowSource::rows(tensor, n)
            };
            parts.iter().map(source).collect()
        };
        let mut weights = of("weight", &|n| vec![n, k]);
        let mut biases = if has_bias { of("bias", &|n| vec![n]) } else { vec![] };
        let rows = parts.iter().map(|(_, n)| n).sum();
        let storage = |source: &RowSource| self.kept(&source.tensor, rows, k).0;
        let same = |a: &RowSource, b: &RowSource| storage(a) == storage(b);
        let mut layers: Vec<LinearLayer> = Vec::new();
        let mut start = 0;
        while let Some(first) = weights.first() {
            let count = weights.iter().take_while(|source| same(source, first)).count();
            let own_parts = &parts[start..start + count];
            start += count;
            let rest = weights.split_off(count);
            let weight = self.packed_from(std::mem::replace(&mut weights, rest), k);
            let rest = biases.split_off(count.min(biases.len()));
            let own = std::mem::replace(&mut biases, rest);
            let bias = (!own.is_empty()).then(|| self.vector_from(own));
            let low_rank = self.low_rank(own_parts, k, None);
            layers.push(LinearLayer { weight, bias, low_rank });
        }
        LinearGroup { layers }
    }

    /// [`Loader::linear`] whose output `i` is row `row(i)` of the checkpoint.
    pub fn linear_with_rows(
        &self,
        name: &str,
        n: usize,
        k: usize,
        row: impl Fn(usize) -> usize,
    ) -> LinearLayer {
        self.reordered(name, [n, k], true, row)
    }

    /// [`Loader::linear_no_bias`] whose output `i` is row `row(i)` of the checkpoint.
    pub fn linear_no_bias_with_rows(
        &self,
        name: &str,
        n: usize,
        k: usize,
        row: impl Fn(usize) -> usize,
    ) -> LinearLayer {
        self.reordered(name, [n, k], false, row)
    }

    fn reordered(
        &self,
        name: &str,
        [n, k]: [usize; 2],
        has_bias: bool,
        row: impl Fn(usize) -> usize,
    ) -> LinearLayer {
        let layer = self.stored(name, n, k, has_bias);
        let order: Arc<[usize]> = (0..n).map(row).collect();
        self.reorder(1 + usize::from(has_bias), order.clone());
        LinearLayer { low_rank: self.low_rank(&[(name, n)], k, Some(&order)), ..layer }
    }

    /// Outputs `part` of `{name}.weight` `[n, k]`, which holds several layers one after the other.
    pub fn linear_no_bias_part(
        &self,
        name: &str,
        [n, k]: [usize; 2],
        part: Range<usize>,
    ) -> LinearLayer {
        let tensor = self.path.require(&format!("{name}.weight"), &[n, k]);
        let n = part.len();
        let order: Arc<[usize]> = part.collect();
        let source = RowSource { order: Some(order.clone()), ..RowSource::rows(tensor, n) };
        let weight = self.packed_from(vec![source], k);
        let low_rank = self.low_rank(&[(name, n)], k, Some(&order));
        LinearLayer { weight, bias: None, low_rank }
    }

    /// [`Loader::vector`] whose number `i` is number `row(i)` of the checkpoint.
    pub fn vector_with_rows(&self, name: &str, n: usize, row: impl Fn(usize) -> usize) -> Resident {
        let vector = self.vector(name, n);
        self.reorder(1, (0..n).map(row).collect());
        vector
    }

    /// Has the last `count` weights that were asked for read in another order.
    fn reorder(&self, count: usize, order: Arc<[usize]>) {
        let mut left = count;
        for upload in self.uploads.borrow_mut().iter_mut().rev() {
            let (sources, is_weight) = match upload {
                // It stands in front of its weight.
                Upload::Scales { sources, .. } => (sources, false),
                Upload::Packed { sources, .. } | Upload::Vector { sources, .. } => (sources, true),
                Upload::BatchNorm { .. } | Upload::Factor { .. } | Upload::FactorScales { .. } => {
                    break;
                }
            };
            if is_weight && left == 0 {
                break;
            }
            left -= usize::from(is_weight);
            if let [source] = &mut sources[..] {
                source.order = Some(order.clone());
            }
        }
    }

    /// A 2x2 convolution of stride 2 as a linear layer over packed patches `[M, 4 * c]`, number
    /// `channel * 4 + row * 2 + column`: `{name}.weight` `[n, c, 2, 2]`, `{name}.bias` `[n]`.
    pub fn patch_embed(&self, name: &str, n: usize, c: usize) -> LinearLayer {
        let mut tensor = self.path.require(&format!("{name}.weight"), &[n, c, 2, 2]);
        // Stored in the order that the patches have.
        tensor.shape = vec![n, 4 * c];
        let weight = self.packed_from(vec![RowSource::rows(tensor, n)], 4 * c);
        let bias = Some(self.vector(&format!("{name}.bias"), n));
        LinearLayer { weight, bias, low_rank: self.low_rank(&[(name, n)], 4 * c, None) }
    }

    /// A 1x1 convolution as a linear layer over pixels: `{name}.weight` `[n, k, 1, 1]`, `{name}.bias` `[n]`.
    pub fn conv1x1(&self, name: &str, n: usize, k: usize) -> LinearLayer {
        let weight = self.packed(&format!("{name}.weight"), n, k, &[n, k, 1, 1]);
        let bias = Some(self.vector(&format!("{name}.bias"), n));
        LinearLayer { weight, bias, low_rank: None }
    }

    /// `{name}.weight` `[n, c, 3, 3]` and `{name}.bias` `[n]`.
    pub fn conv3x3(&self, name: &str, n: usize, c: usize) -> Conv2d {
        let weight = self.packed(&format!("{name}.weight"), n, 9 * c, &[n, c, 3, 3]);
        Conv2d { weight, bias: self.vector(&format!("{name}.bias"), n) }
    }

    /// A vector `[n]`, padded to a multiple of 4.
    pub fn vector(&self, name: &str, n: usize) -> Resident {
        let tensor = self.path.require(name, &[n]);
        self.vector_from(in_file_order(tensor, n))
    }

    fn vector_from(&self, sources: Vec<RowSource>) -> Resident {
        let n: usize = sources.iter().map(|source| source.n).sum();
        let cols = n.next_multiple_of(4);
        let resident = self.context.ids.matrix(&label(&sources), 1, cols, u64::MAX);
        self.uploads.borrow_mut().push(Upload::Vector { resident: resident.clone(), sources });
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
        let tensor = self.path.require(name, shape);
        self.packed_from(in_file_order(tensor, n), k)
    }

    /// All of `sources` are kept in the same type.
    fn packed_from(&self, mut sources: Vec<RowSource>, k: usize) -> PackedWeight {
        let LoadContext { ids, max_binding_bytes, tally, .. } = self.context;
        let n = sources.iter().map(|source| source.n).sum();
        let mut storage = Storage::F32;
        for source in &mut sources {
            (storage, source.quantised) = self.kept(&source.tensor, n, k);
            if let Some(quantising) = &self.quantising {
                let fate = quantising.fate(&source.tensor, n, k);
                tally.borrow_mut().count(fate, &source.tensor, k);
            }
        }
        let name = label(&sources);
        let mut weight = PackedWeight::new(ids, &name, n, k, storage, *max_binding_bytes);
        // Those of fp8, which is kept without them. Blocks have theirs with them.
        let has_scales = |RowSource { tensor, quantised, .. }: &RowSource| match quantised {
            Some(quantised) => quantised.format == QuantFormat::Fp8,
            None => {
                tensor.scaling.is_some()
                    && tensor.dtype.known().is_some_and(|row| row.is_kept_as_is(storage))
            }
        };
        let are_left = !storage.is_packed() && sources.iter().any(has_scales);
        if are_left {
            let cols = n.next_multiple_of(4);
            let scales = ids.matrix(&format!("scales of {name}"), 1, cols, u64::MAX);
            let upload = Upload::Scales { resident: scales.clone(), sources: sources.clone() };
            self.uploads.borrow_mut().push(upload);
            weight.scale = Some(scales);
        }
        self.uploads.borrow_mut().push(Upload::Packed { weight: weight.clone(), sources });
        weight
    }

    /// How a weight with rows of `k` numbers is kept, and what it is quantised to on its way; `rows` are those of all layers of
    /// the input.
    fn kept(&self, tensor: &TensorInfo, rows: usize, k: usize) -> (Storage, Option<Quantised>) {
        match self.quantising.map(|quantising| quantising.fate(tensor, rows, k)) {
            Some(Fate::Quantised(quantised)) => (quantised.format.storage(), Some(quantised)),
            _ => (self.context.precision.weight(tensor, k), None),
        }
    }
}

/// Where the `n` rows of a tensor are from: two places if the file has its halves the other way round.
fn in_file_order(tensor: TensorInfo, n: usize) -> Vec<RowSource> {
    match tensor.swapped_halves() {
        None => vec![RowSource::rows(tensor, n)],
        Some(halves) => halves.map(|tensor| RowSource::rows(tensor, n / 2)).into(),
    }
}

/// The names of the tensors that something is made of.
fn label(sources: &[RowSource]) -> String {
    let names: Vec<&str> = sources.iter().map(|source| &*source.tensor.name).collect();
    names.join(" + ")
}

/// Layers of the same input, whose outputs lie one after the other. They are one layer wherever their weights are kept in the
/// same type: one product of more columns keeps a chip busier than several, and reads the input once.
pub struct LinearGroup {
    layers: Vec<LinearLayer>,
}

impl LinearGroup {
    /// The single layer `layer`.
    pub fn of(layer: LinearLayer) -> Self {
        LinearGroup { layers: vec![layer] }
    }

    /// Outputs of all layers.
    pub fn n(&self) -> usize {
        self.layers.iter().map(|layer| layer.weight.n).sum()
    }

    /// The layers.
    pub fn layers(&self) -> Vec<&LinearLayer> {
        self.layers.iter().collect()
    }

    /// Whether what it makes of `rows` rows can be written in f16.
    pub fn writes_f16(&self, recorder: &Recorder, rows: usize) -> bool {
        self.layers.iter().all(|layer| layer.writes_f16(recorder, rows))
    }

    /// Writes `[M, n]` into `y`.
    pub fn forward_into<'r>(&self, name: &str, x: Input<'r>, y: Tensor<'r>) {
        let mut start = 0;
        for layer in &self.layers {
            let columns = start..start + layer.weight.n;
            start = columns.end;
            linear_into(name, x, layer, y.col_range(columns), Epilogue::default());
        }
    }

    /// Writes the first columns into `first`, and what `activation` makes of the others into `rest`, wherever that is.
    pub fn forward_split<'r>(
        &self,
        name: &str,
        x: Input<'r>,
        [first, rest]: [Tensor<'r>; 2],
        activation: Activation,
    ) {
        let split = first.cols();
        let mut start = 0;
        for layer in &self.layers {
            let end = start + layer.weight.n;
            if end <= split {
                let y = first.col_range(start..end);
                linear_into(name, x, layer, y, Epilogue::default());
            } else if start >= split {
                let y = rest.col_range(start - split..end - split);
                linear_into(name, x, layer, y, Epilogue { activation, ..Default::default() });
            } else {
                let ys = [first.col_range(start..split), rest.col_range(0..end - split)];
                linear_split(name, x, layer, ys, activation);
            }
            start = end;
        }
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
