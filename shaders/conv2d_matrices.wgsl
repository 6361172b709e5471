// 3x3 convolution with padding 1 on matrix units: the operands and options of conv2d.wgsl, and a prologue. Pixels and
// weights are rounded to f16, sums are f32. If a number does not fit f16, a flag is raised, and the result is of no use.
//
// Implicit GEMM. A workgroup computes 8 rows of SIDE pixels and 8 * SIDE channels. The pixels and those around them lie in
// workgroup memory, 16 channels at a time, [pixel][channel]: a row of SIDE of them is a matrix, and the same row under
// another tap begins a pixel or a row of the patch later. W follows, the taps of a row at a time, [channel of the
// output][tap][channel], transposed while it is rounded, as in matmul_cooperative.wgsl, which says what is about
// subgroups, too.
//
// Where it enlarges (SCALE 2), see lib/conv2d_patch.wgsl.

enable f16;
enable wgpu_cooperative_matrix;

#import coop
#import exp
#import activation
#import weight
#import conv2d_interface
#import conv2d_fill

@group(0) @binding(6) var<storage, read_write> f16_flags: array<atomic<u32>>;

override LEAST_SUBGROUPS: u32 = 4u;
override MOST_SUBGROUPS: u32 = 8u;

const INVOCATIONS: u32 = 16u * SIDE;
const PIXEL_ROWS: u32 = 8u;
const TILE: u32 = 8u * SIDE;            // channels of a workgroup
const CHANNELS: u32 = 16u;              // of a patch; C4 is a quarter
// With a border of one pixel.
const PATCH_COLUMNS: u32 = SIDE + 2u;
const PATCH_PIXELS: u32 = PATCH_COLUMNS * (PIXEL_ROWS + 2u);
// Rows in workgroup memory are aligned to 16 bytes, and neighbours lie in different banks.
const PATCH_STRIDE: u32 = CHANNELS + 8u;
const W_STRIDE: u32 = 3u * CHANNELS + 8u;

var<workgroup> patch_tile: array<f16, PATCH_PIXELS * PATCH_STRIDE>;
var<workgroup> w_tile: array<f16, TILE * W_STRIDE>;             // [TILE channels][3 taps][CHANNELS], padded
var<workgroup> sums: array<f32, 9u * SIDE * SIDE>;              // [8 subgroups, and a surplus one][SIDE][SIDE]

// The largest magnitude that this invocation has rounded.
var<private> largest: f32 = 0.0;

fn note(v: vec4<f32>) {
    let m = abs(v);
    largest = max(largest, max(max(m.x, m.y), max(m.z, m.w)));
}

fn store_pixel(pixel: u32, c: u32, v: vec4<f32>) {
    note(v);
    let at = pixel * PATCH_STRIDE + c * 4u;
    let rounded = vec4<f16>(v);
    patch_tile[at] = rounded.x;
    patch_tile[at + 1u] = rounded.y;
    patch_tile[at + 2u] = rounded.z;
    patch_tile[at + 3u] = rounded.w;
}

// Two channels of x that belong to four of the output.
fn put_w(at: u32, first: Stored4, second: Stored4) {
    let a = widen4(first);
    let b = widen4(second);
    if (EXCEEDS_F16) {
        note(a);
        note(b);
    }
    let f = vec4<f16>(a);
    let s = vec4<f16>(b);
    w_tile[at] = f.x;
    w_tile[at + 1u] = s.x;
    w_tile[at + W_STRIDE] = f.y;
    w_tile[at + W_STRIDE + 1u] = s.y;
    w_tile[at + 2u * W_STRIDE] = f.z;
    w_tile[at + 2u * W_STRIDE + 1u] = s.z;
    w_tile[at + 3u * W_STRIDE] = f.w;
    w_tile[at + 3u * W_STRIDE + 1u] = s.w;
}

