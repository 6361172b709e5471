// Reads a packed weight in Q5_0: `d (q - 16)`. Words: two f16 `d` (of the first and the second 32 numbers), 2 of fifth bits, 8
// of half bytes.

#import packed_linear

const NUMBERS: u32 = 64u;
const D_WORDS: u32 = 1u;
const SCALE_WORDS: u32 = 0u;
const UPPER_WORDS: u32 = 2u;
const CODE_WORDS: u32 = 8u;
const HAS_OFFSET: bool = true;

fn scales_of(stored: Stored4x4) -> Scales {
    let d = half4(stored.d, stored.k / 32u);
    return Scales(d, -16.0 * d);
}
