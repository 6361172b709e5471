// What all kernels of linear layers share but for x: operands and switches.
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
    split4: u32,        // where there are two outputs: first column of the second
    rest_offset: u32,
    rest_stride: u32,
    rank4: u32,         // of a low-rank change: groups of four numbers of the narrow matrix
    narrow_offset: u32,
    narrow_stride: u32,
    end0: u32,          // groups of columns of up to four layers side by side: where all but the last end
    end1: u32,
    end2: u32,
    rank_end0: u32,     // and where what they need of the narrow matrix does
    rank_end1: u32,
    rank_end2: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
// binding 1: x, in the importing file
// binding 2: the weight, in the imported file
@group(0) @binding(3) var<storage, read> bias: array<vec4<f32>>;
// bindings 4 and 5: a gate and y, or two outputs, in linear_output.wgsl and linear_output_split.wgsl
// binding 6: scales, or a narrow matrix, in the imported file

override LANES: u32 = 16u;      // groups of four columns in a tile of the weight
override ACTIVATION: u32 = 0u;
override HAS_BIAS: bool = false;

#import linear_scale

// Where row `row` of x begins. Rows past the end repeat the last one and are not written.
fn x_row(row: u32) -> u32 {
    return params.x_offset + min(row, params.m - 1u) * params.x_stride;
}

// What the activation gets of the sum of four columns, `column4` of all.
fn whole_sum(sum: vec4<f32>, column4: u32) -> vec4<f32> {
    var v = scaled(sum, column4);
    if (HAS_BIAS) {
        v += bias[column4];
    }
    return v;
}
