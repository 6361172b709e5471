//! Views of every n-th row.

use super::norm::LAYER;
use crate::common::{Bands, Frame, Lab, Random, Tolerance, assert_close, round};
use ralu::ops::{self, Activation, Affine, Epilogue, LinearLayer, Write, reference};
use ralu::tensor::{Caps, Recorder, ResidentIds, Storage, row_pieces};

/// Every row of a view of every n-th row lies where the base has it, in bands too.
pub async fn every_nth_row_lies_where_its_base_has_it() {
    // 80-byte rows: bands of 12.
    let recorder = Recorder::new(Caps { max_binding_bytes: 1000, ..Caps::default() });
    let resident = ResidentIds::default().matrix("m", 50, 20, 1000);
    assert!(resident.bands.len() > 3, "{} bands", resident.bands.len());
    let base = recorder.resident(&resident);
    type Case<'r> = (&'static str, ralu::tensor::Tensor<'r>, fn(usize) -> usize, usize);
    let cases: [Case<'_>; 8] = [
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
pub async fn ops_work_on_every_fourth_row() {
    for bytes in [u64::MAX, 4096] {
        let lab = Lab::new().await.with_caps(|caps| {
            caps.max_binding_bytes = caps.max_binding_bytes.min(bytes);
        });
        for rows in [3, 41] {
            let (k, n) = (64, 68);
            let mut random = Random::new(rows as u64);
            let x = random.numbers(rows * k, 1.0);
            let weight = round(&random.numbers(n * k, 0.2), Storage::F16);
            let layer = LinearLayer {
                weight: lab.weight("w", &weight, n, k, Storage::F16).await,
                bias: None,
                low_rank: None,
            };
            let view = async |name: &str, values: &[f32]| {
                let cols = values.len() / rows;
                lab.view(name, [rows, cols], values, Frame::SPARSE, Bands::AsNeeded).await
            };
            let xs = view("x", &x).await;
            let (ys, zs) =
                (view("y", &vec![0.0; rows * n]).await, view("z", &vec![0.0; rows * k]).await);
            lab.run(|r, _| {
                ops::linear_into("y", xs.on(r), &layer, ys.on(r), Epilogue::default());
                ops::norm_into("z", xs.on(r), LAYER, Affine::None, zs.on(r));
            })
            .await;
            let (none, old) = (Activation::Identity, vec![0.0; rows * n]);
            let y = reference::linear(&x, &weight, None, None, &old, k, none, Write::Store);
            let label = format!("linear, {rows} rows, {bytes} bytes");
            assert_close(&label, [rows, n], &lab.read_view(&ys).await, &y, Tolerance::sum(k));
            let z: Vec<f64> =
                x.chunks_exact(k).flat_map(|x| reference::norm(x, LAYER, None, None)).collect();
            let label = format!("norm, {rows} rows, {bytes} bytes");
            assert_close(&label, [rows, k], &lab.read_view(&zs).await, &z, Tolerance::sum(k));
        }
    }
}
