//! Quantisers against what other programs wrote, and against how far off the formats' steps let numbers be.

use ralu::checkpoint::dtype::DType;
use ralu::checkpoint::quantise::QuantFormat;
use safetensors::SafeTensors;

use crate::common::{Random, f8_e4m3};
use crate::folders::repository;

fn quantised(format: QuantFormat, row: &[f32], scale: f32) -> (Vec<u8>, Vec<f32>) {
    let (mut codes, mut scales) = (vec![], vec![]);
    format.quantise(row, scale, &mut codes, &mut scales);
    (codes, scales)
}

/// What is left of numbers.
fn round_trip(format: QuantFormat, row: &[f32]) -> Vec<f32> {
    let scale = largest(row) / 448.0;
    let (codes, scales) = quantised(format, row, scale);
    let mut out = Vec::new();
    format.dtype().widen(&codes, &mut out);
    match format {
        QuantFormat::Fp8 => out.iter_mut().for_each(|value| *value *= scale),
        QuantFormat::Nf4 => {
            assert_eq!(scales.len(), row.len() / 64);
            let blocks = out.chunks_exact_mut(64).zip(&scales);
            blocks.for_each(|(block, scale)| block.iter_mut().for_each(|value| *value *= scale));
        }
        _ => assert!(scales.is_empty()),
    }
    assert_eq!(out.len(), row.len());
    out
}

fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |most, value| value.abs().max(most))
}

/// Nearly normal, of variance 1: the sum of twelve numbers of variance 1/12.
fn normal(random: &mut Random) -> f32 {
    (0..12).map(|_| random.unit() / 2.0).sum()
}

/// Root of the mean square of the differences.
fn rmse(a: &[f32], b: &[f32]) -> f64 {
    let squares = a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2));
    (squares.sum::<f64>() / a.len() as f64).sqrt()
}

/// Blocks of GGML's own quantiser come out as they were: the number that their scale was made from is among theirs.
#[test]
fn blocks_of_ggml_are_made_again() {
    let file = std::fs::read(repository("tests/fixtures/formats/blocks.safetensors")).unwrap();
    let blocks = SafeTensors::deserialize(&file).unwrap();
    for (format, least) in [(QuantFormat::Q8_0, 3), (QuantFormat::Q4_0, 8), (QuantFormat::Q5_0, 6)]
    {
        let dtype = format.dtype();
        let raw = blocks.tensor(&format!("{}.raw", dtype.name)).unwrap();
        let mut compared = 0;
        for block in raw.data().chunks_exact(dtype.block.bytes) {
            let mut values = Vec::new();
            dtype.widen(block, &mut values);
            let d = half::f16::from_le_bytes([block[0], block[1]]);
            let extreme = match format {
                QuantFormat::Q8_0 => 127.0 * d.to_f32(),
                QuantFormat::Q4_0 => 8.0 * d.to_f32().abs(),
                _ => 16.0 * d.to_f32().abs(),
            };
            // Small scales are rounded coarsely; a quantiser gives none that is negative to Q8_0.
            let is_ggmls = d.is_normal()
                && largest(&values) == extreme
                && (format != QuantFormat::Q8_0 || block[2..].iter().all(|q| *q != 128));
            // Of two numbers of the same magnitude, the first counts.
            let first = values.iter().find(|value| value.abs() == extreme);
            let has_sign = format == QuantFormat::Q8_0
                || first.is_some_and(|first| (*first < 0.0) == (d.to_f32() > 0.0));
            if is_ggmls && has_sign {
                assert_eq!(quantised(format, &values, 1.0).0, block, "{}", dtype.name);
                compared += 1;
            }
        }
        assert!(compared >= least, "{}: {compared}", dtype.name);
    }
}

