// Reads a packed weight in Q2_K: `(d scale) q - dmin min`. Words: f16 `d` and `dmin`; 4 of bytes with a scale in their lower and
// a minimum in their upper half, of 16 numbers each; 16 of codes.

#import packed_linear

const NUMBERS: u32 = 256u;
const D_WORDS: u32 = 1u;
const SCALE_WORDS: u32 = 4u;
const UPPER_WORDS: u32 = 0u;
const CODE_WORDS: u32 = 16u;

fn scales_of(stored: Stored4x4) -> Scales {
    let scales = byte4(stored.scales, stored.k / 16u % 4u);
    let scale = half4(stored.d, 0u) * number4(scales & vec4<u32>(15u));
    let least = half4(stored.d, 1u) * number4(scales >> vec4<u32>(4u));
    return Scales(scale, -least);
}
