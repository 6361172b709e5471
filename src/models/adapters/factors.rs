//! The tensors of one layer of a file, read and checked: from their shapes to a change of a matrix, to one of a vector, or to
//! numbers that take the layer's place.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::AdapterError;
use super::keys::Slot;
use crate::checkpoint::changes::{Delta, Matrix};
use crate::checkpoint::weights::{TensorInfo, Weights};

/// Types of numbers with a fraction.
const FLOATS: [&str; 6] = ["F32", "F16", "BF16", "F64", "F8_E4M3", "F8_E5M2"];

/// More numbers than this has no layer.
const MAX_PRODUCT: usize = 1 << 28;

/// The tensors of one layer under one name.
pub struct Factors<'f> {
    /// The file, for messages.
    pub file: &'f str,
    /// The layer's name there.
    pub layer: String,
    /// Its tensors.
    pub tensors: BTreeMap<Slot, TensorInfo>,
}

/// What a file says of a layer.
pub struct Change {
    /// What is added to its weight.
    pub delta: Option<Arc<Delta>>,
    /// What the norms of its weight become: DoRA. The tensor's shape says of what.
    pub magnitudes: Option<(Vec<usize>, Arc<[f32]>)>,
    /// What is added to its bias.
    pub bias: Option<Matrix>,
    /// What takes the place of its weight.
    pub replaced: Option<Matrix>,
    /// What it is called in reports.
    pub kind: &'static str,
}

impl Factors<'_> {
    /// Reads all numbers. `scale` is what the product of factors of some rank is multiplied by where no tensor says it.
    pub fn read(
        &self,
        weights: &Weights,
        scale: impl Fn(usize) -> Option<f64>,
    ) -> Result<Change, AdapterError> {
        let reader = Reader { factors: self, weights };
        let mut kind = "lora";
        let alpha = reader.single(Slot::Alpha)?;
        let given = reader.single(Slot::Scale)?;
        let scale = |rank: usize| {
            let of_alpha = alpha.map(|alpha| alpha / rank.max(1) as f64);
            given.or(of_alpha).or_else(|| scale(rank)).unwrap_or(1.0)
        };
        let mut up_bias = None;
        let mut delta = None;
        if let Some((down, up)) = reader
            .both((Slot::Down, "a down factor"), (Slot::Up, "an up factor (lora_B, lora_up)"))?
        {
            let down = match reader.matrix(Slot::Mid)? {
                None => down,
                Some(_) => reader.tucker(&down)?,
            };
            reader.ranks("factors", up.cols, down.rows)?;
            let scale = scale(down.rows);
            if let Some(mut bias) = reader.matrix(Slot::UpBias)? {
                bias.values
                    .iter_mut()
                    .for_each(|value| *value = (f64::from(*value) * scale) as f32);
                up_bias = Some(bias);
            }
            delta = Some(Delta::Product { up: up.into(), down: down.into(), scale });
        }
        if let Some(hada) = reader.hadamard(&scale)? {
            kind = "loha";
            delta = Some(hada);
        }
        if let Some(kron) = reader.kronecker(&scale)? {
            kind = "lokr";
            delta = Some(kron);
        }
        if let Some(diff) = reader.matrix(Slot::Diff)? {
            kind = "diff";
            delta = Some(Delta::Dense(diff));
        }
        let magnitudes = match self.tensors.get(&Slot::Magnitude) {
            None => None,
            Some(_) if delta.is_none() => {
                return Err(self.half("a magnitude (dora_scale)", "the factors that it belongs to"));
            }
            Some(info) => {
                kind = "dora";
                Some((info.shape.clone(), reader.values(info)?.into()))
            }
        };
        let added = reader.matrix(Slot::DiffBias)?;
        let bias = match (up_bias, added) {
            (Some(mut bias), Some(added)) => {
                reader.ranks("two changes of its bias", bias.rows, added.rows)?;
                bias.values.iter_mut().zip(&added.values).for_each(|(sum, value)| *sum += value);
                Some(bias)
            }
            (bias, added) => bias.or(added),
        };
        let replaced = reader.matrix(Slot::Replaced)?;
        if delta.is_none() {
            kind = if replaced.is_some() { "replaced" } else { "bias" };
        }
        Ok(Change { delta: delta.map(Arc::new), magnitudes, bias, replaced, kind })
    }

    fn half(&self, found: &'static str, missing: &'static str) -> AdapterError {
        AdapterError::Half { file: self.file.into(), layer: self.layer.clone(), found, missing }
    }
}

