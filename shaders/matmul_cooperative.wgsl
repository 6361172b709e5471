// y = epilogue(x Wᵀ + bias) on tensor units: the operands of matmul.wgsl, W in f16, and x rounded to f16.
//
// A subgroup computes 4 x 2 matrices of SIDE x SIDE sums in f32, a workgroup ROW_GROUPS of them along the rows and a tile
// of the weight, 64 columns. Both factors pass through workgroup memory as f16, 16 numbers of K at a time; the sums
// pass through it to meet the epilogue. If a number of x lies beyond f16's largest, a flag is raised, and the result is of no
// use.
//
// The workgroup is made for the largest subgroups that the adapter has. If they are smaller there are more of them than
// parts of the work; the surplus repeats the work of others, as these operations must not be branched around, and
// does not write.

enable f16;
enable wgpu_cooperative_matrix;

#import coop
#import exp
#import activation
#import weight
#import linear_layer

@group(0) @binding(6) var<storage, read_write> f16_flags: array<atomic<u32>>;

override SUBGROUP_SIZE: u32 = 32u;
override ROW_GROUPS: u32 = 1u;

const ROWS: u32 = 4u * SIDE;        // rows a subgroup computes
const ACROSS: u32 = 32u / SIDE;     // subgroups side by side
const K4: u32 = 4u;                 // groups of four numbers of K in workgroup memory
// Rows in workgroup memory are aligned to 16 bytes, and neighbours lie in different banks.
const X_STRIDE: u32 = 24u;
const W_STRIDE: u32 = 72u;

override SUBGROUPS: u32 = ROW_GROUPS * ACROSS;

var<workgroup> x_tile: array<f16, ROW_GROUPS * ROWS * X_STRIDE>;        // [ROW_GROUPS * ROWS][16], padded
var<workgroup> w_tile: array<f16, 16u * W_STRIDE>;                      // [16][64], padded
var<workgroup> sums: array<f32, (SUBGROUPS + 1u) * SIDE * SIDE>;        // [SUBGROUPS, and a surplus one][SIDE][SIDE]

// One dimension, as naga demands for `subgroup_id`.
@compute @workgroup_size(SUBGROUP_SIZE * SUBGROUPS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) lane: u32,
    @builtin(subgroup_size) lanes: u32,
) {
    let invocations = SUBGROUP_SIZE * SUBGROUPS;
    let tile = group.y;
    let first_row = (group.x + group.z * groups.x) * ROW_GROUPS * ROWS;
    let w_at = tile * params.k4 * 4u * LANES;
    let part = subgroup % SUBGROUPS;
    // Of this subgroup, in the workgroup's tiles.
    let own_row = part / ACROSS * ROWS;
    let own_column = part % ACROSS * 2u * SIDE;
    for (var i = index; i < SIDE * SIDE; i += invocations) {
        sums[i] = 0.0;
    }
    workgroupBarrier();
    let zero = coopLoadT<Sum>(&sums[0], SIDE);
    var s00 = zero;
    var s10 = zero;
    var s20 = zero;
    var s30 = zero;
    var s01 = zero;
    var s11 = zero;
    var s21 = zero;
    var s31 = zero;
    // The largest magnitude that this invocation has rounded.
    var largest = vec4<f32>();
    for (var k = 0u; k < params.k4; k += K4) {
        workgroupBarrier();
        // Zeros past the end of K.
        for (var i = index; i < ROW_GROUPS * ROWS * K4; i += invocations) {
            let c = k + i % K4;
            let at = x_row(first_row + i / K4) + min(c, params.k4 - 1u);
            let whole = select(vec4<f32>(), x[at], c < params.k4);
            largest = max(largest, abs(whole));
            let v = vec4<f16>(whole);
            let to = i / K4 * X_STRIDE + i % K4 * 4u;
            x_tile[to] = v.x;
            x_tile[to + 1u] = v.y;
            x_tile[to + 2u] = v.z;
            x_tile[to + 3u] = v.w;
        }
        // And where a narrow weight has no columns.
        for (var i = index; i < 4u * K4 * 16u; i += invocations) {
            let row = k * 4u + i / 16u;
            let inside = row < params.k4 * 4u && i % 16u < LANES;
            let at = w_at + min(row, params.k4 * 4u - 1u) * LANES + min(i % 16u, LANES - 1u);
            let v = vec4<f16>(select(vec4<f32>(), weight4(at), inside));
            let to = i / 16u * W_STRIDE + i % 16u * 4u;
            w_tile[to] = v.x;
            w_tile[to + 1u] = v.y;
            w_tile[to + 2u] = v.z;
            w_tile[to + 3u] = v.w;
        }
        workgroupBarrier();
        for (var c = 0u; c < 4u * K4; c += SIDE) {
            let w = c * W_STRIDE + own_column;
            let b0 = coopLoadT<Right>(&w_tile[w], W_STRIDE);
            let b1 = coopLoadT<Right>(&w_tile[w + SIDE], W_STRIDE);
            let a = own_row * X_STRIDE + c;
            let a0 = coopLoadT<Left>(&x_tile[a], X_STRIDE);
            let a1 = coopLoadT<Left>(&x_tile[a + SIDE * X_STRIDE], X_STRIDE);
            let a2 = coopLoadT<Left>(&x_tile[a + 2u * SIDE * X_STRIDE], X_STRIDE);
            let a3 = coopLoadT<Left>(&x_tile[a + 3u * SIDE * X_STRIDE], X_STRIDE);
            s00 = coopMultiplyAdd(a0, b0, s00);
            s10 = coopMultiplyAdd(a1, b0, s10);
            s20 = coopMultiplyAdd(a2, b0, s20);
            s30 = coopMultiplyAdd(a3, b0, s30);
            s01 = coopMultiplyAdd(a0, b1, s01);
            s11 = coopMultiplyAdd(a1, b1, s11);
            s21 = coopMultiplyAdd(a2, b1, s21);
            s31 = coopMultiplyAdd(a3, b1, s31);
        }
    }
    if (any(largest > vec4<f32>(65504.0))) {
        atomicStore(&f16_flags[params.f16_flag], 1u);
    }
    // One matrix of each subgroup at a time.
    let slot = min(subgroup, SUBGROUPS) * SIDE * SIDE;
    for (var matrix = 0u; matrix < 8u; matrix++) {
        workgroupBarrier();
        switch (matrix) {
            case 0u: { coopStoreT(s00, &sums[slot], SIDE); }
            case 1u: { coopStoreT(s10, &sums[slot], SIDE); }
            case 2u: { coopStoreT(s20, &sums[slot], SIDE); }
            case 3u: { coopStoreT(s30, &sums[slot], SIDE); }
            case 4u: { coopStoreT(s01, &sums[slot], SIDE); }
            case 5u: { coopStoreT(s11, &sums[slot], SIDE); }
            case 6u: { coopStoreT(s21, &sums[slot], SIDE); }
            default: { coopStoreT(s31, &sums[slot], SIDE); }
        }
        workgroupBarrier();
        let row = first_row + own_row + matrix % 4u * SIDE;
        let column4 = (own_column + matrix / 4u * SIDE) / 4u;
        for (var i = lane; i < SIDE * SIDE / 4u && subgroup < SUBGROUPS; i += lanes) {
            let quad = column4 + i % (SIDE / 4u);
            let at = slot + 4u * i;
            if (quad < LANES && tile * LANES + quad < params.n4) {
                put(row + i / (SIDE / 4u), tile * LANES + quad,
                    vec4<f32>(sums[at], sums[at + 1u], sums[at + 2u], sums[at + 3u]));
            }
        }
    }
}
