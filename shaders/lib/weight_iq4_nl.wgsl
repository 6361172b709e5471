// Reads a packed weight in IQ4_NL: `d level(q)`. Words: two f16 `d` (of the first and the second 32 numbers), 8 of half bytes.

#import iq4_levels

const NUMBERS: u32 = 64u;
const D_WORDS: u32 = 1u;
const SCALE_WORDS: u32 = 0u;
const UPPER_WORDS: u32 = 0u;
const CODE_WORDS: u32 = 8u;

fn scales_of(stored: Stored4x4) -> Scales {
    return Scales(half4(stored.d, stored.k / 32u), vec4<f32>());
}
