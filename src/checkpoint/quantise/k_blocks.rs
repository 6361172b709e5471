//! GGML's blocks of 256 numbers, whose parts have scales that are quantised themselves.
//! <https://github.com/ggml-org/ggml/blob/master/src/ggml-quants.c>

use std::array;

use half::f16;

use super::search::{
    Affine, TINY, nearest, refined_scale, scale_and_minimum, signed_code, signed_scale,
};
use super::{extreme, inverse};

/// Numbers of a block.
const BLOCK: usize = 256;

/// f16 d and dmin, 12 bytes of scales and minimums of 8 parts, 128 bytes of half bytes: `(d scale) q - dmin min`.
pub(super) fn q4_k(row: &[f32], out: &mut Vec<u8>) {
    let search = Affine { most: 15.0, from: -1.0, steps: 20, absolute: false };
    for block in row.as_chunks::<BLOCK>().0 {
        let found = Found::<8>::of(block, search, 63.0, mean_and_magnitude::<32>);
        found.append_scales(out);
        append_half_bytes(&found.codes, out);
    }
}

/// The same with 32 bytes of fifth bits in front of the half bytes.
pub(super) fn q5_k(row: &[f32], out: &mut Vec<u8>) {
    let search = Affine { most: 31.0, from: -0.5, steps: 15, absolute: false };
    for block in row.as_chunks::<BLOCK>().0 {
        let found = Found::<8>::of(block, search, 63.0, mean_and_magnitude::<32>);
        found.append_scales(out);
        let parts = found.codes.as_chunks::<32>().0;
        let fifths = |l: usize| (0..8).map(|part| (parts[part][l] >> 4) << part).sum::<u8>();
        out.extend((0..32).map(fifths));
        append_half_bytes(&found.codes.map(|code| code & 15), out);
    }
}

/// 16 bytes of 4-bit scales and minimums of 16 parts, 64 bytes of codes, f16 d and dmin: `(d scale) q - dmin min`.
pub(super) fn q2_k(row: &[f32], out: &mut Vec<u8>) {
    let search = Affine { most: 3.0, from: -0.5, steps: 15, absolute: true };
    let magnitudes = |part: &[f32; 16]| part.map(f32::abs);
    for block in row.as_chunks::<BLOCK>().0 {
        let found = Found::<16>::of(block, search, 15.0, magnitudes);
        let pairs = found.scales.iter().zip(&found.minimums);
        out.extend(pairs.map(|(scale, minimum)| scale | minimum << 4));
        append_pairs(&found.codes, out);
        out.extend(found.d.to_le_bytes());
        out.extend(found.dmin.to_le_bytes());
    }
}

/// How much each number's error counts in Q4_K and Q5_K.
fn mean_and_magnitude<const N: usize>(part: &[f32; N]) -> [f32; N] {
    let mean_square = part.iter().map(|x| x * x).sum::<f32>() / N as f32;
    let mean = mean_square.sqrt();
    part.map(|x| mean + x.abs())
}

/// A block of `PARTS` parts, each with a scale and a minimum.
struct Found<const PARTS: usize> {
    d: f16,
    dmin: f16,
    scales: [u8; PARTS],
    minimums: [u8; PARTS],
    codes: [u8; BLOCK],
}

impl<const PARTS: usize> Found<PARTS> {
    /// Scales and minimums are quantised to `levels` levels of the largest, then codes are the nearest.
    fn of<const N: usize>(
        block: &[f32; BLOCK],
        search: Affine,
        levels: f32,
        weights: impl Fn(&[f32; N]) -> [f32; N],
    ) -> Self {
        let parts = block.as_chunks::<N>().0;
        let found: [(f32, f32); PARTS] =
            array::from_fn(|s| scale_and_minimum(&parts[s], &weights(&parts[s]), search));
        let quantised = |values: [f32; PARTS]| {
            let most = values.iter().copied().fold(0.0, f32::max);
            let level = |value: f32| nearest(levels * inverse(most) * value).min(levels) as u8;
            (f16::from_f32(most / levels), values.map(level))
        };
        let (d, scales) = quantised(found.map(|(scale, _)| scale));
        let (dmin, minimums) = quantised(found.map(|(_, minimum)| minimum));
        let mut codes = [0; BLOCK];
        for (s, (part, codes)) in parts.iter().zip(codes.chunks_mut(N)).enumerate() {
            let scale = inverse(d.to_f32() * f32::from(scales[s]));
            let minimum = dmin.to_f32() * f32::from(minimums[s]);
            for (x, code) in part.iter().zip(codes) {
                *code = nearest((x + minimum) * scale).clamp(0.0, search.most) as u8;
            }
        }
        Found { d, dmin, scales, minimums, codes }
    }
}

