//! Every op on the GPU against its reference, over a table of cases per op.
//!
//! Each table runs with several sets of capabilities, so that both kinds of kernels, matrices in bands,
//! weights in shards and dispatches in slices are met. Operands are views into larger matrices of NaN, and
//! what surrounds a result must survive. Tolerances are derived where they stand; see [`Tolerance`].

mod common;

use common::{Bands, EPSILON, Frame, Lab, Random, Tolerance, View, assert_close, round};
use ralu::ops::{
    self, Activation, Affine, Attention, Conv2d, Epilogue, LinearLayer, NormKind, Weights, Write,
    reference,
};
use ralu::tensor::{Caps, MatmulKernel, Recorder, ResidentIds, Storage, row_pieces};

/// Capabilities that every table of cases is run with.
struct Variant {
    name: &'static str,
    change: fn(&mut Caps),
}

const VARIANTS: [Variant; 7] = [
    Variant { name: "graphics kernels", change: |caps| caps.is_cpu = false },
    Variant { name: "processor kernels", change: |caps| caps.is_cpu = true },
    Variant {
        name: "direct matmul",
        change: |caps| caps.tuning.matmul = [Some(MatmulKernel::Direct); 3],
    },
    Variant {
        name: "matmul panels",
        change: |caps| caps.tuning.matmul = [Some(MatmulKernel::Panel); 3],
    },
    Variant {
        name: "4 KiB bindings",
        change: |caps| (caps.is_cpu, caps.max_binding_bytes) = (false, 4096),
    },
    Variant {
        name: "20 KiB bindings",
        change: |caps| (caps.is_cpu, caps.max_binding_bytes) = (true, 20 << 10),
    },
    Variant {
        name: "small dispatches",
        change: |caps| (caps.is_cpu, caps.max_dispatch_flops) = (true, 1e4),
    },
];

/// Cases whose largest matrix would fall into more pieces than this are left to the other variants.
const MANY_PIECES: u64 = 100;

/// Runs `check` for every case in every variant.
fn check_all<Case>(
    cases: &[Case],
    bytes_and_flops: impl Fn(&Case) -> (u64, f64),
    check: impl Fn(&Lab, &str, &Case),
) where
    Case: std::fmt::Debug,
{
    let mut lab = Lab::new();
    let base = lab.caps();
    for variant in &VARIANTS {
        lab = lab.with_caps(|caps| {
            *caps = base;
            (variant.change)(caps);
        });
        let mut ran = 0;
        for case in cases {
            let (bytes, flops) = bytes_and_flops(case);
            let caps = lab.caps();
            if bytes / caps.max_binding_bytes > MANY_PIECES
                || flops / caps.max_dispatch_flops > 20.0 * MANY_PIECES as f64
            {
                continue;
            }
            check(&lab, &format!("{case:?} with {}", variant.name), case);
            lab.clear();
            ran += 1;
        }
        assert!(ran * 2 > cases.len(), "{}: {ran} of {} cases ran", variant.name, cases.len());
    }
}

/// Largest magnitude.
fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |max, v| max.max(v.abs()))
}

// ---- linear ----------------------------------------------------------------------------------

#[derive(Clone, Copy, Debug)]
struct LinearCase {
    m: usize,
    k: usize,
    n: usize,
    storage: Storage,
    activation: Activation,
    bias: bool,
    gate: bool,
    write: Write,
    /// Of x; weights are about `1 / sqrt(K)`.
    magnitude: f32,
}

const LINEAR: LinearCase = LinearCase {
    m: 17,
    k: 64,
    n: 64,
    storage: Storage::F16,
    activation: Activation::Identity,
    bias: true,
    gate: false,
    write: Write::Store,
    magnitude: 1.0,
};

#[rustfmt::skip]
const LINEAR_CASES: &[LinearCase] = &[
    // Rows around the borders of matvec (4) and of a block (16), and of four blocks.
    LinearCase { m: 1, ..LINEAR },
    LinearCase { m: 2, ..LINEAR },
    LinearCase { m: 4, ..LINEAR },
    LinearCase { m: 5, ..LINEAR },
    LinearCase { m: 15, ..LINEAR },
    LinearCase { m: 16, ..LINEAR },
    LinearCase { m: 63, ..LINEAR },
    LinearCase { m: 64, ..LINEAR },
    LinearCase { m: 65, ..LINEAR },
    LinearCase { m: 129, ..LINEAR },
    // Widths: every size of tile, one past a tile, not a multiple of 4.
    LinearCase { n: 1, ..LINEAR },
    LinearCase { n: 3, ..LINEAR },
    LinearCase { n: 4, ..LINEAR },
    LinearCase { n: 8, ..LINEAR },
    LinearCase { n: 12, ..LINEAR },
    LinearCase { n: 20, ..LINEAR },
    LinearCase { n: 36, ..LINEAR },
    LinearCase { n: 68, ..LINEAR },
    LinearCase { n: 70, ..LINEAR },
    LinearCase { n: 132, k: 4, ..LINEAR },
    LinearCase { m: 3, n: 3, ..LINEAR },
    LinearCase { m: 1, n: 68, k: 4, ..LINEAR },
    LinearCase { m: 4, n: 200, k: 20, ..LINEAR },
    // Many rows: more than 65,535, and more than 65,535 blocks of 16.
    LinearCase { m: 70_001, k: 4, n: 4, ..LINEAR },
    LinearCase { m: 65_535 * 16 + 17, k: 4, n: 4, ..LINEAR },
    // Storage types, for both kernels.
    LinearCase { storage: Storage::F32, ..LINEAR },
    LinearCase { storage: Storage::Bf16, ..LINEAR },
    LinearCase { storage: Storage::F32, m: 2, n: 68, ..LINEAR },
    LinearCase { storage: Storage::Bf16, m: 2, n: 68, ..LINEAR },
    // Epilogues, for both kernels.
    LinearCase { bias: false, ..LINEAR },
    LinearCase { activation: Activation::Silu, ..LINEAR },
    LinearCase { activation: Activation::GeluTanh, ..LINEAR },
    LinearCase { activation: Activation::QuickGelu, ..LINEAR },
    LinearCase { activation: Activation::GeluErf, ..LINEAR },
    LinearCase { gate: true, write: Write::Add, ..LINEAR },
    LinearCase { write: Write::Multiply, activation: Activation::GeluTanh, bias: false, ..LINEAR },
    LinearCase { gate: true, n: 132, write: Write::Multiply, activation: Activation::Silu, ..LINEAR },
    LinearCase { m: 3, bias: false, ..LINEAR },
    LinearCase { m: 3, activation: Activation::Silu, ..LINEAR },
    LinearCase { m: 3, activation: Activation::GeluTanh, ..LINEAR },
    LinearCase { m: 3, activation: Activation::QuickGelu, ..LINEAR },
    LinearCase { m: 3, activation: Activation::GeluErf, ..LINEAR },
    LinearCase { m: 3, gate: true, write: Write::Add, ..LINEAR },
    LinearCase { m: 3, gate: true, n: 132, write: Write::Multiply, activation: Activation::Silu, ..LINEAR },
    // Long sums, and the magnitudes of the last blocks of FLUX.
    LinearCase { m: 33, k: 3072, n: 68, ..LINEAR },
    LinearCase { m: 2, k: 3072, n: 68, storage: Storage::Bf16, ..LINEAR },
    LinearCase { m: 20, k: 4096, n: 20, storage: Storage::Bf16, ..LINEAR },
    LinearCase { magnitude: 1e4, ..LINEAR },
    LinearCase { magnitude: 1e6, activation: Activation::GeluTanh, ..LINEAR },
    LinearCase { magnitude: 1e6, activation: Activation::Silu, ..LINEAR },
    LinearCase { magnitude: 1e6, activation: Activation::QuickGelu, m: 2, ..LINEAR },
    LinearCase { magnitude: 1e6, activation: Activation::GeluErf, gate: true, write: Write::Add, ..LINEAR },
    LinearCase { magnitude: 1e-39, bias: false, ..LINEAR },
];

#[test]
fn linear() {
    check_all(
        LINEAR_CASES,
        |c| ((c.m * c.k.max(c.n) * 4) as u64, 2.0 * (c.m * c.k * c.n) as f64),
        check_linear,
    );
}

