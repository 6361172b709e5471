// y = epilogue(x Wᵀ + bias) for a few rows: the modulation vectors and embeddings of one timestep.
//
// The same operands and options as matmul.wgsl. One invocation computes 4 columns of one row; the work is
// reading W once, so there is nothing to share between rows.

#import exp
#import activation
#import weight
#import linear_layer
#import linear_output

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
    let x_at = x_row(row);
    var w = tile * params.k4 * 4u * LANES + local.x;
    var v = vec4<f32>();
    for (var k = 0u; k < params.k4; k++) {
        let a = x[x_at + k];
        let b = widen4x4(load4x4(w, LANES));
        v += a.x * b[0] + a.y * b[1] + a.z * b[2] + a.w * b[3];
        w += 4u * LANES;
    }
    let ranks = ranks_of(tile * LANES, tile * LANES + LANES - 1u);
    for (var k = ranks.x; k < ranks.y; k++) {
        let b = up4x4(column4, k);
        v = dot_columns(v, narrow4(row, k), b[0], b[1], b[2], b[3]);
    }
    put(row, column4, v);
}
