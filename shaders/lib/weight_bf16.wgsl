// Reads a packed weight stored as bfloat16, two numbers in a u32. A bfloat16 is the upper half of an f32.

#import plain_4x4

@group(0) @binding(2) var<storage, read> weight: array<vec2<u32>>;

// Four consecutive weights as they are stored.
alias Stored4 = vec2<u32>;
// Whether there may be numbers beyond f16's largest.
const EXCEEDS_F16: bool = true;

fn widen4(bits: Stored4) -> vec4<f32> {
    return bitcast<vec4<f32>>(vec4<u32>(
        bits.x << 16u, bits.x & 0xffff0000u, bits.y << 16u, bits.y & 0xffff0000u));
}

// Four consecutive weights; `i` counts groups of four.
fn weight4(i: u32) -> vec4<f32> {
    return widen4(weight[i]);
}
