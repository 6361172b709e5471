//! Number formats against known answers: blocks as bytes, and the numbers that they are.
//!
//! `blocks.safetensors` has quantised noise, random bytes and special cases (zeros, ones, negative, subnormal and minus-zero
//! scales) of GGML's formats, whose numbers GGML's C code gave, and all codes of both 8-bit floats.

use half::f16;
use ralu::checkpoint::dtype::{DTYPES, DType};
use ralu::tensor::{PackedWeight, ResidentIds, Storage};
use safetensors::SafeTensors;

const BLOCKS: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/formats/blocks.safetensors");

#[test]
fn numbers_are_those_of_the_formats_definitions() {
    let file = std::fs::read(BLOCKS).unwrap();
    let blocks = SafeTensors::deserialize(&file).unwrap();
    let mut tested = Vec::new();
    // NF4's scales are tensors of their own: `scaling.rs` has it.
    for row in DTYPES.iter().filter(|row| row.name != "NF4") {
        let Ok(raw) = blocks.tensor(&format!("{}.raw", row.name)) else { continue };
        let expected = blocks.tensor(&format!("{}.f32", row.name)).unwrap();
        let expected = expected.data().chunks_exact(4);
        let expected: Vec<f32> =
            expected.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        let mut found = Vec::new();
        row.widen(raw.data(), &mut found);
        assert_eq!(found.len(), expected.len(), "{}", row.name);
        for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
            // Minus zero is zero.
            let same = found == expected || found.is_nan() && expected.is_nan();
            assert!(same, "{} number {i}: {found}, not {expected}", row.name);
        }
        tested.push(row.name);
    }
    let all: Vec<&str> = DTYPES
        .iter()
        .filter(|row| row.ggml.is_some() && row.block.numbers > 1 || row.block.bytes == 1)
        .map(|row| row.name)
        .collect();
    assert_eq!(tested, all);
}

/// Scales that are NaN or infinite are found, wherever in a block they stand.
#[test]
fn numbers_that_are_not_finite_are_found() {
    for row in DTYPES.iter().filter(|row| row.ggml.is_some() && row.block.numbers > 1) {
        let DType { block, .. } = row;
        let zero = vec![0; 3 * block.bytes];
        assert_eq!(row.first_not_finite(&zero), None, "{}", row.name);
        let mut found = 0;
        for at in (0..block.bytes).step_by(2) {
            for bad in [f16::INFINITY, f16::NAN, f16::NEG_INFINITY] {
                let mut bytes = zero.clone();
                bytes[block.bytes + at..][..2].copy_from_slice(&bad.to_le_bytes());
                let mut values = Vec::new();
                row.widen(&bytes, &mut values);
                let is_bad = values.iter().any(|value| !value.is_finite());
                let expected = is_bad.then_some(block.numbers);
                assert_eq!(row.first_not_finite(&bytes), expected, "{} byte {at}", row.name);
                found += usize::from(is_bad);
            }
        }
        assert!(found >= 3, "{}: {found}", row.name);
    }
}

/// What the GPU keeps of a block format is no more than 1.05 times as large as the file's: scales may take more bits.
#[test]
fn blocks_stay_as_small_as_in_the_file() {
    let mut packed = 0;
    for row in DTYPES.iter().filter(|row| row.block.numbers > 1) {
        assert!(row.matrix.is_packed() && row.kept_as_is, "{}", row.name);
        let numbers = 256;
        // The scales of NF4 are a tensor of their own.
        let scales = if row.matrix == Storage::Nf4 { 4 * numbers / 64 } else { 0 };
        let in_file = row.block.bytes_of(numbers).unwrap() + scales;
        let on_gpu = row.matrix.block().bytes_of(numbers).unwrap();
        assert!(20 * on_gpu <= 21 * in_file, "{}: {on_gpu} for {in_file} bytes", row.name);
        // Outputs are padded to tiles alone.
        let weight =
            PackedWeight::new(&ResidentIds::default(), "w", 128, 512, row.matrix, u64::MAX);
        assert_eq!(weight.shard_bytes().sum::<u64>(), 128 * 2 * on_gpu, "{}", row.name);
        packed += 1;
    }
    // The one whose scales are quantised as well is no type of its own: a byte for 64 numbers, and an f32 for 256 bytes.
    let in_file = 512 / 2 + 512 / 64;
    let on_gpu = Storage::Nf4Double.block().bytes_of(512).unwrap();
    assert!(20 * on_gpu <= 21 * in_file, "{on_gpu} for {in_file} bytes");
    assert_eq!(packed + 1, Storage::PACKED.len());
}
