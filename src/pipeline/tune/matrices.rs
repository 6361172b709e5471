//! Whether cooperative matrices compute what they should on a device. wgpu calls them experimental, and drivers differ in
//! what they make of them, so this is asked before their first use.

use half::f16;
use serde::{Deserialize, Serialize};

use crate::gpu::{Error, Gpu, Program, SlotPool, Store};
use crate::ops::choice::{self, Matrices};
use crate::ops::{
    Activation, Attention, Conv2d, Conv2dOptions, Epilogue, LinearLayer, attention, conv2d,
    linear_into,
};
use crate::tensor::{
    AttentionKernel, Caps, Conv2dKernel, MatmulKernel, PackedWeight, Recorder, Resident,
    ResidentIds, RowClass, Storage, Tuning,
};

/// What kernels on cooperative matrices gave, next to those that do without.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
#[non_exhaustive]
pub enum MatrixTest {
    /// The same results.
    Ok,
    /// Other results.
    Mismatch {
        /// Of what: `a product of [128, 256] and [128, 256]`.
        what: String,
        /// The first of them, and what is right.
        found: String,
    },
    /// An error, or the loss of the device.
    Failed {
        /// At what.
        what: String,
        /// The driver's words.
        reason: String,
    },
}

impl MatrixTest {
    fn failed(what: String, error: &Error) -> Self {
        MatrixTest::Failed { what, reason: error.to_string() }
    }

    /// What is wrong, in a sentence without an end; `None` if nothing is.
    pub fn complaint(&self) -> Option<String> {
        match self {
            MatrixTest::Ok => None,
            MatrixTest::Mismatch { what, found } => Some(format!("{what} is wrong: {found}")),
            MatrixTest::Failed { what, reason } => Some(format!("{what} failed: {reason}")),
        }
    }
}

/// Computes a product, a convolution and an attention on cooperative matrices and without them, and compares. Takes some ten
/// milliseconds and a megabyte. `None` if the device has no matrices that kernels can use, or may not round to f16.
///
/// If anything is wrong, no kernel on matrices runs on this device any more
/// ([`Tuning::without_matrices`](crate::tensor::Tuning)).
pub async fn test_matrices(gpu: &Gpu) -> Option<MatrixTest> {
    let outcome = match run(gpu).await {
        Ok(outcome) => outcome?,
        Err(error) => MatrixTest::failed("making room for a test".to_owned(), &error),
    };
    judge(gpu, &outcome);
    Some(outcome)
}

/// [`test_matrices`] before the first use of matrices on this device; not if they were tested already. What is to be told
/// the user, if they turned out to be of no use. Fails if memory is full, which says nothing about them.
pub(in crate::pipeline) async fn prove_matrices(gpu: &Gpu) -> Result<Option<String>, Error> {
    if !gpu.must_test_matrices() {
        return Ok(None);
    }
    let Some(outcome) = run(gpu).await? else { return Ok(None) };
    judge(gpu, &outcome);
    let complaint = outcome.complaint();
    Ok(complaint.map(|reason| {
        format!("on this adapter's cooperative matrices {reason}. They are not used any more: products are in f32")
    }))
}

/// Draws the consequences.
fn judge(gpu: &Gpu, outcome: &MatrixTest) {
    gpu.trust_matrices();
    if *outcome != MatrixTest::Ok {
        gpu.change_caps(|caps| caps.tuning.without_matrices = true);
    }
}

/// Rows and columns of the product, and its K.
const PRODUCT: [usize; 3] = [128, 128, 256];
/// Height and width of the picture, its channels and those of the convolution: the picture does not fill the last block of a
/// kernel.
const CONVOLUTION: [usize; 4] = [11, 19, 36, 128];
/// Queries, keys and heads of the attention: neither fills the last block of a kernel.
const ATTENTION: [usize; 3] = [80, 100, 2];
/// How far a result of attention may be from the other, as values are below 1. The scores are exact. Weights are
/// rounded to 11 bits, or cut off, which is 2^-10 of each, and divided by the sum of the rounded ones: a mean moves by
/// twice that at most.
const ATTENTION_TOLERANCE: f32 = 1.0 / 512.0;

/// Fails if memory is full. Any other error is an outcome.
async fn run(gpu: &Gpu) -> Result<Option<MatrixTest>, Error> {
    let caps = gpu.caps();
    let Some(matrices) = choice::matrices(&caps).filter(|_| caps.f16) else { return Ok(None) };
    run_on(gpu, matrices).await.map(Some)
}

