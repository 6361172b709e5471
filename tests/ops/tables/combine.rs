//! Weighted sums, as caches use them.

use super::check_all;
use crate::common::{Bands, EPSILON, Frame, Lab, Random, Tolerance, View, assert_close, round};
use ralu::ops::{self, Activation, Epilogue, LinearLayer, Weights, Write, reference};
use ralu::tensor::Storage;

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

pub async fn combine() {
    check_all(
        COMBINE_CASES,
        |c| {
            let sparse = if c.inputs == 3 { Frame::SPARSE.step } else { 1 };
            ((c.rows * sparse * c.cols * 4) as u64, 0.0)
        },
        check_combine,
    )
    .await;
}

async fn check_combine(lab: &Lab, label: &str, case: &CombineCase) {
    let &CombineCase { rows, cols, inputs, write, first, magnitude, .. } = case;
    let mut random = Random::named(label);
    let x: Vec<Vec<f32>> = (0..inputs).map(|_| random.numbers(rows * cols, magnitude)).collect();
    let weights = random.numbers(inputs, 2.0);
    let gate = random.numbers(cols, 2.0);
    let old = random.numbers(rows * cols, magnitude);

    // Other strides and, in bands, other borders for each.
    let frames = [Frame::WIDE, Frame::NONE, Frame::SPARSE];
    let mut views: Vec<View> = Vec::new();
    for (x, frame) in x.iter().zip(frames) {
        views.push(lab.view("x", [rows, cols], x, frame, Bands::AsNeeded).await);
    }
    let frame = Frame { above: 1, below: 2, left: 4, right: 0, step: 1 };
    let ys = lab.view("y", [rows, cols], &old, frame, Bands::AsNeeded).await;
    let gates = lab.view("gate", [1, cols], &gate, Frame::WIDE, Bands::One).await;
    // Weights that must not be read are NaN.
    let mut row = [f32::NAN; 12];
    let at = first.unwrap_or(0);
    row[at..at + inputs].copy_from_slice(&weights);
    let values = lab.view("weights", [1, row.len()], &row, Frame::WIDE, Bands::One).await;
    lab.run(|r, _| {
        let inputs: Vec<_> = views.iter().map(|view| view.on(r)).collect();
        let weights = match first {
            None => Weights::Constant([row[0], row[1], row[2]]),
            Some(first) => Weights::Buffer { values: values.on(r), first },
        };
        let gate = case.gate.then(|| gates.on(r));
        ops::combine("y", &inputs, weights, gate, write, ys.on(r));
    })
    .await;

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
    assert_close(&label, [rows, cols], &lab.read_view(&ys).await, &expected, tolerance);
}

/// A layer that stores and a combination that gates and adds give the bits of a layer that does both: a cache that
/// keeps the layer's output must not change the picture of a step that computes everything.
pub async fn combine_gives_the_bits_of_a_layer_that_adds() {
    for is_cpu in [false, true] {
        let lab = Lab::new().await.with_caps(|caps| caps.is_cpu = is_cpu);
        // matvec and matmul.
        for m in [3, 40] {
            for activation in [Activation::Identity, Activation::GeluTanh] {
                let (k, n) = (64, 132);
                let mut random = Random::new(m as u64);
                let x = random.numbers(m * k, 1.0);
                let weight = round(&random.numbers(n * k, 0.3), Storage::Bf16);
                let layer = LinearLayer {
                    weight: lab.weight("weight", &weight, n, k, Storage::Bf16).await,
                    bias: Some(lab.vector("bias", &random.numbers(n, 1.0)).await),
                    low_rank: None,
                };
                let gate = lab.vector("gate", &random.numbers(n, 2.0)).await;
                let old = random.numbers(m * n, 1.0);
                let view = async |name: &str, values: &[f32]| {
                    lab.view(name, [m, values.len() / m], values, Frame::WIDE, Bands::One).await
                };
                let (xs, kept) = (view("x", &x).await, view("kept", &old).await);
                let added = view("added", &old).await;
                let combined = view("combined", &old).await;
                lab.run(|r, _| {
                    let (x, gate) = (xs.on(r), Some(r.resident(&gate)));
                    let adds = Epilogue { activation, gate, write: Write::Add };
                    ops::linear_into("added", x, &layer, added.on(r), adds);
                    let stores = Epilogue { activation, ..Default::default() };
                    ops::linear_into("kept", x, &layer, kept.on(r), stores);
                    let one = Weights::Constant([1.0, 0.0, 0.0]);
                    ops::combine("y", &[kept.on(r)], one, gate, Write::Add, combined.on(r));
                })
                .await;
                let (added, combined) =
                    (lab.read_view(&added).await, lab.read_view(&combined).await);
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