fn check_linear(lab: &Lab, label: &str, case: &LinearCase) {
    let &LinearCase { m, k, n, storage, activation, write, magnitude, .. } = case;
    let n4 = n.next_multiple_of(4);
    let mut random = Random::named(label);
    let x = random.numbers(m * k, magnitude);
    let mut weight = round(&random.numbers(n * k, 1.7 / (k as f32).sqrt()), storage);
    let mut bias = random.numbers(n, magnitude);
    let gate = random.numbers(n4, 2.0);
    let old = random.numbers(m * n4, magnitude);

    let xs = lab.view("x", [m, k], &x, Frame::WIDE, Bands::AsNeeded);
    let ys = lab.view("y", [m, n4], &old, Frame::WIDE, Bands::AsNeeded);
    let gates = lab.view("gate", [1, n4], &gate, Frame::WIDE, Bands::One);
    let layer = LinearLayer {
        weight: lab.weight("weight", &weight, n, k, storage),
        bias: case.bias.then(|| lab.vector("bias", &bias)),
    };
    lab.run(|r, _| {
        let gate = case.gate.then(|| gates.on(r));
        ops::linear_into("y", xs.on(r), &layer, ys.on(r), Epilogue { activation, gate, write });
    });

    // Columns past N are outputs of a zero weight.
    weight.resize(n4 * k, 0.0);
    bias.resize(n4, 0.0);
    let (bias, gate) = (case.bias.then_some(&bias[..]), case.gate.then_some(&gate[..]));
    let expected = reference::linear(&x, &weight, bias, gate, &old, k, activation, write);
    // The error of a sum goes through the activation (slope at most 1.13) and the rest of the epilogue.
    let identity = Activation::Identity;
    let sums = reference::linear(&x, &weight, bias, None, &old, k, identity, Write::Store);
    let gain = if case.gate { 2.0 } else { 1.0 }
        * if write == Write::Multiply { f64::from(magnitude) } else { 1.0 };
    let activated = activation_tolerance(activation, largest(&sums));
    let tolerance = Tolerance::absolute(1.13 * Tolerance::sum(k).scale * largest(&sums) * gain)
        .plus(Tolerance::relative(activated.relative))
        // What is added to may cancel the activation, but not its error.
        .plus(Tolerance::absolute(
            (activated.absolute + activated.relative * largest(&sums)) * gain,
        ))
        .plus(Tolerance::scale(4.0 * EPSILON))
        // Denormals may be flushed to zero.
        .plus(Tolerance::absolute(f64::from(f32::MIN_POSITIVE) * 8.0));
    assert_close(&format!("linear {label}"), [m, n4], &lab.read_view(&ys), &expected, tolerance);
}

/// What exp adds, as a relative error. The two last additions of `shaders/lib/exp.wgsl` are a rounding each (where r is
/// small, and the driver adds 1 to r first); beyond that r has 0.25 and the polynomial's products 0.3 of a rounding,
/// where the additions have less. Its truncation is 0.05. lavapipe's largest error is 1.98 roundings.
const EXP: f64 = 3.0 * EPSILON;

/// `a / (1 + exp)`: an addition, a division (2.5 ulp, or 5 roundings, are allowed) and a product.
const SIGMOID: f64 = EXP + 7.0 * EPSILON;

/// What the activation adds for arguments up to `magnitude`.
fn activation_tolerance(activation: Activation, magnitude: f64) -> Tolerance {
    // Where the argument of exp is held at 80, x * 1.8e-35 is left.
    let held = 2e-35 * magnitude;
    // An argument t = c x that is off by n roundings moves x sigmoid(t) by n t^2 sigmoid'(t) / c, and
    // t^2 sigmoid'(t) is at most 0.44.
    let argument = |n: f64, c: f64| 0.44 / c * n * EPSILON;
    match activation {
        Activation::Identity => Tolerance::default(),
        Activation::Silu => Tolerance { relative: SIGMOID, absolute: held, scale: 0.0 },
        // 1.702 and the product.
        Activation::QuickGelu => {
            Tolerance { relative: SIGMOID, absolute: held + argument(2.0, 1.702), scale: 0.0 }
        }
        // Both constants, five products and a sum of equal signs. t is 1.6 x or more.
        Activation::GeluTanh => {
            Tolerance { relative: SIGMOID, absolute: held + argument(8.0, 1.596), scale: 0.0 }
        }
        // The polynomial is good to 1.5e-7, and its terms (up to 1.45, of both signs) are rounded twice each; the
        // division is t's. From 6 on the error function is 1.
        Activation::GeluErf => Tolerance {
            relative: 4.0 * EPSILON,
            absolute: 0.5 * magnitude.min(6.0) * (1.5e-7 + 16.0 * EPSILON),
            scale: 0.0,
        },
    }
}

/// NaN, infinity and denormals in one row of x stay in that row.
#[test]
fn linear_keeps_poison_in_its_row() {
    for m in [3, 40] {
        for poison in [f32::NAN, f32::INFINITY, 1e-42] {
            let lab = Lab::new();
            let (k, n, row) = (64, 68, m / 2);
            let mut random = Random::new(7);
            let mut x = random.numbers(m * k, 1.0);
            let weight = round(&random.numbers(n * k, 0.2), Storage::F16);
            let old = vec![0.0; m * n];
            let expected =
                reference::linear(&x, &weight, None, None, &old, k, Activation::Silu, Write::Store);
            x[row * k + 5] = poison;
            let xs = lab.view("x", [m, k], &x, Frame::NONE, Bands::One);
            let ys = lab.view("y", [m, n], &old, Frame::WIDE, Bands::One);
            let weight = lab.weight("weight", &weight, n, k, Storage::F16);
            let layer = LinearLayer { weight, bias: None };
            let epilogue = Epilogue { activation: Activation::Silu, ..Default::default() };
            lab.run(|r, _| ops::linear_into("y", xs.on(r), &layer, ys.on(r), epilogue));
            let y = lab.read_view(&ys);
            let poisoned = &y[row * n..(row + 1) * n];
            assert_eq!(
                poisoned.iter().any(|v| !v.is_finite()),
                !poison.is_finite(),
                "row {row} of {m} with {poison}: {poisoned:?}"
            );
            for other in (0..m).filter(|i| *i != row) {
                let range = other * n..(other + 1) * n;
                let label = format!("row {other} of {m}, with {poison} in row {row}");
                let tolerance = Tolerance::sum(k).plus(Tolerance::relative(SIGMOID));
                assert_close(&label, [1, n], &y[range.clone()], &expected[range], tolerance);
            }
        }
    }
}

// ---- attention -------------------------------------------------------------------------------

#[derive(Clone, Copy, Debug)]
struct AttentionCase {
    m: usize,
    n: usize,
    heads: usize,
    d: usize,
    causal: bool,
    bias: bool,
    /// Of q and k.
    magnitude: f32,
}

const ATTENTION: AttentionCase =
    AttentionCase { m: 33, n: 33, heads: 2, d: 16, causal: false, bias: false, magnitude: 1.0 };

#[rustfmt::skip]
const ATTENTION_CASES: &[AttentionCase] = &[
    // Keys around the step of 4, queries around the block of 16.
    AttentionCase { m: 1, n: 1, ..ATTENTION },
    AttentionCase { m: 1, n: 2, ..ATTENTION },
    AttentionCase { m: 2, n: 3, ..ATTENTION },
    AttentionCase { m: 5, n: 4, ..ATTENTION },
    AttentionCase { m: 15, n: 5, ..ATTENTION },
    AttentionCase { m: 16, n: 16, ..ATTENTION },
    AttentionCase { m: 17, n: 17, ..ATTENTION },
    AttentionCase { m: 100, n: 7, ..ATTENTION },
    AttentionCase { m: 7, n: 301, ..ATTENTION },
    AttentionCase { m: 257, n: 258, heads: 3, ..ATTENTION },
    // Widths of heads: those that fill their registers, and those that do not.
    AttentionCase { d: 4, ..ATTENTION },
    AttentionCase { d: 8, heads: 5, ..ATTENTION },
    AttentionCase { d: 24, ..ATTENTION },
    AttentionCase { d: 32, ..ATTENTION },
    AttentionCase { d: 40, ..ATTENTION },
    AttentionCase { d: 64, heads: 3, ..ATTENTION },
    AttentionCase { d: 72, ..ATTENTION },
    AttentionCase { d: 128, ..ATTENTION },
    AttentionCase { d: 256, heads: 1, ..ATTENTION },
    AttentionCase { d: 512, heads: 1, ..ATTENTION },
    // CLIP: causal; T5: relative positions, no scale.
    AttentionCase { causal: true, ..ATTENTION },
    AttentionCase { causal: true, m: 77, n: 77, heads: 3, d: 64, ..ATTENTION },
    AttentionCase { causal: true, m: 20, n: 50, ..ATTENTION },
    AttentionCase { causal: true, m: 50, n: 20, ..ATTENTION },
    AttentionCase { bias: true, ..ATTENTION },
    AttentionCase { bias: true, m: 77, n: 77, heads: 3, d: 64, ..ATTENTION },
    AttentionCase { bias: true, m: 9, n: 40, heads: 4, ..ATTENTION },
    AttentionCase { bias: true, causal: true, m: 18, n: 18, ..ATTENTION },
    // Scores in the thousands.
    AttentionCase { magnitude: 40.0, ..ATTENTION },
    AttentionCase { magnitude: 100.0, d: 64, ..ATTENTION },
    AttentionCase { magnitude: 100.0, causal: true, bias: true, ..ATTENTION },
];

#[test]
fn attention() {
    check_all(
        ATTENTION_CASES,
        |c| {
            // The state of rows whose keys are in bands is in one buffer: such cases skip 4 KiB bindings.
            let state = if c.m * c.heads > 500 { (MANY_PIECES + 1) * 4096 } else { 0 };
            let bytes = (c.m.max(c.n) * c.heads * c.d * 4) as u64;
            (bytes.max(state), 4.0 * (c.m * c.n * c.heads * c.d) as f64)
        },
        check_attention,
    );
}

