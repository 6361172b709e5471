// 3x3 convolution with padding 1 on graphics chips: the operands and options of conv2d.wgsl, and a prologue;
// lib/conv2d_patch.wgsl says how.
//
// An invocation reads the pixels it needs from workgroup memory, where most of a subgroup read the same.

#import exp
#import activation
#import weight
#import conv2d_interface
#import pixels_16
#import conv2d_fill
#import conv2d_patch

// Four rows of the weight.
struct Weights {
    w0: vec4<f32>,
    w1: vec4<f32>,
    w2: vec4<f32>,
    w3: vec4<f32>,
}

fn weights_at(w: u32) -> Weights {
    return Weights(weight4(w), weight4(w + LANES_X), weight4(w + 2u * LANES_X), weight4(w + 3u * LANES_X));
}

// Adds eight channels of the pixel `i` pairs of them into the patch.
fn accumulate(sum: vec4<f32>, i: u32, a: Weights, b: Weights) -> vec4<f32> {
    let first = dot_columns(sum, pixels[i][0], a.w0, a.w1, a.w2, a.w3);
    return dot_columns(first, pixels[i][1], b.w0, b.w1, b.w2, b.w3);
}

// Adds eight channels of all pixels, of which the first is `at` pairs of them into the patch.
fn multiply_pixels(sums: ptr<function, Sums>, at: u32, a: Weights, b: Weights) {
    let step = C4 / 2u;
    let below = at + PATCH_COLUMNS * step;
    (*sums).p0 = accumulate((*sums).p0, at, a, b);
    (*sums).p1 = accumulate((*sums).p1, at + step, a, b);
    (*sums).p2 = accumulate((*sums).p2, at + 2u * step, a, b);
    (*sums).p3 = accumulate((*sums).p3, at + 3u * step, a, b);
    (*sums).p4 = accumulate((*sums).p4, at + 4u * step, a, b);
    (*sums).p5 = accumulate((*sums).p5, at + 5u * step, a, b);
    (*sums).p6 = accumulate((*sums).p6, at + 6u * step, a, b);
    (*sums).p7 = accumulate((*sums).p7, at + 7u * step, a, b);
    (*sums).p8 = accumulate((*sums).p8, below, a, b);
    (*sums).p9 = accumulate((*sums).p9, below + step, a, b);
    (*sums).pa = accumulate((*sums).pa, below + 2u * step, a, b);
    (*sums).pb = accumulate((*sums).pb, below + 3u * step, a, b);
    (*sums).pc = accumulate((*sums).pc, below + 4u * step, a, b);
    (*sums).pd = accumulate((*sums).pd, below + 5u * step, a, b);
    (*sums).pe = accumulate((*sums).pe, below + 6u * step, a, b);
    (*sums).pf = accumulate((*sums).pf, below + 7u * step, a, b);
}

// Adds `count` groups of four channels of every tap, of which the first begins at `place` in the patch and at `w_first` in
// the weight, the next there `w_tap` on.
fn multiply_taps(sums: ptr<function, Sums>, place: vec2<u32>, w_first: u32, w_tap: u32, count: u32, lane: u32) {
    for (var t = 0u; t < TAPS; t++) {
        let at = ((place.y + t / ACROSS) * PATCH_COLUMNS + place.x + t % ACROSS) * C4 / 2u;
        for (var c = 0u; c < count; c += 2u) {
            let w = w_first + t * w_tap + c * 4u * LANES_X;
            // The second four channels of an odd end meet zeros; the first four are read again for them.
            let second = w + select(0u, 4u * LANES_X, c + 1u < count);
            multiply_pixels(sums, at + c / 2u, weights_at(w), weights_at(second));
        }
    }
}

@compute @workgroup_size(LANES_X * TILES * BLOCKS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32) {
    convolve(group, index, 0u);
}
