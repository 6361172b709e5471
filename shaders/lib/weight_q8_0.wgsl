// Reads a packed weight in Q8_0: `d q`. Words: two f16 `d` (of the first and the second 32 numbers), 16 of signed bytes.

#import packed_load

const NUMBERS: u32 = 64u;
const D_WORDS: u32 = 1u;
const SCALE_WORDS: u32 = 0u;
const UPPER_WORDS: u32 = 0u;
const CODE_WORDS: u32 = 16u;
const HAS_OFFSET: bool = false;

fn scales_of(stored: Stored4x4) -> Scales {
    return Scales(half4(stored.d, stored.k / 32u), vec4<f32>());
}

fn scaled4x4(stored: Stored4x4, scales: Scales) -> mat4x4<f32> {
    let d = scales.scale;
    return mat4x4<f32>(
        d * signed4(stored.codes, 0u), d * signed4(stored.codes, 1u),
        d * signed4(stored.codes, 2u), d * signed4(stored.codes, 3u));
}
