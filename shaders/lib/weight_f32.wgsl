// Reads a packed weight stored as f32.

#import plain_4x4

@group(0) @binding(2) var<storage, read> weight: array<vec4<f32>>;

// Four consecutive weights as they are stored.
alias Stored4 = vec4<f32>;
// Whether there may be numbers beyond f16's largest.
const EXCEEDS_F16: bool = true;

fn widen4(stored: Stored4) -> vec4<f32> {
    return stored;
}

// Four consecutive weights; `i` counts groups of four.
fn weight4(i: u32) -> vec4<f32> {
    return widen4(weight[i]);
}
