// Reads a packed weight in Q4_1: `d q + m`. Words: f16 `d` and `m` of the first 32 numbers, of the second, 8 of half bytes.

#import packed_linear

const NUMBERS: u32 = 64u;
const D_WORDS: u32 = 0u;
const SCALE_WORDS: u32 = 2u;
const UPPER_WORDS: u32 = 0u;
const CODE_WORDS: u32 = 8u;
const HAS_OFFSET: bool = true;

fn scales_of(stored: Stored4x4) -> Scales {
    return Scales(half4(stored.scales, 0u), half4(stored.scales, 1u));
}
