// y = epilogue(x Wᵀ + bias) on matrix units: the operands of matmul.wgsl, both factors rounded to f16, sums in f32.
//
// A workgroup computes TILE rows x TILE columns, 32 numbers of K at a time. Both factors pass through workgroup memory,
// where the 32 numbers of a row of x and of a column of W lie together: W is transposed while it is rounded, four
// columns x four numbers of K an invocation. All loads of a step are under way together, while other subgroups and
// workgroups multiply. x may be in f16 already, and what only such products read is written so. If a number does not fit f16, a
// flag is raised, and the result is of no use: the host then asks for a SCALE.
//
// There are as many subgroups as the driver makes them large. Fewer than eight of them compute 4 x 4 matrices of
// SIDE x SIDE sums each, eight of them 4 x 2. If there are more than eight, the surplus repeats the work of others, as
// these operations must not be branched around, and does not write. Nor may they stand in an `if` about subgroups: naga
// takes the number of subgroups for one that differs between them. Loops of one turn or none it allows.

enable f16;
enable wgpu_cooperative_matrix;

#import coop
#import exp
#import activation
#import weight
#import linear_parameters
#import linear_x
#import linear_output

// The numbers of subgroups that a workgroup may have on the adapter. Where they are equal, drivers know it.
override LEAST_SUBGROUPS: u32 = 4u;
override MOST_SUBGROUPS: u32 = 8u;
// x is multiplied by it before it is rounded, and the sums divided by it: a power of two.
override SCALE: f32 = 1.0;
override TAKE_BACK: f32 = 1.0 / SCALE;

const INVOCATIONS: u32 = 16u * SIDE;
const TILE: u32 = 8u * SIDE;        // rows, and columns, of a workgroup
const ROWS: u32 = 4u * SIDE;        // rows of a subgroup
const K4: u32 = 8u;                 // groups of four numbers of K in workgroup memory
// Rows in workgroup memory are aligned to 16 bytes, and neighbours lie in different banks.
const STRIDE: u32 = 40u;
// Rows from one of an invocation's four rows of x to the next.
const FILL_ROWS: u32 = INVOCATIONS / K4;

var<workgroup> x_tile: array<f16, TILE * STRIDE>;           // [TILE rows][4 * K4], padded
var<workgroup> w_tile: array<f16, TILE * STRIDE>;           // [TILE columns][4 * K4], padded
var<workgroup> sums: array<f32, 9u * SIDE * SIDE>;          // [8 subgroups, and a surplus one][SIDE][SIDE]

// The largest magnitude that this invocation has rounded.
var<private> largest: f32 = 0.0;

// Four groups of four numbers of K.
struct Rounded {
    a: vec4<f16>,
    b: vec4<f16>,
    c: vec4<f16>,
    d: vec4<f16>,
}

fn largest_of(a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32>) -> f32 {
    let m = max(max(abs(a), abs(b)), max(abs(c), abs(d)));
    return max(max(m.x, m.y), max(m.z, m.w));
}

// Of four rows; zeros past the end of K.
fn round_x(a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32>, inside: bool) -> Rounded {
    let v = array<vec4<f32>, 4>(select(vec4<f32>(), a * SCALE, inside), select(vec4<f32>(), b * SCALE, inside),
        select(vec4<f32>(), c * SCALE, inside), select(vec4<f32>(), d * SCALE, inside));
    largest = max(largest, largest_of(v[0], v[1], v[2], v[3]));
    return Rounded(vec4<f16>(v[0]), vec4<f16>(v[1]), vec4<f16>(v[2]), vec4<f16>(v[3]));
}

// Of four columns, from four numbers of K with four columns each.
fn round_w(numbers: mat4x4<f32>, exceeds_f16: bool) -> Rounded {
    let v = transpose(numbers);
    if (exceeds_f16) {
        largest = max(largest, largest_of(v[0], v[1], v[2], v[3]));
    }
    return Rounded(vec4<f16>(v[0]), vec4<f16>(v[1]), vec4<f16>(v[2]), vec4<f16>(v[3]));
}

// What an output in f16 gets, which a product reads under the same SCALE.
fn round4(numbers: vec4<f32>) -> vec4<f16> {
    let v = numbers * SCALE;
    largest = max(largest, max(max(abs(v.x), abs(v.y)), max(abs(v.z), abs(v.w))));
    return vec4<f16>(v);
}

