// Numbers of 8-bit floats, four in a u32. The accessor says of its type: SHIFT, by which exponent and mantissa go up to where an
// f32 has them; BIAS, what an f32's exponent has more; NORMAL, the first code with an exponent, and SMALLEST, of which the codes
// below that are multiples.

#import plain_4x4

@group(0) @binding(2) var<storage, read> weight: array<u32>;

// Four consecutive weights as they are stored.
alias Stored4 = u32;
// Whether there may be numbers beyond f16's largest.
const EXCEEDS_F16: bool = false;

fn widen4(bits: Stored4) -> vec4<f32> {
    let codes = vec4<u32>(bits) >> vec4<u32>(0u, 8u, 16u, 24u);
    let magnitudes = codes & vec4<u32>(0x7fu);
    // Codes without an exponent are a case of their own, as a product with a power of two would go through a subnormal
    // number, which may be flushed to zero.
    let normal = (magnitudes << vec4<u32>(SHIFT)) + vec4<u32>(BIAS << 23u);
    let small = bitcast<vec4<u32>>(vec4<f32>(magnitudes) * SMALLEST);
    let numbers = select(normal, small, magnitudes < vec4<u32>(NORMAL));
    return bitcast<vec4<f32>>(numbers | ((codes & vec4<u32>(0x80u)) << vec4<u32>(24u)));
}

// Four consecutive weights; `i` counts groups of four.
fn weight4(i: u32) -> vec4<f32> {
    return widen4(weight[i]);
}
