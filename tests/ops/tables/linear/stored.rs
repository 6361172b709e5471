//! What codes of 8-bit floats and blocks stand for.

use super::super::variants;
use super::cases::LinearCase;
use crate::common::{Bands, Frame, Lab, Random, dtype_of, f8_e4m3_number};
use ralu::ops::{self, Epilogue, LinearLayer};
use ralu::tensor::{PackedWeight, Storage};

/// Every code of f8 e4m3fn that is a number, exactly: rows of the unit matrix pick single weights.
pub async fn every_f8_code_is_its_number() {
    let codes = (0..=255u8).filter(|code| code & 0x7f != 0x7f);
    let mut numbers: Vec<f32> = codes.map(f8_e4m3_number).collect();
    numbers.resize(256, 0.0);
    let mut lab = Lab::new().await;
    let base = lab.caps();
    for variant in variants::<LinearCase>(&base) {
        lab = lab.with_caps(|caps| {
            *caps = base;
            (variant.change)(caps);
        });
        // One tile of 64 outputs, and sixteen rows.
        for (n, k) in [(64, 4), (16, 16)] {
            let unit: Vec<f32> =
                (0..k * k).map(|i| if i % (k + 1) == 0 { 1.0 } else { 0.0 }).collect();
            let xs = lab.view("x", [k, k], &unit, Frame::NONE, Bands::AsNeeded).await;
            let ys = lab.view("y", [k, n], &vec![0.0; k * n], Frame::NONE, Bands::AsNeeded).await;
            let weight = lab.weight("weight", &numbers, n, k, Storage::F8E4M3).await;
            let layer = LinearLayer { weight, bias: None, low_rank: None };
            lab.run(|r, _| ops::linear_into("y", xs.on(r), &layer, ys.on(r), Epilogue::default()))
                .await;
            let y = lab.read_view(&ys).await;
            for (i, number) in numbers.iter().enumerate() {
                let found = y[i % k * n + i / k];
                assert_eq!(found, *number, "number {i} of [{n}, {k}] with {}", variant.name);
            }
            lab.clear();
        }
    }
}

/// The numbers of a tensor of `blocks.safetensors`: bytes, or f32.
fn known<'f>(file: &safetensors::SafeTensors<'f>, name: &str) -> &'f [u8] {
    file.tensor(name).unwrap_or_else(|error| panic!("{name}: {error}")).data()
}

fn words(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect()
}

/// The words of scales of `NF4_double`'s blocks of 512: scale and offset of the scales, and eight codes.
fn nested_scales(file: &safetensors::SafeTensors<'_>) -> Vec<u32> {
    let state = known(file, "NF4_double.quant_state.bitsandbytes__nf4");
    let state: serde_json::Value = serde_json::from_slice(state).unwrap();
    let offset = state["nested_offset"].as_f64().unwrap() as f32;
    let scales = words(known(file, "NF4_double.nested_absmax"));
    let codes = known(file, "NF4_double.absmax").chunks_exact(8);
    let of_block = |(i, codes): (usize, &[u8])| {
        let codes = words(codes);
        [scales[i * 8 / 256], offset.to_bits(), codes[0], codes[1]]
    };
    codes.enumerate().flat_map(of_block).collect()
}

/// Known answers for blocks of every type, special cases included: rows of the unit matrix pick single weights. An
/// accessor computes in f32 what the definition says, with other roundings: 2^-20 of the block's largest number are eight.
/// One kernel is enough, as the others call the same accessor; the table has all of them.
pub async fn every_block_is_its_numbers() {
    let file = include_bytes!("../../../fixtures/formats/blocks.safetensors");
    let file = safetensors::SafeTensors::deserialize(file).unwrap();
    let lab = Lab::new().await.with_caps(|caps| caps.f16 = false);
    for storage in Storage::PACKED {
        let dtype = dtype_of(storage);
        let name = if storage == Storage::Nf4Double { "NF4_double" } else { dtype.name };
        let blocks = known(&file, &format!("{name}.raw"));
        let numbers: Vec<f32> = (known(&file, &format!("{name}.f32")).chunks_exact(4))
            .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
            .collect();
        let scales: Vec<u32> = match storage {
            Storage::Nf4 => words(known(&file, "NF4.absmax")),
            Storage::Nf4Double => nested_scales(&file),
            _ => vec![],
        };
        // Two blocks of 32 numbers lie together on the GPU.
        let k = storage.block().numbers;
        let n = numbers.len() / k;
        let found =
            read_out(&lab, lab.blocks("weight", (blocks, &scales), [n, k], storage).await).await;
        let sizes = dtype.block.numbers;
        for (b, (block, found)) in
            numbers.chunks_exact(sizes).zip(found.chunks_exact(sizes)).enumerate()
        {
            let largest = block.iter().fold(0f32, |most, v| most.max(v.abs()));
            for (i, (found, number)) in found.iter().zip(block).enumerate() {
                assert!(
                    (found - number).abs() <= 2f32.powi(-20) * largest,
                    "{}, block {b}, number {i}: {found}, expected {number}",
                    dtype.name
                );
            }
        }
        // What models with random weights are filled with has about the deviation of a weight, and little of a mean: codes from
        // -4 to 3 have -0.5, which is 0.22 of their deviation.
        let scales = storage.random_scales();
        let pack = |weight: &PackedWeight| {
            let mut random = Random::named(dtype.name);
            let words = weight.storage.block().bytes / 4 * weight.tile;
            let word = |at| scales.get(at / weight.tile).copied().unwrap_or(random.next() as u32);
            vec![(0..words).map(word).flat_map(u32::to_le_bytes).collect()]
        };
        let weight = lab.upload("random", [64, k], storage, pack).await;
        let numbers = read_out(&lab, weight).await;
        let mean_of = |of: fn(f64) -> f64| {
            numbers.iter().map(|v| of(f64::from(*v))).sum::<f64>() / numbers.len() as f64
        };
        let (mean, square) = (mean_of(|v| v), mean_of(|v| v * v));
        let deviation = square.sqrt();
        assert!((0.01..0.025).contains(&deviation), "{}: deviation {deviation}", dtype.name);
        assert!(mean.abs() < 0.25 * deviation, "{}: mean {mean} of {deviation}", dtype.name);
        lab.clear();
    }
}

/// The numbers of a weight `[N, K]`, as a product with the unit matrix has them.
async fn read_out(lab: &Lab, weight: PackedWeight) -> Vec<f32> {
    let (n, k) = (weight.n, weight.k);
    let n4 = n.next_multiple_of(4);
    let unit: Vec<f32> = (0..k * k).map(|i| if i % (k + 1) == 0 { 1.0 } else { 0.0 }).collect();
    let xs = lab.view("x", [k, k], &unit, Frame::NONE, Bands::AsNeeded).await;
    let ys = lab.view("y", [k, n4], &vec![0.0; k * n4], Frame::NONE, Bands::AsNeeded).await;
    let layer = LinearLayer { weight, bias: None, low_rank: None };
    lab.run(|r, _| ops::linear_into("y", xs.on(r), &layer, ys.on(r), Epilogue::default())).await;
    let y = lab.read_view(&ys).await;
    (0..n * k).map(|at| y[at % k * n4 + at / k]).collect()
}
