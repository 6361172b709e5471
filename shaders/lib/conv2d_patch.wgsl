// What the convolutions with a patch in workgroup memory share: everything but `multiply_taps`, which the kernel that
// imports this has, and the sums of an invocation and the patch itself, which `pixels_16` or `pixels_32` has.
//
//   affine [2, C]   PROLOGUE: x is read as silu(x * factor + offset), a group norm's end; padding stays zero
//
// Implicit GEMM. An invocation computes COLUMNS x ROWS pixels x 4 channels in registers; a workgroup is TILES tiles of the
// weight wide. Its pixels and those around them pass through workgroup memory, up to 64 channels at a time, so the prologue
// is done about twice for each number rather than nine times, and a number of W serves all pixels of an invocation (see
// matmul_panel.wgsl).
//
// Where it enlarges (SCALE 2), a dispatch does one of the four pixels that an input pixel becomes, its phase, for COLUMNS x
// ROWS input pixels: 2 x 2 taps, which fold_taps.wgsl made of the nine.

@group(0) @binding(5) var<storage, read> affine: array<vec4<f32>>;

override TILES: u32 = 1u;       // tiles of the weight in a workgroup
override PROLOGUE: bool = false;

const COLUMNS: u32 = 8u;
// With a border of one pixel.
const PATCH_COLUMNS: u32 = COLUMNS + 2u;
override BLOCKS: u32 = 1u;      // blocks of pixels in a workgroup, one below the other
override PATCH_PIXELS: u32 = PATCH_COLUMNS * (ROWS * BLOCKS + 2u);
override C4: u32 = 8u;          // groups of four channels in workgroup memory, an even number
override SCALE: u32 = 1u;       // pixels of the output along an axis for one of the input
override ACROSS: u32 = 3u;      // taps along an axis
override TAPS: u32 = ACROSS * ACROSS;

// Invocations of a workgroup, and how they share the filling of `pixels`: along the channels, and along the pixels.
override INVOCATIONS: u32 = LANES_X * TILES * BLOCKS;
override FILL_C4: u32 = min(C4, INVOCATIONS);
override FILL_PIXELS: u32 = INVOCATIONS / FILL_C4;

// Copies the channels from `c0` of the patch around the output that begins at the input pixel `first`, zero outside the
// picture. An invocation keeps to one group of channels, and counts its pixels' columns and rows: no division.
fn fill(first: vec2<u32>, c0: u32, index: u32) {
    let width = params.width / SCALE;
    // Rows that nobody here needs may lie outside the band.
    let end_row = min(params.height / SCALE, (params.y_row0 + params.y_rows - 1u) / SCALE + 2u);
    if (index >= FILL_C4 * FILL_PIXELS) {
        return;
    }
    for (var i = index % FILL_C4; i < C4; i += FILL_C4) {
        let c = c0 + i;
        var factor = vec4<f32>();
        var offset = vec4<f32>();
        if (PROLOGUE && c < params.c4) {
            factor = affine[c];
            offset = affine[params.c4 + c];
        }
        var pixel = index / FILL_C4;
        // One more than the true place, so that they stay unsigned.
        var column = first.x + pixel % PATCH_COLUMNS;
        var row = first.y + pixel / PATCH_COLUMNS;
        for (; pixel < PATCH_PIXELS; pixel += FILL_PIXELS) {
            var v = vec4<f32>();
            if (column >= 1u && column <= width && row >= 1u && row <= end_row && c < params.c4) {
                let at = (row - 1u - params.x_row0) * width + column - 1u;
                v = x[params.x_offset + at * params.x_stride + c];
                if (PROLOGUE) {
                    v = activate4(v * factor + offset, SILU);
                }
            }
            store_pixel(pixel, i, v);
            column += FILL_PIXELS % PATCH_COLUMNS;
            row += FILL_PIXELS / PATCH_COLUMNS;
            if (column >= first.x + PATCH_COLUMNS) {
                column -= PATCH_COLUMNS;
                row += 1u;
            }
        }
    }
}

// A workgroup's whole work; `index` is the invocation's number in the workgroup, `lane` in its subgroup, if that
// matters to `multiply_taps`.
fn convolve(group: vec3<u32>, index: u32, lane: u32) {
    let phase = vec2<u32>(params.phase % 2u, params.phase / 2u);
    // Past the last tile the last one is repeated, as all lanes must meet at barriers.
    let tiles = (params.n4 + LANES_X - 1u) / LANES_X;
    let own_tile = group.z * TILES + index / LANES_X % TILES;
    let block = index / (LANES_X * TILES);
    let tile = min(own_tile, tiles - 1u);
    // Input pixels: the workgroup's first, and this invocation's.
    let first = vec2<u32>(group.x * COLUMNS, params.y_row0 / SCALE + group.y * ROWS * BLOCKS);
    let own_first = first + vec2<u32>(0u, block * ROWS);
    var sums = Sums();
    for (var c0 = 0u; c0 < params.c4; c0 += C4) {
        workgroupBarrier();
        fill(first, c0, index);
        workgroupBarrier();
        let count = min(C4, params.c4 - c0);
        let w_first = tile * TAPS * params.c4 * 4u * LANES_X + c0 * 4u * LANES_X + index % LANES_X;
        let place = vec2<u32>(0u, block * ROWS) + phase;
        multiply_taps(&sums, place, w_first, params.c4 * 4u * LANES_X, count, lane);
    }
    let column4 = tile * LANES_X + index % LANES_X;
    if (own_tile >= tiles || column4 >= params.n4) {
        return;
    }
    put_pixels(&sums, own_first, phase, column4);
}

// Writes four channels of the input pixel `own`, or of what it becomes in this phase.
fn put_pixel(own: vec2<u32>, phase: vec2<u32>, column4: u32, sum: vec4<f32>) {
    let at = own * SCALE + phase;
    // An odd first row leaves the one above to another dispatch.
    if (at.y >= params.y_row0) {
        put(at.y - params.y_row0, at.x, column4, sum);
    }
}
