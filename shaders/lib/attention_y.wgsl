// The output of attention. Where it is in f16, attention_y_f16.wgsl stands for this file.

@group(0) @binding(5) var<storage, read_write> y: array<vec4<f32>>;

// What an earlier dispatch has left there.
fn sums_in_y(at: u32) -> vec4<f32> {
    return y[at];
}

fn put_y(at: u32, v: vec4<f32>) {
    y[at] = v;
}
