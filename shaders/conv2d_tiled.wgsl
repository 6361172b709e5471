// 3x3 convolution with padding 1: the operands and options of conv2d.wgsl, and a prologue.
//
//   affine [2, C]   PROLOGUE: x is read as silu(x * factor + offset), a group norm's end; padding stays zero
//
// Implicit GEMM. An invocation computes 8 x 4 pixels x 4 channels in registers; a workgroup is TILES tiles of the weight
// wide. Its pixels and those around them pass through workgroup memory, 64 channels at a time, so the prologue is
// done twice for each number rather than nine times, and a number of W serves 32 pixels (see matmul_panel.wgsl).
// Loops over PIXELS are unrolled by drivers, which keeps the sums in registers.

#import exp
#import activation
#import weight
#import conv2d_interface

override TILES: u32 = 1u;
override PROLOGUE: bool = false;

const COLUMNS: u32 = 8u;
const ROWS: u32 = 4u;
const PIXELS: u32 = COLUMNS * ROWS;
// With a border of one pixel.
const PATCH_COLUMNS: u32 = COLUMNS + 2u;
const PATCH_PIXELS: u32 = PATCH_COLUMNS * (ROWS + 2u);
const C4: u32 = 16u;            // groups of four channels in workgroup memory

var<workgroup> pixels: array<vec4<f32>, PATCH_PIXELS * C4>;

// Four channels of the pixel `column`, `row` of the patch of workgroup `group`; zero outside the picture.
fn source(group: vec3<u32>, column: u32, row: u32, c: u32) -> vec4<f32> {
    // One more than the true place, so that it stays unsigned.
    let image_row = params.y_row0 + group.y * ROWS + row;
    let image_column = group.x * COLUMNS + column;
    let inside = image_row >= 1u && image_row <= params.height
        && image_column >= 1u && image_column <= params.width
        // Rows that nobody here needs may lie outside the band.
        && group.y * ROWS + row <= params.y_rows + 1u
        && c < params.c4;
    if (!inside) {
        return vec4<f32>();
    }
    var at = vec2<u32>(image_column - 1u, image_row - 1u);
    var width = params.width;
    if (UPSAMPLE) {
        at /= vec2<u32>(2u);
        width /= 2u;
    }
    var v = x[params.x_offset + ((at.y - params.x_row0) * width + at.x) * params.x_stride + c];
    if (PROLOGUE) {
        v = v * affine[c] + affine[params.c4 + c];
        v = activate4(v, SILU);
    }
    return v;
}

@compute @workgroup_size(LANES_X, TILES)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    // Past the last tile the last one is repeated, as all lanes must meet at barriers.
    let tiles = (params.n4 + LANES_X - 1u) / LANES_X;
    let own_tile = group.z * TILES + local.y;
    let tile = min(own_tile, tiles - 1u);
    var sums: array<vec4<f32>, PIXELS>;
    for (var p = 0u; p < PIXELS; p++) {
        sums[p] = vec4<f32>();
    }
    for (var c0 = 0u; c0 < params.c4; c0 += C4) {
        workgroupBarrier();
        for (var i = index; i < PATCH_PIXELS * C4; i += LANES_X * TILES) {
            let pixel = i / C4;
            pixels[i] = source(group, pixel % PATCH_COLUMNS, pixel / PATCH_COLUMNS, c0 + i % C4);
        }
        workgroupBarrier();
        let count = min(C4, params.c4 - c0);
        for (var tap = 0u; tap < 9u; tap++) {
            let first = ((tap / 3u) * PATCH_COLUMNS + tap % 3u) * C4;
            var w = ((tile * 9u + tap) * params.c4 + c0) * 4u * LANES_X + local.x;
            for (var c = 0u; c < count; c += 2u) {
                let w0 = weight4(w);
                let w1 = weight4(w + LANES_X);
                let w2 = weight4(w + 2u * LANES_X);
                let w3 = weight4(w + 3u * LANES_X);
                // The second four channels of an odd end meet zeros; the first four are read again for them.
                w += select(0u, 4u * LANES_X, c + 1u < count);
                let w4 = weight4(w);
                let w5 = weight4(w + LANES_X);
                let w6 = weight4(w + 2u * LANES_X);
                let w7 = weight4(w + 3u * LANES_X);
                w += 4u * LANES_X;
                for (var p = 0u; p < PIXELS; p++) {
                    let at = first + c + (p / COLUMNS * PATCH_COLUMNS + p % COLUMNS) * C4;
                    let half = dot_columns(sums[p], pixels[at], w0, w1, w2, w3);
                    sums[p] = dot_columns(half, pixels[at + 1u], w4, w5, w6, w7);
                }
            }
        }
    }
    let column4 = tile * LANES_X + local.x;
    if (own_tile >= tiles || column4 >= params.n4) {
        return;
    }
    for (var p = 0u; p < PIXELS; p++) {
        put(group.y * ROWS + p / COLUMNS, group.x * COLUMNS + p % COLUMNS, column4, sums[p]);
    }
}