impl Found<8> {
    /// d and dmin; then scales and minimums of six bits: those of the first four parts whole, those of the others as four
    /// bits, and two in the first eight bytes.
    fn append_scales(&self, out: &mut Vec<u8>) {
        let Found { d, dmin, scales, minimums, .. } = self;
        out.extend(d.to_le_bytes());
        out.extend(dmin.to_le_bytes());
        for values in [scales, minimums] {
            out.extend((0..4).map(|s| values[s] | (values[s + 4] >> 4) << 6));
        }
        out.extend((4..8).map(|s| scales[s] & 15 | (minimums[s] & 15) << 4));
    }
}

/// Of each 64 codes the first 32 in the low half bytes, the others in the high ones.
fn append_half_bytes(codes: &[u8; BLOCK], out: &mut Vec<u8>) {
    for two in codes.as_chunks::<64>().0 {
        out.extend((0..32).map(|l| two[l] | two[l + 32] << 4));
    }
}

/// Two bits of each code: of each 128 codes four quarters in a byte.
fn append_pairs(codes: &[u8; BLOCK], out: &mut Vec<u8>) {
    for half in codes.as_chunks::<128>().0 {
        let quarters = |l: usize| (0..4).map(|j| (half[32 * j + l] & 3) << (2 * j)).sum::<u8>();
        out.extend((0..32).map(quarters));
    }
}

/// A block of parts of 16, whose scales of either sign are `d` times a whole number from `-least` on.
struct Signed {
    d: f16,
    scales: [i8; 16],
}

impl Signed {
    /// `None` where all numbers are zero, or next to it.
    fn of(scales: [f32; 16], least: f32) -> Option<Self> {
        let most = extreme(&scales);
        if most.abs() < TINY {
            return None;
        }
        let inverse_d = -least / most;
        let scales = scales.map(|scale| signed_code(inverse_d * scale, least) as i8);
        Some(Signed { d: f16::from_f32(1.0 / inverse_d), scales })
    }

    /// Codes from 0 on, of which `most` stands for 0.
    fn codes(&self, block: &[f32; BLOCK], most: f32) -> [u8; BLOCK] {
        let inverses = self.scales.map(|scale| inverse(self.d.to_f32() * f32::from(scale)));
        array::from_fn(|i| (signed_code(block[i] * inverses[i / 16], most) + most) as u8)
    }
}

/// 32 bytes of third bits, 64 bytes of low bits, 12 bytes of scales, f16 d: `(d scale) (q - 4)`.
pub(super) fn q3_k(row: &[f32], out: &mut Vec<u8>) {
    for block in row.as_chunks::<BLOCK>().0 {
        let parts = block.as_chunks::<16>().0;
        let found = Signed::of(array::from_fn(|s| refined_scale(&parts[s], 4.0)), 32.0);
        let found = found.unwrap_or(Signed { d: f16::ZERO, scales: [0; 16] });
        let codes = found.codes(block, 4.0);
        let thirds = |l: usize| (0..8).map(|part| (codes[32 * part + l] >> 2) << part).sum::<u8>();
        out.extend((0..32).map(thirds));
        append_pairs(&codes, out);
        // Six bits each: the low four of two parts in a byte, the high two of four.
        let scales = found.scales.map(|scale| (scale + 32) as u8);
        out.extend((0..8).map(|s| scales[s] & 15 | (scales[s + 8] & 15) << 4));
        let high = |s: usize| (0..4).map(|i| (scales[s + 4 * i] >> 4) << (2 * i)).sum::<u8>();
        out.extend((0..4).map(high));
        out.extend(found.d.to_le_bytes());
    }
}

/// 128 bytes of low half bytes, 64 bytes of high bits, 16 signed scales, f16 d: `(d scale) (q - 32)`.
pub(super) fn q6_k(row: &[f32], out: &mut Vec<u8>) {
    for block in row.as_chunks::<BLOCK>().0 {
        let parts = block.as_chunks::<16>().0;
        let scales = array::from_fn(|s| signed_scale(&parts[s], 32.0));
        let Some(found) = Signed::of(scales, 128.0) else {
            out.extend([0; 210]);
            continue;
        };
        let codes = found.codes(block, 32.0);
        for half in codes.as_chunks::<128>().0 {
            out.extend((0..64).map(|l| half[l] & 15 | (half[l + 64] & 15) << 4));
        }
        append_pairs(&codes.map(|code| code >> 4), out);
        out.extend(found.scales.map(|scale| scale as u8));
        out.extend(found.d.to_le_bytes());
    }
}
