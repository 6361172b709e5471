// RMS norm of each head of queries or keys, then rotary positions with ROTATE, in place.
//
//   weight [D]      the norm's weight
//   table  [N, D]   for each row and pair of numbers (2i, 2i+1): cos, sin; made by the host in f64,
//                   as some adapters' sin and cos are off by 2e-4
//   x      [M, H*D] rows `x_stride` apart; row r uses row r + table_row of the table
//
// Pairs are interleaved: (x0, x1) -> (x0 cos - x1 sin, x1 cos + x0 sin). FLUX reference code, `apply_rope`.
//
// Two entry points: one head of a row an invocation (processors), or a head for each HEAD_LANES invocations, which read
// and write neighbouring memory (graphics chips).
// Offsets and strides count groups of four numbers.

#import place

struct Params {
    rows: u32,
    heads: u32,
    d4: u32,
    x_offset: u32,
    x_stride: u32,
    table_row: u32,
    eps: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> weight: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> table: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> x: array<vec4<f32>>;

override ROTATE: bool = true;
override HEAD_LANES: u32 = 32u; // a power of two, at most 32

const LANES: u32 = 64u;
override HEADS: u32 = LANES / HEAD_LANES;

// Each invocation's sum of squares, by head.
var<workgroup> squares: array<array<f32, 32>, HEADS>;

// Normalises and rotates four numbers of a head; `i` counts them in the head, `angle` in the table.
fn normed(v: vec4<f32>, factor: f32, i: u32, angle: u32) -> vec4<f32> {
    let n = v * factor * weight[i];
    if (!ROTATE) {
        return n;
    }
    let r = table[angle];
    return vec4<f32>(
        n.x * r.x - n.y * r.y, n.y * r.x + n.x * r.y,
        n.z * r.z - n.w * r.w, n.w * r.z + n.z * r.w);
}

fn factor_of(sum: f32) -> f32 {
    return inverseSqrt(sum / f32(params.d4 * 4u) + params.eps);
}

@compute @workgroup_size(LANES)
fn head_per_invocation(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let own = place((group.x + group.y * groups.x) * LANES, lane, params.heads);
    let row = own.x;
    if (row >= params.rows) {
        return;
    }
    let at = params.x_offset + row * params.x_stride + own.y * params.d4;
    let angles = (row + params.table_row) * params.d4;
    var sum = vec4<f32>();
    for (var i = 0u; i < params.d4; i++) {
        let v = x[at + i];
        sum += v * v;
    }
    let factor = factor_of(dot(sum, vec4<f32>(1.0)));
    for (var i = 0u; i < params.d4; i++) {
        x[at + i] = normed(x[at + i], factor, i, angles + i);
    }
}

@compute @workgroup_size(LANES)
fn head_per_lanes(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let head = index / HEAD_LANES;
    let own = place((group.x + group.y * groups.x) * HEADS, head, params.heads);
    // Heads past the end follow the barrier with the last row, and are not written.
    let row = min(own.x, params.rows - 1u);
    let lane = index % HEAD_LANES;
    let at = params.x_offset + row * params.x_stride + own.y * params.d4;
    let angles = (row + params.table_row) * params.d4;
    // The first group of four is kept; heads wider than HEAD_LANES of them are read twice.
    let is_inside = lane < params.d4;
    var first = vec4<f32>();
    if (is_inside) {
        first = x[at + lane];
    }
    var own_sum = dot(first, first);
    for (var i = lane + HEAD_LANES; i < params.d4; i += HEAD_LANES) {
        let v = x[at + i];
        own_sum += dot(v, v);
    }
    squares[head][lane] = own_sum;
    workgroupBarrier();
    var sum = 0.0;
    for (var i = 0u; i < HEAD_LANES; i++) {
        sum += squares[head][i];
    }
    if (own.x >= params.rows || !is_inside) {
        return;
    }
    let factor = factor_of(sum);
    x[at + lane] = normed(first, factor, lane, angles + lane);
    for (var i = lane + HEAD_LANES; i < params.d4; i += HEAD_LANES) {
        x[at + i] = normed(x[at + i], factor, i, angles + i);
    }
}
