// Reads a packed weight stored as f16, two numbers in a u32. `unpack2x16float` is core WGSL: no device
// feature is needed.

@group(0) @binding(2) var<storage, read> weight: array<vec2<u32>>;

// Four consecutive weights as they are stored.
alias Bits = vec2<u32>;

fn widen(bits: Bits) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(bits.x), unpack2x16float(bits.y));
}

// Four consecutive weights; `i` counts groups of four.
fn weight4(i: u32) -> vec4<f32> {
    return widen(weight[i]);
}
