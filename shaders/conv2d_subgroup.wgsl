// 3x3 convolution with padding 1 with subgroup operations: the operands and options of conv2d.wgsl, and a prologue;
// lib/conv2d_patch.wgsl says how.
//
// An invocation reads 32 / HELD of the pixels from workgroup memory, which by its place in its subgroup, and the first
// HELD lanes hand them round (see matmul_subgroup.wgsl).

enable subgroups;

#import exp
#import activation
#import weight
#import conv2d_interface
#import held
#import held_rows
#import pixels_32
#import conv2d_fill
#import conv2d_patch

// Adds `count` groups of four channels of every tap, of which the first begins at `place` in the patch and at `w_first` in
// the weight, the next there `w_tap` on.
fn multiply_taps(sums: ptr<function, Sums>, place: vec2<u32>, w_first: u32, w_tap: u32, count: u32, lane: u32) {
    for (var t = 0u; t < TAPS; t++) {
        var at: array<u32, PIXELS / HELD>;
        for (var i = 0u; i < PIXELS / HELD; i++) {
            let p = i * HELD + lane % HELD;
            at[i] = tap_at(place, t) + (p / COLUMNS * PATCH_COLUMNS + p % COLUMNS) * C4;
        }
        var w = w_first + t * w_tap;
        for (var c = 0u; c < count; c++) {
            let w0 = weight4(w);
            let w1 = weight4(w + LANES_X);
            let w2 = weight4(w + 2u * LANES_X);
            let w3 = weight4(w + 3u * LANES_X);
            w += 4u * LANES_X;
            var held: Held;
            for (var i = 0u; i < PIXELS / HELD; i++) {
                held[i] = pixels[at[i] + c];
            }
            multiply_held(sums, held, w0, w1, w2, w3);
        }
    }
}

// One dimension, as naga demands for `subgroup_invocation_id`.
@compute @workgroup_size(LANES_X * TILES * BLOCKS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    convolve(group, index, lane);
}