/// By hand, from the published rules.
#[test]
fn small_blocks_follow_the_published_rules() {
    let row: Vec<f32> = (0..32).map(|i| i as f32 - 16.0).collect();
    // The largest magnitude is that of -16: d = 2, and codes are x / 2 + 8, halves upwards, at most 15.
    let (codes, _) = quantised(QuantFormat::Q4_0, &row, 1.0);
    let code = |x: i32| ((x + 16 + 1) / 2).min(15) as u8;
    let expected: Vec<u8> = (0..16).map(|i| code(i - 16) | code(i) << 4).collect();
    assert_eq!(codes, [&[0x00, 0x40][..], &expected].concat());
    // d = 16 / 127, and codes are x * (1 / d), rounded, all in f32.
    let (codes, _) = quantised(QuantFormat::Q8_0, &row, 1.0);
    let d = 16.0f32 / 127.0;
    let expected = row.iter().map(|x| (x * (1.0 / d)).round() as i8 as u8);
    let d = half::f16::from_f32(d).to_le_bytes();
    assert_eq!(codes, [&d[..], &expected.collect::<Vec<_>>()].concat());
    // d = 1, and codes are x + 16.
    let (codes, _) = quantised(QuantFormat::Q5_0, &row, 1.0);
    let low: Vec<u8> = (0..16).map(|i| i | i << 4).collect();
    assert_eq!(codes, [&[0x00, 0x3c, 0, 0, 0xff, 0xff][..], &low].concat());
    // Zeros stay zeros in every format.
    for format in QuantFormat::ALL {
        let (codes, scales) = quantised(format, &[0.0; 256], 1.0);
        let mut out = Vec::new();
        format.dtype().widen(&codes, &mut out);
        let scale = scales.first().copied().unwrap_or(1.0);
        assert!(out.iter().all(|value| value * scale == 0.0), "{}", format.name());
    }
}

#[test]
fn fp8_takes_the_nearest_code() {
    let mut random = Random::new(5);
    let mut row: Vec<f32> = (0..20_000).map(|_| normal(&mut random) * 40.0).collect();
    row.extend((0..4096).map(|i| i as f32 / 16384.0));
    row.extend([448.0, -448.0, 0.0, -0.0, 464.0]);
    let row: Vec<f32> = row.into_iter().map(|x| x.clamp(-448.0, 448.0)).collect();
    let (codes, _) = quantised(QuantFormat::Fp8, &row, 1.0);
    for (x, code) in row.iter().zip(codes) {
        assert_eq!(code, f8_e4m3(*x), "{x}");
    }
    // A scale divides, and what is beyond the largest number becomes it.
    assert_eq!(quantised(QuantFormat::Fp8, &[6.0, -1e9], 2.0).0, [f8_e4m3(3.0), 0xfe]);
}

#[test]
fn nf4_takes_the_nearest_level() {
    let mut random = Random::new(6);
    let row: Vec<f32> = (0..6400).map(|_| normal(&mut random)).collect();
    let (codes, scales) = quantised(QuantFormat::Nf4, &row, 1.0);
    let mut levels = Vec::new();
    DType::named("NF4")
        .unwrap()
        .widen(&(0..8u8).map(|i| ((2 * i) << 4) | (2 * i + 1)).collect::<Vec<_>>(), &mut levels);
    assert_eq!(levels.len(), 16);
    for (i, x) in row.iter().enumerate() {
        assert_eq!(scales[i / 64], largest(&row[i / 64 * 64..][..64]));
        let code = codes[i / 2] >> (4 * (1 - i % 2)) & 15;
        let off = |level: f32| f64::from(level) - f64::from(*x) / f64::from(scales[i / 64]);
        let least = levels.iter().map(|level| off(*level).abs()).fold(f64::MAX, f64::min);
        // Three roundings to f32, each at most 2^-24 of x / scale, may decide between two that are equally near.
        assert!(off(levels[usize::from(code)]).abs() <= least + 4e-7, "number {i}");
    }
}

