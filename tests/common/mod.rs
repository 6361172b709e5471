//! What the GPU tests share: an adapter, inputs with poison around them, and comparison with a reference.
//!
//! Which adapter is tested can be chosen by environment variables, read here and nowhere in the library:
//!
//! | variable | meaning |
//! | --- | --- |
//! | `RALU_TEST_ADAPTER` | a number or a part of a name, as `ralu devices` lists them |
//! | `RALU_TEST_BACKEND` | `vulkan`, `metal`, `dx12` or `gl` |
//! | `RALU_TEST_LIMITS=webgpu` | no more than WebGPU guarantees |
//! | `RALU_TEST_FEATURES=none` | no optional features |
//!
//! Tests of single ops also run in a browser (`scripts/browser-test`), so a [`Lab`] awaits, as the library does.
//! Natively [`block_on`] drives them.

#![allow(dead_code, reason = "every test binary uses another part of it")]

pub mod recordings;

use std::cell::RefCell;
use std::sync::Once;

use half::{bf16, f16};
use ralu::gpu::{AdapterChoice, FeaturesPolicy, Gpu, LimitsPolicy, Program, SlotPool, Store};
use ralu::tensor::{
    Caps, Command, PackedWeight, Recorder, Recording, Resident, ResidentIds, Storage, Tensor,
    row_pieces,
};

/// Half of the distance from 1 to the next f32: what one rounding costs.
pub const EPSILON: f64 = 5.960_464_477_539_063e-8;

// ---- the adapter -----------------------------------------------------------------------------

/// Opens the adapter under test. No adapter is a failure: these tests mean nothing without one.
#[cfg(not(target_arch = "wasm32"))]
pub fn gpu() -> Gpu {
    block_on(open())
}

async fn open() -> Gpu {
    static ONCE: Once = Once::new();
    // In a browser there are none.
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let limits = match variable("RALU_TEST_LIMITS").as_deref() {
        None => LimitsPolicy::Adapter,
        Some("webgpu") => LimitsPolicy::WebGpuDefaults,
        Some(other) => panic!("RALU_TEST_LIMITS={other}: only `webgpu` is known"),
    };
    let features = match variable("RALU_TEST_FEATURES").as_deref() {
        None => FeaturesPolicy::Experimental,
        Some("none") => FeaturesPolicy::None,
        Some(other) => panic!("RALU_TEST_FEATURES={other}: only `none` is known"),
    };
    let choice = AdapterChoice {
        adapter: variable("RALU_TEST_ADAPTER"),
        backend: variable("RALU_TEST_BACKEND"),
        limits,
        features,
    };
    match Gpu::open(&choice).await {
        Ok(gpu) => {
            let report = gpu.report();
            ONCE.call_once(|| {
                say(&format!(
                    "adapter: {} ({}, {}, {}), {limits:?} limits, subgroups {:?}, cooperative matrices {:?}",
                    report.name,
                    report.backend,
                    report.kind,
                    report.driver,
                    gpu.caps().subgroup_sizes,
                    gpu.caps().cooperative_matrix
                ));
            });
            gpu
        }
        Err(error) => panic!("the GPU tests need an adapter, software will do: {error}"),
    }
}

/// Tells the person who watches.
pub fn say(line: &str) {
    #[cfg(not(target_arch = "wasm32"))]
    println!("{line}");
    #[cfg(target_arch = "wasm32")]
    web_sys::console::log_1(&line.into());
}

/// Drives a test to its end. Whoever waits for the GPU asks it when polled, so poll often.
#[cfg(not(target_arch = "wasm32"))]
pub fn block_on<T>(test: impl Future<Output = T>) -> T {
    let mut test = std::pin::pin!(test);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    loop {
        if let std::task::Poll::Ready(value) = test.as_mut().poll(&mut context) {
            return value;
        }
        std::thread::sleep(std::time::Duration::from_micros(50));
    }
}

/// A GPU with a store: everything that a test of one op needs.
pub struct Lab {
    pub gpu: Gpu,
    pub store: Store,
    pub ids: ResidentIds,
    pub pool: SlotPool,
    created: RefCell<Vec<ralu::tensor::ResidentId>>,
}

impl Lab {
    pub async fn new() -> Lab {
        Lab {
            gpu: open().await,
            store: Store::default(),
            ids: ResidentIds::default(),
            pool: SlotPool::default(),
            created: RefCell::default(),
        }
    }

    /// The same device, pretending to have other capabilities.
    pub fn with_caps(self, change: impl FnOnce(&mut Caps)) -> Lab {
        Lab { gpu: self.gpu.with_caps(change), ..self }
    }

