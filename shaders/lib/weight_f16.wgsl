// Reads a packed weight stored as f16, two numbers in a u32. `unpack2x16float` is core WGSL: no device
// feature is needed.

#import plain_4x4

@group(0) @binding(2) var<storage, read> weight: array<vec2<u32>>;

// Four consecutive weights as they are stored.
alias Stored4 = vec2<u32>;
// Whether there may be numbers beyond f16's largest.
const EXCEEDS_F16: bool = false;

fn widen4(bits: Stored4) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(bits.x), unpack2x16float(bits.y));
}

// Four consecutive weights; `i` counts groups of four.
fn weight4(i: u32) -> vec4<f32> {
    return widen4(weight[i]);
}
