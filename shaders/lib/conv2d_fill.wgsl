// What convolutions with a patch in workgroup memory, the pixels of a workgroup and those around them, do at their begin and
// end: the patch is filled, with a prologue, and pixels are written.
//
//   affine [2, C]   PROLOGUE: x is read as silu(x * factor + offset), a group norm's end; padding stays zero
//
// The importer has `store_pixel`, INVOCATIONS, PATCH_COLUMNS and PATCH_PIXELS.

@group(0) @binding(5) var<storage, read> affine: array<vec4<f32>>;

override PROLOGUE: bool = false;
override C4: u32 = 8u;          // groups of four channels in workgroup memory, an even number
override SCALE: u32 = 1u;       // pixels of the output along an axis for one of the input
override ACROSS: u32 = 3u;      // taps along an axis
override TAPS: u32 = ACROSS * ACROSS;

// How invocations share the filling: along the channels, and along the pixels.
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

// Writes four channels of the input pixel `own`, or of what it becomes in this phase.
fn put_pixel(own: vec2<u32>, phase: vec2<u32>, column4: u32, sum: vec4<f32>) {
    let at = own * SCALE + phase;
    // An odd first row leaves the one above to another dispatch.
    if (at.y >= params.y_row0) {
        put(at.y - params.y_row0, at.x, column4, sum);
    }
}