@compute @workgroup_size(INVOCATIONS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) lane: u32,
    @builtin(subgroup_size) lanes: u32,
) {
    let phase = vec2<u32>(params.phase % 2u, params.phase / 2u);
    // The first input pixel.
    let first = vec2<u32>(group.x * SIDE, params.y_row0 / SCALE + group.y * PIXEL_ROWS);
    let is_narrow = clamp(INVOCATIONS / lanes, LEAST_SUBGROUPS, MOST_SUBGROUPS) >= 8u;
    // Turns of the loops about the other half of 4 x 4 matrices.
    let more = select(1u, 0u, is_narrow);
    let parts = select(4u, 8u, is_narrow);
    let across = parts / 2u;
    let part = subgroup % parts;
    // Of this subgroup: rows of pixels, and channels.
    let own_row = part / across * 4u;
    let own_column = part % across * (TILE / across);

    // What this invocation fills of W: two channels of x of four of the output, for each tap of a row.
    let fill_channel = index % 8u * 2u;
    let fill_quad = index / 8u;
    // Channels past the end repeat the last ones and are not written.
    let quad = min(group.z * (TILE / 4u) + fill_quad, params.n4 - 1u);
    let channels = params.c4 * 4u;
    let w_at = quad / LANES_X * TAPS * channels * LANES_X + quad % LANES_X;
    let w_tap = channels * LANES_X;
    let to_w = fill_quad * 4u * W_STRIDE + fill_channel;

    for (var i = index; i < SIDE * SIDE; i += INVOCATIONS) {
        sums[i] = 0.0;
    }
    workgroupBarrier();
    let zero = coopLoadT<Sum>(&sums[0], SIDE);
    var s00 = zero;
    var s10 = zero;
    var s20 = zero;
    var s30 = zero;
    var s01 = zero;
    var s11 = zero;
    var s21 = zero;
    var s31 = zero;
    var s02 = zero;
    var s12 = zero;
    var s22 = zero;
    var s32 = zero;
    var s03 = zero;
    var s13 = zero;
    var s23 = zero;
    var s33 = zero;

    for (var c0 = 0u; c0 < params.c4; c0 += C4) {
        // The end of multiplying the last ones.
        workgroupBarrier();
        fill(first, c0, index);
        // Channels of x past the end are zeros in the patch.
        let channel = min(c0 * 4u + fill_channel, channels - 2u);
        for (var tap_row = 0u; tap_row < ACROSS; tap_row++) {
            let w = w_at + tap_row * ACROSS * w_tap + channel * LANES_X;
            let w0 = weight[w];
            let w1 = weight[w + LANES_X];
            let w2 = weight[w + w_tap];
            let w3 = weight[w + w_tap + LANES_X];
            var w4 = w0;
            var w5 = w0;
            if (ACROSS > 2u) {
                w4 = weight[w + 2u * w_tap];
                w5 = weight[w + 2u * w_tap + LANES_X];
            }
            if (tap_row > 0u) {
                workgroupBarrier();
            }
            put_w(to_w, w0, w1);
            put_w(to_w + CHANNELS, w2, w3);
            if (ACROSS > 2u) {
                put_w(to_w + 2u * CHANNELS, w4, w5);
            }
            workgroupBarrier();
            let patch_row = (own_row + phase.y + tap_row) * PATCH_COLUMNS + phase.x;
            for (var k = 0u; k < ACROSS * CHANNELS; k += SIDE) {
                let b = own_column * W_STRIDE + k;
                let b0 = coopLoad<Right>(&w_tile[b], W_STRIDE);
                let b1 = coopLoad<Right>(&w_tile[b + SIDE * W_STRIDE], W_STRIDE);
                let a = (patch_row + k / CHANNELS) * PATCH_STRIDE + k % CHANNELS;
                let a0 = coopLoadT<Left>(&patch_tile[a], PATCH_STRIDE);
                s00 = coopMultiplyAdd(a0, b0, s00);
                s01 = coopMultiplyAdd(a0, b1, s01);
                let a1 = coopLoadT<Left>(&patch_tile[a + PATCH_COLUMNS * PATCH_STRIDE], PATCH_STRIDE);
                s10 = coopMultiplyAdd(a1, b0, s10);
                s11 = coopMultiplyAdd(a1, b1, s11);
                let a2 = coopLoadT<Left>(&patch_tile[a + 2u * PATCH_COLUMNS * PATCH_STRIDE], PATCH_STRIDE);
                s20 = coopMultiplyAdd(a2, b0, s20);
                s21 = coopMultiplyAdd(a2, b1, s21);
                let a3 = coopLoadT<Left>(&patch_tile[a + 3u * PATCH_COLUMNS * PATCH_STRIDE], PATCH_STRIDE);
                s30 = coopMultiplyAdd(a3, b0, s30);
                s31 = coopMultiplyAdd(a3, b1, s31);
                for (var turn = 0u; turn < more; turn++) {
                    let b2 = coopLoad<Right>(&w_tile[b + 2u * SIDE * W_STRIDE], W_STRIDE);
                    let b3 = coopLoad<Right>(&w_tile[b + 3u * SIDE * W_STRIDE], W_STRIDE);
                    s02 = coopMultiplyAdd(a0, b2, s02);
                    s03 = coopMultiplyAdd(a0, b3, s03);
                    s12 = coopMultiplyAdd(a1, b2, s12);
                    s13 = coopMultiplyAdd(a1, b3, s13);
                    s22 = coopMultiplyAdd(a2, b2, s22);
                    s23 = coopMultiplyAdd(a2, b3, s23);
                    s32 = coopMultiplyAdd(a3, b2, s32);
                    s33 = coopMultiplyAdd(a3, b3, s33);
                }
            }
        }
    }
    if (largest > 65504.0) {
        atomicStore(&f16_flags[params.f16_flag], 1u);
    }
    // One matrix of each subgroup at a time.
    let slot = min(subgroup, 8u) * SIDE * SIDE;
    for (var matrix = 0u; matrix < 8u + 8u * more; matrix++) {
        workgroupBarrier();
        switch (matrix) {
            case 0u: { coopStoreT(s00, &sums[slot], SIDE); }
            case 1u: { coopStoreT(s10, &sums[slot], SIDE); }
            case 2u: { coopStoreT(s20, &sums[slot], SIDE); }
            case 3u: { coopStoreT(s30, &sums[slot], SIDE); }
            case 4u: { coopStoreT(s01, &sums[slot], SIDE); }
            case 5u: { coopStoreT(s11, &sums[slot], SIDE); }
            case 6u: { coopStoreT(s21, &sums[slot], SIDE); }
            case 7u: { coopStoreT(s31, &sums[slot], SIDE); }
            case 8u: { coopStoreT(s02, &sums[slot], SIDE); }
            case 9u: { coopStoreT(s12, &sums[slot], SIDE); }
            case 10u: { coopStoreT(s22, &sums[slot], SIDE); }
            case 11u: { coopStoreT(s32, &sums[slot], SIDE); }
            case 12u: { coopStoreT(s03, &sums[slot], SIDE); }
            case 13u: { coopStoreT(s13, &sums[slot], SIDE); }
            case 14u: { coopStoreT(s23, &sums[slot], SIDE); }
            default: { coopStoreT(s33, &sums[slot], SIDE); }
        }
        workgroupBarrier();
        let row = first.y + own_row + matrix % 4u;
        let column4 = group.z * (TILE / 4u) + (own_column + matrix / 4u * SIDE) / 4u;
        for (var i = lane; i < SIDE * SIDE / 4u && subgroup < parts; i += lanes) {
            let column = column4 + i % (SIDE / 4u);
            let at = slot + 4u * i;
            if (column < params.n4) {
                put_pixel(vec2<u32>(first.x + i / (SIDE / 4u), row), phase, column,
                    vec4<f32>(sums[at], sums[at + 1u], sums[at + 2u], sums[at + 3u]));
            }
        }
    }
}
