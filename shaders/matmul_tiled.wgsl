// y = epilogue(x Wᵀ + bias) on graphics chips: the operands of matmul.wgsl.
//
// A workgroup computes 8 * GROUP_ROWS rows x one tile of the weight. Both factors pass through workgroup memory, 16
// numbers of K at a time, so that each is read from a buffer once per workgroup rather than once per invocation.
// An invocation computes 8 rows x 4 * QUADS columns in registers: rows GROUP_ROWS apart and groups of columns
// LANES / QUADS apart, so that neighbours read and write neighbouring memory. WGSL cannot index registers, so the
// rows are spelt out.

#import exp
#import activation
#import weight
#import linear_layer

override GROUP_ROWS: u32 = 8u;  // invocations of a workgroup along the rows
override QUADS: u32 = 2u;       // groups of four columns an invocation computes: 1 or 2

const ROWS: u32 = 8u;           // rows an invocation computes
const K4: u32 = 4u;             // groups of four numbers of K in workgroup memory
const X_STRIDE: u32 = 5u;       // odd, so that neighbouring rows lie in different banks

var<workgroup> x_tile: array<vec4<f32>, ROWS * GROUP_ROWS * X_STRIDE>;  // [ROWS * GROUP_ROWS][K4], padded
var<workgroup> w_tile: array<vec4<f32>, 4u * K4 * LANES>;               // [4 * K4][LANES]

@compute @workgroup_size(LANES / QUADS, GROUP_ROWS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    // Blocks of rows run fastest over the workgroups: a tile of W stays in the cache while all rows pass by.
    let invocations = LANES / QUADS * GROUP_ROWS;
    let tile = group.y;
    let first_row = (group.x + group.z * groups.x) * ROWS * GROUP_ROWS;
    let w_at = tile * params.k4 * 4u * LANES;
    let w_end = params.k4 * 4u * LANES;
    // Of the first row and the first column of this invocation in the tiles.
    let own_x = local.y * X_STRIDE;
    let own_w = local.x;
    var s0 = vec4<f32>();
    var s1 = vec4<f32>();
    var s2 = vec4<f32>();
    var s3 = vec4<f32>();
    var s4 = vec4<f32>();
    var s5 = vec4<f32>();
    var s6 = vec4<f32>();
    var s7 = vec4<f32>();
    // The second group of columns.
    var t0 = vec4<f32>();
    var t1 = vec4<f32>();
    var t2 = vec4<f32>();
    var t3 = vec4<f32>();
    var t4 = vec4<f32>();
    var t5 = vec4<f32>();
    var t6 = vec4<f32>();
    var t7 = vec4<f32>();
    for (var k = 0u; k < params.k4; k += K4) {
        workgroupBarrier();
        // Zeros past the end of K.
        for (var i = index; i < ROWS * GROUP_ROWS * K4; i += invocations) {
            let c = k + i % K4;
            let at = x_row(first_row + i / K4) + min(c, params.k4 - 1u);
            x_tile[i / K4 * X_STRIDE + i % K4] = select(vec4<f32>(), x[at], c < params.k4);
        }
        for (var i = index; i < 4u * K4 * LANES; i += invocations) {
            let at = k * 4u * LANES + i;
            w_tile[i] = select(vec4<f32>(), weight4(w_at + min(at, w_end - 1u)), at < w_end);
        }
        workgroupBarrier();
        for (var c = 0u; c < K4; c++) {
            let a0 = x_tile[own_x + c];
            let a1 = x_tile[own_x + 1u * GROUP_ROWS * X_STRIDE + c];
            let a2 = x_tile[own_x + 2u * GROUP_ROWS * X_STRIDE + c];
            let a3 = x_tile[own_x + 3u * GROUP_ROWS * X_STRIDE + c];
            let a4 = x_tile[own_x + 4u * GROUP_ROWS * X_STRIDE + c];
            let a5 = x_tile[own_x + 5u * GROUP_ROWS * X_STRIDE + c];
            let a6 = x_tile[own_x + 6u * GROUP_ROWS * X_STRIDE + c];
            let a7 = x_tile[own_x + 7u * GROUP_ROWS * X_STRIDE + c];
            let w = own_w + 4u * c * LANES;
            let w0 = w_tile[w];
            let w1 = w_tile[w + LANES];
            let w2 = w_tile[w + 2u * LANES];
            let w3 = w_tile[w + 3u * LANES];
            s0 = dot_columns(s0, a0, w0, w1, w2, w3);
            s1 = dot_columns(s1, a1, w0, w1, w2, w3);
            s2 = dot_columns(s2, a2, w0, w1, w2, w3);
            s3 = dot_columns(s3, a3, w0, w1, w2, w3);
            s4 = dot_columns(s4, a4, w0, w1, w2, w3);
            s5 = dot_columns(s5, a5, w0, w1, w2, w3);
            s6 = dot_columns(s6, a6, w0, w1, w2, w3);
            s7 = dot_columns(s7, a7, w0, w1, w2, w3);
            if (QUADS == 2u) {
                let v = w + LANES / 2u;
                let v0 = w_tile[v];
                let v1 = w_tile[v + LANES];
                let v2 = w_tile[v + 2u * LANES];
                let v3 = w_tile[v + 3u * LANES];
                t0 = dot_columns(t0, a0, v0, v1, v2, v3);
                t1 = dot_columns(t1, a1, v0, v1, v2, v3);
                t2 = dot_columns(t2, a2, v0, v1, v2, v3);
                t3 = dot_columns(t3, a3, v0, v1, v2, v3);
                t4 = dot_columns(t4, a4, v0, v1, v2, v3);
                t5 = dot_columns(t5, a5, v0, v1, v2, v3);
                t6 = dot_columns(t6, a6, v0, v1, v2, v3);
                t7 = dot_columns(t7, a7, v0, v1, v2, v3);
            }
        }
    }
    let row = first_row + local.y;
    let column4 = tile * LANES + local.x;
    if (column4 < params.n4) {
        put(row + 0u * GROUP_ROWS, column4, s0);
        put(row + 1u * GROUP_ROWS, column4, s1);
        put(row + 2u * GROUP_ROWS, column4, s2);
        put(row + 3u * GROUP_ROWS, column4, s3);
        put(row + 4u * GROUP_ROWS, column4, s4);
        put(row + 5u * GROUP_ROWS, column4, s5);
        put(row + 6u * GROUP_ROWS, column4, s6);
        put(row + 7u * GROUP_ROWS, column4, s7);
    }
    let second4 = column4 + LANES / 2u;
    if (QUADS == 2u && second4 < params.n4) {
        put(row + 0u * GROUP_ROWS, second4, t0);
        put(row + 1u * GROUP_ROWS, second4, t1);
        put(row + 2u * GROUP_ROWS, second4, t2);
        put(row + 3u * GROUP_ROWS, second4, t3);
        put(row + 4u * GROUP_ROWS, second4, t4);
        put(row + 5u * GROUP_ROWS, second4, t5);
        put(row + 6u * GROUP_ROWS, second4, t6);
        put(row + 7u * GROUP_ROWS, second4, t7);
    }
}