struct Reader<'r> {
    factors: &'r Factors<'r>,
    weights: &'r Weights,
}

impl Reader<'_> {
    fn file(&self) -> String {
        self.factors.file.into()
    }

    /// The numbers of a tensor, all of which are finite.
    fn values(&self, info: &TensorInfo) -> Result<Vec<f32>, AdapterError> {
        let key = || info.name.to_string();
        if !FLOATS.contains(&info.dtype.name()) {
            let dtype = info.dtype.name().to_owned();
            return Err(AdapterError::DType { file: self.file(), key: key(), dtype });
        }
        let mut values = Vec::new();
        let bytes = self.weights.bytes(info, 0..info.n_bytes())?;
        if let Some(dtype) = info.dtype.known() {
            dtype.widen(&bytes, &mut values);
        }
        match values.iter().find(|value| !value.is_finite()) {
            None => Ok(values),
            Some(value) => {
                Err(AdapterError::NotFinite { file: self.file(), key: key(), value: *value })
            }
        }
    }

    /// A tensor as a matrix, all sides but the first in one.
    fn matrix(&self, slot: Slot) -> Result<Option<Matrix>, AdapterError> {
        let Some(info) = self.factors.tensors.get(&slot) else { return Ok(None) };
        match info.shape.first() {
            Some(rows) if info.n_elements() > 0 => Ok(Some(Matrix::new(*rows, self.values(info)?))),
            _ => Err(self.shape(info, "one side or more, none of them 0")),
        }
    }

    fn shape(&self, info: &TensorInfo, expected: &'static str) -> AdapterError {
        let (key, found) = (info.name.to_string(), info.shape.clone());
        AdapterError::TensorShape { file: self.file(), key, found, expected }
    }

    /// A single number.
    fn single(&self, slot: Slot) -> Result<Option<f64>, AdapterError> {
        let Some(info) = self.factors.tensors.get(&slot) else { return Ok(None) };
        match self.values(info)?[..] {
            [value] => Ok(Some(value.into())),
            _ => Err(self.shape(info, "a single number")),
        }
    }

    /// Two tensors that need each other.
    fn both(
        &self,
        a: (Slot, &'static str),
        b: (Slot, &'static str),
    ) -> Result<Option<(Matrix, Matrix)>, AdapterError> {
        match (self.matrix(a.0)?, self.matrix(b.0)?) {
            (Some(a), Some(b)) => Ok(Some((a, b))),
            (None, None) => Ok(None),
            (Some(_), None) => Err(self.factors.half(a.1, b.1)),
            (None, Some(_)) => Err(self.factors.half(b.1, a.1)),
        }
    }

    /// What would be made of a few numbers must not fill the memory.
    fn check_size(&self, info: &TensorInfo, sides: &[usize]) -> Result<(), AdapterError> {
        let n = sides.iter().try_fold(1usize, |n, side| n.checked_mul(*side));
        match n {
            Some(..=MAX_PRODUCT) => Ok(()),
            _ => Err(self.shape(info, "fewer numbers: their product is larger than any layer")),
        }
    }

    fn ranks(&self, what: &'static str, a: usize, b: usize) -> Result<(), AdapterError> {
        if a == b {
            return Ok(());
        }
        let (file, layer) = (self.file(), self.factors.layer.clone());
        Err(AdapterError::Rank { file, layer, what, found: a, expected: b })
    }

    /// Tucker's form of a convolution: `mid [m, n, h, w]` and `down [n, in]` are one factor `[m, in, h, w]`.
    fn tucker(&self, down: &Matrix) -> Result<Matrix, AdapterError> {
        let info = &self.factors.tensors[&Slot::Mid];
        let [m, n, height, width] = info.shape[..] else {
            return Err(self.shape(info, "four sides, [rank, rank, height, width]"));
        };
        let mid = self.values(info)?;
        self.ranks("a middle factor", n, down.rows)?;
        let taps = height * width;
        self.check_size(info, &[m, down.cols, taps])?;
        let mut values = vec![0.0; m * down.cols * taps];
        for i in 0..m {
            for channel in 0..down.cols {
                for tap in 0..taps {
                    let product = |j: usize| {
                        let factor = f64::from(mid[(i * n + j) * taps + tap]);
                        factor * f64::from(down.row(j)[channel])
                    };
                    let sum: f64 = (0..n).map(product).sum();
                    values[(i * down.cols + channel) * taps + tap] = sum as f32;
                }
            }
        }
        Ok(Matrix::new(m, values))
    }

    fn hadamard(&self, scale: &impl Fn(usize) -> f64) -> Result<Option<Delta>, AdapterError> {
        let first = self.both((Slot::HadaW1A, "hada_w1_a"), (Slot::HadaW1B, "hada_w1_b"))?;
        let second = self.both((Slot::HadaW2A, "hada_w2_a"), (Slot::HadaW2B, "hada_w2_b"))?;
        let ((a1, b1), (a2, b2)) = match (first, second) {
            (Some(first), Some(second)) => (first, second),
            (None, None) => return Ok(None),
            (Some(_), None) => return Err(self.factors.half("hada_w1_a", "hada_w2_a")),
            (None, Some(_)) => return Err(self.factors.half("hada_w2_a", "hada_w1_a")),
        };
        self.ranks("hada_w1_a and hada_w1_b", a1.cols, b1.rows)?;
        self.ranks("hada_w2_a and hada_w2_b", a2.cols, b2.rows)?;
        if (a1.rows, b1.cols) != (a2.rows, b2.cols) {
            let info = &self.factors.tensors[&Slot::HadaW2A];
            return Err(self.shape(info, "as many rows and columns as hada_w1 makes"));
        }
        let scale = scale(b1.rows);
        Ok(Some(Delta::Hadamard { factors: [a1, b1, a2, b2], scale }))
    }

    fn kronecker(&self, scale: &impl Fn(usize) -> f64) -> Result<Option<Delta>, AdapterError> {
        let w1 = self.whole_or_product(
            (Slot::KronW1, "lokr_w1"),
            (Slot::KronW1A, "lokr_w1_a"),
            (Slot::KronW1B, "lokr_w1_b"),
        )?;
        let w2 = self.whole_or_product(
            (Slot::KronW2, "lokr_w2"),
            (Slot::KronW2A, "lokr_w2_a"),
            (Slot::KronW2B, "lokr_w2_b"),
        )?;
        let ((w1, rank1), (w2, rank2)) = match (w1, w2) {
            (Some(w1), Some(w2)) => (w1, w2),
            (None, None) => return Ok(None),
            (Some(_), None) => return Err(self.factors.half("lokr_w1", "lokr_w2")),
            (None, Some(_)) => return Err(self.factors.half("lokr_w2", "lokr_w1")),
        };
        // If both are whole, what files say of alpha means nothing.
        let scale = rank2.or(rank1).map_or(1.0, scale);
        Ok(Some(Delta::Kronecker { w1, w2, scale }))
    }

    /// A factor of LoKr, and its rank if it is a product itself.
    fn whole_or_product(
        &self,
        whole: (Slot, &'static str),
        a: (Slot, &'static str),
        b: (Slot, &'static str),
    ) -> Result<Option<(Matrix, Option<usize>)>, AdapterError> {
        if let Some(whole) = self.matrix(whole.0)? {
            return Ok(Some((whole, None)));
        }
        let Some((left, right)) = self.both(a, b)? else { return Ok(None) };
        self.ranks("two factors of LoKr", left.cols, right.rows)?;
        self.check_size(&self.factors.tensors[&a.0], &[left.rows, right.cols])?;
        Ok(Some((left.times(&right), Some(right.rows))))
    }
}