fn check_attention(lab: &Lab, label: &str, case: &AttentionCase) {
    let &AttentionCase { m, n, heads, d, causal, magnitude, .. } = case;
    let width = heads * d;
    let mut random = Random::named(label);
    let q = random.numbers(m * width, magnitude);
    let k = random.numbers(n * width, magnitude);
    let v = random.numbers(n * width, 1.0);
    let table = random.numbers(heads * (2 * n - 1), 3.0);
    let scale = 1.0 / (d as f32).sqrt();

    let qs = lab.view("q", [m, width], &q, Frame::WIDE, Bands::AsNeeded);
    let ks = lab.view("k", [n, width], &k, Frame::WIDE, Bands::AsNeeded);
    let vs = lab.view("v", [n, width], &v, Frame::WIDE, Bands::AsNeeded);
    let ys = lab.view("y", [m, width], &vec![0.0; m * width], Frame::WIDE, Bands::AsNeeded);
    let bias = lab.vector("bias", &table);
    lab.run(|r, _| {
        let bias = case.bias.then(|| r.resident(&bias));
        let options = Attention { head_dim: d, scale, causal, bias };
        ops::attention("y", [qs.on(r), ks.on(r), vs.on(r)], ys.on(r), options);
    });

    let y = lab.read_view(&ys);
    for head in 0..heads {
        let own = |values: &[f32]| -> Vec<f32> {
            values.chunks_exact(width).flat_map(|row| &row[head * d..][..d]).copied().collect()
        };
        let (q, k, v) = (own(&q), own(&k), own(&v));
        let bias = |i: usize, j: usize| {
            let at = head * (2 * n - 1) + (j + n - 1).wrapping_sub(i);
            (!causal || j <= i).then(|| if case.bias { f64::from(table[at]) } else { 0.0 })
        };
        let expected = reference::attention(&q, &k, &v, d, f64::from(scale), bias);
        // An error in a score is a relative error of its weight; then a weighted mean of numbers up to 1.
        let score = f64::from(magnitude).powi(2) * (d as f64).sqrt() + 3.0;
        let tolerance = Tolerance::absolute(2.0 * (Tolerance::sum(d).scale * score + EXP))
            .plus(Tolerance::absolute(Tolerance::sum(n).scale));
        let label = format!("attention head {head} of {label}");
        assert_close(&label, [m, d], &own(&y), &expected, tolerance);
    }
}

/// Attention to several matrices of keys.
#[derive(Clone, Copy, Debug)]
struct RangesCase {
    m: usize,
    /// Keys in each matrix; the last one's are every fourth row.
    keys: &'static [usize],
    heads: usize,
    d: usize,
    magnitude: f32,
}

const RANGES: RangesCase = RangesCase { m: 33, keys: &[21, 12], heads: 2, d: 16, magnitude: 1.0 };

#[rustfmt::skip]
const RANGES_CASES: &[RangesCase] = &[
    RangesCase { m: 1, keys: &[1, 1], ..RANGES },
    RangesCase { m: 5, keys: &[4, 1, 4], ..RANGES },
    RangesCase { m: 17, keys: &[3, 5, 2], ..RANGES },
    RANGES,
    RangesCase { keys: &[33], ..RANGES },
    RangesCase { keys: &[7, 9, 50], ..RANGES },
    RangesCase { m: 70, keys: &[40, 100], d: 64, ..RANGES },
    RangesCase { m: 18, keys: &[5, 6, 7], d: 128, heads: 3, ..RANGES },
    RangesCase { keys: &[30, 20], magnitude: 40.0, ..RANGES },
];

/// A NaN or an infinity in one query spoils that query's row and no other: pictures are checked for such numbers,
/// and a softmax must not hide them.
#[test]
fn attention_keeps_poison_in_its_row() {
    for poison in [f32::NAN, f32::INFINITY] {
        let lab = Lab::new();
        let (m, n, d, row) = (3, 9, 16, 1);
        let mut random = Random::new(11);
        let mut q = random.numbers(m * d, 1.0);
        let [k, v] = [(); 2].map(|()| random.numbers(n * d, 1.0));
        q[row * d + 3] = poison;
        let on = |label, rows, values: &[f32]| {
            lab.view(label, [rows, d], values, Frame::NONE, Bands::One)
        };
        let (qs, ks, vs) = (on("q", m, &q), on("k", n, &k), on("v", n, &v));
        let ys = on("y", m, &vec![0.0; m * d]);
        let options = Attention { head_dim: d, scale: 0.25, causal: false, bias: None };
        lab.run(|r, _| {
            ops::attention("y", [qs.on(r), ks.on(r), vs.on(r)], ys.on(r), options);
        });
        for (i, y) in lab.read_view(&ys).chunks_exact(d).enumerate() {
            let is_finite = y.iter().all(|v| v.is_finite());
            assert_eq!(is_finite, i != row, "{poison} in query {row}: row {i} is {y:?}");
        }
    }
}

#[test]
fn attention_over() {
    check_all(
        RANGES_CASES,
        |c| {
            let n: usize = c.keys.iter().sum();
            let rows = c.m.max(4 * n);
            ((rows * c.heads * c.d * 4) as u64, 4.0 * (c.m * n * c.heads * c.d) as f64)
        },
        check_attention_over,
    );
}

fn check_attention_over(lab: &Lab, label: &str, case: &RangesCase) {
    let &RangesCase { m, keys, heads, d, magnitude } = case;
    let (n, width) = (keys.iter().sum::<usize>(), heads * d);
    let mut random = Random::named(label);
    let q = random.numbers(m * width, magnitude);
    let k = random.numbers(n * width, magnitude);
    let v = random.numbers(n * width, 1.0);
    let scale = 1.0 / (d as f32).sqrt();

    let qs = lab.view("q", [m, width], &q, Frame::WIDE, Bands::AsNeeded);
    let ys = lab.view("y", [m, width], &vec![0.0; m * width], Frame::SPARSE, Bands::AsNeeded);
    let mut first = 0;
    let mut pairs = Vec::new();
    for (i, rows) in keys.iter().enumerate() {
        let range = first * width..(first + rows) * width;
        // Keys and values of one row need not lie in the same row of their matrices.
        let [k_frame, v_frame] = match i + 1 == keys.len() {
            true => [Frame::SPARSE, Frame { above: 0, ..Frame::SPARSE }],
            false => [Frame::WIDE, Frame::BELOW],
        };
        let view = |values: &[f32], frame| {
            lab.view("keys", [*rows, width], &values[range.clone()], frame, Bands::AsNeeded)
        };
        pairs.push((view(&k, k_frame), view(&v, v_frame)));
        first += rows;
    }
    lab.run(|r, _| {
        let pairs: Vec<_> = pairs.iter().map(|(k, v)| (k.on(r), v.on(r))).collect();
        let options = Attention { head_dim: d, scale, causal: false, bias: None };
        ops::attention_over("y", qs.on(r), &pairs, ys.on(r), options);
    });

    let y = lab.read_view(&ys);
    for head in 0..heads {
        let own = |values: &[f32]| -> Vec<f32> {
            values.chunks_exact(width).flat_map(|row| &row[head * d..][..d]).copied().collect()
        };
        let expected =
            reference::attention(&own(&q), &own(&k), &own(&v), d, scale.into(), |_, _| Some(0.0));
        // As in `check_attention`: errors of scores, of exp, and of the weighted mean.
        let score = f64::from(magnitude).powi(2) * (d as f64).sqrt();
        let tolerance = Tolerance::absolute(2.0 * (Tolerance::sum(d).scale * score + EXP))
            .plus(Tolerance::absolute(Tolerance::sum(n).scale));
        let label = format!("attention_over head {head} of {label}");
        assert_close(&label, [m, d], &own(&y), &expected, tolerance);
    }
}

/// Scores that are exact, so that the softmax shows the error of exp and nothing else, at the size of those of SD3's
/// widest heads.
#[test]
fn softmax_is_good_to_some_roundings() {
    const ROWS: usize = 4096;
    let lab = Lab::new();
    // From 0 to -87, in multiples of 2^-11: these are exact beside 4096, too.
    let steps: Vec<f32> = (0..ROWS).map(|i| -(((i + 1) * 87 / 2) as f32) / 2048.0).collect();
    for base in [0.0, 4096.0] {
        let q: Vec<f32> = steps.iter().flat_map(|step| [*step, base, 0.0, 0.0]).collect();
        // The largest score is met in the same group of four keys, and in a later one.
        for low_keys in [1, 4] {
            let mut k = [1.0, 1.0, 0.0, 0.0].repeat(low_keys);
            let mut v = [1.0, 0.5, 0.25, 0.125].repeat(low_keys);
            k.extend([0.0, 1.0, 0.0, 0.0]);
            v.extend([0.0; 4]);
            let view = |name: &str, values: &[f32]| {
                lab.view(name, [values.len() / 4, 4], values, Frame::WIDE, Bands::One)
            };
            let (qs, ks, vs) = (view("q", &q), view("k", &k), view("v", &v));
            let ys = view("y", &vec![0.0; ROWS * 4]);
            lab.run(|r, _| {
                let options = Attention { head_dim: 4, scale: 1.0, causal: false, bias: None };
                ops::attention("y", [qs.on(r), ks.on(r), vs.on(r)], ys.on(r), options);
            });
            let expected = reference::attention(&q, &k, &v, 4, 1.0, |_, _| Some(0.0));
            // exp in the numerator and, for the total, an addition for each key, the division's 5 and two
            // products.
            let roundings = 9.0 + low_keys as f64;
            let tolerance = Tolerance::relative(2.0 * EXP + roundings * EPSILON);
            let label = format!("softmax of scores {base} and {base} - x, {low_keys} of these");
            // An eighth of exp(-84) is the smallest that is no denormal.
            let wide: Vec<usize> = (0..ROWS).filter(|i| steps[*i] > -84.0).collect();
            let of = |i: &usize| *i * 4..*i * 4 + 4;
            let y = lab.read_view(&ys);
            let y: Vec<f32> = wide.iter().flat_map(|i| y[of(i)].to_vec()).collect();
            let expected: Vec<f64> = wide.iter().flat_map(|i| expected[of(i)].to_vec()).collect();
            assert!(wide.len() > ROWS * 9 / 10, "{} rows", wide.len());
            assert_close(&label, [wide.len(), 4], &y, &expected, tolerance);
        }
    }
}

