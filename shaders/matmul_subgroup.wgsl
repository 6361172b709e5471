// y = epilogue(x Wᵀ + bias) with subgroup operations: the operands of matmul.wgsl.
//
// One invocation computes 32 rows x 4 columns in registers; a workgroup is TILES tiles of the weight wide, and all of it
// computes the same rows. An invocation reads 32 / HELD of the rows of x, which by its place in its subgroup, and the
// first HELD lanes hand them round: a fraction of the reads, no workgroup memory, no barrier.
//
// Subgroups need HELD lanes; nothing else here depends on their size, nor on how invocations map to them. All lanes stay
// to the end, as a broadcast from a lane that has left is undefined.

enable subgroups;

#import exp
#import activation
#import weight
#import linear_layer
#import linear_output
#import held
#import held_rows

override TILES: u32 = 4u;       // tiles of the weight in a workgroup

const ROWS: u32 = 32u;
// Groups of four numbers of K in an iteration: of weights in blocks two, which share words and scales.
const STEP: u32 = select(1u, 2u, IN_BLOCKS);

alias Sums = array<vec4<f32>, ROWS>;
alias Starts = array<u32, ROWS / HELD>;

// The rows that begin at `at`, from group `k` of K.
fn load_held(at: Starts, k: u32) -> Held {
    var starts = at;
    var rows: Held;
    for (var i = 0u; i < ROWS / HELD; i++) {
        rows[i] = x[starts[i] + k];
    }
    return rows;
}

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
    var at: Starts;
    for (var i = 0u; i < ROWS / HELD; i++) {
        at[i] = x_row(row + i * HELD + lane % HELD);
    }
    var sums: Sums;
    for (var r = 0u; r < ROWS; r++) {
        sums[r] = vec4<f32>();
    }
    var w = tile * params.k4 * 4u * LANES + index % LANES;
    for (var k = 0u; k < params.k4; k += STEP) {
        if (IN_BLOCKS) {
            let b = numbers8x4(w, LANES, 4u * LANES);
            multiply_held(&sums, load_held(at, k), b.first[0], b.first[1], b.first[2], b.first[3]);
            multiply_held(&sums, load_held(at, k + 1u), b.second[0], b.second[1], b.second[2], b.second[3]);
        } else {
            let b = widen4x4(load4x4(w, LANES));
            multiply_held(&sums, load_held(at, k), b[0], b[1], b[2], b[3]);
        }
        w += STEP * 4u * LANES;
    }
    let column4 = tile * LANES + index % LANES;
    let ranks = ranks_of(group.y * TILES * LANES, group.y * TILES * LANES + TILES * LANES - 1u);
    for (var k = ranks.x; k < ranks.y; k++) {
        let b = up4x4(column4, k);
        var rows: Held;
        for (var i = 0u; i < ROWS / HELD; i++) {
            rows[i] = narrow4(row + i * HELD + lane % HELD, k);
        }
        multiply_held(&sums, rows, b[0], b[1], b[2], b[3]);
    }
    if (own_tile >= tiles || column4 >= params.n4) {
        return;
    }
    for (var r = 0u; r < ROWS; r++) {
        put(row + r, column4, sums[r]);
    }
}
