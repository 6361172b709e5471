// RMS norm of each head of queries or keys, then rotary positions with ROTATE, in place.
//
//   weight [D]      the norm's weight
//   table  [N, D]   for each row and pair of numbers (2i, 2i+1): cos, sin; made by the host in f64,
//                   as some adapters' sin and cos are off by 2e-4
//   x      [M, H*D] rows `x_stride` apart; row r uses row r + table_row of the table
//
// One invocation does one head of one row. Pairs are interleaved:
// (x0, x1) -> (x0 cos - x1 sin, x1 cos + x0 sin). FLUX reference code, `apply_rope`.
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

const LANES: u32 = 64u;

@compute @workgroup_size(LANES)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let own = place((group.x + group.y * groups.x) * LANES, lane, params.heads);
    let row = own.x;
    let head = own.y;
    if (row >= params.rows) {
        return;
    }
    let at = params.x_offset + row * params.x_stride + head * params.d4;
    let angles = (row + params.table_row) * params.d4;
    var squares = vec4<f32>();
    for (var i = 0u; i < params.d4; i++) {
        let v = x[at + i];
        squares += v * v;
    }
    let factor = inverseSqrt(dot(squares, vec4<f32>(1.0)) / f32(params.d4 * 4u) + params.eps);
    for (var i = 0u; i < params.d4; i++) {
        let v = x[at + i] * factor * weight[i];
        if (!ROTATE) {
            x[at + i] = v;
            continue;
        }
        let r = table[angles + i];
        x[at + i] = vec4<f32>(
            v.x * r.x - v.y * r.y, v.y * r.x + v.x * r.y,
            v.z * r.z - v.w * r.w, v.w * r.z + v.z * r.w);
    }
}