// ---- conv2d ----------------------------------------------------------------------------------

#[derive(Clone, Copy, Debug)]
struct ConvCase {
    height: usize,
    width: usize,
    c: usize,
    n: usize,
    storage: Storage,
    upsample: bool,
    add: bool,
}

const CONV: ConvCase = ConvCase {
    height: 6,
    width: 10,
    c: 8,
    n: 16,
    storage: Storage::F16,
    upsample: false,
    add: false,
};

#[rustfmt::skip]
const CONV_CASES: &[ConvCase] = &[
    CONV,
    ConvCase { height: 1, width: 1, ..CONV },
    ConvCase { height: 1, width: 9, ..CONV },
    ConvCase { height: 9, width: 1, ..CONV },
    ConvCase { height: 2, width: 8, ..CONV },
    ConvCase { height: 5, width: 7, c: 4, n: 4, ..CONV },
    ConvCase { height: 17, width: 33, c: 4, n: 4, ..CONV },
    ConvCase { height: 40, width: 130, c: 4, n: 3, ..CONV },
    ConvCase { n: 3, ..CONV },
    ConvCase { n: 68, ..CONV },
    ConvCase { n: 132, c: 4, ..CONV },
    ConvCase { c: 68, n: 12, ..CONV },
    ConvCase { storage: Storage::F32, ..CONV },
    ConvCase { storage: Storage::Bf16, ..CONV },
    ConvCase { add: true, ..CONV },
    ConvCase { upsample: true, ..CONV },
    ConvCase { upsample: true, height: 1, width: 1, ..CONV },
    ConvCase { upsample: true, height: 21, width: 19, c: 4, n: 20, ..CONV },
    ConvCase { upsample: true, add: true, storage: Storage::F32, ..CONV },
    ConvCase { height: 33, width: 31, c: 16, n: 32, add: true, ..CONV },
    ConvCase { height: 12, width: 64, c: 8, n: 8, add: true, ..CONV },
];

#[test]
fn conv2d() {
    check_all(
        CONV_CASES,
        |c| {
            let pixels = c.height * c.width * if c.upsample { 4 } else { 1 };
            ((pixels * c.c.max(c.n) * 4) as u64, 18.0 * (pixels * c.c * c.n) as f64)
        },
        check_conv2d,
    );
}

fn check_conv2d(lab: &Lab, label: &str, case: &ConvCase) {
    let &ConvCase { height, width, c, n, storage, upsample, add } = case;
    let n4 = n.next_multiple_of(4);
    let up = if upsample { 2 } else { 1 };
    let (pixels, y_pixels) = (height * width, height * width * up * up);
    let mut random = Random::named(label);
    let x = random.numbers(pixels * c, 1.0);
    let mut weight = round(&random.numbers(n * 9 * c, 1.0 / (3.0 * (c as f32).sqrt())), storage);
    let mut bias = random.numbers(n, 1.0);
    let old = random.numbers(y_pixels * n4, 1.0);

    let xs = lab.matrix("x", pixels, c, &x, Bands::AsNeeded);
    let ys = lab.view("y", [y_pixels, n4], &old, Frame::BELOW, Bands::AsNeeded);
    let layer = Conv2d {
        weight: lab.weight("weight", &weight, n, 9 * c, storage),
        bias: lab.vector("bias", &bias),
    };
    lab.run(|r, copies| {
        let image = r.image("x", height, width, c);
        copies.before(r.resident(&xs), image);
        // A picture in bands is a temporary; one in a single buffer may be a view with guards.
        let into = |y| ops::conv2d("y", image, width, &layer, y, upsample, add);
        if ys.resident.bands.len() == 1 {
            into(ys.on(r));
        } else {
            let y = r.image("y", height * up, width * up, n4);
            copies.before(ys.on(r), y);
            into(y);
            copies.after(y, ys.on(r));
        }
    });

    weight.resize(n4 * 9 * c, 0.0);
    bias.resize(n4, 0.0);
    let mut expected = reference::conv2d(&x, width, c, &weight, &bias, upsample);
    if add {
        expected.iter_mut().zip(&old).for_each(|(e, old)| *e += f64::from(*old));
    }
    let label = format!("conv2d {label}");
    let tolerance = Tolerance::sum(9 * c).plus(Tolerance::absolute(4.0 * EPSILON));
    assert_close(&label, [y_pixels, n4], &lab.read_view(&ys), &expected, tolerance);
}

// ---- group norm ------------------------------------------------------------------------------

#[derive(Clone, Copy, Debug)]
struct GroupNormCase {
    height: usize,
    width: usize,
    channels: usize,
    groups: usize,
    silu: bool,
    /// Of the numbers, around `offset`.
    magnitude: f32,
    offset: f32,
}

const GROUP_NORM: GroupNormCase = GroupNormCase {
    height: 6,
    width: 10,
    channels: 32,
    groups: 8,
    silu: false,
    magnitude: 1.0,
    offset: 0.3,
};

#[rustfmt::skip]
const GROUP_NORM_CASES: &[GroupNormCase] = &[
    GROUP_NORM,
    GroupNormCase { silu: true, ..GROUP_NORM },
    GroupNormCase { height: 1, width: 1, ..GROUP_NORM },
    GroupNormCase { height: 1, width: 2, channels: 4, groups: 1, ..GROUP_NORM },
    GroupNormCase { channels: 4, groups: 4, ..GROUP_NORM },
    GroupNormCase { channels: 36, groups: 3, ..GROUP_NORM },
    GroupNormCase { channels: 300, groups: 75, height: 1, width: 2, ..GROUP_NORM },
    GroupNormCase { height: 13, width: 67, channels: 8, groups: 2, silu: true, ..GROUP_NORM },
    // Fewer channels in a group than a kernel reads at once, and groups that cross such borders.
    GroupNormCase { channels: 24, groups: 4, silu: true, ..GROUP_NORM },
    // More than 65,535 pixels.
    GroupNormCase { height: 260, width: 257, channels: 8, groups: 4, ..GROUP_NORM },
    GroupNormCase { magnitude: 1e5, offset: 0.0, silu: true, ..GROUP_NORM },
    GroupNormCase { offset: 100.0, height: 20, width: 20, channels: 8, groups: 2, ..GROUP_NORM },
];

#[test]
fn group_norm() {
    check_all(
        GROUP_NORM_CASES,
        |c| ((c.height * c.width * c.channels * 4) as u64, 0.0),
        check_group_norm,
    );
}

fn check_group_norm(lab: &Lab, label: &str, case: &GroupNormCase) {
    let &GroupNormCase { height, width, channels, groups, silu, magnitude, offset } = case;
    let pixels = height * width;
    let mut random = Random::named(label);
    let x: Vec<f32> =
        random.numbers(pixels * channels, magnitude).iter().map(|v| v + offset).collect();
    let (weight, bias) = (random.numbers(channels, 2.0), random.numbers(channels, 1.0));
    let eps = 1e-6;

    let xs = lab.matrix("x", pixels, channels, &x, Bands::AsNeeded);
    let ys = lab.view("y", [pixels, channels], &vec![0.0; x.len()], Frame::WIDE, Bands::AsNeeded);
    let weights = lab.vector("weight", &weight);
    let biases = lab.vector("bias", &bias);
    lab.run(|r, copies| {
        let image = r.image("x", height, width, channels);
        copies.before(r.resident(&xs), image);
        let (weight, bias) = (r.resident(&weights), r.resident(&biases));
        ops::group_norm("y", image, groups, eps, weight, bias, silu, ys.on(r));
    });

    let expected = reference::group_norm(&x, groups, eps, &weight, &bias, silu);
    // x * factor and mean * factor are rounded before they cancel: an offset of many deviations costs as
    // many roundings. A uniform distribution's deviation is its half width / sqrt(3).
    let cancellation = 1.0 + f64::from(offset / magnitude) * 3f64.sqrt();
    let tolerance = Tolerance::scale(EPSILON * 8.0 * cancellation)
        .plus(Tolerance::sum(1).plus(Tolerance::scale(EPSILON * 8.0)))
        .plus(Tolerance::relative(if silu { SIGMOID } else { 0.0 }));
    let label = format!("group_norm {label}");
    assert_close(&label, [pixels, channels], &lab.read_view(&ys), &expected, tolerance);
}

// ---- norm ------------------------------------------------------------------------------------

#[derive(Clone, Copy, Debug, PartialEq)]
enum AffineKind {
    None,
    Modulate,
    WeightBias,
    Weight,
}

#[derive(Clone, Copy, Debug)]
struct NormCase {
    rows: usize,
    cols: usize,
    kind: NormKind,
    affine: AffineKind,
    magnitude: f32,
    offset: f32,
}

const LAYER: NormKind = NormKind::Layer { eps: 1e-6 };
const RMS: NormKind = NormKind::Rms { eps: 1e-6 };
const NORM: NormCase = NormCase {
    rows: 17,
    cols: 64,
    kind: LAYER,
    affine: AffineKind::Modulate,
    magnitude: 1.0,
    offset: 0.0,
};