async fn run_on(gpu: &Gpu, matrices: Matrices) -> Result<MatrixTest, Error> {
    let mut lab = Lab { gpu, store: Store::default(), ids: ResidentIds::default(), random: 1 };
    let [rows, columns, k] = PRODUCT;
    let what = format!("a product of [{rows}, {k}] and [{columns}, {k}]");
    // Sums of 256 products that are multiples of 2^-10 and at most 1: exact in any order, if they are summed in f32.
    let found = outcome(what, lab.product().await, columns, 0.0)?;
    if found != MatrixTest::Ok {
        return Ok(found);
    }
    let [height, width, channels, outputs] = CONVOLUTION;
    let what = format!("a convolution of [{height}, {width}, {channels}] to {outputs} channels");
    // As exact: sums of 324 products.
    let found = outcome(what, lab.convolution().await, outputs, 0.0)?;
    if found != MatrixTest::Ok {
        return Ok(found);
    }
    let head_dim = 8 * matrices.side;
    let [rows, keys, heads] = ATTENTION;
    let what = format!("attention of [{rows}, {heads} of {head_dim}] to {keys} keys");
    outcome(what, lab.attention(head_dim).await, heads * head_dim, ATTENTION_TOLERANCE)
}

/// What the results of a kernel on matrices and of the one without come to.
fn outcome(
    what: String,
    results: Result<[Vec<f32>; 2], Error>,
    columns: usize,
    tolerance: f32,
) -> Result<MatrixTest, Error> {
    match results.map(|results| compare(results, columns, tolerance)) {
        Ok(None) => Ok(MatrixTest::Ok),
        Ok(Some(found)) => Ok(MatrixTest::Mismatch { what, found }),
        Err(error @ Error::OutOfMemory { .. }) => Err(error),
        Err(error) => Ok(MatrixTest::failed(what, &error)),
    }
}

/// The first number that is not as it should be.
fn compare([found, expected]: [Vec<f32>; 2], columns: usize, tolerance: f32) -> Option<String> {
    let mut pairs = found.iter().zip(&expected).enumerate();
    // NaN is close to nothing.
    let far = |(_, (found, expected)): &(usize, (&f32, &f32))| {
        let is_close = (**found - **expected).abs() <= tolerance;
        !is_close
    };
    let (i, (found, expected)) = pairs.find(far)?;
    let (row, column) = (i / columns, i % columns);
    Some(format!("{found} in row {row}, column {column}, where {expected} is right"))
}

/// A device with what was made on it.
struct Lab<'g> {
    gpu: &'g Gpu,
    store: Store,
    ids: ResidentIds,
    random: u32,
}

