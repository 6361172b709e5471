// y = epilogue(x Wᵀ + bias): linear layers, with f32 sums whatever the storage type of W. The plain kernel.
//
//   x    [M, K]                  rows `x_stride` apart, a view into a wider matrix
//   W    [tiles][K][4 * LANES]   packed, see `PackedWeight`
//   bias [N]
//   gate [N]                     AdaLN gate
//   y    [M, N]                  rows `y_stride` apart
//
// One invocation computes 16 rows x 4 columns in registers; the LANES invocations of a row of the workgroup
// compute neighbouring columns of the same rows, so their reads of x are uniform and those of W contiguous.
// No workgroup memory and no barrier: on processors those cost more than they save, and graphics chips serve
// the shared reads from their first-level cache. WGSL cannot index registers, so the 16 rows are spelt out.

#import exp
#import activation
#import weight
#import linear_layer
#import linear_output

override ROW_GROUPS: u32 = 1u;  // blocks of 16 rows in a workgroup

@compute @workgroup_size(LANES, ROW_GROUPS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
) {
    // Rows run fastest over the workgroups: a tile of W stays in the cache while all rows pass by.
    let tile = group.y;
    let column4 = tile * LANES + local.x;
    let block = (group.x + group.z * groups.x) * ROW_GROUPS + local.y;
    if (column4 >= params.n4 || block >= params.row_blocks) {
        return;
    }
    let row = block * 16u;
    let x0 = x_row(row + 0u);
    let x1 = x_row(row + 1u);
    let x2 = x_row(row + 2u);
    let x3 = x_row(row + 3u);
    let x4 = x_row(row + 4u);
    let x5 = x_row(row + 5u);
    let x6 = x_row(row + 6u);
    let x7 = x_row(row + 7u);
    let x8 = x_row(row + 8u);
    let x9 = x_row(row + 9u);
    let x10 = x_row(row + 10u);
    let x11 = x_row(row + 11u);
    let x12 = x_row(row + 12u);
    let x13 = x_row(row + 13u);
    let x14 = x_row(row + 14u);
    let x15 = x_row(row + 15u);
    var s0 = vec4<f32>();
    var s1 = vec4<f32>();
    var s2 = vec4<f32>();
    var s3 = vec4<f32>();
    var s4 = vec4<f32>();
    var s5 = vec4<f32>();
    var s6 = vec4<f32>();
    var s7 = vec4<f32>();
    var s8 = vec4<f32>();
    var s9 = vec4<f32>();
    var s10 = vec4<f32>();
    var s11 = vec4<f32>();
    var s12 = vec4<f32>();
    var s13 = vec4<f32>();
    var s14 = vec4<f32>();
    var s15 = vec4<f32>();
    var w = tile * params.k4 * 4u * LANES + local.x;
    for (var k = 0u; k < params.k4; k++) {
        let b = widen4x4(load4x4(w, LANES));
        w += 4u * LANES;
        s0 = dot_columns(s0, x[x0 + k], b[0], b[1], b[2], b[3]);
        s1 = dot_columns(s1, x[x1 + k], b[0], b[1], b[2], b[3]);
        s2 = dot_columns(s2, x[x2 + k], b[0], b[1], b[2], b[3]);
        s3 = dot_columns(s3, x[x3 + k], b[0], b[1], b[2], b[3]);
        s4 = dot_columns(s4, x[x4 + k], b[0], b[1], b[2], b[3]);
        s5 = dot_columns(s5, x[x5 + k], b[0], b[1], b[2], b[3]);
        s6 = dot_columns(s6, x[x6 + k], b[0], b[1], b[2], b[3]);
        s7 = dot_columns(s7, x[x7 + k], b[0], b[1], b[2], b[3]);
        s8 = dot_columns(s8, x[x8 + k], b[0], b[1], b[2], b[3]);
        s9 = dot_columns(s9, x[x9 + k], b[0], b[1], b[2], b[3]);
        s10 = dot_columns(s10, x[x10 + k], b[0], b[1], b[2], b[3]);
        s11 = dot_columns(s11, x[x11 + k], b[0], b[1], b[2], b[3]);
        s12 = dot_columns(s12, x[x12 + k], b[0], b[1], b[2], b[3]);
        s13 = dot_columns(s13, x[x13 + k], b[0], b[1], b[2], b[3]);
        s14 = dot_columns(s14, x[x14 + k], b[0], b[1], b[2], b[3]);
        s15 = dot_columns(s15, x[x15 + k], b[0], b[1], b[2], b[3]);
    }
    let ranks = ranks_of(tile * LANES, tile * LANES + LANES - 1u);
    for (var k = ranks.x; k < ranks.y; k++) {
        let b = up4x4(column4, k);
        s0 = dot_columns(s0, narrow4(row + 0u, k), b[0], b[1], b[2], b[3]);
        s1 = dot_columns(s1, narrow4(row + 1u, k), b[0], b[1], b[2], b[3]);
        s2 = dot_columns(s2, narrow4(row + 2u, k), b[0], b[1], b[2], b[3]);
        s3 = dot_columns(s3, narrow4(row + 3u, k), b[0], b[1], b[2], b[3]);
        s4 = dot_columns(s4, narrow4(row + 4u, k), b[0], b[1], b[2], b[3]);
        s5 = dot_columns(s5, narrow4(row + 5u, k), b[0], b[1], b[2], b[3]);
        s6 = dot_columns(s6, narrow4(row + 6u, k), b[0], b[1], b[2], b[3]);
        s7 = dot_columns(s7, narrow4(row + 7u, k), b[0], b[1], b[2], b[3]);
        s8 = dot_columns(s8, narrow4(row + 8u, k), b[0], b[1], b[2], b[3]);
        s9 = dot_columns(s9, narrow4(row + 9u, k), b[0], b[1], b[2], b[3]);
        s10 = dot_columns(s10, narrow4(row + 10u, k), b[0], b[1], b[2], b[3]);
        s11 = dot_columns(s11, narrow4(row + 11u, k), b[0], b[1], b[2], b[3]);
        s12 = dot_columns(s12, narrow4(row + 12u, k), b[0], b[1], b[2], b[3]);
        s13 = dot_columns(s13, narrow4(row + 13u, k), b[0], b[1], b[2], b[3]);
        s14 = dot_columns(s14, narrow4(row + 14u, k), b[0], b[1], b[2], b[3]);
        s15 = dot_columns(s15, narrow4(row + 15u, k), b[0], b[1], b[2], b[3]);
    }
    put(row + 0u, column4, s0);
    put(row + 1u, column4, s1);
    put(row + 2u, column4, s2);
    put(row + 3u, column4, s3);
    put(row + 4u, column4, s4);
    put(row + 5u, column4, s5);
    put(row + 6u, column4, s6);
    put(row + 7u, column4, s7);
    put(row + 8u, column4, s8);
    put(row + 9u, column4, s9);
    put(row + 10u, column4, s10);
    put(row + 11u, column4, s11);
    put(row + 12u, column4, s12);
    put(row + 13u, column4, s13);
    put(row + 14u, column4, s14);
    put(row + 15u, column4, s15);
}
