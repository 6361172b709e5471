// The output of attention that only products read which round to f16, under the same SCALE. A mean of values fits if they do. One
// dispatch sees all keys, as sums need not fit.

@group(0) @binding(5) var<storage, read_write> y: array<vec4<f16>>;

fn sums_in_y(at: u32) -> vec4<f32> {
    return vec4<f32>(y[at]);
}

fn put_y(at: u32, v: vec4<f32>) {
    y[at] = vec4<f16>(v * SCALE);
}
