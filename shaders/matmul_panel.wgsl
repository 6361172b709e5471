// y = epilogue(x Wᵀ + bias) on processors: the operands of matmul.wgsl.
//
// One invocation computes 32 rows x 4 columns; a workgroup is TILES tiles of the weight wide. Its rows of x pass through
// workgroup memory, 128 numbers of K at a time.
//
// Software drivers turn the lanes of a subgroup into one SIMD vector. There a number of W costs a gather, however many
// lanes want it, so it is used for 32 rows; a number of x that all lanes read costs a dozen instructions in a
// storage buffer, whose bounds are checked for each, but half of that in workgroup memory; and sums that live
// through a loop are masked and stored in every iteration, so an iteration does eight numbers of K. The figures are in
// ARCHITECTURE.md. Loops over ROWS are unrolled by drivers, which keeps the sums in registers.

#import exp
#import activation
#import weight
#import linear_layer
#import linear_output

override TILES: u32 = 4u;       // tiles of the weight in a workgroup

const ROWS: u32 = 32u;
const K4: u32 = 32u;            // groups of four numbers of K in workgroup memory

var<workgroup> panel: array<vec4<f32>, ROWS * K4>;

@compute @workgroup_size(LANES, TILES)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    // Past the last tile and the last row the last ones are repeated, as all lanes must meet at barriers.
    let tiles = (params.n4 + LANES - 1u) / LANES;
    let own_tile = group.y * TILES + local.y;
    let tile = min(own_tile, tiles - 1u);
    let block = group.x + group.z * groups.x;
    let row = block * ROWS;
    var sums: array<vec4<f32>, ROWS>;
    for (var r = 0u; r < ROWS; r++) {
        sums[r] = vec4<f32>();
    }
    var w = tile * params.k4 * 4u * LANES + local.x;
    for (var k = 0u; k < params.k4; k += K4) {
        workgroupBarrier();
        for (var i = index; i < ROWS * K4; i += LANES * TILES) {
            let c = k + i % K4;
            // Zeros past the end of K.
            panel[i] = select(vec4<f32>(), x[x_row(row + i / K4) + min(c, params.k4 - 1u)], c < params.k4);
        }
        workgroupBarrier();
        let count = min(K4, params.k4 - k);
        for (var c = 0u; c < count; c += 2u) {
            // The second four numbers of an odd end meet zeros; the first four are read again for them.
            let to_second = select(0u, 4u * LANES, c + 1u < count);
            let numbers = numbers8x4(w, LANES, to_second);
            let first = numbers.first;
            let second = numbers.second;
            w += to_second + 4u * LANES;
            for (var r = 0u; r < ROWS; r++) {
                let at = r * K4 + c;
                let half = dot_columns(sums[r], panel[at], first[0], first[1], first[2], first[3]);
                sums[r] = dot_columns(half, panel[at + 1u], second[0], second[1], second[2], second[3]);
            }
        }
    }
    let column4 = tile * LANES + local.x;
    let ranks = ranks_of(group.y * TILES * LANES, group.y * TILES * LANES + TILES * LANES - 1u);
    for (var k = ranks.x; k < ranks.y; k++) {
        let b = up4x4(column4, k);
        for (var r = 0u; r < ROWS; r++) {
            sums[r] = dot_columns(sums[r], narrow4(row + r, k), b[0], b[1], b[2], b[3]);
        }
    }
    if (own_tile >= tiles || column4 >= params.n4) {
        return;
    }
    for (var r = 0u; r < ROWS; r++) {
        put(row + r, column4, sums[r]);
    }
}
