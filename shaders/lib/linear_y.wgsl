// The output of a linear layer. Where it is in f16, linear_y_f16.wgsl stands for this file.

@group(0) @binding(5) var<storage, read_write> y: array<vec4<f32>>;

fn old_y(at: u32) -> vec4<f32> {
    return y[at];
}

fn store_y(at: u32, v: vec4<f32>) {
    y[at] = v;
}
