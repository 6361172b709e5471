// The second output of a linear layer. Where it is in f16, linear_rest_f16.wgsl stands for this file.

@group(0) @binding(4) var<storage, read_write> rest: array<vec4<f32>>;

fn from_rest(stored: vec4<f32>) -> vec4<f32> {
    return stored;
}

fn to_rest(v: vec4<f32>) -> vec4<f32> {
    return v;
}
