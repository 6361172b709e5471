//! Blocks of a file as the words of a packed storage: what scales a block has first, then codes, of which each word has
//! consecutive numbers, the first in its lowest bits. The accessors `shaders/lib/weight_*` say what the words are.
//!
//! Eight bytes are taken at a time: a whole model passes through here.

use crate::checkpoint::dtype::{iq4_xs_scale, k_scale_min, q3_k_scale};
use crate::tensor::Storage;

/// Appends the words of a block.
type AppendWords = fn(&[u8], &mut Vec<u32>);

/// Appends the words of a row, whole blocks of the type that `storage` is made of.
///
/// # Panics
///
/// If `storage` is not packed: what is stored a number at a time has no words.
pub(super) fn words_of_row(storage: Storage, row: &[u8], words: &mut Vec<u32>) {
    // Bytes in the file that become a block on the GPU: one block, or two of 32 numbers.
    let (bytes, append): (usize, AppendWords) = match storage {
        Storage::Q8_0 => (68, q8_0),
        Storage::Q4_0 | Storage::Iq4Nl => (36, q4_0),
        Storage::Q4_1 => (40, q4_1),
        Storage::Q5_0 => (44, q5_0),
        Storage::Q5_1 => (48, q5_1),
        Storage::Q2K => (84, q2_k),
        Storage::Q3K => (110, q3_k),
        Storage::Q4K => (144, q4_k),
        Storage::Q5K => (176, q5_k),
        Storage::Q6K => (210, q6_k),
        Storage::Iq4Xs => (136, iq4_xs),
        // Its scales are not in the row.
        Storage::Nf4
        | Storage::Nf4Double
        | Storage::F32
        | Storage::F16
        | Storage::Bf16
        | Storage::F8E4M3
        | Storage::F8E5M2 => {
            panic!("{storage:?} has no blocks")
        }
    };
    words.reserve(row.len() / bytes * storage.block().bytes / 4);
    row.chunks_exact(bytes).for_each(|block| append(block, words));
}

/// The 16 bits at byte `at`.
fn half(block: &[u8], at: usize) -> u32 {
    u16::from_le_bytes([block[at], block[at + 1]]).into()
}

/// The f16 at byte `at` as the bits of an f32.
fn wide(block: &[u8], at: usize) -> u32 {
    half::f16::from_bits(half(block, at) as u16).to_f32().to_bits()
}

/// The word at byte `at`.
fn word(block: &[u8], at: usize) -> u32 {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&block[at..at + 4]);
    u32::from_le_bytes(bytes)
}

/// Of each of the eight bytes at `at`, `WIDTH` bits from bit `from` on: the first in the lowest bits.
fn fields<const WIDTH: usize>(block: &[u8], at: usize, from: usize) -> u32 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&block[at..at + 8]);
    // Lanes of 8, 16 and 32 bits with 1, 2 and 4 fields at their lower ends.
    let lane = |width: usize| (1u64 << width) - 1;
    let fields = (u64::from_le_bytes(bytes) >> from) & (lane(WIDTH) * 0x0101_0101_0101_0101);
    let pairs = (fields | (fields >> (8 - WIDTH))) & (lane(2 * WIDTH) * 0x0001_0001_0001_0001);
    let fours = (pairs | (pairs >> (16 - 2 * WIDTH))) & (lane(4 * WIDTH) * 0x0000_0001_0000_0001);
    (fours | (fours >> (32 - 4 * WIDTH))) as u32
}

/// Appends the half bytes of 32 numbers, which are those of 16 bytes: first all lower ones.
fn nibbles_of_16(block: &[u8], at: usize, words: &mut Vec<u32>) {
    for from in [0, 4] {
        words.extend([at, at + 8].map(|at| fields::<4>(block, at, from)));
    }
}

/// Appends the half bytes from bit `from` on of 32 bytes.
fn nibbles_of_32(block: &[u8], at: usize, from: usize, words: &mut Vec<u32>) {
    words.extend([0, 8, 16, 24].map(|byte| fields::<4>(block, at + byte, from)));
}

/// Appends two bits of each of 32 bytes.
fn pairs_of_32(block: &[u8], at: usize, from: usize, words: &mut Vec<u32>) {
    words.extend([0, 16].map(|byte| {
        let low = fields::<2>(block, at + byte, from) & 0xffff;
        low | (fields::<2>(block, at + byte + 8, from) << 16)
    }));
}

/// A bit of each of 32 bytes.
fn bits_of_32(block: &[u8], at: usize, from: usize) -> u32 {
    let bits = [0, 8, 16, 24].map(|byte| fields::<1>(block, at + byte, from) as u8);
    u32::from_le_bytes(bits)
}

fn q8_0(blocks: &[u8], words: &mut Vec<u32>) {
    words.push(half(blocks, 0) | (half(blocks, 34) << 16));
    for first in [2, 36] {
        words.extend((first..first + 32).step_by(4).map(|at| word(blocks, at)));
    }
}

