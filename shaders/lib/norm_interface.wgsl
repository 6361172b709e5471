// What kernels of norms share: operands, what follows the normalisation, and the statistics of a row.
// Offsets and strides count groups of four numbers.

struct Params {
    rows: u32,
    c4: u32,
    x_offset: u32,
    x_stride: u32,
    y_offset: u32,
    y_stride: u32,
    scale_offset: u32,
    shift_offset: u32,
    eps: f32,
    rank4: u32,         // of a layer that reads y: groups of four outputs of its narrow matrix
    narrow_offset: u32,
    narrow_stride: u32,
    f16_flag: u32,      // where y is in f16: which flag says that a number does not fit
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> scale: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> shift: array<vec4<f32>>;
// binding 4: y, in norm_y.wgsl and norm_y_f16.wgsl

override RMS: bool = false;
override AFFINE: u32 = 0u;

const LANES: u32 = 64u;

// What y gets in group `c` of columns.
fn affine(c: u32, normed: vec4<f32>) -> vec4<f32> {
    var v = normed;
    if (AFFINE == 1u) {
        v = v * (1.0 + scale[params.scale_offset + c]) + shift[params.shift_offset + c];
    } else if (AFFINE == 2u) {
        v = v * scale[params.scale_offset + c] + shift[params.shift_offset + c];
    } else if (AFFINE == 3u) {
        v = v * scale[params.scale_offset + c];
    }
    return v;
}

// Mean of the row of x that begins at `start`, and what divides it: one invocation reads all of it.
fn statistics(start: u32) -> vec2<f32> {
    let n = f32(params.c4 * 4u);
    var mean = 0.0;
    var squares = 0.0;
    // Four times four numbers at once, joined by Chan's formula: each is read once, and nothing cancels.
    var count = 0.0;
    for (var c = 0u; c < params.c4; c += 4u) {
        let more = min(4u, params.c4 - c);
        var values: array<vec4<f32>, 4>;
        var sum = vec4<f32>();
        for (var i = 0u; i < 4u; i++) {
            values[i] = x[start + min(c + i, params.c4 - 1u)];
            sum += select(vec4<f32>(), values[i], i < more);
        }
        let size = f32(more * 4u);
        let own_mean = select(dot(sum, vec4<f32>(1.0)) / size, 0.0, RMS);
        var own_squares = vec4<f32>();
        for (var i = 0u; i < 4u; i++) {
            let d = select(vec4<f32>(), values[i] - own_mean, i < more);
            own_squares += d * d;
        }
        let delta = own_mean - mean;
        mean += delta * (size / (count + size));
        squares += dot(own_squares, vec4<f32>(1.0)) + delta * delta * (count * size / (count + size));
        count += size;
    }
    return vec2<f32>(mean, inverseSqrt(squares / n + params.eps));
}
