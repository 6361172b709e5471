//! GGML's blocks of 32 numbers with one scale.
//! <https://github.com/ggml-org/ggml/blob/master/src/ggml-quants.c>

use half::f16;

use super::{extreme, inverse, largest};

/// Numbers of a block.
const BLOCK: usize = 32;

/// f16 scale, 32 signed bytes. The largest magnitude becomes 127.
pub(super) fn q8_0(row: &[f32], out: &mut Vec<u8>) {
    for block in row.chunks_exact(BLOCK) {
        let d = largest(block) / 127.0;
        let id = inverse(d);
        out.extend(f16::from_f32(d).to_le_bytes());
        out.extend(block.iter().map(|x| (x * id).round() as i8 as u8));
    }
}

/// f16 scale, 16 bytes of half bytes. The number of the largest magnitude becomes -8.
pub(super) fn q4_0(row: &[f32], out: &mut Vec<u8>) {
    for block in row.chunks_exact(BLOCK) {
        let d = extreme(block) / -8.0;
        let id = inverse(d);
        out.extend(f16::from_f32(d).to_le_bytes());
        let code = |x: f32| ((x * id + 8.5) as u8).min(15);
        out.extend((0..16).map(|i| code(block[i]) | code(block[i + 16]) << 4));
    }
}

/// f16 scale, 4 bytes of fifth bits, 16 bytes of half bytes. The number of the largest magnitude becomes -16.
pub(super) fn q5_0(row: &[f32], out: &mut Vec<u8>) {
    for block in row.chunks_exact(BLOCK) {
        let d = extreme(block) / -16.0;
        let id = inverse(d);
        out.extend(f16::from_f32(d).to_le_bytes());
        let code = |x: f32| ((x * id + 16.5) as u8).min(31);
        let fifth = |i: usize| u32::from(code(block[i]) >> 4) << i;
        out.extend((0..BLOCK).map(fifth).sum::<u32>().to_le_bytes());
        out.extend((0..16).map(|i| code(block[i]) & 15 | code(block[i + 16]) << 4));
    }
}
