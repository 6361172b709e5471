// 3x3 convolution with padding 1 over a picture, optionally on its 2x nearest-neighbour enlargement.
//
//   x    [H * W, C]            NHWC; this dispatch's buffer starts at image row `x_row0`
//   W    [tiles][9 * C][4 * LANES_X]   k = (ky * 3 + kx) * C + c, packed, see `PackedWeight`
//   bias [N]
//   y    [H' * W', N]          H' = H, W' = W, or twice that with UPSAMPLE
//
// Implicit GEMM. One invocation computes 8 neighbouring pixels x 4 channels in registers; lanes in x share the
// pixels and take neighbouring channels, lanes in y take the next 8 pixels. WGSL cannot index registers, so
// the 8 pixels are spelt out.

#import weight
#import conv2d_interface

override LANES_Y: u32 = 1u;
override UPSAMPLE: bool = false;

// Offset of the pixel that output column `column` and tap `kx` read, and whether it is inside.
fn tap(column: u32, kx: u32) -> vec2<u32> {
    let shifted = column + kx;      // one more than the true column, so that it stays unsigned
    let inside = shifted >= 1u && shifted <= params.width;
    let at = clamp(shifted, 1u, params.width) - 1u;
    return vec2<u32>(select(at, at / 2u, UPSAMPLE) * params.x_stride, u32(inside));
}

@compute @workgroup_size(LANES_X, LANES_Y)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
) {
    let tile = group.z;
    let column4 = tile * LANES_X + local.x;
    let column = (group.x * LANES_Y + local.y) * 8u;
    let row = group.y;
    if (column4 >= params.n4 || column >= params.width || row >= params.y_rows) {
        return;
    }
    let x_width = select(params.width, params.width / 2u, UPSAMPLE);
    var s0 = vec4<f32>();
    var s1 = vec4<f32>();
    var s2 = vec4<f32>();
    var s3 = vec4<f32>();
    var s4 = vec4<f32>();
    var s5 = vec4<f32>();
    var s6 = vec4<f32>();
    var s7 = vec4<f32>();
    let w_tile = tile * 9u * params.c4 * 4u * LANES_X + local.x;
    for (var ky = 0u; ky < 3u; ky++) {
        let shifted = params.y_row0 + row + ky;
        if (shifted < 1u || shifted > params.height) {
            continue;
        }
        let image_row = select(shifted - 1u, (shifted - 1u) / 2u, UPSAMPLE);
        let x_row = params.x_offset + (image_row - params.x_row0) * x_width * params.x_stride;
        for (var kx = 0u; kx < 3u; kx++) {
            let t0 = tap(column, kx);
            let t1 = tap(column + 1u, kx);
            let t2 = tap(column + 2u, kx);
            let t3 = tap(column + 3u, kx);
            let t4 = tap(column + 4u, kx);
            let t5 = tap(column + 5u, kx);
            let t6 = tap(column + 6u, kx);
            let t7 = tap(column + 7u, kx);
            var w = w_tile + (ky * 3u + kx) * params.c4 * 4u * LANES_X;
            // Outside the picture the factor is 0: a multiply is cheaper than a branch in the inner loop.
            let m0 = f32(t0.y);
            let m1 = f32(t1.y);
            let m2 = f32(t2.y);
            let m3 = f32(t3.y);
            let m4 = f32(t4.y);
            let m5 = f32(t5.y);
            let m6 = f32(t6.y);
            let m7 = f32(t7.y);
            for (var c = 0u; c < params.c4; c++) {
                let w0 = weight4(w);
                let w1 = weight4(w + LANES_X);
                let w2 = weight4(w + 2u * LANES_X);
                let w3 = weight4(w + 3u * LANES_X);
                w += 4u * LANES_X;
                let at = x_row + c;
                s0 = dot_columns(s0, m0 * x[at + t0.x], w0, w1, w2, w3);
                s1 = dot_columns(s1, m1 * x[at + t1.x], w0, w1, w2, w3);
                s2 = dot_columns(s2, m2 * x[at + t2.x], w0, w1, w2, w3);
                s3 = dot_columns(s3, m3 * x[at + t3.x], w0, w1, w2, w3);
                s4 = dot_columns(s4, m4 * x[at + t4.x], w0, w1, w2, w3);
                s5 = dot_columns(s5, m5 * x[at + t5.x], w0, w1, w2, w3);
                s6 = dot_columns(s6, m6 * x[at + t6.x], w0, w1, w2, w3);
                s7 = dot_columns(s7, m7 * x[at + t7.x], w0, w1, w2, w3);
            }
        }
    }
    put(row, column, column4, s0);
    put(row, column + 1u, column4, s1);
    put(row, column + 2u, column4, s2);
    put(row, column + 3u, column4, s3);
    put(row, column + 4u, column4, s4);
    put(row, column + 5u, column4, s5);
    put(row, column + 6u, column4, s6);
    put(row, column + 7u, column4, s7);
}
