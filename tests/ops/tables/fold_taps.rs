//! Taps of an enlarging convolution, folded.

use super::check_all;
use crate::common::{Bands, Lab, Random, Tolerance, assert_close, round};
use ralu::ops::{self, reference};
use ralu::tensor::{PackedWeight, Storage};

#[derive(Clone, Copy, Debug)]
struct FoldCase {
    c: usize,
    n: usize,
    phase: usize,
    storage: Storage,
}

#[rustfmt::skip]
const FOLD_CASES: &[FoldCase] = &[
    FoldCase { c: 4, n: 64, phase: 0, storage: Storage::F32 },
    FoldCase { c: 4, n: 64, phase: 1, storage: Storage::F32 },
    FoldCase { c: 8, n: 32, phase: 2, storage: Storage::F32 },
    FoldCase { c: 8, n: 68, phase: 3, storage: Storage::F16 },
    FoldCase { c: 68, n: 192, phase: 2, storage: Storage::Bf16 },
    FoldCase { c: 8, n: 68, phase: 1, storage: Storage::F8E4M3 },
];

pub async fn fold_taps() {
    check_all(FOLD_CASES, |c| ((c.c * c.n * 36) as u64, (9 * c.c * c.n) as f64), check_fold_taps)
        .await;
}

async fn check_fold_taps(lab: &Lab, label: &str, case: &FoldCase) {
    let &FoldCase { c, n, phase, storage } = case;
    let numbers = Random::named(label).numbers(n * 9 * c, 1.0);
    let weight = round(&numbers, storage);
    let packed = lab.weight("weight", &weight, n, 9 * c, storage).await;
    let label = format!("fold_taps {label}");
    let expected = reference::fold_taps(&weight, c, phase);
    for shard in 0..packed.shards.len() {
        let rows = packed.shards[shard].rows;
        let shape = [rows / packed.tile * 4 * c, packed.tile];
        let zeros = vec![0.0; shape[0] * shape[1]];
        let result = lab.matrix("folded", shape[0], shape[1], &zeros, Bands::One).await;
        lab.run(|r, copies| {
            let folded = ops::fold_taps(r, "folded", &packed, shard, phase);
            copies.after(folded, r.resident(&result));
        })
        .await;
        // At most four numbers are added up.
        let expected = packed_order(&packed, shard, 4 * c, &expected);
        let found = lab.read(&result).await;
        assert_close(&label, shape, &found, &expected, Tolerance::sum(4));
    }
}

/// Rows of a weight `[N, K]` in the order in which a shard holds them, with zeros past the last.
fn packed_order(packed: &PackedWeight, shard: usize, k: usize, weight: &[f64]) -> Vec<f64> {
    let band = packed.shards[shard];
    let mut order = Vec::new();
    for tile in (band.row0..band.row0 + band.rows).step_by(packed.tile) {
        for i in 0..k {
            let outputs = tile..tile + packed.tile;
            order.extend(outputs.map(|n| weight.get(n * k + i).copied().unwrap_or(0.0)));
        }
    }
    order
}