    pub fn caps(&self) -> Caps {
        self.gpu.caps()
    }

    /// Frees what the last case created, so that a table of cases needs the memory of one.
    pub fn clear(&self) {
        self.created.borrow_mut().drain(..).for_each(|id| self.store.free(id));
        self.pool.clear();
    }

    /// A resident matrix without a frame. `single` keeps it in one buffer whatever the capabilities say.
    pub async fn matrix(
        &self,
        label: &str,
        rows: usize,
        cols: usize,
        values: &[f32],
        bands: Bands,
    ) -> Resident {
        let limit = match bands {
            Bands::One => u64::MAX,
            Bands::AsNeeded => self.caps().max_binding_bytes,
        };
        let resident = self.ids.matrix(label, rows, cols, limit);
        self.created.borrow_mut().push(resident.id);
        let written = async {
            self.store.create(&self.gpu, &resident).await?;
            self.store.write(&self.gpu, &resident, values).await
        };
        written.await.unwrap_or_else(|error| panic!("{label}: {error}"));
        resident
    }

    /// `[1, N]`, padded with zeros to a multiple of 4: a bias.
    pub async fn vector(&self, label: &str, values: &[f32]) -> Resident {
        let mut values = values.to_vec();
        values.resize(values.len().next_multiple_of(4), 0.0);
        self.matrix(label, 1, values.len(), &values, Bands::One).await
    }

    /// `values` `[rows, cols]` as a view into a larger matrix of [`GUARD`] words.
    pub async fn view(
        &self,
        label: &str,
        [rows, cols]: [usize; 2],
        values: &[f32],
        frame: Frame,
        bands: Bands,
    ) -> View {
        assert_eq!(values.len(), rows * cols, "{label}: wrong number of values");
        let all_rows = frame.above + frame.span(rows) + frame.below;
        let all_cols = frame.left + cols + frame.right;
        let mut words = vec![f32::from_bits(GUARD); all_rows * all_cols];
        for (row, values) in values.chunks_exact(cols).enumerate() {
            let at = (frame.above + row * frame.step) * all_cols + frame.left;
            words[at..at + cols].copy_from_slice(values);
        }
        let resident = self.matrix(label, all_rows, all_cols, &words, bands).await;
        View { resident, rows, cols, frame }
    }

    /// Uploads a weight `[N, K]`; its numbers should have been through [`round`].
    pub async fn weight(
        &self,
        label: &str,
        values: &[f32],
        n: usize,
        k: usize,
        storage: Storage,
    ) -> PackedWeight {
        let limit = self.caps().max_binding_bytes;
        let weight = PackedWeight::new(&self.ids, label, n, k, storage, limit);
        self.created.borrow_mut().push(weight.id);
        let written = async {
            self.store.create_packed(&self.gpu, &weight).await?;
            for (i, bytes) in pack(&weight, values).iter().enumerate() {
                self.store.write_bytes(&self.gpu, weight.id, i, 0, bytes).await?;
            }
            Ok::<_, ralu::gpu::Error>(())
        };
        written.await.unwrap_or_else(|error| panic!("{label}: {error}"));
        weight
    }

    /// Records, compiles and runs once.
    pub async fn run(&self, record: impl FnOnce(&Recorder, &mut Copies)) -> Recording {
        let recorder = Recorder::new(self.caps());
        let mut copies = Copies::default();
        record(&recorder, &mut copies);
        let mut recording = recorder.finish("test");
        recording.commands.splice(0..0, copies.first);
        recording.commands.extend(copies.last);
        let ran = async {
            let program = Program::compile(&self.gpu, &self.store, &self.pool, &recording).await?;
            program.run(&self.gpu).await
        };
        ran.await.unwrap_or_else(|error| panic!("{error}"));
        recording
    }

    /// Reads a matrix.
    pub async fn read(&self, resident: &Resident) -> Vec<f32> {
        let values = self.store.read(&self.gpu, resident).await;
        values.unwrap_or_else(|error| panic!("{}: {error}", resident.label))
    }

