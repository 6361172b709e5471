// y = epilogue(x Wᵀ + bias) for a few rows: the modulation vectors and embeddings of one timestep.
//
// The same operands and options as matmul.wgsl. One invocation computes 4 columns of one row; the work is
// reading W once, so there is nothing to share between rows.

#import exp
#import activation
#import weight

struct Params {
    m: u32,
    n4: u32,
    k4: u32,
    x_offset: u32,
    x_stride: u32,
    y_offset: u32,
    y_stride: u32,
    column4: u32,
    gate_offset: u32,
    row_blocks: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
// binding 2: the weight, in the imported file
@group(0) @binding(3) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> gate: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> y: array<vec4<f32>>;

override LANES: u32 = 16u;
override ACTIVATION: u32 = 0u;
override HAS_BIAS: bool = false;
override HAS_GATE: bool = false;
override MODE: u32 = 0u;        // 0: y = v, 1: y += v, 2: y *= v

@compute @workgroup_size(LANES)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
) {
    let tile = group.x;
    let row = group.y;
    let column4 = tile * LANES + local.x;
    if (column4 >= params.n4) {
        return;
    }
    let x_row = params.x_offset + row * params.x_stride;
    var w = tile * params.k4 * 4u * LANES + local.x;
    var v = vec4<f32>();
    for (var k = 0u; k < params.k4; k++) {
        let a = x[x_row + k];
        v += a.x * weight4(w) + a.y * weight4(w + LANES)
            + a.z * weight4(w + 2u * LANES) + a.w * weight4(w + 3u * LANES);
        w += 4u * LANES;
    }
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
