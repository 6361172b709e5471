// The second output of a linear layer, if only products read it that round to f16: see linear_y_f16.wgsl.

@group(0) @binding(4) var<storage, read_write> rest: array<vec4<f16>>;

fn from_rest(stored: vec4<f16>) -> vec4<f32> {
    return vec4<f32>(stored) * TAKE_BACK;
}

fn to_rest(v: vec4<f32>) -> vec4<f16> {
    return round4(v);
}