    /// Reads a view, and checks that nothing around it was written.
    pub async fn read_view(&self, view: &View) -> Vec<f32> {
        let words = self.read(&view.resident).await;
        let (frame, stride) = (view.frame, view.resident.cols);
        let mut values = Vec::with_capacity(view.rows * view.cols);
        for (i, word) in words.iter().enumerate() {
            let (row, col) = (i / stride, i % stride);
            let inside = (frame.above..frame.above + frame.span(view.rows)).contains(&row)
                && (row - frame.above).is_multiple_of(frame.step)
                && (frame.left..frame.left + view.cols).contains(&col);
            if inside {
                values.push(*word);
            } else {
                assert_eq!(
                    word.to_bits(),
                    GUARD,
                    "{}: wrote {word} outside its view, at row {row}, column {col} of [{}, {stride}]; \
                     the view is rows {}..{} by {}, columns {}..{}",
                    view.resident.label,
                    words.len() / stride,
                    frame.above,
                    frame.above + frame.span(view.rows),
                    frame.step,
                    frame.left,
                    frame.left + view.cols
                );
            }
        }
        values
    }
}

/// Whether a matrix may be split over buffers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bands {
    One,
    AsNeeded,
}

/// Rows and columns around a view, and between its rows.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    pub above: usize,
    pub below: usize,
    pub left: usize,
    pub right: usize,
    /// Rows of the base from one row of the view to the next.
    pub step: usize,
}

impl Frame {
    /// Nothing around.
    pub const NONE: Frame = Frame { above: 0, below: 0, left: 0, right: 0, step: 1 };
    /// Different on every side.
    pub const WIDE: Frame = Frame { above: 2, below: 3, left: 8, right: 4, step: 1 };
    /// For operands that must start their buffer and be contiguous.
    pub const BELOW: Frame = Frame { above: 0, below: 2, left: 0, right: 0, step: 1 };
    /// Every fourth row.
    pub const SPARSE: Frame = Frame { above: 3, below: 1, left: 4, right: 8, step: 4 };

    /// Rows of the base from the first row of a view of `rows` rows to its last, both included.
    pub fn span(&self, rows: usize) -> usize {
        (rows - 1) * self.step + 1
    }
}

/// What surrounds a view: a NaN, so that a kernel that reads it cannot go unnoticed either.
pub const GUARD: u32 = 0x7fc0_6a5d;

/// A part of a resident matrix.
pub struct View {
    pub resident: Resident,
    pub rows: usize,
    pub cols: usize,
    pub frame: Frame,
}

impl View {
    pub fn on<'r>(&self, recorder: &'r Recorder) -> Tensor<'r> {
        let frame = self.frame;
        recorder
            .resident(&self.resident)
            .row_range(frame.above..frame.above + frame.span(self.rows))
            .every(frame.step)
            .col_range(frame.left..frame.left + self.cols)
    }
}

/// Copies of whole matrices before and after what is recorded: into pictures and out of them, as only
/// temporaries can be pictures in bands.
#[derive(Default)]
pub struct Copies {
    first: Vec<Command>,
    last: Vec<Command>,
}

impl Copies {
    pub fn before(&mut self, from: Tensor<'_>, to: Tensor<'_>) {
        self.first.extend(copy(from, to));
    }

    pub fn after(&mut self, from: Tensor<'_>, to: Tensor<'_>) {
        self.last.extend(copy(from, to));
    }
}

fn copy(from: Tensor<'_>, to: Tensor<'_>) -> Vec<Command> {
    assert_eq!((from.cols(), from.cols()), (from.row_stride(), to.row_stride()), "not contiguous");
    row_pieces(&[from, to], usize::MAX)
        .iter()
        .map(|piece| {
            let [(src, src_at), (dst, dst_at)] = [piece.at[0], piece.at[1]];
            Command::Copy {
                src,
                src_offset: src_at as u64 * 4,
                dst,
                dst_offset: dst_at as u64 * 4,
                bytes: (piece.rows * from.cols() * 4) as u64,
            }
        })
        .collect()
}

// ---- weights ---------------------------------------------------------------------------------

/// What is left of numbers that are stored so.
pub fn round(values: &[f32], storage: Storage) -> Vec<f32> {
    let round = |v: f32| match storage {
        Storage::F32 => v,
        Storage::F16 => f16::from_f32(v).to_f32(),
        Storage::Bf16 => bf16::from_f32(v).to_f32(),
    };
    values.iter().map(|v| round(*v)).collect()
}

/// The bytes of each shard of a weight `[N, K]`: `[ceil(N / tile)][K][tile]`, zeros past N.
pub fn pack(weight: &PackedWeight, values: &[f32]) -> Vec<Vec<u8>> {
    assert_eq!(values.len(), weight.n * weight.k, "{}: wrong number of values", weight.label);
    let pack_shard = |shard: &ralu::tensor::Band| {
        let mut bytes = Vec::new();
        for tile in 0..shard.rows / weight.tile {
            for k in 0..weight.k {
                for column in 0..weight.tile {
                    let n = shard.row0 + tile * weight.tile + column;
                    let v = if n < weight.n { values[n * weight.k + k] } else { 0.0 };
                    match weight.storage {
                        Storage::F32 => bytes.extend(v.to_le_bytes()),
                        Storage::F16 => bytes.extend(f16::from_f32(v).to_le_bytes()),
                        Storage::Bf16 => bytes.extend(bf16::from_f32(v).to_le_bytes()),
                    }
                }
            }
        }
        bytes
    };
    weight.shards.iter().map(pack_shard).collect()
}