#[rustfmt::skip]
const NORM_CASES: &[NormCase] = &[
    NormCase { rows: 1, ..NORM },
    NormCase { rows: 2, cols: 4, ..NORM },
    NormCase { rows: 63, ..NORM },
    NormCase { rows: 64, ..NORM },
    NormCase { rows: 65, ..NORM },
    NormCase { rows: 70_001, cols: 4, ..NORM },
    NormCase { rows: 70_001, cols: 8, kind: RMS, affine: AffineKind::Weight, ..NORM },
    NormCase { cols: 68, ..NORM },
    NormCase { cols: 252, kind: RMS, ..NORM },
    NormCase { cols: 260, ..NORM },
    NormCase { rows: 5, cols: 3072, ..NORM },
    NormCase { rows: 3, cols: 4096, kind: RMS, affine: AffineKind::Weight, ..NORM },
    NormCase { affine: AffineKind::None, ..NORM },
    NormCase { affine: AffineKind::WeightBias, ..NORM },
    NormCase { affine: AffineKind::Weight, ..NORM },
    NormCase { affine: AffineKind::None, kind: RMS, ..NORM },
    NormCase { affine: AffineKind::Modulate, kind: RMS, ..NORM },
    NormCase { affine: AffineKind::WeightBias, kind: RMS, ..NORM },
    NormCase { affine: AffineKind::Weight, kind: RMS, ..NORM },
    NormCase { magnitude: 1e4, ..NORM },
    NormCase { magnitude: 1e6, kind: RMS, ..NORM },
    NormCase { magnitude: 1e6, offset: 1e6, ..NORM },
    NormCase { magnitude: 1.0, offset: 1000.0, ..NORM },
    NormCase { magnitude: 0.0, offset: 0.0, ..NORM },
    NormCase { magnitude: 0.0, offset: 0.0, kind: RMS, ..NORM },
    NormCase { magnitude: 1e-20, offset: 0.0, kind: RMS, ..NORM },
];

#[test]
fn norm() {
    check_all(NORM_CASES, |c| ((c.rows * c.cols * 4) as u64, 0.0), check_norm);
}

fn check_norm(lab: &Lab, label: &str, case: &NormCase) {
    let &NormCase { rows, cols, kind, magnitude, offset, .. } = case;
    let mut random = Random::named(label);
    let x: Vec<f32> = random.numbers(rows * cols, magnitude).iter().map(|v| v + offset).collect();
    let (scale, shift) = (random.numbers(cols, 1.0), random.numbers(cols, 1.0));

    let xs = lab.view("x", [rows, cols], &x, Frame::WIDE, Bands::AsNeeded);
    let ys = lab.view("y", [rows, cols], &vec![0.0; x.len()], Frame::WIDE, Bands::AsNeeded);
    let scales = lab.view("scale", [1, cols], &scale, Frame::WIDE, Bands::One);
    let shifts = lab.view("shift", [1, cols], &shift, Frame::BELOW, Bands::One);
    lab.run(|r, _| {
        let (scale, shift) = (scales.on(r), shifts.on(r));
        let affine = match case.affine {
            AffineKind::None => Affine::None,
            AffineKind::Modulate => Affine::Modulate { scale, shift },
            AffineKind::WeightBias => Affine::WeightBias(scale, shift),
            AffineKind::Weight => Affine::Weight(scale),
        };
        ops::norm_into("y", xs.on(r), kind, affine, ys.on(r));
    });

    let plus = if case.affine == AffineKind::Modulate { 1.0 } else { 0.0 };
    let scale: Vec<f64> = scale.iter().map(|v| f64::from(*v) + plus).collect();
    let shift: Vec<f64> = shift.iter().map(|v| f64::from(*v)).collect();
    let (scale, shift) = match case.affine {
        AffineKind::None => (None, None),
        AffineKind::Modulate | AffineKind::WeightBias => (Some(&scale[..]), Some(&shift[..])),
        AffineKind::Weight => (Some(&scale[..]), None),
    };
    let expected: Vec<f64> =
        x.chunks_exact(cols).flat_map(|row| reference::norm(row, kind, scale, shift)).collect();
    // The mean is off by some roundings of the largest number of a row; a small deviation magnifies that.
    let magnified = |row: &[f32]| {
        let NormKind::Layer { eps } = kind else { return 0.0 };
        let n = row.len() as f64;
        let mean = row.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
        let variance = row.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / n;
        let largest = row.iter().fold(0.0f64, |max, v| max.max(f64::from(v.abs())));
        largest / (variance + f64::from(eps)).sqrt()
    };
    let magnified = x.chunks_exact(cols).map(magnified).fold(0.0, f64::max);
    // Two roundings; AdaLN's factor is at most 2.
    let tolerance = Tolerance::sum(cols).plus(Tolerance::absolute(4.0 * EPSILON * magnified));
    let label = format!("norm {label}");
    assert_close(&label, [rows, cols], &lab.read_view(&ys), &expected, tolerance);
}

/// NaN, infinity and denormals in one row stay in that row.
#[test]
fn norm_keeps_poison_in_its_row() {
    for is_cpu in [false, true] {
        for poison in [f32::NAN, f32::INFINITY, 1e-42] {
            let lab = Lab::new().with_caps(|caps| caps.is_cpu = is_cpu);
            let (rows, cols, row) = (67, 68, 40);
            let mut x = Random::new(3).numbers(rows * cols, 1.0);
            x[row * cols + 67] = poison;
            let xs = lab.view("x", [rows, cols], &x, Frame::NONE, Bands::One);
            let ys = lab.view("y", [rows, cols], &vec![0.0; x.len()], Frame::WIDE, Bands::One);
            lab.run(|r, _| ops::norm_into("y", xs.on(r), LAYER, Affine::None, ys.on(r)));
            let y = lab.read_view(&ys);
            for (i, (x, y)) in x.chunks_exact(cols).zip(y.chunks_exact(cols)).enumerate() {
                if i == row && !poison.is_finite() {
                    assert!(y.iter().any(|v| !v.is_finite()), "{poison} was lost");
                } else {
                    let expected = reference::norm(x, LAYER, None, None);
                    let label = format!("row {i} with {poison} in row {row}");
                    assert_close(&label, [1, cols], y, &expected, Tolerance::sum(cols));
                }
            }
        }
    }
}

// ---- activation ------------------------------------------------------------------------------

#[derive(Clone, Copy, Debug)]
struct ActivationCase {
    rows: usize,
    cols: usize,
    activation: Activation,
    magnitude: f32,
}

const ACTIVATION: ActivationCase =
    ActivationCase { rows: 33, cols: 68, activation: Activation::Silu, magnitude: 10.0 };

#[rustfmt::skip]
const ACTIVATION_CASES: &[ActivationCase] = &[
    ActivationCase { rows: 1, cols: 4, ..ACTIVATION },
    ActivationCase { rows: 2, cols: 1280, ..ACTIVATION },
    ActivationCase { rows: 70_001, cols: 4, ..ACTIVATION },
    // More than 65,535 workgroups of 64 lanes of 4 numbers.
    ActivationCase { rows: 65_537, cols: 260, activation: Activation::Identity, ..ACTIVATION },
    ActivationCase { activation: Activation::Identity, ..ACTIVATION },
    ActivationCase { activation: Activation::Silu, ..ACTIVATION },
    ActivationCase { activation: Activation::GeluTanh, ..ACTIVATION },
    ActivationCase { activation: Activation::QuickGelu, ..ACTIVATION },
    ActivationCase { activation: Activation::GeluErf, ..ACTIVATION },
    // As far as exp's argument is not held: results down to 1e-33 are right to some roundings.
    ActivationCase { activation: Activation::Silu, magnitude: 80.0, rows: 301, ..ACTIVATION },
    ActivationCase { activation: Activation::Silu, magnitude: 1e6, ..ACTIVATION },
    ActivationCase { activation: Activation::GeluTanh, magnitude: 1e6, ..ACTIVATION },
    ActivationCase { activation: Activation::GeluTanh, magnitude: 1e15, ..ACTIVATION },
    ActivationCase { activation: Activation::QuickGelu, magnitude: 1e6, ..ACTIVATION },
    ActivationCase { activation: Activation::GeluErf, magnitude: 1e6, ..ACTIVATION },
];

#[test]
fn activation() {
    check_all(ACTIVATION_CASES, |c| ((c.rows * c.cols * 4) as u64, 0.0), check_activation);
}

/// Into rows of a wider matrix, and into every fourth row.
#[test]
fn activation_into() {
    let lab = Lab::new().with_caps(|caps| caps.max_binding_bytes = 4096);
    for frame in [Frame::WIDE, Frame::SPARSE] {
        let (rows, cols) = (33, 68);
        let x = Random::new(11).numbers(rows * cols, 10.0);
        let xs = lab.view("x", [rows, cols], &x, Frame::SPARSE, Bands::AsNeeded);
        let ys = lab.view("y", [rows, cols], &vec![0.0; x.len()], frame, Bands::AsNeeded);
        lab.run(|r, _| ops::activate_into("y", xs.on(r), Activation::Silu, ys.on(r)));
        let expected: Vec<f64> =
            x.iter().map(|v| reference::activate(f64::from(*v), Activation::Silu)).collect();
        let tolerance = activation_tolerance(Activation::Silu, 10.0);
        let label = format!("activation into {frame:?}");
        assert_close(&label, [rows, cols], &lab.read_view(&ys), &expected, tolerance);
    }
}

