// Reads a packed weight stored as f8 e4m3fn, four numbers in a u32: sign, four bits of exponent (bias 7), three of
// mantissa; no infinities.

@group(0) @binding(2) var<storage, read> weight: array<u32>;

// Four consecutive weights as they are stored.
alias Stored4 = u32;
// Whether there may be numbers beyond f16's largest.
const EXCEEDS_F16: bool = false;

fn widen4(bits: Stored4) -> vec4<f32> {
    let codes = vec4<u32>(bits) >> vec4<u32>(0u, 8u, 16u, 24u);
    let magnitudes = codes & vec4<u32>(0x7fu);
    // The bits of an f32, whose exponent has bias 127. Exponent 0 is a multiple of 2^-9: its own case, as a product with
    // a power of two would go through a subnormal number, which may be flushed to zero.
    let normal = (magnitudes << vec4<u32>(20u)) + vec4<u32>(120u << 23u);
    let small = bitcast<vec4<u32>>(vec4<f32>(magnitudes) * (1.0 / 512.0));
    let numbers = select(normal, small, magnitudes < vec4<u32>(8u));
    return bitcast<vec4<f32>>(numbers | ((codes & vec4<u32>(0x80u)) << vec4<u32>(24u)));
}

// Four consecutive weights; `i` counts groups of four.
fn weight4(i: u32) -> vec4<f32> {
    return widen4(weight[i]);
}
