// The output of a linear layer that only products read which round to f16, of kernels that round to it themselves.

@group(0) @binding(5) var<storage, read_write> y: array<vec4<f16>>;

fn old_y(at: u32) -> vec4<f32> {
    return vec4<f32>(y[at]) * TAKE_BACK;
}

fn store_y(at: u32, v: vec4<f32>) {
    y[at] = round4(v);
}
