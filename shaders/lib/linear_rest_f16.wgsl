// The second output of a linear layer, if only products read it that round to f16: see linear_y_f16.wgsl.

@group(0) @binding(4) var<storage, read_write> rest: array<vec4<f16>>;

fn old_rest(at: u32) -> vec4<f32> {
    return vec4<f32>(rest[at]) * TAKE_BACK;
}

fn store_rest(at: u32, v: vec4<f32>) {
    rest[at] = round4(v);
}