/// Noise, and noise of different size in each part with an offset, as weights are at worst.
#[test]
fn errors_are_within_what_the_steps_allow() {
    let mut random = Random::new(7);
    for offset in [0.0, 0.5] {
        let row: Vec<f32> = (0..64 * 256)
            .map(|i| (normal(&mut random) + offset) * 0.02 * (1.0 + (i / 32 % 8) as f32 / 4.0))
            .collect();
        let mut errors = std::collections::BTreeMap::new();
        for format in QuantFormat::ALL {
            let found = round_trip(format, &row);
            errors.insert(format.name(), rmse(&found, &row));
            let mut most = 0.0f64;
            let size = format.block_numbers().max(32);
            for (found, stored) in found.chunks(size).zip(row.chunks(size)) {
                let top = f64::from(largest(stored));
                let range = |part: &[f32]| {
                    let (low, high) = part
                        .iter()
                        .fold((0.0f32, 0.0f32), |(low, high), x| (low.min(*x), high.max(*x)));
                    (f64::from(high - low), f64::from(-low))
                };
                let parts: Vec<_> = stored.chunks(32).map(range).collect();
                let widest = parts.iter().map(|part| part.0).fold(0.0, f64::max);
                let lowest = parts.iter().map(|part| part.1).fold(0.0, f64::max);
                // Half a step, and what rounding the scale (f16; six or eight bits) moves the furthest number by.
                let bound = match format {
                    QuantFormat::Q8_0 => top / 127.0 * 0.5 + top / 2048.0,
                    // The positive end may lack a whole step.
                    QuantFormat::Q5_0 => top / 16.0 + top / 2048.0,
                    QuantFormat::Q4_0 => top / 8.0 + top / 2048.0,
                    // Sixteen numbers' steps are at most top / (32 - 0.9); then eight bits for the scale.
                    QuantFormat::Q6K => top / 31.1 + 32.0 * top / 31.1 / 256.0,
                    // A fitted line is no further in the weighted square than the plain one, which is half a step off at
                    // most. No weight is less than a 64th of their sum, so a number is 8 times that off at most. Then six
                    // bits for scale and minimum.
                    QuantFormat::Q4K => 8.0 * widest / 30.0 + 2.0 * widest / 126.0 + lowest / 126.0,
                    QuantFormat::Q5K => 8.0 * widest / 62.0 + 2.0 * widest / 126.0 + lowest / 126.0,
                    // Errors of small numbers count for little, but those in between are in the range of codes, and those
                    // at its ends a part's. Then four bits for scale and minimum.
                    QuantFormat::Q2K => widest + widest / 15.0 + lowest / 15.0,
                    // The positive end may lack a whole step, and a fitted scale another half of one. Then six bits.
                    QuantFormat::Q3K => 1.5 * top / 4.0 + top / 64.0,
                    // Half of the last of four bits, or of the smallest step.
                    QuantFormat::Fp8 => f64::from(largest(&row)) / 16.0,
                    // The widest gap between levels is 0.304.
                    QuantFormat::Nf4 => top * 0.152 + 1e-7,
                };
                let off = found.iter().zip(stored).map(|(a, b)| f64::from((a - b).abs()));
                let off = off.fold(0.0, f64::max);
                assert!(off <= bound, "{}: {off} of {bound}", format.name());
                most = most.max(off / bound);
            }
            assert!(most > 0.05, "{}: the bound is far too loose: {most}", format.name());
        }
        // The more bits, the nearer; and searching for scales helps, most where the mean is not 0.
        for pair in ["q8_0", "q6_k", "q5_k", "q5_0", "q4_k", "q4_0", "q3_k", "q2_k"].windows(2) {
            assert!(errors[pair[0]] < errors[pair[1]], "{pair:?}: {errors:?}");
        }
        let gain = errors["q4_0"] / errors["q4_k"];
        assert!(offset == 0.0 || gain > 1.15, "{gain}");
    }
}