fn q4_0(blocks: &[u8], words: &mut Vec<u32>) {
    words.push(half(blocks, 0) | (half(blocks, 18) << 16));
    nibbles_of_16(blocks, 2, words);
    nibbles_of_16(blocks, 20, words);
}

fn q4_1(blocks: &[u8], words: &mut Vec<u32>) {
    words.extend([word(blocks, 0), word(blocks, 20)]);
    nibbles_of_16(blocks, 4, words);
    nibbles_of_16(blocks, 24, words);
}

fn q5_0(blocks: &[u8], words: &mut Vec<u32>) {
    words.push(half(blocks, 0) | (half(blocks, 22) << 16));
    words.extend([word(blocks, 2), word(blocks, 24)]);
    nibbles_of_16(blocks, 6, words);
    nibbles_of_16(blocks, 28, words);
}

fn q5_1(blocks: &[u8], words: &mut Vec<u32>) {
    words.extend([word(blocks, 0), word(blocks, 24)]);
    words.extend([word(blocks, 4), word(blocks, 28)]);
    nibbles_of_16(blocks, 8, words);
    nibbles_of_16(blocks, 32, words);
}

fn q2_k(block: &[u8], words: &mut Vec<u32>) {
    words.push(word(block, 80));
    words.extend([0, 4, 8, 12].map(|at| word(block, at)));
    for i in 0..8 {
        pairs_of_32(block, 16 + i / 4 * 32, i % 4 * 2, words);
    }
}

fn q3_k(block: &[u8], words: &mut Vec<u32>) {
    for i in 0..4 {
        // Biased by 32 in the file, too.
        let scale = |s| (q3_k_scale(&block[96..108], 4 * i + s) + 32) as u32;
        let scales = scale(0) | (scale(1) << 6) | (scale(2) << 12) | (scale(3) << 18);
        words.push(scales | (u32::from(block[108 + i % 2]) << 24));
    }
    words.extend((0..8).map(|bit| bits_of_32(block, 0, bit)));
    for i in 0..8 {
        pairs_of_32(block, 32 + i / 4 * 32, i % 4 * 2, words);
    }
}

/// Appends the scales of Q4_K and Q5_K.
fn k_scales(block: &[u8], words: &mut Vec<u32>) {
    words.push(word(block, 0));
    for s in [0, 2, 4, 6] {
        let [first, second] = [s, s + 1].map(|s| k_scale_min(&block[4..16], s));
        words.push(u32::from_le_bytes([first[0], first[1], second[0], second[1]]));
    }
}

fn q4_k(block: &[u8], words: &mut Vec<u32>) {
    k_scales(block, words);
    for s in 0..8 {
        nibbles_of_32(block, 16 + s / 2 * 32, s % 2 * 4, words);
    }
}

fn q5_k(block: &[u8], words: &mut Vec<u32>) {
    k_scales(block, words);
    words.extend((0..8).map(|bit| bits_of_32(block, 16, bit)));
    for s in 0..8 {
        nibbles_of_32(block, 48 + s / 2 * 32, s % 2 * 4, words);
    }
}

fn q6_k(block: &[u8], words: &mut Vec<u32>) {
    words.push(wide(block, 208));
    words.extend([192, 196, 200, 204].map(|at| word(block, at)));
    for i in 0..8 {
        pairs_of_32(block, 128 + i / 4 * 32, i % 4 * 2, words);
    }
    for i in 0..8 {
        nibbles_of_32(block, i / 4 * 64 + i % 2 * 32, i % 4 / 2 * 4, words);
    }
}

fn iq4_xs(block: &[u8], words: &mut Vec<u32>) {
    words.push(wide(block, 0));
    for first in [0_usize, 4] {
        let scale = |s: usize| iq4_xs_scale(&block[2..4], &block[4..8], first + s) as u8;
        words.push(u32::from_le_bytes([scale(0), scale(1), scale(2), scale(3)]));
    }
    for s in 0..8 {
        nibbles_of_16(block, 8 + 16 * s, words);
    }
}

/// Appends the words of a row of NF4, codes of which the first is in a byte's high half. `scales` are the words that blocks of
/// `storage` begin with.
pub(super) fn words_of_nf4(storage: Storage, row: &[u8], scales: &[u32], words: &mut Vec<u32>) {
    let bytes = storage.block().numbers / 2;
    let blocks = row.chunks_exact(bytes).zip(scales.chunks_exact(storage.scale_words()));
    for (block, scales) in blocks {
        words.extend(scales);
        words.extend((0..bytes).step_by(4).map(|at| {
            let codes = word(block, at);
            ((codes >> 4) & 0x0f0f_0f0f) | ((codes & 0x0f0f_0f0f) << 4)
        }));
    }
}
