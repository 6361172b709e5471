// 3x3 convolution with padding 1 on processors: the operands and options of conv2d.wgsl, and a prologue; lib/conv2d_patch.wgsl says how.
//
// An invocation reads the pixels it needs from workgroup memory. Loops over PIXELS are unrolled by drivers, which keeps
// the sums in registers.

#import exp
#import activation
#import weight
#import conv2d_interface
#import pixels_32
#import conv2d_fill
#import conv2d_patch

struct Weights {
    w0: vec4<f32>,
    w1: vec4<f32>,
    w2: vec4<f32>,
    w3: vec4<f32>,
}

// Four rows of the packed weight.
fn weights_at(w: u32) -> Weights {
    return Weights(weight4(w), weight4(w + LANES_X), weight4(w + 2u * LANES_X), weight4(w + 3u * LANES_X));
}

fn accumulate(sum: vec4<f32>, a: vec4<f32>, w: Weights) -> vec4<f32> {
    return dot_columns(sum, a, w.w0, w.w1, w.w2, w.w3);
}

// Adds `count` groups of four channels of every tap, of which the first begins at `place` in the patch and at `w_first` in
// the weight, the next there `w_tap` on.
fn multiply_taps(sums: ptr<function, Sums>, place: vec2<u32>, w_first: u32, w_tap: u32, count: u32, lane: u32) {
    for (var t = 0u; t < TAPS; t++) {
        let first = tap_at(place, t);
        for (var c = 0u; c < count; c += 2u) {
            let w = w_first + t * w_tap + c * 4u * LANES_X;
            let a = weights_at(w);
            // The second four channels of an odd end meet zeros; the first four are read again for them.
            let b = weights_at(w + select(0u, 4u * LANES_X, c + 1u < count));
            for (var p = 0u; p < PIXELS; p++) {
                let at = first + c + (p / COLUMNS * PATCH_COLUMNS + p % COLUMNS) * C4;
                (*sums)[p] = accumulate(accumulate((*sums)[p], pixels[at], a), pixels[at + 1u], b);
            }
        }
    }
}

@compute @workgroup_size(LANES_X * TILES * BLOCKS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32) {
    convolve(group, index, 0u);
}
