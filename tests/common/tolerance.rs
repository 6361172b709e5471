//! Comparison with a reference.

/// Half of the distance from 1 to the next f32: what one rounding costs.
pub const EPSILON: f64 = 5.960_464_477_539_063e-8;

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
    /// expected size covers the worst of many thousand sums, and a few roundings are added to the sum.
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
