//! RMS norms of queries and keys, with and without rotation.

use super::check_all;
use crate::common::{Bands, Frame, Lab, Random, Tolerance, assert_close};
use ralu::ops::{self, reference};

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
    // Heads of which invocations have several groups of four.
    RopeCase { rows: 9, heads: 3, d: 132, ..ROPE },
    RopeCase { rows: 9, heads: 3, d: 512, ..ROPE },
    RopeCase { rows: 9, heads: 3, d: 512, rotate: false, ..ROPE },
    RopeCase { rows: 70_001, heads: 1, d: 4, ..ROPE },
    RopeCase { magnitude: 1e5, ..ROPE },
    RopeCase { magnitude: 0.0, ..ROPE },
    RopeCase { rows: 1, heads: 1, d: 4, rotate: false, ..ROPE },
    RopeCase { rows: 17, heads: 5, d: 64, rotate: false, ..ROPE },
    RopeCase { rows: 70_001, heads: 1, d: 4, rotate: false, ..ROPE },
    RopeCase { magnitude: 1e5, rotate: false, ..ROPE },
    RopeCase { magnitude: 0.0, rotate: false, ..ROPE },
];

pub async fn qk_norm_rope() {
    check_all(ROPE_CASES, |c| ((c.rows * c.heads * c.d * 4) as u64, 0.0), check_qk_norm_rope).await;
}

async fn check_qk_norm_rope(lab: &Lab, label: &str, case: &RopeCase) {
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

    let xs = lab.view("x", [rows, heads * d], &x, Frame::WIDE, Bands::AsNeeded).await;
    // Image tokens use the rows of the table behind those of the text.
    let behind = Frame { above: 3, below: 1, ..Frame::NONE };
    let tables = lab.view("table", [rows, d], &table, behind, Bands::AsNeeded).await;
    let weights = lab.vector("weight", &weight).await;
    lab.run(|r, _| {
        let (x, weight) = (xs.on(r), r.resident(&weights));
        match rotate {
            true => ops::qk_norm_rope("y", x, weight, tables.on(r), eps),
            false => ops::qk_norm("y", x, weight, eps),
        }
    })
    .await;

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
    assert_close(&label, [rows, heads * d], &lab.read_view(&xs).await, &expected, tolerance);
}
