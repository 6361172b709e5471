// Reads a packed weight in IQ4_XS: `(d scale) level(q)`. Words: `d` as f32; 2 of signed bytes, scales of 32 numbers each; 32 of
// half bytes.

#import iq4_levels

const NUMBERS: u32 = 256u;
const D_WORDS: u32 = 1u;
const SCALE_WORDS: u32 = 2u;
const UPPER_WORDS: u32 = 0u;
const CODE_WORDS: u32 = 32u;

fn scales_of(stored: Stored4x4) -> Scales {
    return Scales(bitcast<vec4<f32>>(stored.d) * signed4(stored.scales, stored.k / 32u % 4u), vec4<f32>());
}
