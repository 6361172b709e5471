// What all kernels of linear layers share: operands, switches, and what happens to a sum before it is written.
// Offsets and strides count groups of four numbers.

struct Params {
    m: u32,
    n4: u32,
    k4: u32,
    x_offset: u32,
    x_stride: u32,
    y_offset: u32,
    y_stride: u32,
    column4: u32,       // first column of this shard, for bias, gate and y
    gate_offset: u32,
    row_blocks: u32,    // blocks of rows, of the height that the kernel has
    f16_flag: u32,      // for kernels that round x to f16: which flag says that it does not fit
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
// binding 2: the weight, in the imported file
@group(0) @binding(3) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> gate: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> y: array<vec4<f32>>;

override LANES: u32 = 16u;      // groups of four columns in a tile of the weight
override ACTIVATION: u32 = 0u;
override HAS_BIAS: bool = false;
override HAS_GATE: bool = false;
override MODE: u32 = 0u;        // 0: y = v, 1: y += v, 2: y *= v

// Writes four columns of a row, if there is such a row.
fn put(row: u32, column4: u32, sum: vec4<f32>) {
    if (row >= params.m) {
        return;
    }
    var v = sum;
    if (HAS_BIAS) {
        v += bias[params.column4 + column4];
    }
    v = activate4(v, ACTIVATION);
    if (HAS_GATE) {
        v *= gate[params.gate_offset + params.column4 + column4];
    }
    let at = params.y_offset + row * params.y_stride + params.column4 + column4;
    if (MODE == 1u) {
        v += y[at];
    } else if (MODE == 2u) {
        v *= y[at];
    }
    y[at] = v;
}

// Where row `row` of x begins. Rows past the end repeat the last one and are not written.
fn x_row(row: u32) -> u32 {
    return params.x_offset + min(row, params.m - 1u) * params.x_stride;
}

fn dot_columns(sum: vec4<f32>, a: vec4<f32>, w0: vec4<f32>, w1: vec4<f32>, w2: vec4<f32>, w3: vec4<f32>) -> vec4<f32> {
    return sum + a.x * w0 + a.y * w1 + a.z * w2 + a.w * w3;
}
