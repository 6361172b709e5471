//! How much a matrix has changed.

use super::check_all;
use crate::common::{Bands, Frame, Lab, Random, Tolerance, assert_close};
use ralu::ops::{self, reference};

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

pub async fn change() {
    check_all(
        CHANGE_CASES,
        // A row of 3,072 numbers does not fit into 4 KiB.
        |c| if c.cols > 1000 { (1 << 20, 0.0) } else { ((c.rows * c.cols * 4) as u64, 0.0) },
        check_change,
    )
    .await;
}

async fn check_change(lab: &Lab, label: &str, case: &ChangeCase) {
    let &ChangeCase { rows, cols, magnitude, same } = case;
    let mut random = Random::named(label);
    let b = random.numbers(rows * cols, magnitude);
    let change = random.numbers(rows * cols, if same { 0.0 } else { 0.1 * magnitude });
    let a: Vec<f32> = b.iter().zip(&change).map(|(b, change)| b + change).collect();

    let a_view = lab.view("a", [rows, cols], &a, Frame::WIDE, Bands::AsNeeded).await;
    let b_view = lab.view("b", [rows, cols], &b, Frame::BELOW, Bands::AsNeeded).await;
    let groups = ops::change_rows(rows);
    // What an earlier step has left there must not count.
    let stale = vec![f32::NAN; groups * 4];
    let partials = lab.view("partials", [groups, 4], &stale, Frame::BELOW, Bands::One).await;
    lab.run(|r, _| ops::change("change", a_view.on(r), b_view.on(r), partials.on(r))).await;

    let partials = lab.read_view(&partials).await;
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

pub async fn relative_change_of_zeros() {
    assert_eq!(ops::relative_change(&[0.0; 8]), 0.0, "zeros stay zeros");
    assert_eq!(ops::relative_change(&[0.0, 3.0, 0.0, 0.0]), 0.0, "nothing changed");
    assert_eq!(ops::relative_change(&[2.0, 0.0, 0.0, 0.0]), f64::INFINITY, "from zeros");
    // Added in f64: in f32 the ones would be lost.
    let mut partials = vec![16_777_216.0, 1.0, 0.0, 0.0];
    partials.extend([1.0, 0.0, 0.0, 0.0].repeat(7));
    assert_eq!(ops::relative_change(&partials), 16_777_223.0);
    assert!(ops::relative_change(&[f32::NAN, 1.0, 0.0, 0.0]).is_nan(), "NaN stays NaN");
}
