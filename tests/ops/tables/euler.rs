//! Euler steps.

use super::check_all;
use crate::common::{Bands, EPSILON, Frame, Lab, Random, Tolerance, View, assert_close};
use ralu::ops::{self, reference};

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

pub async fn euler() {
    // Latents are small: they lie in one buffer whatever the binding limit is.
    check_all(EULER_CASES, |_| (0, 0.0), check_euler).await;
}

async fn check_euler(lab: &Lab, label: &str, case: &EulerCase) {
    let &EulerCase { rows, cols, guided, magnitude } = case;
    let mut random = Random::named(label);
    let [conditional, unconditional, x] =
        std::array::from_fn(|_| random.numbers(rows * cols, magnitude));
    let [delta, guidance] = [-0.08f32, 3.5];

    let view = async |name: &str, values: &[f32]| {
        lab.view(name, [rows, cols], values, Frame::BELOW, Bands::One).await
    };
    let (c, u) =
        (view("conditional", &conditional).await, view("unconditional", &unconditional).await);
    let (velocity, xs) = (view("velocity", &vec![0.0; x.len()]).await, view("x", &x).await);
    let step = lab.vector("step", &[delta, guidance, 7.0, 7.0]).await;
    lab.run(|r, _| {
        let u = guided.then(|| u.on(r));
        ops::euler_step("euler", c.on(r), u, r.resident(&step), velocity.on(r), xs.on(r));
    })
    .await;

    let (expected_velocity, expected_x): (Vec<f64>, Vec<f64>) = (0..x.len())
        .map(|i| {
            let [c, u, x] = [conditional[i], unconditional[i], x[i]].map(f64::from);
            reference::euler_step(c, guided.then_some(u), delta.into(), guidance.into(), x)
        })
        .unzip();
    let check = async |name: &str, view: &View, expected: &[f64]| {
        // Four roundings of numbers no larger than the largest velocity.
        let tolerance = Tolerance::scale(4.0 * EPSILON);
        let label = format!("euler {name} {label}");
        assert_close(&label, [rows, cols], &lab.read_view(view).await, expected, tolerance);
    };
    check("velocity", &velocity, &expected_velocity).await;
    check("x", &xs, &expected_x).await;
}
