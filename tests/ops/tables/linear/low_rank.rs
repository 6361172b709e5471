//! Layers to which the product of two narrow matrices is added.

use super::super::variants;
use super::cases::LinearCase;
use crate::common::{Bands, Frame, Lab, Random, Tolerance, assert_close, round};
use ralu::ops::reference;
use ralu::ops::{self, Activation, Epilogue, LinearLayer, LowRank, Write};
use ralu::tensor::Storage;

/// What is added comes before the activation, whichever way the result is written.
pub async fn a_low_rank_change_is_added_before_the_activation() {
    let mut lab = Lab::new().await;
    let base = lab.caps();
    for variant in variants::<LinearCase>(&base) {
        lab = lab.with_caps(|caps| {
            *caps = base;
            (variant.change)(caps);
        });
        if lab.caps().int8 {
            // Its factors are no bytes: as with other kernels.
            continue;
        }
        for (m, k, n, rank, activation, write) in [
            (3, 64, 68, 4, Activation::GeluTanh, Write::Store),
            (130, 36, 200, 20, Activation::GeluTanh, Write::Store),
            (17, 64, 68, 16, Activation::Identity, Write::Add),
            (70, 64, 132, 72, Activation::Silu, Write::Multiply),
            (17, 64, 68, 16, Activation::Silu, Write::Add),
        ] {
            let mut random = Random::new(13);
            let x = round(&random.numbers(m * k, 1.0), Storage::F16);
            let weight = round(&random.numbers(n * k, 0.1), Storage::F16);
            let down = round(&random.numbers(rank * k, 0.1), Storage::F16);
            let up = round(&random.numbers(n * rank, 0.1), Storage::F16);
            let scales: Vec<f32> = (0..rank).map(|i| 0.5 + i as f32 / rank as f32).collect();
            let bias = random.numbers(n, 1.0);
            let old = random.numbers(m * n, 1.0);
            let layer = LinearLayer {
                weight: lab.weight("weight", &weight, n, k, Storage::F16).await,
                bias: Some(lab.vector("bias", &bias).await),
                low_rank: Some(Box::new(LowRank {
                    down: lab.weight("down", &down, rank, k, Storage::F32).await,
                    up: lab.weight("up", &up, n, rank, Storage::F32).await,
                    scales: lab.vector("scales", &scales).await,
                })),
            };
            let xs = lab.view("x", [m, k], &x, Frame::WIDE, Bands::AsNeeded).await;
            let ys = lab.view("y", [m, n], &old, Frame::WIDE, Bands::AsNeeded).await;
            let split = n - 64;
            let of = |columns| vec![0.0; m * columns];
            let first = lab.view("first", [m, 64], &of(64), Frame::WIDE, Bands::AsNeeded).await;
            let rest = lab.view("rest", [m, split], &of(split), Frame::WIDE, Bands::AsNeeded).await;
            lab.run(|r, _| {
                let epilogue = Epilogue { activation, write, ..Default::default() };
                ops::linear_into("y", xs.on(r), &layer, ys.on(r), epilogue);
                let outputs = [first.on(r), rest.on(r)];
                ops::linear_split("split", xs.on(r), &layer, outputs, activation);
            })
            .await;
            // The sum of both matrices, in f64.
            let product = |row: usize, column: usize| -> f64 {
                let of = |r: usize| {
                    f64::from(up[row * rank + r])
                        * f64::from(scales[r])
                        * f64::from(down[r * k + column])
                };
                (0..rank).map(of).sum()
            };
            let sum = |i: usize| f64::from(weight[i]) + product(i / k, i % k);
            let whole: Vec<f32> = (0..n * k).map(|i| sum(i) as f32).collect();
            let expect = |activation, write| {
                reference::linear(&x, &whole, Some(&bias), None, &old, k, activation, write)
            };
            // Where products round to f16, the narrow one's input does, too.
            let tolerance = match lab.caps().f16 {
                true => Tolerance::absolute(2e-2),
                false => Tolerance::absolute(1e-4),
            };
            let label = format!("{m} rows, rank {rank}, {write:?}, with {}", variant.name);
            let expected = expect(activation, write);
            assert_close(&label, [m, n], &lab.read_view(&ys).await, &expected, tolerance);
            let (plain, activated) =
                (expect(Activation::Identity, Write::Store), expect(activation, Write::Store));
            let columns = |values: &[f64], from: usize, to: usize| -> Vec<f64> {
                values.chunks_exact(n).flat_map(|row| row[from..to].to_vec()).collect()
            };
            let made = lab.read_view(&first).await;
            assert_close(&label, [m, 64], &made, &columns(&plain, 0, 64), tolerance);
            let made = lab.read_view(&rest).await;
            assert_close(&label, [m, split], &made, &columns(&activated, 64, n), tolerance);
            lab.clear();
        }
    }
}
