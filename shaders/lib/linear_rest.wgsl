// The second output of a linear layer. Where it is in f16, linear_rest_f16.wgsl stands for this file.

@group(0) @binding(4) var<storage, read_write> rest: array<vec4<f32>>;

fn old_rest(at: u32) -> vec4<f32> {
    return rest[at];
}

fn store_rest(at: u32, v: vec4<f32>) {
    rest[at] = v;
}
