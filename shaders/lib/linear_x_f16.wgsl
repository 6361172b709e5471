// x that was multiplied by SCALE and rounded to f16 by the kernel that wrote it, which also raised the flag if it did not fit.

@group(0) @binding(1) var<storage, read> x: array<vec4<f16>>;

// Groups of four numbers of four rows; zeros past the end of K.
fn load_x(a: u32, b: u32, c: u32, d: u32, inside: bool) -> Rounded {
    let none = vec4<f16>();
    return Rounded(
        select(none, x[a], inside), select(none, x[b], inside), select(none, x[c], inside), select(none, x[d], inside));
}
