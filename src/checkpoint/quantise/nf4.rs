//! NF4 of bitsandbytes: the nearest of 16 levels, times the largest magnitude of 64 numbers.

use super::{inverse, largest};
use crate::checkpoint::dtype::nf4::{BLOCK_NUMBERS, LEVELS};

/// Appends codes, two a byte and the first in the high half, and the largest magnitude of each block.
pub(super) fn quantise(row: &[f32], codes: &mut Vec<u8>, scales: &mut Vec<f32>) {
    for block in row.chunks_exact(BLOCK_NUMBERS as usize) {
        let scale = largest(block);
        let inverse = inverse(scale);
        scales.push(scale);
        codes.extend(
            block.chunks_exact(2).map(|two| code(two[0] * inverse) << 4 | code(two[1] * inverse)),
        );
    }
}

/// The code of the nearest level. Halfway between two it is the lower one.
fn code(x: f32) -> u8 {
    let above = LEVELS.windows(2).filter(|pair| x > (pair[0] + pair[1]) / 2.0);
    above.count() as u8
}
