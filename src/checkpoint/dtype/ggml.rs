//! The block formats of GGML (llama.cpp and its relatives): 32 or 256 numbers in few bits, with the scales they share.
//!
//! Every function appends the numbers of whole blocks as f32, by the definitions of GGML's `dequantize_row_*`: all in f32,
//! products from left to right. <https://github.com/ggml-org/ggml/blob/master/src/ggml-quants.c>

use half::f16;

/// Numbers of IQ4_NL and IQ4_XS by code.
pub(crate) const IQ4_LEVELS: [i8; 16] =
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// The f16 at byte `at` of a block.
fn half(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// Bits `bits` of the code of number `i` that lie in half bytes: of 32 numbers in 16 bytes, the first 16 low.
fn nibble(quants: &[u8], i: usize) -> u8 {
    (quants[i % 16] >> (4 * (i / 16))) & 15
}

/// 18 bytes: f16 scale, 16 bytes of half bytes. `d (q - 8)`.
pub(super) fn q4_0(bytes: &[u8], out: &mut Vec<f32>) {
    for block in bytes.chunks_exact(18) {
        let d = half(block, 0);
        out.extend((0..32).map(|i| d * (f32::from(nibble(&block[2..], i)) - 8.0)));
    }
}

/// 20 bytes: f16 scale, f16 minimum, 16 bytes of half bytes. `d q + m`.
pub(super) fn q4_1(bytes: &[u8], out: &mut Vec<f32>) {
    for block in bytes.chunks_exact(20) {
        let (d, m) = (half(block, 0), half(block, 2));
        out.extend((0..32).map(|i| d * f32::from(nibble(&block[4..], i)) + m));
    }
}

/// The fifth bit of number `i`, of 32 in 4 bytes, as 16 or 0.
fn fifth(high: &[u8], i: usize) -> u8 {
    ((high[i / 8] >> (i % 8)) & 1) << 4
}

/// 22 bytes: f16 scale, 4 bytes of fifth bits, 16 bytes of half bytes. `d (q - 16)`.
pub(super) fn q5_0(bytes: &[u8], out: &mut Vec<f32>) {
    for block in bytes.chunks_exact(22) {
        let d = half(block, 0);
        let code = |i| nibble(&block[6..], i) | fifth(&block[2..], i);
        out.extend((0..32).map(|i| d * (f32::from(code(i)) - 16.0)));
    }
}

/// 24 bytes: f16 scale, f16 minimum, 4 bytes of fifth bits, 16 bytes of half bytes. `d q + m`.
pub(super) fn q5_1(bytes: &[u8], out: &mut Vec<f32>) {
    for block in bytes.chunks_exact(24) {
        let (d, m) = (half(block, 0), half(block, 2));
        let code = |i| nibble(&block[8..], i) | fifth(&block[4..], i);
        out.extend((0..32).map(|i| d * f32::from(code(i)) + m));
    }
}

/// 34 bytes: f16 scale, 32 signed bytes. `d q`.
pub(super) fn q8_0(bytes: &[u8], out: &mut Vec<f32>) {
    for block in bytes.chunks_exact(34) {
        let d = half(block, 0);
        out.extend(block[2..].iter().map(|q| d * f32::from(*q as i8)));
    }
}

/// The two bits of number `i`, of 256 in 64 bytes.
fn two_bits(quants: &[u8], i: usize) -> u8 {
    (quants[i / 128 * 32 + i % 32] >> (2 * (i % 128 / 32))) & 3
}

/// 84 bytes: 16 bytes of 4-bit scales and minimums, 64 bytes of codes, f16 d and dmin. `(d scale) q - dmin min`.
pub(super) fn q2_k(bytes: &[u8], out: &mut Vec<f32>) {
    for block in bytes.chunks_exact(84) {
        let (d, dmin) = (half(block, 80), half(block, 82));
        out.extend((0..256).map(|i| {
            let scales = block[i / 16];
            let scale = d * f32::from(scales & 15);
            scale * f32::from(two_bits(&block[16..], i)) - dmin * f32::from(scales >> 4)
        }));
    }
}

/// Scale `s` of 16 of Q3_K, from 12 bytes of six bits each.
pub(crate) fn q3_k_scale(scales: &[u8], s: usize) -> i8 {
    let low = (scales[s % 8] >> (4 * (s / 8))) & 15;
    let high = (scales[8 + s % 4] >> (2 * (s / 4))) & 3;
    (low | (high << 4)) as i8 - 32
}

/// 110 bytes: 32 bytes of third bits, 64 bytes of low bits, 12 bytes of scales, f16 d. `(d scale) q`.
pub(super) fn q3_k(bytes: &[u8], out: &mut Vec<f32>) {
    for block in bytes.chunks_exact(110) {
        let d = half(block, 108);
        out.extend((0..256).map(|i| {
            let scale = d * f32::from(q3_k_scale(&block[96..], i / 16));
            let high = (block[i % 32] >> (i / 32)) & 1;
            scale * (f32::from(two_bits(&block[32..], i) | (high << 2)) - 4.0)
        }));
    }
}

/// Scale and minimum `s` of 8 of Q4_K and Q5_K, from 12 bytes of six bits each.
pub(crate) fn k_scale_min(scales: &[u8], s: usize) -> [u8; 2] {
    if s < 4 {
        return [scales[s] & 63, scales[s + 4] & 63];
    }
    let (low, high) = (scales[s + 4], [scales[s - 4] >> 6, scales[s] >> 6]);
    [(low & 15) | (high[0] << 4), (low >> 4) | (high[1] << 4)]
}

/// 144 bytes: f16 d and dmin, 12 bytes of scales and minimums, 128 bytes of half bytes. `(d scale) q - dmin min`.
pub(super) fn q4_k(bytes: &[u8], out: &mut Vec<f32>) {
    for block in bytes.chunks_exact(144) {
        let (d, dmin) = (half(block, 0), half(block, 2));
        out.extend((0..256).map(|i| {
            let s = i / 32;
            let [scale, min] = k_scale_min(&block[4..], s);
            let q = (block[16 + s / 2 * 32 + i % 32] >> (4 * (s % 2))) & 15;
            (d * f32::from(scale)) * f32::from(q) - dmin * f32::from(min)
        }));
    }
}

/// 176 bytes: f16 d and dmin, 12 bytes of scales and minimums, 32 bytes of fifth bits, 128 bytes of half bytes.
/// `(d scale) q - dmin min`.
pub(super) fn q5_k(bytes: &[u8], out: &mut Vec<f32>) {
    for block in bytes.chunks_exact(176) {
        let (d, dmin) = (half(block, 0), half(block, 2));
        out.extend((0..256).map(|i| {
            let s = i / 32;
            let [scale, min] = k_scale_min(&block[4..], s);
            let low = (block[48 + s / 2 * 32 + i % 32] >> (4 * (s % 2))) & 15;
            let high = (block[16 + i % 32] >> s) & 1;
            (d * f32::from(scale)) * f32::from(low | (high << 4)) - dmin * f32::from(min)
        }));
    }
}

/// 210 bytes: 128 bytes of low half bytes, 64 bytes of high bits, 16 signed scales, f16 d. `(d scale) (q - 32)`.
pub(super) fn q6_k(bytes: &[u8], out: &mut Vec<f32>) {
    for block in bytes.chunks_exact(210) {
        let d = half(block, 208);
        out.extend((0..256).map(|i| {
            let quarter = i % 128 / 32;
            let low = block[i / 128 * 64 + quarter % 2 * 32 + i % 32] >> (4 * (quarter / 2));
            let q = (low & 15) | (two_bits(&block[128..], i) << 4);
            (d * f32::from(block[192 + i / 16] as i8)) * (f32::from(q) - 32.0)
        }));
    }
}

/// 18 bytes: f16 scale, 16 bytes of half bytes. `d level(q)`.
pub(super) fn iq4_nl(bytes: &[u8], out: &mut Vec<f32>) {
    for block in bytes.chunks_exact(18) {
        let d = half(block, 0);
        let level = |i| f32::from(IQ4_LEVELS[usize::from(nibble(&block[2..], i))]);
        out.extend((0..32).map(|i| d * level(i)));
    }
}

/// Scale `s` of 8 of IQ4_XS, six bits: high ones from 2 bytes, low ones from 4.
pub(crate) fn iq4_xs_scale(high: &[u8], low: &[u8], s: usize) -> i8 {
    let low = (low[s / 2] >> (4 * (s % 2))) & 15;
    let high = (u16::from_le_bytes([high[0], high[1]]) >> (2 * s)) & 3;
    (low | ((high as u8) << 4)) as i8 - 32
}

/// 136 bytes: f16 d, 2 and 4 bytes of scales, 128 bytes of half bytes. `(d scale) level(q)`.
pub(super) fn iq4_xs(bytes: &[u8], out: &mut Vec<f32>) {
    for block in bytes.chunks_exact(136) {
        let d = half(block, 0);
        out.extend((0..256).map(|i| {
            let s = i / 32;
            let scale = d * f32::from(iq4_xs_scale(&block[2..4], &block[4..8], s));
            let code = nibble(&block[8 + 16 * s..], i % 32);
            scale * f32::from(IQ4_LEVELS[usize::from(code)])
        }));
    }
}

/// Index of the first number of the first block, of `block_bytes` bytes and `numbers` numbers, whose f16 at one of `halves`
/// is NaN or infinite. Finite scales make finite numbers: none is larger than `65504 * 63 * 31 + 65504 * 63`.
pub(super) fn first_not_finite(
    bytes: &[u8],
    (numbers, block_bytes): (usize, usize),
    halves: &[usize],
) -> Option<usize> {
    let is_bad = |block: &[u8]| halves.iter().any(|at| block[at + 1] & 0x7c == 0x7c);
    bytes.chunks_exact(block_bytes).position(is_bad).map(|at| at * numbers)
}
