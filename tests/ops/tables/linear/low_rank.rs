//! Layers to which the product of two narrow matrices is added.

use super::super::norm::LAYER;
use super::super::variants;
use super::cases::LinearCase;
use super::int8::make_exact;
use crate::common::{
    Bands, Frame, Lab, Random, Tolerance, assert_close, random_blocks, round, say,
};
use ralu::ops::reference;
use ralu::ops::{self, Activation, Affine, Epilogue, LinearLayer, LowRank, Write};
use ralu::tensor::{Command, Storage};

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
            // For weights in blocks: see `a_low_rank_change_of_a_weight_in_blocks`.
            continue;
        }
        // Layers side by side, some of which end inside of a workgroup's columns.
        let parts: &[[usize; 2]] = &[[60, 4], [64, 4], [136, 12], [200, 20]];
        for (m, k, n, rank, parts, activation, write) in [
            (3, 64, 68, 4, &[][..], Activation::GeluTanh, Write::Store),
            (130, 36, 200, 20, &[], Activation::GeluTanh, Write::Store),
            (130, 36, 200, 20, parts, Activation::GeluTanh, Write::Store),
            (2, 36, 200, 20, parts, Activation::Identity, Write::Add),
            (17, 64, 68, 16, &[], Activation::Identity, Write::Add),
            (70, 64, 132, 72, &[], Activation::Silu, Write::Multiply),
            (17, 64, 68, 16, &[], Activation::Silu, Write::Add),
        ] {
            let mut random = Random::new(13);
            let x = round(&random.numbers(m * k, 1.0), Storage::F16);
            let weight = round(&random.numbers(n * k, 0.1), Storage::F16);
            let down = round(&random.numbers(rank * k, 0.1), Storage::F16);
            let mut up = round(&random.numbers(n * rank, 0.1), Storage::F16);
            let mut from = [0; 2];
            for &[end, rank_end] in parts {
                for (i, up) in up.iter_mut().enumerate() {
                    let is_own = (from[1]..rank_end).contains(&(i % rank));
                    *up = if (from[0]..end).contains(&(i / rank)) && !is_own { 0.0 } else { *up };
                }
                from = [end, rank_end];
            }
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
                    parts: parts.to_vec(),
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
            let label =
                format!("{m} rows, rank {rank}, {parts:?}, {write:?}, with {}", variant.name);
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

/// Blocks have tiles of 64 outputs, so that the up of a layer with few does not fit them and goes through the output. Products
/// of bytes have sums of their own.
pub async fn a_low_rank_change_of_a_weight_in_blocks() {
    let mut lab = Lab::new().await;
    let base = lab.caps();
    for variant in variants::<LinearCase>(&base) {
        lab = lab.with_caps(|caps| {
            *caps = base;
            (variant.change)(caps);
        });
        let (m, k, rank) = (70, 256, 20);
        for (n, storage) in [(132, Storage::Q8_0), (132, Storage::Q4K), (20, Storage::Q4_0)] {
            let mut random = Random::new(17);
            let mut x = random.numbers(m * k, 1.0);
            if lab.caps().int8 {
                make_exact(&mut x);
            }
            let (blocks, weight) = random_blocks(&mut random, [n, k], storage, 0.1);
            let down = round(&random.numbers(rank * k, 0.1), Storage::F16);
            let up = round(&random.numbers(n * rank, 0.1), Storage::F16);
            let layer = LinearLayer {
                weight: lab.blocks("weight", (&blocks, &[]), [n, k], storage).await,
                bias: None,
                low_rank: Some(Box::new(LowRank {
                    down: lab.weight("down", &down, rank, k, Storage::F32).await,
                    up: lab.weight("up", &up, n, rank, Storage::F32).await,
                    scales: lab.vector("scales", &vec![0.5; rank]).await,
                    parts: vec![],
                })),
            };
            let xs = lab.view("x", [m, k], &x, Frame::WIDE, Bands::AsNeeded).await;
            let ys = lab.view("y", [m, n], &vec![0.0; m * n], Frame::WIDE, Bands::AsNeeded).await;
            lab.run(|r, _| {
                let gelu = Epilogue { activation: Activation::GeluTanh, ..Default::default() };
                ops::linear_into("y", xs.on(r), &layer, ys.on(r), gelu);
            })
            .await;
            let product = |i: usize| -> f64 {
                let of =
                    |r: usize| f64::from(up[i / k * rank + r]) * f64::from(down[r * k + i % k]);
                0.5 * (0..rank).map(of).sum::<f64>()
            };
            let whole: Vec<f32> =
                (0..n * k).map(|i| (f64::from(weight[i]) + product(i)) as f32).collect();
            let (old, gelu) = (vec![0.0; m * n], Activation::GeluTanh);
            let expected = reference::linear(&x, &whole, None, None, &old, k, gelu, Write::Store);
            let tolerance = match lab.caps().f16 {
                true => Tolerance::absolute(3e-2),
                false => Tolerance::absolute(2e-4),
            };
            let label = format!("{storage:?}, {n} outputs, with {}", variant.name);
            assert_close(&label, [m, n], &lab.read_view(&ys).await, &expected, tolerance);
            lab.clear();
        }
    }
}

/// What a LoRA does to a layer does not depend on how the weight is kept: at most 2 % off, for a change of 3 % of the layer,
/// whatever kernel. (Behind a whole network this cannot be asked: what follows a layer is another function there.)
pub async fn a_quantised_weight_gets_the_whole_change() {
    let mut lab = Lab::new().await;
    let base = lab.caps();
    let (m, n, k, rank) = (40, 128, 256, 16);
    let mut random = Random::new(23);
    let x = random.numbers(m * k, 1.0);
    let down = random.numbers(rank * k, 0.1);
    let up = random.numbers(n * rank, 0.013);
    let product = |i: usize| -> f64 {
        (0..rank).map(|r| f64::from(up[i / k * rank + r]) * f64::from(down[r * k + i % k])).sum()
    };
    let sums: Vec<f32> = (0..n * k).map(|i| product(i) as f32).collect();
    let (none, zeros) = (Activation::Identity, vec![0.0; m * n]);
    let change = reference::linear(&x, &sums, None, None, &zeros, k, none, Write::Store);
    for storage in [Storage::F32, Storage::Q8_0, Storage::Q4_0, Storage::Q4K, Storage::Nf4] {
        let (blocks, wide) = match storage {
            Storage::F32 => (vec![], random.numbers(n * k, 0.1)),
            _ => random_blocks(&mut random, [n, k], storage, 0.1),
        };
        for variant in variants::<LinearCase>(&base) {
            lab = lab.with_caps(|caps| {
                *caps = base;
                (variant.change)(caps);
            });
            let low_rank = LowRank {
                down: lab.weight("down", &down, rank, k, Storage::F32).await,
                up: lab.weight("up", &up, n, rank, Storage::F32).await,
                scales: lab.vector("scales", &vec![1.0; rank]).await,
                parts: vec![],
            };
            let weight = match storage {
                Storage::F32 => lab.weight("weight", &wide, n, k, storage).await,
                _ => lab.blocks("weight", (&blocks, &[]), [n, k], storage).await,
            };
            let plain = LinearLayer { weight, bias: None, low_rank: None };
            let changed = LinearLayer { low_rank: Some(Box::new(low_rank)), ..plain.clone() };
            let xs = lab.view("x", [m, k], &x, Frame::NONE, Bands::AsNeeded).await;
            let mut made = vec![];
            for layer in [plain, changed] {
                let ys = lab.view("y", [m, n], &zeros, Frame::NONE, Bands::AsNeeded).await;
                lab.run(|r, _| {
                    ops::linear_into("y", xs.on(r), &layer, ys.on(r), Epilogue::default());
                })
                .await;
                made.push(lab.read_view(&ys).await.into_iter().map(f64::from).collect());
            }
            let [plain, changed]: [Vec<f64>; 2] = made.try_into().expect("two products");
            let norm =
                |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
            let found = changed.iter().zip(&plain).map(|(with, without)| with - without);
            let size = norm(&mut change.iter().copied());
            let error = norm(&mut found.zip(&change).map(|(found, change)| found - change)) / size;
            let share = size / norm(&mut plain.iter().copied());
            let label = format!("{storage:?} with {}", variant.name);
            say(&format!("{label}: a change of {share:.4} is off by {error:.1e}"));
            assert!(share > 0.01 && error <= 0.02, "{label}: {error} of a change of {share}");
            lab.clear();
        }
    }
}

/// A norm makes the narrow product of the layer behind it: the same matrix, and what the layer would make itself.
pub async fn a_norm_makes_the_narrow_product() {
    for is_cpu in [false, true] {
        let lab = Lab::new().await.with_caps(|caps| caps.is_cpu = is_cpu);
        for (m, k, n, rank) in [(5, 64, 68, 4), (67, 68, 20, 20), (130, 516, 64, 64), (3, 8, 8, 36)]
        {
            let mut random = Random::new(19);
            let x = random.numbers(m * k, 1.0);
            let vectors = [(); 2].map(|()| random.numbers(k, 0.5));
            let weight = random.numbers(n * k, 0.1);
            let down = random.numbers(rank * k, 0.1);
            let up = random.numbers(n * rank, 0.1);
            let scales: Vec<f32> = (0..rank).map(|i| 0.5 + i as f32 / rank as f32).collect();
            let layer = LinearLayer {
                weight: lab.weight("weight", &weight, n, k, Storage::F32).await,
                bias: None,
                low_rank: Some(Box::new(LowRank {
                    down: lab.weight("down", &down, rank, k, Storage::F32).await,
                    up: lab.weight("up", &up, n, rank, Storage::F32).await,
                    scales: lab.vector("scales", &scales).await,
                    parts: vec![],
                })),
            };
            let xs = lab.view("x", [m, k], &x, Frame::WIDE, Bands::AsNeeded).await;
            let scale = lab.view("scale", [1, k], &vectors[0], Frame::NONE, Bands::One).await;
            let shift = lab.view("shift", [1, k], &vectors[1], Frame::NONE, Bands::One).await;
            let of = |cols: usize| vec![0.0; m * cols];
            let normed = lab.view("normed", [m, k], &of(k), Frame::WIDE, Bands::AsNeeded).await;
            let joined = lab.view("joined", [m, n], &of(n), Frame::WIDE, Bands::AsNeeded).await;
            let alone = lab.view("alone", [m, n], &of(n), Frame::WIDE, Bands::AsNeeded).await;
            let recording = lab
                .run(|r, _| {
                    let affine = Affine::Modulate { scale: scale.on(r), shift: shift.on(r) };
                    ops::norm_into("y", xs.on(r), LAYER, affine, normed.on(r));
                    let input = ops::norm_for("y", xs.on(r), LAYER, affine, &[&layer]);
                    ops::linear_into("y", input, &layer, joined.on(r), Epilogue::default());
                    let plain = ops::norm("y", xs.on(r), LAYER, affine);
                    ops::linear_into("y", plain, &layer, alone.on(r), Epilogue::default());
                })
                .await;
            let kernels = |name: &str| {
                let commands = recording.commands.iter();
                let is = |command: &&Command| matches!(command, Command::Dispatch(d) if d.pipeline.shader == name);
                commands.filter(is).count()
            };
            assert!(kernels("norm_narrow") > 0, "no norm made a product");
            let label = format!("{m} rows of {k}, rank {rank}, is_cpu {is_cpu}");
            let expected: Vec<f64> =
                lab.read_view(&alone).await.iter().map(|v| f64::from(*v)).collect();
            let made = lab.read_view(&joined).await;
            assert_close(&label, [m, n], &made, &expected, Tolerance::absolute(1e-4));
            let normed = lab.read_view(&normed).await;
            let product = |i: usize| -> f64 {
                let of = |r: usize| {
                    let factors = [up[i / k * rank + r], scales[r], down[r * k + i % k]];
                    factors.iter().map(|v| f64::from(*v)).product::<f64>()
                };
                (0..rank).map(of).sum()
            };
            let whole: Vec<f32> =
                (0..n * k).map(|i| (f64::from(weight[i]) + product(i)) as f32).collect();
            let old = of(n);
            let (identity, store) = (Activation::Identity, Write::Store);
            let expected = reference::linear(&normed, &whole, None, None, &old, k, identity, store);
            assert_close(&label, [m, n], &made, &expected, Tolerance::absolute(3e-4));
            lab.clear();
        }
    }
}