// ---- comparison ------------------------------------------------------------------------------

/// How far a result may be from the reference: `absolute + relative * |expected| + scale * max |expected|`.
///
/// `scale` is for sums, whose rounding errors are as large as their largest terms; `relative` for functions
/// of single numbers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tolerance {
    pub absolute: f64,
    pub relative: f64,
    pub scale: f64,
}

impl Tolerance {
    pub const fn absolute(absolute: f64) -> Tolerance {
        Tolerance { absolute, relative: 0.0, scale: 0.0 }
    }

    pub const fn relative(relative: f64) -> Tolerance {
        Tolerance { absolute: 0.0, relative, scale: 0.0 }
    }

    pub const fn scale(scale: f64) -> Tolerance {
        Tolerance { absolute: 0.0, relative: 0.0, scale }
    }

    /// A sum of `n` products in f32. Roundings are random, so their sum grows as `sqrt(n)`; four times the
    /// expected size covers the worst of many thousand sums, and a few roundings stand beside the sum.
    pub fn sum(n: usize) -> Tolerance {
        Tolerance::scale(EPSILON * (4.0 * (n as f64).sqrt() + 8.0))
    }

    pub fn plus(self, other: Tolerance) -> Tolerance {
        Tolerance {
            absolute: self.absolute + other.absolute,
            relative: self.relative + other.relative,
            scale: self.scale + other.scale,
        }
    }
}

/// Compares a result of shape `shape` with the reference. NaN fails first, even where NaN is expected.
#[track_caller]
pub fn assert_close(
    label: &str,
    shape: [usize; 2],
    actual: &[f32],
    expected: &[f64],
    tolerance: Tolerance,
) {
    let cols = shape[1];
    let place = |i: usize| format!("row {}, column {}", i / cols, i % cols);
    assert_eq!(actual.len(), shape[0] * cols, "{label}: {shape:?} has another number of values");
    assert_eq!(actual.len(), expected.len(), "{label}: {shape:?}, the reference has another size");
    if let Some(i) = actual.iter().position(|v| v.is_nan()) {
        let count = actual.iter().filter(|v| v.is_nan()).count();
        panic!(
            "{label} {shape:?}: {count} NaN, the first at {} where {} is expected",
            place(i),
            expected[i]
        );
    }
    if let Some(i) = expected.iter().position(|v| !v.is_finite()) {
        panic!("{label} {shape:?}: the reference has {} at {}", expected[i], place(i));
    }
    let largest = expected.iter().fold(0.0f64, |max, v| max.max(v.abs()));
    let floor = tolerance.absolute + tolerance.scale * largest;
    // Worst in relation to what is allowed, so that the message names the value that failed.
    let mut worst = (0, 0.0, f64::NEG_INFINITY);
    let (mut error_max, mut error_squares, mut squares) = (0.0f64, 0.0, 0.0);
    for (i, (actual, expected)) in actual.iter().zip(expected).enumerate() {
        let error = (f64::from(*actual) - expected).abs();
        let excess = error - (floor + tolerance.relative * expected.abs());
        if excess > worst.2 {
            worst = (i, error, excess);
        }
        error_max = error_max.max(error);
        error_squares += error * error;
        squares += expected * expected;
    }
    let (i, error, excess) = worst;
    assert!(
        excess <= 0.0,
        "{label} {shape:?}: off by {error:e} at {}: got {}, expected {}\n  \
         max |error| {error_max:e}, max |error| / max |expected| {:e}, relative L2 {:e}, allowed {tolerance:?}",
        place(i),
        actual[i],
        expected[i],
        error_max / largest,
        (error_squares / squares).sqrt()
    );
}

// ---- random numbers --------------------------------------------------------------------------

/// SplitMix64: small, and the same everywhere.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// From a label, so that every case has numbers of its own.
    pub fn named(label: &str) -> Random {
        Random(label.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        }))
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In `0..n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// In `-1..1`.
    pub fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    /// `n` numbers in `-scale..scale`.
    pub fn numbers(&mut self, n: usize, scale: f32) -> Vec<f32> {
        (0..n).map(|_| self.unit() * scale).collect()
    }
}
