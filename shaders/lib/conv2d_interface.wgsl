// What all convolution kernels share: operands, switches, and what happens to a sum before it is written.
// Offsets and strides count groups of four numbers; rows and columns count pixels.

struct Params {
    height: u32,        // of the output picture, all bands together
    width: u32,         // of the output picture
    c4: u32,
    n4: u32,
    y_row0: u32,        // first output row of this dispatch
    y_rows: u32,
    y_offset: u32,      // of that row
    y_stride: u32,      // between pixels
    x_row0: u32,        // image row that x_offset points at
    x_offset: u32,
    x_stride: u32,
    column4: u32,       // first output channel of this shard
    phase: u32,         // of the pixels that an input pixel becomes, the one to compute: x + 2 * y
    f16_flag: u32,      // for kernels that round to f16: which flag says that a number does not fit
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
// binding 2: the weight, in the imported file
@group(0) @binding(3) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> y: array<vec4<f32>>;

override LANES_X: u32 = 16u;    // groups of four channels in a tile of the weight
override ACCUMULATE: bool = false;

fn dot_columns(sum: vec4<f32>, a: vec4<f32>, w0: vec4<f32>, w1: vec4<f32>, w2: vec4<f32>, w3: vec4<f32>) -> vec4<f32> {
    return sum + a.x * w0 + a.y * w1 + a.z * w2 + a.w * w3;
}

// Writes four channels of a pixel of this dispatch's rows, if there is such a pixel.
fn put(row: u32, column: u32, column4: u32, sum: vec4<f32>) {
    if (row >= params.y_rows || column >= params.width) {
        return;
    }
    let at = params.y_offset + (row * params.width + column) * params.y_stride + params.column4 + column4;
    var v = sum + bias[params.column4 + column4];
    if (ACCUMULATE) {
        v += y[at];
    }
    y[at] = v;
}
