//! Products of bytes, for which x is rounded to 8 bits in blocks of 32 numbers.

use crate::common::{Bands, Frame, Lab, Random, Tolerance, assert_close, random_blocks};
use ralu::ops::{self, Epilogue, LinearLayer, Write, reference};
use ralu::tensor::Storage;

use super::kernel_of;
use ralu::ops::Activation;
use ralu::tensor::MatmulKernel;

/// Replaces numbers by some that blocks of 32 hold exactly: a power of two times codes, of which the largest is 127. What is left
/// are roundings of sums.
pub fn make_exact(x: &mut [f32]) {
    for block in x.chunks_exact_mut(32) {
        let largest = (0..32).max_by(|a, b| block[*a].abs().total_cmp(&block[*b].abs()));
        let largest = largest.expect("32 numbers");
        let unit = (block[largest].abs() / 127.0).log2().ceil().exp2();
        block.iter_mut().for_each(|v| *v = (*v / unit).round() * unit);
        block[largest] = 127f32.copysign(block[largest]) * unit;
    }
}

/// NaN, infinity and denormals in one row of x stay in that row, where it is rounded to bytes.
pub async fn int8_keeps_poison_in_its_row() {
    let lab = Lab::new().await.with_caps(|caps| caps.int8 = true);
    for (storage, k) in [(Storage::Q8_0, 64), (Storage::Q4K, 256)] {
        for poison in [f32::NAN, f32::INFINITY, 1e-42] {
            let (m, n, row) = (40, 68, 20);
            let label = format!("{storage:?} with {poison} in row {row} of {m}");
            let mut random = Random::new(7);
            let mut x = random.numbers(m * k, 1.0);
            make_exact(&mut x);
            let (rows, weight) = random_blocks(&mut random, [n, k], storage, 0.2);
            let old = vec![0.0; m * n];
            let none = (Activation::Identity, Write::Store);
            let expected = reference::linear(&x, &weight, None, None, &old, k, none.0, none.1);
            x[row * k + 5] = poison;
            let xs = lab.view("x", [m, k], &x, Frame::NONE, Bands::AsNeeded).await;
            let ys = lab.view("y", [m, n], &old, Frame::WIDE, Bands::AsNeeded).await;
            let packed = lab.blocks("weight", (&rows, &[]), [n, k], storage).await;
            let layer = LinearLayer { weight: packed, bias: None, low_rank: None };
            let recording = lab
                .run(|r, _| {
                    ops::linear_into("y", xs.on(r), &layer, ys.on(r), Epilogue::default());
                })
                .await;
            assert_eq!(kernel_of(&recording), MatmulKernel::Int8, "{label}");
            let y = lab.read_view(&ys).await;
            let poisoned = &y[row * n..(row + 1) * n];
            // One number of a block makes all of its products so.
            assert_eq!(poisoned.iter().all(|v| v.is_finite()), poison.is_finite(), "{label}");
            assert_eq!(poisoned.iter().any(|v| v.is_finite()), poison.is_finite(), "{label}");
            for other in (0..m).filter(|i| *i != row) {
                let range = other * n..(other + 1) * n;
                // A division, by which x gets its scales, may be 2.5 ulp off.
                let tolerance = Tolerance::sum(k).plus(Tolerance::scale(3e-7));
                let label = format!("row {other}, {label}");
                assert_close(&label, [1, n], &y[range.clone()], &expected[range], tolerance);
            }
            lab.clear();
        }
    }
}
