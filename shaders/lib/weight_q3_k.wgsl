// Reads a packed weight in Q3_K: `(d scale) (q - 4)`. Words: 4 with four scales of 6 bits, of 16 numbers each and 32 too large,
// and above them a byte of the f16 `d`, the lower one in even words; 8 of third bits; 16 of the two lower bits.

#import packed_block

const NUMBERS: u32 = 256u;
const WORDS: u32 = 28u;

struct Stored4x4 {
    k: u32,
    even: vec4<u32>,
    odd: vec4<u32>,
    third: vec4<u32>,
    codes: vec4<u32>,
}

fn load4x4(i: u32, lanes: u32) -> Stored4x4 {
    let place = place_of(i, lanes);
    let k = place.k;
    let even = k / 128u * 2u;
    return Stored4x4(k, word4(place, even), word4(place, even + 1u), word4(place, 4u + k / 32u),
        word4(place, 12u + k / 16u));
}

fn widen4x4(stored: Stored4x4) -> mat4x4<f32> {
    let d = half4((stored.even >> vec4<u32>(24u)) | ((stored.odd >> vec4<u32>(24u)) << vec4<u32>(8u)), 0u);
    let scales = select(stored.even, stored.odd, stored.k / 64u % 2u == 1u);
    let scale = (scales >> vec4<u32>(stored.k / 16u % 4u * 6u)) & vec4<u32>(63u);
    let by = d * (number4(scale) - 32.0);
    let low = codes4x4(stored.codes, stored.k % 16u * 2u, 2u);
    let codes = joined(low, codes4x4(stored.third, stored.k % 32u, 1u), 2u);
    return numbers4x4(codes, by, -4.0 * by);
}

fn numbers8x4(i: u32, lanes: u32, to_second: u32) -> Numbers8x4 {
    return Numbers8x4(widen4x4(load4x4(i, lanes)), widen4x4(load4x4(i + to_second, lanes)));
}
