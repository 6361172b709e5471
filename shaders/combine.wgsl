// Weighted sum of up to three matrices: the arithmetic of the temporal caches.
//
//   x0, x1, x2 [M, C]   rows `x*_stride` apart; COUNT of them are read
//   weights    [..]     w0, w1, w2 from `first_weight` on, if DYNAMIC; else params has them
//   gate       [C]      HAS_GATE
//   y          [M, C]   rows `y_stride` apart
//
// v = w0 * x0 + w1 * x1 + w2 * x2, then v *= gate, then y = v, or y += v with ADD. In the form of the epilogue of
// matmul.wgsl, so that a layer that adds by itself and one that adds here give the same bits.
// One invocation, four numbers. Offsets and strides count groups of four, `first_weight` single numbers.

#import place

struct Params {
    rows: u32,
    c4: u32,
    x0_offset: u32,
    x0_stride: u32,
    x1_offset: u32,
    x1_stride: u32,
    x2_offset: u32,
    x2_stride: u32,
    y_offset: u32,
    y_stride: u32,
    gate_offset: u32,
    first_weight: u32,
    w0: f32,
    w1: f32,
    w2: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x0: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> x1: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> x2: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> weights: array<f32>;
@group(0) @binding(5) var<storage, read> gate: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> y: array<vec4<f32>>;

override COUNT: u32 = 1u;
override DYNAMIC: bool = false;
override HAS_GATE: bool = false;
override MODE: u32 = 0u;    // 0: y = v, 1: y += v, 2: y *= v

const LANES: u32 = 64u;
// Of a workgroup: software drivers take longer to tell a lane its number than it takes for one item.
const ITEMS: u32 = 256u;

// Writes item `first + lane`, if there is such an item.
fn put_item(first: u32, lane: u32) {
    let own = place(first, lane, params.c4);
    let row = own.x;
    let c = own.y;
    if (row >= params.rows) {
        return;
    }
    var w = vec3<f32>(params.w0, params.w1, params.w2);
    if (DYNAMIC) {
        let at = params.first_weight;
        w.x = weights[at];
        if (COUNT > 1u) {
            w.y = weights[at + 1u];
        }
        if (COUNT > 2u) {
            w.z = weights[at + 2u];
        }
    }
    var v = w.x * x0[params.x0_offset + row * params.x0_stride + c];
    if (COUNT > 1u) {
        v += w.y * x1[params.x1_offset + row * params.x1_stride + c];
    }
    if (COUNT > 2u) {
        v += w.z * x2[params.x2_offset + row * params.x2_stride + c];
    }
    if (HAS_GATE) {
        v *= gate[params.gate_offset + c];
    }
    let at = params.y_offset + row * params.y_stride + c;
    if (MODE == 1u) {
        v += y[at];
    } else if (MODE == 2u) {
        v *= y[at];
    }
    y[at] = v;
}

@compute @workgroup_size(LANES)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let first = (group.x + group.y * groups.x) * ITEMS;
    // Spelt out: a browser counts the turns of a loop, which then stays one.
    put_item(first, lane);
    put_item(first + LANES, lane);
    put_item(first + 2u * LANES, lane);
    put_item(first + 3u * LANES, lane);
}
