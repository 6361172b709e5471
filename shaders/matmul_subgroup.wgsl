// y = epilogue(x Wᵀ + bias) with subgroup operations: the operands of matmul.wgsl.
//
// One invocation computes 32 rows x 4 columns in registers; a workgroup is TILES tiles of the weight wide, and all of it
// computes the same rows. An invocation reads 32 / HELD of the rows of x, which by its place in its subgroup, and the
// first HELD lanes hand them round: a fraction of the reads, no workgroup memory, no barrier.
//
// `subgroupBroadcast` wants a constant lane, so the rows are spelt out, and subgroups need HELD lanes; nothing else here
// depends on their size, nor on how invocations map to them. All lanes stay to the end, as a broadcast from a lane
// that has left is undefined.

enable subgroups;

#import exp
#import activation
#import weight
#import linear_layer
#import held

override TILES: u32 = 4u;       // tiles of the weight in a workgroup

const ROWS: u32 = 32u;

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
    let row = (group.x + group.z * groups.x) * ROWS;
    var at: array<u32, ROWS / HELD>;
    for (var i = 0u; i < ROWS / HELD; i++) {
        at[i] = x_row(row + i * HELD + lane % HELD);
    }
    var sums: array<vec4<f32>, ROWS>;
    for (var r = 0u; r < ROWS; r++) {
        sums[r] = vec4<f32>();
    }
    var w = tile * params.k4 * 4u * LANES + index % LANES;
    for (var k = 0u; k < params.k4; k++) {
        let w0 = weight4(w);
        let w1 = weight4(w + LANES);
        let w2 = weight4(w + 2u * LANES);
        let w3 = weight4(w + 3u * LANES);
        w += 4u * LANES;
        var a: array<vec4<f32>, ROWS / HELD>;
        for (var i = 0u; i < ROWS / HELD; i++) {
            a[i] = x[at[i] + k];
        }
        sums[0] = dot_columns(sums[0], subgroupBroadcast(a[0u / HELD], 0u % HELD), w0, w1, w2, w3);
        sums[1] = dot_columns(sums[1], subgroupBroadcast(a[1u / HELD], 1u % HELD), w0, w1, w2, w3);
        sums[2] = dot_columns(sums[2], subgroupBroadcast(a[2u / HELD], 2u % HELD), w0, w1, w2, w3);
        sums[3] = dot_columns(sums[3], subgroupBroadcast(a[3u / HELD], 3u % HELD), w0, w1, w2, w3);
        sums[4] = dot_columns(sums[4], subgroupBroadcast(a[4u / HELD], 4u % HELD), w0, w1, w2, w3);
        sums[5] = dot_columns(sums[5], subgroupBroadcast(a[5u / HELD], 5u % HELD), w0, w1, w2, w3);
        sums[6] = dot_columns(sums[6], subgroupBroadcast(a[6u / HELD], 6u % HELD), w0, w1, w2, w3);
        sums[7] = dot_columns(sums[7], subgroupBroadcast(a[7u / HELD], 7u % HELD), w0, w1, w2, w3);
        sums[8] = dot_columns(sums[8], subgroupBroadcast(a[8u / HELD], 8u % HELD), w0, w1, w2, w3);
        sums[9] = dot_columns(sums[9], subgroupBroadcast(a[9u / HELD], 9u % HELD), w0, w1, w2, w3);
        sums[10] = dot_columns(sums[10], subgroupBroadcast(a[10u / HELD], 10u % HELD), w0, w1, w2, w3);
        sums[11] = dot_columns(sums[11], subgroupBroadcast(a[11u / HELD], 11u % HELD), w0, w1, w2, w3);
        sums[12] = dot_columns(sums[12], subgroupBroadcast(a[12u / HELD], 12u % HELD), w0, w1, w2, w3);
        sums[13] = dot_columns(sums[13], subgroupBroadcast(a[13u / HELD], 13u % HELD), w0, w1, w2, w3);
        sums[14] = dot_columns(sums[14], subgroupBroadcast(a[14u / HELD], 14u % HELD), w0, w1, w2, w3);
        sums[15] = dot_columns(sums[15], subgroupBroadcast(a[15u / HELD], 15u % HELD), w0, w1, w2, w3);
        sums[16] = dot_columns(sums[16], subgroupBroadcast(a[16u / HELD], 16u % HELD), w0, w1, w2, w3);
        sums[17] = dot_columns(sums[17], subgroupBroadcast(a[17u / HELD], 17u % HELD), w0, w1, w2, w3);
        sums[18] = dot_columns(sums[18], subgroupBroadcast(a[18u / HELD], 18u % HELD), w0, w1, w2, w3);
        sums[19] = dot_columns(sums[19], subgroupBroadcast(a[19u / HELD], 19u % HELD), w0, w1, w2, w3);
        sums[20] = dot_columns(sums[20], subgroupBroadcast(a[20u / HELD], 20u % HELD), w0, w1, w2, w3);
        sums[21] = dot_columns(sums[21], subgroupBroadcast(a[21u / HELD], 21u % HELD), w0, w1, w2, w3);
        sums[22] = dot_columns(sums[22], subgroupBroadcast(a[22u / HELD], 22u % HELD), w0, w1, w2, w3);
        sums[23] = dot_columns(sums[23], subgroupBroadcast(a[23u / HELD], 23u % HELD), w0, w1, w2, w3);
        sums[24] = dot_columns(sums[24], subgroupBroadcast(a[24u / HELD], 24u % HELD), w0, w1, w2, w3);
        sums[25] = dot_columns(sums[25], subgroupBroadcast(a[25u / HELD], 25u % HELD), w0, w1, w2, w3);
        sums[26] = dot_columns(sums[26], subgroupBroadcast(a[26u / HELD], 26u % HELD), w0, w1, w2, w3);
        sums[27] = dot_columns(sums[27], subgroupBroadcast(a[27u / HELD], 27u % HELD), w0, w1, w2, w3);
        sums[28] = dot_columns(sums[28], subgroupBroadcast(a[28u / HELD], 28u % HELD), w0, w1, w2, w3);
        sums[29] = dot_columns(sums[29], subgroupBroadcast(a[29u / HELD], 29u % HELD), w0, w1, w2, w3);
        sums[30] = dot_columns(sums[30], subgroupBroadcast(a[30u / HELD], 30u % HELD), w0, w1, w2, w3);
        sums[31] = dot_columns(sums[31], subgroupBroadcast(a[31u / HELD], 31u % HELD), w0, w1, w2, w3);
    }
    let column4 = tile * LANES + index % LANES;
    if (own_tile >= tiles || column4 >= params.n4) {
        return;
    }
    for (var r = 0u; r < ROWS; r++) {
        put(row + r, column4, sums[r]);
    }
}
