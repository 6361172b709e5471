// Reads a packed weight in Q6_K: `(d scale) (q - 32)`. Words: `d` as f32; 4 of signed bytes, scales of 16 numbers each; 16 of the
// two upper bits; 32 of half bytes.

#import packed_linear

const NUMBERS: u32 = 256u;
const D_WORDS: u32 = 1u;
const SCALE_WORDS: u32 = 4u;
const UPPER_WORDS: u32 = 16u;
const CODE_WORDS: u32 = 32u;

fn scales_of(stored: Stored4x4) -> Scales {
    let scale = bitcast<vec4<f32>>(stored.d) * signed4(stored.scales, stored.k / 16u % 4u);
    return Scales(scale, -32.0 * scale);
}
