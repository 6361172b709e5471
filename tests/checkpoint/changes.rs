//! Formulas of changes, against numbers by hand, and how layers of one input share factors.

use std::sync::Arc;

use ralu::checkpoint::changes::{
    Delta, Layer, LowRank, Magnitudes, Matrix, Merged, MergedChange, MergedKind, Norms, Rows, Stack,
};
use ralu::checkpoint::source::Blob;
use ralu::checkpoint::weights::Weights;

fn matrix(rows: usize, values: &[f32]) -> Matrix {
    Matrix::new(rows, values.to_vec())
}

fn rows(delta: &Delta) -> Vec<Vec<f64>> {
    (0..delta.shape()[0]).map(|i| delta.row(i)).collect()
}

#[test]
fn a_product_of_two_factors() {
    let up = Arc::new(matrix(2, &[1.0, 2.0]));
    let down = Arc::new(matrix(1, &[3.0, 4.0, 5.0]));
    let delta = Delta::Product { up, down, scale: 0.5 };
    assert_eq!(delta.shape(), [2, 3]);
    assert_eq!(rows(&delta), [[1.5, 2.0, 2.5], [3.0, 4.0, 5.0]]);
}

#[test]
fn a_product_number_by_number_of_two_products() {
    let factors = [
        matrix(2, &[1.0, 2.0]),
        matrix(1, &[1.0, 3.0]),
        matrix(2, &[5.0, 1.0]),
        matrix(1, &[2.0, -1.0]),
    ];
    // [[1, 3], [2, 6]] and [[10, -5], [2, -1]].
    let delta = Delta::Hadamard { factors, scale: 2.0 };
    assert_eq!(rows(&delta), [[20.0, -30.0], [8.0, -12.0]]);
}

/// Row `i b + j`, column `k d + l` is `w1[i, k] w2[j, l]`.
#[test]
fn a_kronecker_product() {
    let w1 = matrix(2, &[1.0, 2.0, 3.0, 4.0]);
    let w2 = matrix(1, &[5.0, 6.0, 7.0]);
    let delta = Delta::Kronecker { w1, w2, scale: 1.0 };
    assert_eq!(delta.shape(), [2, 6]);
    let expected = [[5.0, 6.0, 7.0, 10.0, 12.0, 14.0], [15.0, 18.0, 21.0, 20.0, 24.0, 28.0]];
    assert_eq!(rows(&delta), expected);
}

