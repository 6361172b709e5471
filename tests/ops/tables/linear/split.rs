//! Layers with two outputs.

use super::super::variants;
use super::cases::LinearCase;
use crate::common::{Bands, Frame, Lab, Random, random_blocks, round};
use ralu::ops::{self, Activation, Epilogue, LinearLayer};
use ralu::tensor::Storage;

/// Two outputs hold what two layers would have written, whichever kernel does them and wherever they are split.
pub async fn a_split_gives_the_bits_of_two_layers() {
    let mut lab = Lab::new().await;
    let base = lab.caps();
    for variant in variants::<LinearCase>(&base) {
        lab = lab.with_caps(|caps| {
            *caps = base;
            (variant.change)(caps);
        });
        let (plain, blocks) = (Storage::F16, Storage::Q4_1);
        for (storage, m, k, n, split) in [
            (plain, 3, 64, 68, 64),
            (plain, 17, 36, 200, 4),
            (plain, 130, 20, 132, 68),
            (blocks, 70, 64, 132, 68),
        ] {
            let mut random = Random::new(11);
            let x = random.numbers(m * k, 1.0);
            let weight = match storage.is_packed() {
                true => {
                    let (rows, _) = random_blocks(&mut random, [n, k], storage, 0.3);
                    lab.blocks("weight", (&rows, &[]), [n, k], storage).await
                }
                false => {
                    let weight = round(&random.numbers(n * k, 0.3), storage);
                    lab.weight("weight", &weight, n, k, storage).await
                }
            };
            let layer = LinearLayer {
                weight,
                bias: Some(lab.vector("bias", &random.numbers(n, 1.0)).await),
                low_rank: None,
            };
            let xs = lab.view("x", [m, k], &x, Frame::WIDE, Bands::AsNeeded).await;
            let whole = vec![0.0; m * n];
            let view = |label, columns| {
                lab.view(label, [m, columns], &whole[..m * columns], Frame::WIDE, Bands::AsNeeded)
            };
            let (plain, activated) = (view("plain", n).await, view("activated", n).await);
            let (first, rest) = (view("first", split).await, view("rest", n - split).await);
            let activation = Activation::GeluTanh;
            lab.run(|r, _| {
                let x = xs.on(r);
                ops::linear_into("plain", x, &layer, plain.on(r), Epilogue::default());
                let epilogue = Epilogue { activation, ..Default::default() };
                ops::linear_into("activated", x, &layer, activated.on(r), epilogue);
                ops::linear_split("split", x, &layer, [first.on(r), rest.on(r)], activation);
            })
            .await;
            let (plain, activated) = (lab.read_view(&plain).await, lab.read_view(&activated).await);
            let (first, rest) = (lab.read_view(&first).await, lab.read_view(&rest).await);
            for row in 0..m {
                let (before, after) = (row * n..row * n + split, row * n + split..(row + 1) * n);
                let label = format!("row {row} of {m}, {n} columns, with {}", variant.name);
                let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
                assert_eq!(
                    bits(&first[row * split..][..split]),
                    bits(&plain[before]),
                    "{label}: the first output"
                );
                assert_eq!(
                    bits(&rest[row * (n - split)..][..n - split]),
                    bits(&activated[after]),
                    "{label}: the second output"
                );
            }
            lab.clear();
        }
    }
}
