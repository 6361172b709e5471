// Reads a packed weight stored as f32.

@group(0) @binding(2) var<storage, read> weight: array<vec4<f32>>;

// Four consecutive weights as they are stored.
alias Bits = vec4<f32>;

fn widen(bits: Bits) -> vec4<f32> {
    return bits;
}

// Four consecutive weights; `i` counts groups of four.
fn weight4(i: u32) -> vec4<f32> {
    return widen(weight[i]);
}