/// A fused file: two layers share a down, and each has its rows of up. A third has one of its own.
#[test]
fn layers_share_the_down_of_a_fused_file() {
    let down = Arc::new(matrix(1, &[1.0, 2.0]));
    let up = Arc::new(matrix(4, &[1.0, 2.0, 3.0, 4.0]));
    let part = |first| LowRank {
        down: down.clone(),
        up: up.clone(),
        rows: Rows { first, of: 4, are_swapped: false },
        scale: 0.5,
        file: 0,
    };
    let own = LowRank {
        down: Arc::new(matrix(2, &[5.0, 6.0, 7.0, 8.0])),
        up: Arc::new(matrix(2, &[9.0, 10.0, 11.0, 12.0])),
        rows: Rows { first: 0, of: 2, are_swapped: true },
        scale: 2.0,
        file: 1,
    };
    let layer = |changes| Layer { n: 2, order: None, changes };
    let layers = vec![layer(vec![part(0)]), layer(vec![part(2), own]), layer(vec![])];
    let stack = Stack::new(layers, 2).unwrap();
    // Of one row and of two, each padded to four.
    assert_eq!((stack.rank(), stack.n(), stack.k()), (8, 6, 2));
    assert_eq!(stack.scales(&[1.0, -0.5]), [0.5, 0.0, 0.0, 0.0, -1.0, -1.0, 0.0, 0.0]);
    assert_eq!(stack.scales(&[3.0]), [1.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    // What is shared has no borders.
    assert_eq!(stack.parts(), [[0; 2]; 0]);
    let down_row = |i| {
        let mut row = [0.0; 2];
        stack.down_row(i, &mut row);
        row
    };
    assert_eq!([0, 4, 5].map(down_row), [[1.0, 2.0], [5.0, 6.0], [7.0, 8.0]]);
    assert!([1, 2, 3, 6, 7].iter().all(|i| down_row(*i) == [0.0; 2]));
    let up_row = |i| {
        let mut row = [0.0; 8];
        stack.up_row(i, &mut row);
        row
    };
    let expected = [
        [1.0, 0.0, 0.0],
        [2.0, 0.0, 0.0],
        // Its halves are swapped.
        [3.0, 11.0, 12.0],
        [4.0, 9.0, 10.0],
        [0.0; 3],
        [0.0; 3],
    ];
    assert_eq!([0, 1, 2, 3, 4, 5].map(up_row).map(|row| [row[0], row[4], row[5]]), expected);
    assert!(Stack::new(vec![layer(vec![])], 2).is_none());
}

/// Files of split layers: each has its rows of down, of which kernels are told.
#[test]
fn layers_with_downs_of_their_own_are_parts() {
    let change = |rank: usize, file| LowRank {
        down: Arc::new(Matrix::new(rank, vec![1.0; 2 * rank])),
        up: Arc::new(Matrix::new(8, vec![1.0; 8 * rank])),
        rows: Rows { first: 0, of: 8, are_swapped: false },
        scale: 1.0,
        file,
    };
    let layer = |n, changes| Layer { n, order: None, changes };
    let parts = |layers| Stack::new(layers, 2).unwrap().parts();
    let layers = vec![
        layer(8, vec![change(3, 0), change(6, 1)]),
        layer(8, vec![]),
        layer(4, vec![change(5, 0)]),
    ];
    assert_eq!(parts(layers), [[8, 12], [16, 12], [20, 20]]);
    let shared = change(4, 0);
    assert_eq!(parts(vec![layer(8, vec![shared.clone()]), layer(8, vec![shared])]), [[0; 2]; 0]);
    // Kernels would meet borders within four outputs.
    assert_eq!(
        parts(vec![layer(6, vec![change(4, 0)]), layer(8, vec![change(4, 0)])]),
        [[0; 2]; 0]
    );
}

/// The numbers of a merged tensor `[2, 2]` of 1, 2, 3, 4, read from a byte in the middle of a number on.
fn merged(changes: impl FnOnce(&Arc<Weights>) -> Vec<MergedChange>) -> Vec<f32> {
    let mut base = Weights::empty("model".into());
    base.insert_f32("w", &[2, 2], &[1.0, 2.0, 3.0, 4.0], "model");
    let base = Arc::new(base);
    let info = base.info("w").unwrap().clone();
    let merged = Merged::new(base.clone(), info, changes(&base));
    let whole = merged.bytes(0..16).unwrap();
    assert_eq!(merged.bytes(6..11).unwrap()[..], whole[6..11]);
    assert!(merged.bytes(0..17).is_err());
    whole.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

const ALL: Rows = Rows { first: 0, of: 2, are_swapped: false };

fn dense(values: &[f32]) -> Arc<Delta> {
    Arc::new(Delta::Dense(matrix(2, values)))
}

#[test]
fn changes_are_added_with_their_weights() {
    let change = |weight, rows, kind| MergedChange {
        delta: dense(&[1.0, 1.0, 10.0, 10.0]),
        rows,
        weight,
        kind,
    };
    let sum = merged(|_| {
        let swapped = Rows { are_swapped: true, ..ALL };
        vec![change(2.0, ALL, MergedKind::Added), change(-1.0, swapped, MergedKind::Added)]
    });
    assert_eq!(sum, [-7.0, -6.0, 22.0, 23.0]);
    let replaced = merged(|_| vec![change(1.0, ALL, MergedKind::Replacing)]);
    assert_eq!(replaced, [1.0, 1.0, 10.0, 10.0]);
}

/// Rows, or columns, get the norms that are given; half the weight is half the way.
#[test]
fn sums_are_scaled_to_norms() {
    // The sum is [[3, 4], [3, 4]].
    let delta = || dense(&[2.0, 2.0, 0.0, 0.0]);
    let change = |weight, magnitudes| MergedChange {
        delta: delta(),
        rows: ALL,
        weight,
        kind: MergedKind::Scaled(magnitudes),
    };
    let by_rows = |weight| {
        let norms: Arc<[f32]> = [10.0, 5.0].into();
        merged(|_| vec![change(weight, Magnitudes { norms, columns: None })])
    };
    assert_eq!(by_rows(1.0), [6.0, 8.0, 3.0, 4.0]);
    assert_eq!(by_rows(0.5), [3.5, 5.0, 3.0, 4.0]);
    let by_columns = merged(|base| {
        let parts = vec![(base.info("w").unwrap().clone(), ALL)];
        let norms: Arc<[f32]> = [18f32.sqrt() * 2.0, 32f32.sqrt()].into();
        let columns = Some(Arc::new(Norms::new(base.clone(), parts, delta())));
        vec![change(1.0, Magnitudes { norms, columns })]
    });
    let expected = [6.0, 4.0, 6.0, 4.0];
    for (found, expected) in by_columns.iter().zip(expected) {
        assert!((found - expected).abs() < 1e-6, "{by_columns:?}");
    }
}