fn check_activation(lab: &Lab, label: &str, case: &ActivationCase) {
    let &ActivationCase { rows, cols, activation, magnitude } = case;
    let x = Random::named(label).numbers(rows * cols, magnitude);
    let xs = lab.view("x", [rows, cols], &x, Frame::WIDE, Bands::AsNeeded);
    let ys = lab.view("y", [rows, cols], &vec![0.0; x.len()], Frame::NONE, Bands::AsNeeded);
    lab.run(|r, copies| {
        let y = ops::activate("y", xs.on(r), activation);
        copies.after(y, ys.on(r));
    });
    let expected: Vec<f64> =
        x.iter().map(|v| reference::activate(f64::from(*v), activation)).collect();
    let tolerance = activation_tolerance(activation, f64::from(magnitude))
        .plus(Tolerance::relative(2.0 * EPSILON));
    let label = format!("activation {label}");
    assert_close(&label, [rows, cols], &lab.read_view(&ys), &expected, tolerance);
}

// ---- qk_norm_rope ----------------------------------------------------------------------------

#[derive(Clone, Copy, Debug)]
struct RopeCase {
    rows: usize,
    heads: usize,
    d: usize,
    magnitude: f32,
    rotate: bool,
}

const ROPE: RopeCase = RopeCase { rows: 7, heads: 3, d: 20, magnitude: 1.0, rotate: true };

#[rustfmt::skip]
const ROPE_CASES: &[RopeCase] = &[
    RopeCase { rows: 1, heads: 1, d: 4, ..ROPE },
    RopeCase { rows: 2, heads: 3, d: 8, ..ROPE },
    RopeCase { rows: 5, heads: 2, d: 16, ..ROPE },
    RopeCase { rows: 17, heads: 5, d: 64, ..ROPE },
    RopeCase { rows: 65, heads: 24, d: 128, ..ROPE },
    RopeCase { rows: 70_001, heads: 1, d: 4, ..ROPE },
    RopeCase { magnitude: 1e5, ..ROPE },
    RopeCase { magnitude: 0.0, ..ROPE },
    RopeCase { rows: 1, heads: 1, d: 4, rotate: false, ..ROPE },
    RopeCase { rows: 17, heads: 5, d: 64, rotate: false, ..ROPE },
    RopeCase { rows: 70_001, heads: 1, d: 4, rotate: false, ..ROPE },
    RopeCase { magnitude: 1e5, rotate: false, ..ROPE },
    RopeCase { magnitude: 0.0, rotate: false, ..ROPE },
];

#[test]
fn qk_norm_rope() {
    check_all(ROPE_CASES, |c| ((c.rows * c.heads * c.d * 4) as u64, 0.0), check_qk_norm_rope);
}

fn check_qk_norm_rope(lab: &Lab, label: &str, case: &RopeCase) {
    let &RopeCase { rows, heads, d, magnitude, rotate } = case;
    let mut random = Random::named(label);
    let x = random.numbers(rows * heads * d, magnitude);
    let weight = random.numbers(d, 2.0);
    let table: Vec<f32> = (0..rows * d / 2)
        .flat_map(|_| {
            let turn = if rotate { 7.0 } else { 0.0 };
            let (sin, cos) = (f64::from(random.unit()) * turn).sin_cos();
            [cos as f32, sin as f32]
        })
        .collect();
    let eps = 1e-6;

    let xs = lab.view("x", [rows, heads * d], &x, Frame::WIDE, Bands::AsNeeded);
    // Image tokens use the rows of the table behind those of the text.
    let behind = Frame { above: 3, below: 1, ..Frame::NONE };
    let tables = lab.view("table", [rows, d], &table, behind, Bands::AsNeeded);
    let weights = lab.vector("weight", &weight);
    lab.run(|r, _| {
        let (x, weight) = (xs.on(r), r.resident(&weights));
        match rotate {
            true => ops::qk_norm_rope("y", x, weight, tables.on(r), eps),
            false => ops::qk_norm("y", x, weight, eps),
        }
    });

    let expected: Vec<f64> = x
        .chunks_exact(d)
        .enumerate()
        .flat_map(|(i, head)| {
            let table = &table[i / heads * d..][..d];
            reference::qk_norm_rope(head, &weight, table, eps)
        })
        .collect();
    let label = format!("qk_norm_rope {label}");
    let tolerance = Tolerance::sum(d);
    assert_close(&label, [rows, heads * d], &lab.read_view(&xs), &expected, tolerance);
}

// ---- euler -----------------------------------------------------------------------------------

#[derive(Clone, Copy, Debug)]
struct EulerCase {
    rows: usize,
    cols: usize,
    guided: bool,
    magnitude: f32,
}

#[rustfmt::skip]
const EULER_CASES: &[EulerCase] = &[
    EulerCase { rows: 1, cols: 4, guided: false, magnitude: 1.0 },
    EulerCase { rows: 2, cols: 64, guided: true, magnitude: 1.0 },
    EulerCase { rows: 17, cols: 64, guided: false, magnitude: 1.0 },
    EulerCase { rows: 17, cols: 64, guided: true, magnitude: 1e5 },
    EulerCase { rows: 65, cols: 64, guided: true, magnitude: 1.0 },
    EulerCase { rows: 70_001, cols: 64, guided: true, magnitude: 1.0 },
];

#[test]
fn euler() {
    // Latents are small: they lie in one buffer whatever the binding limit is.
    check_all(EULER_CASES, |_| (0, 0.0), check_euler);
}

fn check_euler(lab: &Lab, label: &str, case: &EulerCase) {
    let &EulerCase { rows, cols, guided, magnitude } = case;
    let mut random = Random::named(label);
    let [conditional, unconditional, x] =
        std::array::from_fn(|_| random.numbers(rows * cols, magnitude));
    let [delta, guidance] = [-0.08f32, 3.5];

    let view =
        |name: &str, values: &[f32]| lab.view(name, [rows, cols], values, Frame::BELOW, Bands::One);
    let (c, u) = (view("conditional", &conditional), view("unconditional", &unconditional));
    let (velocity, xs) = (view("velocity", &vec![0.0; x.len()]), view("x", &x));
    let step = lab.vector("step", &[delta, guidance, 7.0, 7.0]);
    lab.run(|r, _| {
        let u = guided.then(|| u.on(r));
        ops::euler_step("euler", c.on(r), u, r.resident(&step), velocity.on(r), xs.on(r));
    });

    let (expected_velocity, expected_x): (Vec<f64>, Vec<f64>) = (0..x.len())
        .map(|i| {
            let [c, u, x] = [conditional[i], unconditional[i], x[i]].map(f64::from);
            reference::euler_step(c, guided.then_some(u), delta.into(), guidance.into(), x)
        })
        .unzip();
    let check = |name: &str, view: &View, expected: &[f64]| {
        // Four roundings of numbers no larger than the largest velocity.
        let tolerance = Tolerance::scale(4.0 * EPSILON);
        let label = format!("euler {name} {label}");
        assert_close(&label, [rows, cols], &lab.read_view(view), expected, tolerance);
    };
    check("velocity", &velocity, &expected_velocity);
    check("x", &xs, &expected_x);
}

// ---- combine ---------------------------------------------------------------------------------

#[derive(Clone, Copy, Debug)]
struct CombineCase {
    rows: usize,
    cols: usize,
    inputs: usize,
    gate: bool,
    write: Write,
    /// Index of the first weight, if they are read from a buffer.
    first: Option<usize>,
    magnitude: f32,
}

const COMBINE: CombineCase = CombineCase {
    rows: 17,
    cols: 64,
    inputs: 2,
    gate: false,
    write: Write::Store,
    first: None,
    magnitude: 1.0,
};

#[rustfmt::skip]
const COMBINE_CASES: &[CombineCase] = &[
    CombineCase { rows: 1, cols: 4, inputs: 1, ..COMBINE },
    CombineCase { inputs: 1, ..COMBINE },
    CombineCase { inputs: 2, ..COMBINE },
    CombineCase { inputs: 3, ..COMBINE },
    CombineCase { inputs: 1, write: Write::Add, ..COMBINE },
    CombineCase { inputs: 2, write: Write::Add, ..COMBINE },
    CombineCase { inputs: 3, write: Write::Add, ..COMBINE },
    CombineCase { inputs: 1, gate: true, ..COMBINE },
    CombineCase { inputs: 1, gate: true, write: Write::Add, ..COMBINE },
    CombineCase { inputs: 3, gate: true, write: Write::Add, ..COMBINE },
    CombineCase { inputs: 1, first: Some(0), ..COMBINE },
    CombineCase { inputs: 1, first: Some(11), gate: true, ..COMBINE },
    CombineCase { inputs: 2, first: Some(3), ..COMBINE },
    CombineCase { inputs: 3, first: Some(1), write: Write::Add, ..COMBINE },
    CombineCase { inputs: 3, first: Some(9), gate: true, write: Write::Add, ..COMBINE },
    CombineCase { rows: 65, cols: 68, inputs: 3, magnitude: 1e5, ..COMBINE },
    CombineCase { rows: 5, cols: 960, inputs: 3, gate: true, ..COMBINE },
    CombineCase { rows: 70_001, cols: 4, inputs: 2, ..COMBINE },
    // More than 65,535 workgroups of 64 lanes of 4 numbers.
    CombineCase { rows: 65_537, cols: 260, inputs: 1, ..COMBINE },
];

#[test]
fn combine() {
    check_all(
        COMBINE_CASES,
        |c| {
            let sparse = if c.inputs == 3 { Frame::SPARSE.step } else { 1 };
            ((c.rows * sparse * c.cols * 4) as u64, 0.0)
        },
        check_combine,
    );
}