impl Lab<'_> {
    /// The results of the kernel on matrices, and of the one without. What the product reads another one has written that changes
    /// nothing: on matrices in f16, as between the layers of a network.
    async fn product(&mut self) -> Result<[Vec<f32>; 2], Error> {
        let [rows, columns, k] = PRODUCT;
        let x = self.matrix("x", rows, k).await?;
        let limit = self.gpu.caps().max_binding_bytes;
        let layer = |weight| LinearLayer { weight, bias: None, low_rank: None };
        let same = layer(self.identity(k).await?);
        let layer = layer(self.weight(columns, k).await?);
        let epilogue = || Epilogue { activation: Activation::Identity, ..Default::default() };
        let on = async |kernel| {
            let tuning =
                Tuning { matmul: [Some(kernel); RowClass::ALL.len()], ..Tuning::default() };
            let y = self.ids.matrix("y", rows, columns, limit);
            self.run(tuning, &y, |recorder| {
                let (x, y) = (recorder.resident(&x), recorder.resident(&y));
                let read = recorder.temp_as("read", [rows, k], layer.reads_f16(recorder, rows));
                linear_into("read", x, &same, read, epilogue());
                linear_into("product", read, &layer, y, epilogue());
            })
            .await
        };
        Ok([on(MatmulKernel::Cooperative).await?, on(MatmulKernel::Tiled).await?])
    }

    /// As [`Lab::product`].
    async fn convolution(&mut self) -> Result<[Vec<f32>; 2], Error> {
        let [height, width, channels, outputs] = CONVOLUTION;
        let x = self.matrix("x", height * width, channels).await?;
        let layer = Conv2d {
            weight: self.weight(outputs, 9 * channels).await?,
            bias: self.matrix("bias", 1, outputs).await?,
        };
        let on = async |kernel| {
            let tuning = Tuning { conv2d: Some(kernel), ..Tuning::default() };
            let limit = self.gpu.caps().max_binding_bytes;
            let y = self.ids.matrix("y", height * width, outputs, limit);
            self.run(tuning, &y, |recorder| {
                let (x, y) = (recorder.resident(&x), recorder.resident(&y));
                conv2d("convolution", x, width, &layer, y, Conv2dOptions::default());
            })
            .await
        };
        Ok([on(Conv2dKernel::Matrices).await?, on(Conv2dKernel::Tiled).await?])
    }

    /// As [`Lab::product`].
    async fn attention(&mut self, head_dim: usize) -> Result<[Vec<f32>; 2], Error> {
        let [rows, keys, heads] = ATTENTION;
        let width = heads * head_dim;
        let q = self.matrix("q", rows, width).await?;
        let k = self.matrix("k", keys, width).await?;
        let v = self.matrix("v", keys, width).await?;
        let on = async |kernel| {
            let tuning = Tuning { attention: Some(kernel), ..Tuning::default() };
            let y = self.ids.matrix("y", rows, width, self.gpu.caps().max_binding_bytes);
            self.run(tuning, &y, |recorder| {
                let [q, k, v, y] = [&q, &k, &v, &y].map(|matrix| recorder.resident(matrix));
                // A power of two, so that scaled queries are exact in f16; and so large that the largest score of a row is
                // in a later block of keys now and then, far above those before it.
                let options = Attention { head_dim, scale: 2.0, causal: false, bias: None };
                attention("attention", [q, k, v], y, options);
            })
            .await
        };
        Ok([on(AttentionKernel::Matrices).await?, on(AttentionKernel::Tiled).await?])
    }

    /// Records with these kernels, runs it, and reads `y`.
    async fn run(
        &self,
        tuning: Tuning,
        y: &Resident,
        record: impl FnOnce(&Recorder),
    ) -> Result<Vec<f32>, Error> {
        self.store.create(self.gpu, y).await?;
        let recorder = Recorder::new(Caps { tuning, ..self.gpu.caps() });
        record(&recorder);
        let recording = recorder.finish("test of cooperative matrices");
        let pool = SlotPool::default();
        let program = Program::compile(self.gpu, &self.store, &pool, &recording).await?;
        program.run(self.gpu).await?;
        self.store.read(self.gpu, y).await
    }

    /// A weight `[outputs, k]` in f16.
    async fn weight(&mut self, outputs: usize, k: usize) -> Result<PackedWeight, Error> {
        // Any order will do: they are random.
        let numbers = self.numbers(outputs.next_multiple_of(64) * k);
        self.packed(outputs, k, &numbers).await
    }

    /// The weight `[k, k]` of a product that changes nothing.
    async fn identity(&mut self, k: usize) -> Result<PackedWeight, Error> {
        let tile = 64;
        let of_tile = |first: usize| (0..k * tile).map(move |i| (i / tile, first + i % tile));
        let places = (0..k).step_by(tile).flat_map(of_tile);
        let numbers: Vec<f32> = places.map(|(k, n)| f32::from(u8::from(k == n))).collect();
        self.packed(k, k, &numbers).await
    }

    /// A weight `[outputs, k]` of these numbers, in the order in which they are packed. It is small: one shard.
    async fn packed(
        &self,
        outputs: usize,
        k: usize,
        numbers: &[f32],
    ) -> Result<PackedWeight, Error> {
        let weight = PackedWeight::new(&self.ids, "weight", outputs, k, Storage::F16, u64::MAX);
        self.store.create_packed(self.gpu, &weight).await?;
        let halves: Vec<u8> =
            numbers.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect();
        self.store.write_bytes(self.gpu, weight.id, 0, 0, &halves).await?;
        Ok(weight)
    }

    async fn matrix(&mut self, label: &str, rows: usize, cols: usize) -> Result<Resident, Error> {
        let matrix = self.ids.matrix(label, rows, cols, self.gpu.caps().max_binding_bytes);
        self.store.create(self.gpu, &matrix).await?;
        let numbers = self.numbers(rows * cols);
        self.store.write(self.gpu, &matrix, &numbers).await?;
        Ok(matrix)
    }

    /// Multiples of 2^-5 from -1 up to 1: seven bits, so that products and their sums have no roundings.
    fn numbers(&mut self, count: usize) -> Vec<f32> {
        let next = |state: &mut u32| {
            // Numerical Recipes' linear congruential generator; its upper bits are the good ones.
            *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (*state >> 26) as f32 / 32.0 - 1.0
        };
        (0..count).map(|_| next(&mut self.random)).collect()
    }
}
