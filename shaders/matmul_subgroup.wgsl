// y = epilogue(x Wᵀ + bias) with subgroup operations: the operands of matmul.wgsl.
//
// One invocation computes 16 rows x 4 columns in registers, as in matmul.wgsl; a workgroup is TILES tiles of the weight
// wide, and all of it computes the same rows. An invocation reads four of the rows of x, which by its place in its
// subgroup, and the first four lanes hand them round: a quarter of the reads, no workgroup memory, no barrier.
//
// Four lanes are the smallest subgroup that WebGPU allows, and `subgroupBroadcast` wants a constant lane, so nothing here
// depends on the size of subgroups, nor on how invocations map to them. All lanes stay to the end, as a broadcast
// from a lane that has left is undefined. WGSL cannot index registers, so the rows are spelt out.

enable subgroups;

#import exp
#import activation
#import weight
#import linear_layer

override TILES: u32 = 4u;       // tiles of the weight in a workgroup

// One dimension, as naga demands for `subgroup_invocation_id`.
@compute @workgroup_size(LANES * TILES)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    // Past the last tile the last one is repeated and not written.
    let tiles = (params.n4 + LANES - 1u) / LANES;
    let own_tile = group.y * TILES + index / LANES;
    let tile = min(own_tile, tiles - 1u);
    let row = (group.x + group.z * groups.x) * 16u;
    let read_row = row + lane % 4u;
    let x0 = x_row(read_row);
    let x4 = x_row(read_row + 4u);
    let x8 = x_row(read_row + 8u);
    let x12 = x_row(read_row + 12u);
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
    var w = tile * params.k4 * 4u * LANES + index % LANES;
    for (var k = 0u; k < params.k4; k++) {
        let a0 = x[x0 + k];
        let a4 = x[x4 + k];
        let a8 = x[x8 + k];
        let a12 = x[x12 + k];
        let w0 = weight4(w);
        let w1 = weight4(w + LANES);
        let w2 = weight4(w + 2u * LANES);
        let w3 = weight4(w + 3u * LANES);
        w += 4u * LANES;
        s0 = dot_columns(s0, subgroupBroadcast(a0, 0u), w0, w1, w2, w3);
        s1 = dot_columns(s1, subgroupBroadcast(a0, 1u), w0, w1, w2, w3);
        s2 = dot_columns(s2, subgroupBroadcast(a0, 2u), w0, w1, w2, w3);
        s3 = dot_columns(s3, subgroupBroadcast(a0, 3u), w0, w1, w2, w3);
        s4 = dot_columns(s4, subgroupBroadcast(a4, 0u), w0, w1, w2, w3);
        s5 = dot_columns(s5, subgroupBroadcast(a4, 1u), w0, w1, w2, w3);
        s6 = dot_columns(s6, subgroupBroadcast(a4, 2u), w0, w1, w2, w3);
        s7 = dot_columns(s7, subgroupBroadcast(a4, 3u), w0, w1, w2, w3);
        s8 = dot_columns(s8, subgroupBroadcast(a8, 0u), w0, w1, w2, w3);
        s9 = dot_columns(s9, subgroupBroadcast(a8, 1u), w0, w1, w2, w3);
        s10 = dot_columns(s10, subgroupBroadcast(a8, 2u), w0, w1, w2, w3);
        s11 = dot_columns(s11, subgroupBroadcast(a8, 3u), w0, w1, w2, w3);
        s12 = dot_columns(s12, subgroupBroadcast(a12, 0u), w0, w1, w2, w3);
        s13 = dot_columns(s13, subgroupBroadcast(a12, 1u), w0, w1, w2, w3);
        s14 = dot_columns(s14, subgroupBroadcast(a12, 2u), w0, w1, w2, w3);
        s15 = dot_columns(s15, subgroupBroadcast(a12, 3u), w0, w1, w2, w3);
    }
    let column4 = tile * LANES + index % LANES;
    if (own_tile >= tiles || column4 >= params.n4) {
        return;
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
