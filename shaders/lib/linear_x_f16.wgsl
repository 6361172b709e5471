// x that was multiplied by SCALE and rounded to f16 by the kernel that wrote it, which also raised the flag if it did not fit.
//
// It is read as words: of an array of f16 the compiler for NVIDIA's chips keeps each number in its own register, and workgroups
// then leave no room for a second one. Unpacking and rounding again change nothing, and no compiler does them.

// Two numbers in a u32.
@group(0) @binding(1) var<storage, read> x: array<vec2<u32>>;

fn halves(at: u32, inside: bool) -> vec4<f16> {
    let words = select(vec2<u32>(), x[at], inside);
    return vec4<f16>(vec4<f32>(unpack2x16float(words.x), unpack2x16float(words.y)));
}

// Groups of four numbers of four rows; zeros past the end of K.
fn load_x(a: u32, b: u32, c: u32, d: u32, inside: bool) -> Rounded {
    return Rounded(halves(a, inside), halves(b, inside), halves(c, inside), halves(d, inside));
}
