// Reads a packed weight in NF4: `level(q) largest`. Words: the largest magnitude of 64 numbers, an f32; 8 of half bytes.

#import packed_levels
#import nf4_levels

const NUMBERS: u32 = 64u;
const D_WORDS: u32 = 1u;
const SCALE_WORDS: u32 = 0u;
const UPPER_WORDS: u32 = 0u;
const CODE_WORDS: u32 = 8u;

fn scales_of(stored: Stored4x4) -> Scales {
    return Scales(bitcast<vec4<f32>>(stored.d), vec4<f32>());
}
