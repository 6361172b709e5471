// x of kernels that round it to f16. Where it is in f16 already, linear_x_f16.wgsl stands for this file.

@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;

// Groups of four numbers of four rows, rounded; zeros past the end of K.
fn load_x(a: u32, b: u32, c: u32, d: u32, inside: bool) -> Rounded {
    return round_x(x[a], x[b], x[c], x[d], inside);
}
