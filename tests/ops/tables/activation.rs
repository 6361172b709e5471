//! Activations on their own.

use super::{activation_tolerance, check_all};
use crate::common::{Bands, EPSILON, Frame, Lab, Random, Tolerance, assert_close};
use ralu::ops::{self, Activation, reference};

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
    // As far as the exponent is not held: results down to 1e-33.
    ActivationCase { activation: Activation::Silu, magnitude: 80.0, rows: 301, ..ACTIVATION },
    ActivationCase { activation: Activation::Silu, magnitude: 1e6, ..ACTIVATION },
    ActivationCase { activation: Activation::GeluTanh, magnitude: 1e6, ..ACTIVATION },
    ActivationCase { activation: Activation::GeluTanh, magnitude: 1e15, ..ACTIVATION },
    ActivationCase { activation: Activation::QuickGelu, magnitude: 1e6, ..ACTIVATION },
    ActivationCase { activation: Activation::GeluErf, magnitude: 1e6, ..ACTIVATION },
];

pub async fn activation() {
    check_all(ACTIVATION_CASES, |c| ((c.rows * c.cols * 4) as u64, 0.0), check_activation).await;
}

/// Into rows of a wider matrix, and into every fourth row.
pub async fn activation_into() {
    let lab = Lab::new().await.with_caps(|caps| caps.max_binding_bytes = 4096);
    for frame in [Frame::WIDE, Frame::SPARSE] {
        let (rows, cols) = (33, 68);
        let x = Random::new(11).numbers(rows * cols, 10.0);
        let xs = lab.view("x", [rows, cols], &x, Frame::SPARSE, Bands::AsNeeded).await;
        let ys = lab.view("y", [rows, cols], &vec![0.0; x.len()], frame, Bands::AsNeeded).await;
        lab.run(|r, _| ops::activate_into("y", xs.on(r), Activation::Silu, ys.on(r))).await;
        let expected: Vec<f64> =
            x.iter().map(|v| reference::activate(f64::from(*v), Activation::Silu)).collect();
        let tolerance = activation_tolerance(Activation::Silu, 10.0);
        let label = format!("activation into {frame:?}");
        assert_close(&label, [rows, cols], &lab.read_view(&ys).await, &expected, tolerance);
    }
}

async fn check_activation(lab: &Lab, label: &str, case: &ActivationCase) {
    let &ActivationCase { rows, cols, activation, magnitude } = case;
    let x = Random::named(label).numbers(rows * cols, magnitude);
    let xs = lab.view("x", [rows, cols], &x, Frame::WIDE, Bands::AsNeeded).await;
    let ys = lab.view("y", [rows, cols], &vec![0.0; x.len()], Frame::NONE, Bands::AsNeeded).await;
    lab.run(|r, copies| {
        let y = ops::activate("y", xs.on(r), activation);
        copies.after(y, ys.on(r));
    })
    .await;
    let expected: Vec<f64> =
        x.iter().map(|v| reference::activate(f64::from(*v), activation)).collect();
    let tolerance = activation_tolerance(activation, f64::from(magnitude))
        .plus(Tolerance::relative(2.0 * EPSILON));
    let label = format!("activation {label}");
    let y = lab.read_view(&ys).await;
    assert_close(&label, [rows, cols], &y, &expected, tolerance);
    if activation == Activation::Silu && magnitude <= 80.0 {
        // Tails have the roundings of their argument, two of up to 80, and no more.
        let tail = tolerance.relative + (2.0 + 2.0 * f64::from(magnitude)) * EPSILON;
        assert_close(&label, [rows, cols], &y, &expected, Tolerance::relative(tail));
    }
}
