// The output of a linear layer. Where it is in f16, linear_y_f16.wgsl stands for this file.

@group(0) @binding(5) var<storage, read_write> y: array<vec4<f32>>;

fn from_y(stored: vec4<f32>) -> vec4<f32> {
    return stored;
}

fn to_y(v: vec4<f32>) -> vec4<f32> {
    return v;
}
