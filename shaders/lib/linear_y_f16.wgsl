// The output of a linear layer that only products read which round to f16, of kernels that round to it themselves.

@group(0) @binding(5) var<storage, read_write> y: array<vec4<f16>>;

fn from_y(stored: vec4<f16>) -> vec4<f32> {
    return vec4<f32>(stored) * TAKE_BACK;
}

fn to_y(v: vec4<f32>) -> vec4<f16> {
    return round4(v);
}
