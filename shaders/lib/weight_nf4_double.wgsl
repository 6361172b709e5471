// Reads a packed weight in NF4 whose scales are quantised, too: `level(q) (factor(s) scale + offset)`. Words: an f32 `scale`; an
// f32 `offset`; 2 of the codes `s`, a byte for 64 numbers; 64 of half bytes.

#import packed_block
#import nf4_levels

const NUMBERS: u32 = 512u;
const WORDS: u32 = 68u;

struct Stored4x4 {
    k: u32,
    scale: vec4<u32>,
    offset: vec4<u32>,
    factors: vec4<u32>,
    codes: vec4<u32>,
}

fn load4x4(i: u32, lanes: u32) -> Stored4x4 {
    let place = place_of(i, lanes);
    let k = place.k;
    return Stored4x4(
        k, word4(place, 0u), word4(place, 1u), word4(place, 2u + k / 256u), word4(place, 4u + k / 8u));
}

// bitsandbytes' dynamic map: 127 is 0, and codes p above it and below are numbers of either sign. From each power of two of p
// to the next they are a decade, from a tenth of a power of ten on, at even distances; 128 is 1.
fn factor4(code: vec4<u32>) -> vec4<f32> {
    let signed = bitcast<vec4<i32>>(code) - vec4<i32>(127);
    let p = vec4<f32>(abs(signed));
    let bits = bitcast<vec4<u32>>(p + vec4<f32>(0.5));
    let fraction = bitcast<vec4<f32>>((bits & vec4<u32>(0x7fffffu)) | vec4<u32>(0x3f800000u)) - vec4<f32>(1.0);
    // p is 1 to 128 and its power of two 0 to 7, or p is 0.
    let power = (bits >> vec4<u32>(23u)) - vec4<u32>(127u);
    let ten = select(vec4<f32>(1.0), vec4<f32>(10.0), (power & vec4<u32>(1u)) != vec4<u32>());
    let hundred = select(vec4<f32>(1.0), vec4<f32>(100.0), (power & vec4<u32>(2u)) != vec4<u32>());
    let myriad = select(vec4<f32>(1.0), vec4<f32>(10000.0), (power & vec4<u32>(4u)) != vec4<u32>());
    let between = (vec4<f32>(0.1) + 0.9 * fraction) * ((ten * hundred * myriad) * 1e-6);
    let below_one = select(between, vec4<f32>(1.0), signed == vec4<i32>(128));
    let magnitude = select(below_one, vec4<f32>(), signed == vec4<i32>());
    return select(magnitude, -magnitude, signed < vec4<i32>());
}

fn widen4x4(stored: Stored4x4) -> mat4x4<f32> {
    let codes = codes4x4(stored.codes, stored.k % 8u * 4u, 4u);
    let factor = factor4(byte4(stored.factors, stored.k / 64u % 4u));
    let largest = factor * bitcast<vec4<f32>>(stored.scale) + bitcast<vec4<f32>>(stored.offset);
    return mat4x4<f32>(
        largest * level4(codes.a), largest * level4(codes.b), largest * level4(codes.c), largest * level4(codes.d));
}

fn numbers8x4(i: u32, lanes: u32, to_second: u32) -> Numbers8x4 {
    return Numbers8x4(widen4x4(load4x4(i, lanes)), widen4x4(load4x4(i + to_second, lanes)));
}