fn put_x(at: u32, v: vec4<f16>) {
    x_tile[at] = v.x;
    x_tile[at + 1u] = v.y;
    x_tile[at + 2u] = v.z;
    x_tile[at + 3u] = v.w;
}

fn put_w(at: u32, v: vec4<f16>) {
    w_tile[at] = v.x;
    w_tile[at + 1u] = v.y;
    w_tile[at + 2u] = v.z;
    w_tile[at + 3u] = v.w;
}

@compute @workgroup_size(INVOCATIONS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) lane: u32,
    @builtin(subgroup_size) lanes: u32,
) {
    let first_row = (group.x + group.z * groups.x) * TILE;
    let is_narrow = clamp(INVOCATIONS / lanes, LEAST_SUBGROUPS, MOST_SUBGROUPS) >= 8u;
    // Turns of the loops about the other half of 4 x 4 matrices.
    let more = select(1u, 0u, is_narrow);
    let parts = select(4u, 8u, is_narrow);
    let across = parts / 2u;
    let part = subgroup % parts;
    // Of this subgroup, in the workgroup's tiles.
    let own_row = part / across * ROWS;
    let own_column = part % across * (TILE / across);

    // What this invocation fills: a group of four numbers of K of four rows of x, and of four columns of W.
    let fill_k = index % K4;
    let fill_row = index / K4;
    let x0_at = x_row(first_row + fill_row);
    let x1_at = x_row(first_row + fill_row + FILL_ROWS);
    let x2_at = x_row(first_row + fill_row + 2u * FILL_ROWS);
    let x3_at = x_row(first_row + fill_row + 3u * FILL_ROWS);
    // Columns past the end repeat the last ones and are not written.
    let quad = min(group.y * (TILE / 4u) + fill_row, params.n4 - 1u);
    let w_at = quad / LANES * params.k4 * 4u * LANES + quad % LANES;
    let to_x = fill_row * STRIDE + fill_k * 4u;
    let to_w = fill_row * 4u * STRIDE + fill_k * 4u;

    for (var i = index; i < SIDE * SIDE; i += INVOCATIONS) {
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
    var s02 = zero;
    var s12 = zero;
    var s22 = zero;
    var s32 = zero;
    var s03 = zero;
    var s13 = zero;
    var s23 = zero;
    var s33 = zero;

    // After the last step of K come those of a low-rank change.
    let first_narrow = (params.k4 + K4 - 1u) / K4 * K4;
    let ranks = ranks_of(group.y * (TILE / 4u), group.y * (TILE / 4u) + TILE / 4u - 1u);
    let end = select(params.k4, first_narrow + ranks.y - ranks.x, HAS_LOW_RANK);
    for (var k = 0u; k < end; k += K4) {
        var next_x: Rounded;
        var next_w: Rounded;
        if (HAS_LOW_RANK && k >= first_narrow) {
            let own = ranks.x + k - first_narrow + fill_k;
            let at = min(own, ranks.y - 1u);
            let row = first_row + fill_row;
            next_x = round_x(narrow4(row, at), narrow4(row + FILL_ROWS, at), narrow4(row + 2u * FILL_ROWS, at),
                narrow4(row + 3u * FILL_ROWS, at), own < ranks.y);
            next_w = round_w(up4x4(quad, at), true);
        } else {
            let at = min(k + fill_k, params.k4 - 1u);
            let w = w_at + 4u * at * LANES;
            next_x = load_x(x0_at + at, x1_at + at, x2_at + at, x3_at + at, k + fill_k < params.k4);
            next_w = round_w(widen4x4(load4x4(w, LANES)), EXCEEDS_F16);
        }
        // The end of multiplying the last ones.
        workgroupBarrier();
        put_x(to_x, next_x.a);
        put_x(to_x + FILL_ROWS * STRIDE, next_x.b);
        put_x(to_x + 2u * FILL_ROWS * STRIDE, next_x.c);
        put_x(to_x + 3u * FILL_ROWS * STRIDE, next_x.d);
        put_w(to_w, next_w.a);
        put_w(to_w + STRIDE, next_w.b);
        put_w(to_w + 2u * STRIDE, next_w.c);
        put_w(to_w + 3u * STRIDE, next_w.d);
        workgroupBarrier();
        for (var c = 0u; c < 4u * K4; c += SIDE) {
            let b = own_column * STRIDE + c;
            let b0 = coopLoad<Right>(&w_tile[b], STRIDE);
            let b1 = coopLoad<Right>(&w_tile[b + SIDE * STRIDE], STRIDE);
            let a = own_row * STRIDE + c;
            let a0 = coopLoadT<Left>(&x_tile[a], STRIDE);
            s00 = coopMultiplyAdd(a0, b0, s00);
            s01 = coopMultiplyAdd(a0, b1, s01);
            let a1 = coopLoadT<Left>(&x_tile[a + SIDE * STRIDE], STRIDE);
            s10 = coopMultiplyAdd(a1, b0, s10);
            s11 = coopMultiplyAdd(a1, b1, s11);
            let a2 = coopLoadT<Left>(&x_tile[a + 2u * SIDE * STRIDE], STRIDE);
            s20 = coopMultiplyAdd(a2, b0, s20);
            s21 = coopMultiplyAdd(a2, b1, s21);
            let a3 = coopLoadT<Left>(&x_tile[a + 3u * SIDE * STRIDE], STRIDE);
            s30 = coopMultiplyAdd(a3, b0, s30);
            s31 = coopMultiplyAdd(a3, b1, s31);
            for (var turn = 0u; turn < more; turn++) {
                let b2 = coopLoad<Right>(&w_tile[b + 2u * SIDE * STRIDE], STRIDE);
                let b3 = coopLoad<Right>(&w_tile[b + 3u * SIDE * STRIDE], STRIDE);
                s02 = coopMultiplyAdd(a0, b2, s02);
                s03 = coopMultiplyAdd(a0, b3, s03);
                s12 = coopMultiplyAdd(a1, b2, s12);
                s13 = coopMultiplyAdd(a1, b3, s13);
                s22 = coopMultiplyAdd(a2, b2, s22);
                s23 = coopMultiplyAdd(a2, b3, s23);
                s32 = coopMultiplyAdd(a3, b2, s32);
                s33 = coopMultiplyAdd(a3, b3, s33);
            }
        }
    }
    // One matrix of each subgroup at a time.
    let slot = min(subgroup, 8u) * SIDE * SIDE;
    for (var matrix = 0u; matrix < 8u + 8u * more; matrix++) {
        workgroupBarrier();
        switch (matrix) {
            case 0u: { coopStoreT(s00, &sums[slot], SIDE); }
            case 1u: { coopStoreT(s10, &sums[slot], SIDE); }
            case 2u: { coopStoreT(s20, &sums[slot], SIDE); }
            case 3u: { coopStoreT(s30, &sums[slot], SIDE); }
            case 4u: { coopStoreT(s01, &sums[slot], SIDE); }
            case 5u: { coopStoreT(s11, &sums[slot], SIDE); }
            case 6u: { coopStoreT(s21, &sums[slot], SIDE); }
            case 7u: { coopStoreT(s31, &sums[slot], SIDE); }
            case 8u: { coopStoreT(s02, &sums[slot], SIDE); }
            case 9u: { coopStoreT(s12, &sums[slot], SIDE); }
            case 10u: { coopStoreT(s22, &sums[slot], SIDE); }
            case 11u: { coopStoreT(s32, &sums[slot], SIDE); }
            case 12u: { coopStoreT(s03, &sums[slot], SIDE); }
            case 13u: { coopStoreT(s13, &sums[slot], SIDE); }
            case 14u: { coopStoreT(s23, &sums[slot], SIDE); }
            default: { coopStoreT(s33, &sums[slot], SIDE); }
        }
        workgroupBarrier();
        let row = first_row + own_row + matrix % 4u * SIDE;
        let column4 = group.y * (TILE / 4u) + (own_column + matrix / 4u * SIDE) / 4u;
        for (var i = lane; i < SIDE * SIDE / 4u && subgroup < parts; i += lanes) {
            let column = column4 + i % (SIDE / 4u);
            let at = slot + 4u * i;
            if (column < params.n4) {
                put(row + i / (SIDE / 4u), column,
                    vec4<f32>(sums[at], sums[at + 1u], sums[at + 2u], sums[at + 3u]) * TAKE_BACK);
            }
        }
    }
    if (largest > 65504.0) {
        atomicStore(&f16_flags[params.f16_flag], 1u);
    }
}