fn check_combine(lab: &Lab, label: &str, case: &CombineCase) {
    let &CombineCase { rows, cols, inputs, write, first, magnitude, .. } = case;
    let mut random = Random::named(label);
    let x: Vec<Vec<f32>> = (0..inputs).map(|_| random.numbers(rows * cols, magnitude)).collect();
    let weights = random.numbers(inputs, 2.0);
    let gate = random.numbers(cols, 2.0);
    let old = random.numbers(rows * cols, magnitude);

    // Other strides and, in bands, other borders for each.
    let frames = [Frame::WIDE, Frame::NONE, Frame::SPARSE];
    let views: Vec<View> = x
        .iter()
        .zip(frames)
        .map(|(x, frame)| lab.view("x", [rows, cols], x, frame, Bands::AsNeeded))
        .collect();
    let frame = Frame { above: 1, below: 2, left: 4, right: 0, step: 1 };
    let ys = lab.view("y", [rows, cols], &old, frame, Bands::AsNeeded);
    let gates = lab.view("gate", [1, cols], &gate, Frame::WIDE, Bands::One);
    // Weights that must not be read are NaN.
    let mut row = [f32::NAN; 12];
    let at = first.unwrap_or(0);
    row[at..at + inputs].copy_from_slice(&weights);
    let values = lab.view("weights", [1, row.len()], &row, Frame::WIDE, Bands::One);
    lab.run(|r, _| {
        let inputs: Vec<_> = views.iter().map(|view| view.on(r)).collect();
        let weights = match first {
            None => Weights::Constant([row[0], row[1], row[2]]),
            Some(first) => Weights::Buffer { values: values.on(r), first },
        };
        let gate = case.gate.then(|| gates.on(r));
        ops::combine("y", &inputs, weights, gate, write, ys.on(r));
    });

    let expected: Vec<f64> = (0..rows * cols)
        .map(|i| {
            let x: Vec<f32> = x.iter().map(|x| x[i]).collect();
            let gate = case.gate.then_some(gate[i % cols]);
            reference::combine(&x, &weights, gate, write, old[i])
        })
        .collect();
    // Each term, of at most 2 * 2 * magnitude with the gate, is rounded as a product, in every sum, with the gate and
    // with y, which is as large as x.
    let terms = inputs as f64 * if case.gate { 4.0 } else { 2.0 };
    let roundings = inputs as f64 + 2.0;
    let tolerance = Tolerance::absolute(roundings * EPSILON * (terms + 1.0) * f64::from(magnitude));
    let label = format!("combine {label}");
    assert_close(&label, [rows, cols], &lab.read_view(&ys), &expected, tolerance);
}

/// A layer that stores and a combination that gates and adds give the bits of a layer that does both: a cache that
/// keeps the layer's output must not change the picture of a step that computes everything.
#[test]
fn combine_gives_the_bits_of_a_layer_that_adds() {
    for is_cpu in [false, true] {
        let lab = Lab::new().with_caps(|caps| caps.is_cpu = is_cpu);
        // matvec and matmul.
        for m in [3, 40] {
            for activation in [Activation::Identity, Activation::GeluTanh] {
                let (k, n) = (64, 132);
                let mut random = Random::new(m as u64);
                let x = random.numbers(m * k, 1.0);
                let weight = round(&random.numbers(n * k, 0.3), Storage::Bf16);
                let layer = LinearLayer {
                    weight: lab.weight("weight", &weight, n, k, Storage::Bf16),
                    bias: Some(lab.vector("bias", &random.numbers(n, 1.0))),
                };
                let gate = lab.vector("gate", &random.numbers(n, 2.0));
                let old = random.numbers(m * n, 1.0);
                let view = |name: &str, values: &[f32]| {
                    lab.view(name, [m, values.len() / m], values, Frame::WIDE, Bands::One)
                };
                let (xs, kept) = (view("x", &x), view("kept", &old));
                let [added, combined] = ["added", "combined"].map(|name| view(name, &old));
                lab.run(|r, _| {
                    let (x, gate) = (xs.on(r), Some(r.resident(&gate)));
                    let adds = Epilogue { activation, gate, write: Write::Add };
                    ops::linear_into("added", x, &layer, added.on(r), adds);
                    let stores = Epilogue { activation, ..Default::default() };
                    ops::linear_into("kept", x, &layer, kept.on(r), stores);
                    let one = Weights::Constant([1.0, 0.0, 0.0]);
                    ops::combine("y", &[kept.on(r)], one, gate, Write::Add, combined.on(r));
                });
                let (added, combined) = (lab.read_view(&added), lab.read_view(&combined));
                assert_ne!(added, old, "nothing was added");
                for (i, (a, b)) in added.iter().zip(&combined).enumerate() {
                    assert_eq!(
                        a.to_bits(),
                        b.to_bits(),
                        "{m} rows, {activation:?}, is_cpu {is_cpu}: number {i} is {a} and {b}"
                    );
                }
            }
        }
    }
}

// ---- change ----------------------------------------------------------------------------------

#[derive(Clone, Copy, Debug)]
struct ChangeCase {
    rows: usize,
    cols: usize,
    magnitude: f32,
    same: bool,
}

const CHANGE: ChangeCase = ChangeCase { rows: 17, cols: 64, magnitude: 1.0, same: false };

#[rustfmt::skip]
const CHANGE_CASES: &[ChangeCase] = &[
    // Rows around a group of 4 and a workgroup of 64 groups.
    ChangeCase { rows: 1, cols: 4, ..CHANGE },
    ChangeCase { rows: 3, ..CHANGE },
    ChangeCase { rows: 4, ..CHANGE },
    ChangeCase { rows: 5, ..CHANGE },
    CHANGE,
    ChangeCase { rows: 255, cols: 8, ..CHANGE },
    ChangeCase { rows: 256, cols: 8, ..CHANGE },
    ChangeCase { rows: 261, cols: 8, ..CHANGE },
    ChangeCase { rows: 70_001, cols: 4, ..CHANGE },
    // With 4 KiB bindings a band has 12, 2 or 1 rows: groups are cut once, twice, and into single rows.
    ChangeCase { rows: 43, cols: 68, ..CHANGE },
    ChangeCase { rows: 23, cols: 480, ..CHANGE },
    ChangeCase { rows: 14, cols: 1000, ..CHANGE },
    ChangeCase { rows: 9, cols: 3072, ..CHANGE },
    ChangeCase { magnitude: 1e6, ..CHANGE },
    ChangeCase { magnitude: 0.0, ..CHANGE },
    ChangeCase { same: true, ..CHANGE },
];

#[test]
fn change() {
    check_all(
        CHANGE_CASES,
        // A row of 3,072 numbers does not fit into 4 KiB.
        |c| if c.cols > 1000 { (1 << 20, 0.0) } else { ((c.rows * c.cols * 4) as u64, 0.0) },
        check_change,
    );
}

fn check_change(lab: &Lab, label: &str, case: &ChangeCase) {
    let &ChangeCase { rows, cols, magnitude, same } = case;
    let mut random = Random::named(label);
    let b = random.numbers(rows * cols, magnitude);
    let change = random.numbers(rows * cols, if same { 0.0 } else { 0.1 * magnitude });
    let a: Vec<f32> = b.iter().zip(&change).map(|(b, change)| b + change).collect();

    let a_view = lab.view("a", [rows, cols], &a, Frame::WIDE, Bands::AsNeeded);
    let b_view = lab.view("b", [rows, cols], &b, Frame::BELOW, Bands::AsNeeded);
    let groups = ops::change_rows(rows);
    // What an earlier step has left there must not count.
    let stale = vec![f32::NAN; groups * 4];
    let partials = lab.view("partials", [groups, 4], &stale, Frame::BELOW, Bands::One);
    lab.run(|r, _| ops::change("change", a_view.on(r), b_view.on(r), partials.on(r)));

    let partials = lab.read_view(&partials);
    let in_group = rows.div_ceil(groups).max(4) * cols;
    let expected: Vec<(f64, f64)> =
        a.chunks(in_group).zip(b.chunks(in_group)).map(|(a, b)| reference::change(a, b)).collect();
    assert_eq!(expected.len(), groups, "{label}: number of groups");
    // Sums of positive numbers: the relative error of a sum is no larger than that of a sum of any signs to its
    // largest partial sum.
    let tolerance = Tolerance::relative(Tolerance::sum(in_group).scale);
    for (name, i) in [("change", 0), ("size", 1)] {
        let actual: Vec<f32> = partials.chunks_exact(4).map(|p| p[i]).collect();
        let expected: Vec<f64> = expected.iter().map(|e| [e.0, e.1][i]).collect();
        assert_close(&format!("{name} of {label}"), [groups, 1], &actual, &expected, tolerance);
    }
    assert!(partials.chunks_exact(4).all(|p| p[2..] == [0.0, 0.0]), "{label}: {partials:?}");

    let (changes, sizes) = reference::change(&a, &b);
    let expected = if changes == 0.0 { 0.0 } else { changes / sizes };
    let actual = ops::relative_change(&partials);
    assert!(
        (actual - expected).abs() <= 2.0 * tolerance.relative * expected,
        "relative change of {label}: {actual}, expected {expected}"
    );
}

#[test]
fn relative_change_of_zeros() {
    assert_eq!(ops::relative_change(&[0.0; 8]), 0.0, "zeros stay zeros");
    assert_eq!(ops::relative_change(&[0.0, 3.0, 0.0, 0.0]), 0.0, "nothing changed");
    assert_eq!(ops::relative_change(&[2.0, 0.0, 0.0, 0.0]), f64::INFINITY, "from zeros");
    // Added in f64: in f32 the ones would be lost.
    let mut partials = vec![16_777_216.0, 1.0, 0.0, 0.0];
    partials.extend([1.0, 0.0, 0.0, 0.0].repeat(7));
    assert_eq!(ops::relative_change(&partials), 16_777_223.0);
    assert!(ops::relative_change(&[f32::NAN, 1.0, 0.0, 0.0]).is_nan(), "NaN stays NaN");
}

// ---- strided rows ----------------------------------------------------------------------------

/// Every row of a view of every n-th row lies where the base has it, in bands too.
#[test]
fn every_nth_row_lies_where_its_base_has_it() {
    // 80-byte rows: bands of 12.
    let recorder = Recorder::new(Caps { max_binding_bytes: 1000, ..Caps::default() });
    let resident = ResidentIds::default().matrix("m", 50, 20, 1000);
    assert!(resident.bands.len() > 3, "{} bands", resident.bands.len());
    let base = recorder.resident(&resident);
    type Case<'r> = (&'static str, ralu::tensor::Tensor<'r>, fn(usize) -> usize, usize);
    let cases: [Case; 8] = [
        ("every row", base.every(1), |i| i, 50),
        ("every fourth", base.every(4), |i| 4 * i, 13),
        ("of a range", base.row_range(3..31).every(4), |i| 3 + 4 * i, 7),
        ("a range of it", base.every(4).row_range(2..9), |i| 4 * (2 + i), 7),
        ("twice", base.row_range(1..50).every(2).row_range(1..20).every(3), |i| 3 + 6 * i, 7),
        ("with columns", base.every(7).col_range(4..12), |i| 7 * i, 8),
        ("wider than a band", base.every(17), |i| 17 * i, 3),
        ("wider than all", base.every(99), |i| 99 * i, 1),
    ];
    for (name, view, row_of, rows) in cases {
        assert_eq!(view.rows(), rows, "{name}: rows");
        assert!(rows == 1 || view.is_whole() == (name == "every row"), "{name}: is_whole");
        let column = if name == "with columns" { 4 } else { 0 };
        let mut row = 0;
        for piece in row_pieces(&[view], 5) {
            assert!((1..=5).contains(&piece.rows), "{name}: a piece of {} rows", piece.rows);
            assert_eq!(piece.row0, row, "{name}: pieces follow each other");
            for i in 0..piece.rows {
                let expected = base.row_range(row_of(row)..row_of(row) + 1).expect_single("row");
                let (buffer, at) = piece.at[0];
                let actual = (buffer, at + i * view.row_stride());
                assert_eq!(actual, (expected.0, expected.1 + column), "{name}: row {row}");
                row += 1;
            }
        }
        assert_eq!(row, rows, "{name}: all rows");
    }
}

/// Layers and norms read and write every fourth row and nothing between them.
#[test]
fn ops_work_on_every_fourth_row() {
    for bytes in [u64::MAX, 4096] {
        let lab = Lab::new().with_caps(|caps| {
            caps.max_binding_bytes = caps.max_binding_bytes.min(bytes);
        });
        for rows in [3, 41] {
            let (k, n) = (64, 68);
            let mut random = Random::new(rows as u64);
            let x = random.numbers(rows * k, 1.0);
            let weight = round(&random.numbers(n * k, 0.2), Storage::F16);
            let layer =
                LinearLayer { weight: lab.weight("w", &weight, n, k, Storage::F16), bias: None };
            let view = |name: &str, values: &[f32]| {
                let cols = values.len() / rows;
                lab.view(name, [rows, cols], values, Frame::SPARSE, Bands::AsNeeded)
            };
            let xs = view("x", &x);
            let (ys, zs) = (view("y", &vec![0.0; rows * n]), view("z", &vec![0.0; rows * k]));
            lab.run(|r, _| {
                ops::linear_into("y", xs.on(r), &layer, ys.on(r), Epilogue::default());
                ops::norm_into("z", xs.on(r), LAYER, Affine::None, zs.on(r));
            });
            let (none, old) = (Activation::Identity, vec![0.0; rows * n]);
            let y = reference::linear(&x, &weight, None, None, &old, k, none, Write::Store);
            let label = format!("linear, {rows} rows, {bytes} bytes");
            assert_close(&label, [rows, n], &lab.read_view(&ys), &y, Tolerance::sum(k));
            let z: Vec<f64> =
                x.chunks_exact(k).flat_map(|x| reference::norm(x, LAYER, None, None)).collect();
            let label = format!("norm, {rows} rows, {bytes} bytes");
            assert_close(&label, [rows, k], &lab.read_view(&zs), &z, Tolerance::sum(k));
        }
    }
}

// ---- renoise ---------------------------------------------------------------------------------

#[derive(Clone, Copy, Debug)]
struct RenoiseCase {
    /// Tokens before and after.
    from: usize,
    to: usize,
    channels: usize,
    gains: [f32; 2],
}

#[rustfmt::skip]
const RENOISE_CASES: &[RenoiseCase] = &[
    RenoiseCase { from: 1, to: 1, channels: 4, gains: [1.0, 0.0] },
    RenoiseCase { from: 2, to: 5, channels: 64, gains: [0.9, 0.4] },
    RenoiseCase { from: 16, to: 17, channels: 64, gains: [0.7, 1.3] },
    RenoiseCase { from: 100, to: 15, channels: 68, gains: [-0.5, 2.0] },
    RenoiseCase { from: 1024, to: 1945, channels: 64, gains: [0.83, 0.55] },
    RenoiseCase { from: 17_000, to: 70_001, channels: 64, gains: [0.83, 0.55] },
];

#[test]
fn renoise() {
    check_all(RENOISE_CASES, |_| (0, 0.0), check_renoise);
}

fn check_renoise(lab: &Lab, label: &str, case: &RenoiseCase) {
    let &RenoiseCase { from, to, channels, gains: [gain, noise_gain] } = case;
    let mut random = Random::named(label);
    let x = random.numbers(from * channels, 1.0);
    let noise = random.numbers(to * channels, 1.0);
    let source: Vec<u32> =
        (0..to).map(|_| (random.below(from) * 8 + random.below(5)) as u32).collect();

    let xs = lab.view("x", [from, channels], &x, Frame::BELOW, Bands::One);
    let noises = lab.view("noise", [to, channels], &noise, Frame::BELOW, Bands::One);
    let ys = lab.view("y", [to, channels], &vec![0.0; noise.len()], Frame::BELOW, Bands::One);
    let bits: Vec<f32> = source.iter().map(|s| f32::from_bits(*s)).collect();
    let sources = lab.vector("source", &bits);
    lab.run(|r, _| {
        let source = r.resident(&sources);
        ops::renoise("y", xs.on(r), source, noises.on(r), gain, noise_gain, ys.on(r));
    });

    let expected =
        reference::renoise(&x, channels, &source, &noise, gain.into(), noise_gain.into());
    let label = format!("renoise {label}");
    let tolerance = Tolerance::scale(4.0 * EPSILON);
    assert_close(&label, [to, channels], &lab.read_view(&ys), &expected, tolerance);
}

// ---- unpack ----------------------------------------------------------------------------------

#[derive(Clone, Copy, Debug)]
struct UnpackCase {
    grid: [usize; 2],
    channels: usize,
}

#[rustfmt::skip]
const UNPACK_CASES: &[UnpackCase] = &[
    UnpackCase { grid: [1, 1], channels: 4 },
    UnpackCase { grid: [1, 5], channels: 16 },
    UnpackCase { grid: [5, 1], channels: 16 },
    UnpackCase { grid: [7, 3], channels: 8 },
    UnpackCase { grid: [16, 17], channels: 16 },
    UnpackCase { grid: [300, 60], channels: 4 },
    UnpackCase { grid: [300, 240], channels: 4 },
];

#[test]
fn unpack() {
    check_all(
        UNPACK_CASES,
        |c| ((c.grid[0] * c.grid[1] * c.channels * 16) as u64, 0.0),
        check_unpack,
    );
}

fn check_unpack(lab: &Lab, label: &str, case: &UnpackCase) {
    let &UnpackCase { grid: [grid_height, grid_width], channels } = case;
    let tokens = grid_height * grid_width;
    let mut random = Random::named(label);
    let x = random.numbers(tokens * 4 * channels, 1.0);
    let velocity = random.numbers(tokens * 4 * channels, 1.0);
    let (sigma, factor, shift) = (0.42f32, 0.3611f32, 0.1159f32);

    let xs = lab.view("x", [tokens, 4 * channels], &x, Frame::BELOW, Bands::One);
    let vs = lab.view("velocity", [tokens, 4 * channels], &velocity, Frame::BELOW, Bands::One);
    let step = lab.vector("step", &[7.0, 7.0, sigma, 7.0]);
    let zeros = vec![0.0; x.len()];
    let ys = lab.view("y", [4 * tokens, channels], &zeros, Frame::BELOW, Bands::AsNeeded);
    lab.run(|r, copies| {
        let (x, v, step) = (xs.on(r), vs.on(r), r.resident(&step));
        let into = |y| ops::unpack("y", x, v, step, grid_width, factor, shift, y);
        if ys.resident.bands.len() == 1 {
            into(ys.on(r));
        } else {
            let y = r.image("y", 2 * grid_height, 2 * grid_width, channels);
            into(y);
            copies.after(y, ys.on(r));
        }
    });

    let [sigma, factor, shift] = [sigma, factor, shift].map(f64::from);
    let expected = reference::unpack(&x, &velocity, channels, sigma, grid_width, factor, shift);
    let label = format!("unpack {label}");
    let tolerance = Tolerance::scale(6.0 * EPSILON);
    assert_close(&label, [4 * tokens, channels], &lab.read_view(&ys), &expected, tolerance);
}
