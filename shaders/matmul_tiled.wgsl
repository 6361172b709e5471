// y = epilogue(x Wᵀ + bias) on graphics chips: the operands of matmul.wgsl.
//
// A workgroup computes ROWS * GROUP_ROWS rows x one tile of the weight. Both factors pass through workgroup memory, 4 * K4
// numbers of K at a time, so that each is read from a buffer once per workgroup rather than once per invocation. The
// next tiles are loaded while these are multiplied; the loads of an invocation are spelt out, up to four of each factor, so
// that all are under way at once. How the tile of W is filled depends on whether the weight is in blocks: fill_numbers.wgsl,
// fill_blocks.wgsl.
//
// An invocation computes ROWS rows x 4 * QUADS columns in registers: rows GROUP_ROWS apart and groups of columns
// LANES / QUADS apart, so that neighbours read and write neighbouring memory.
//
// The four products of a tile are spelt out, and of their indices only inner ones of arrays whose lengths are known change: a
// browser's checks then stay outside, and it counts no turns. The two of chips with few registers stay a loop where there are
// checks: what they need would be alive in all of them at once.

#import exp
#import activation
#import weight
#import linear_layer
#import linear_output
#import rows
#import fill_numbers

override GROUP_ROWS: u32 = 16u; // invocations of a workgroup along the rows
override QUADS: u32 = 2u;       // groups of four columns an invocation computes: 1 or 2
override K4: u32 = 4u;          // groups of four numbers of K in workgroup memory: 1, 2 or 4
override RAGGED: bool = false;  // K4 does not divide the weight's

override INVOCATIONS: u32 = LANES / QUADS * GROUP_ROWS;
override X_STEP: u32 = INVOCATIONS / K4;        // rows between an invocation's loads of x
override X_LOADS: u32 = ROWS * GROUP_ROWS / X_STEP;

// Row r * GROUP_ROWS + g is [g][r], of up to four groups of K; one more, so that rows lie in different banks.
var<workgroup> x_tile: array<array<array<vec4<f32>, 5>, ROWS>, GROUP_ROWS>;
// Row 4 * c + i of W is [c][i].
var<workgroup> w_tile: array<array<array<vec4<f32>, 16>, 4>, K4>;

// Group `k` of K of the row of x that begins at `row`. Past the end of K it is the last one again, which is stored as zero.
fn load_x(row: u32, k: u32) -> vec4<f32> {
    if (!RAGGED) {
        return x[row + k];
    }
    return x[row + min(k, params.k4 - 1u)];
}

// What is stored for products, of something in K or past its end.
fn stored(v: vec4<f32>, is_inside: bool) -> vec4<f32> {
    if (!RAGGED) {
        return v;
    }
    return select(vec4<f32>(), v, is_inside);
}

fn store_x(row: u32, k: u32, v: vec4<f32>) {
    x_tile[row % GROUP_ROWS][row / GROUP_ROWS][k] = v;
}

// Adds the products of group `c` of K in workgroup memory.
fn multiply_group(
    sums: ptr<function, Rows>, seconds: ptr<function, Rows>, own_row: u32, own_column: u32, c: u32,
) {
    let a = x_tile_rows(own_row, c);
    multiply(
        sums, a, w_tile[c][0][own_column], w_tile[c][1][own_column], w_tile[c][2][own_column],
        w_tile[c][3][own_column]);
    if (QUADS == 2u) {
        let second = own_column + LANES / 2u;
        multiply(
            seconds, a, w_tile[c][0][second], w_tile[c][1][second], w_tile[c][2][second], w_tile[c][3][second]);
    }
}

@compute @workgroup_size(INVOCATIONS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    // Blocks of rows run fastest over the workgroups: a tile of W stays in the cache while all rows pass by.
    let tile = group.y;
    let first_row = (group.x + group.z * groups.x) * ROWS * GROUP_ROWS;
    let w_at = tile * params.k4 * 4u * LANES;
    // Of the first row and the first column of this invocation in the tiles.
    let own_row = index / (LANES / QUADS);
    let own_column = index % (LANES / QUADS);
    // What it fills.
    let fill_k = index % K4;
    let fill_row = index / K4;
    let x0 = x_row(first_row + fill_row);
    let x1 = x_row(first_row + fill_row + X_STEP);
    let x2 = x_row(first_row + fill_row + 2u * X_STEP);
    let x3 = x_row(first_row + fill_row + 3u * X_STEP);

    var sums = Rows();
    // The second group of columns.
    var seconds = Rows();
    var a0 = load_x(x0, fill_k);
    var a1 = vec4<f32>();
    var a2 = vec4<f32>();
    var a3 = vec4<f32>();
    var b = load_w(w_at, 0u, index);
    if (X_LOADS > 1u) {
        a1 = load_x(x1, fill_k);
    }
    if (X_LOADS > 2u) {
        a2 = load_x(x2, fill_k);
        a3 = load_x(x3, fill_k);
    }
    for (var k = 0u; k < params.k4; k += K4) {
        workgroupBarrier();
        let x_inside = k + fill_k < params.k4;
        store_x(fill_row, fill_k, stored(a0, x_inside));
        if (X_LOADS > 1u) {
            store_x(fill_row + X_STEP, fill_k, stored(a1, x_inside));
        }
        if (X_LOADS > 2u) {
            store_x(fill_row + 2u * X_STEP, fill_k, stored(a2, x_inside));
            store_x(fill_row + 3u * X_STEP, fill_k, stored(a3, x_inside));
        }
        fill_w(k, index, b);
        workgroupBarrier();
        // Past the last tiles the first ones again, which are not used.
        let next = select(0u, k + K4, k + K4 < params.k4);
        a0 = load_x(x0, next + fill_k);
        if (X_LOADS > 1u) {
            a1 = load_x(x1, next + fill_k);
        }
        if (X_LOADS > 2u) {
            a2 = load_x(x2, next + fill_k);
            a3 = load_x(x3, next + fill_k);
        }
        b = load_w(w_at, next, index);
        if (K4 == 4u) {
            multiply_group(&sums, &seconds, own_row, own_column, 0u);
            multiply_group(&sums, &seconds, own_row, own_column, 1u);
            multiply_group(&sums, &seconds, own_row, own_column, 2u);
            multiply_group(&sums, &seconds, own_row, own_column, 3u);
        } else {
            for (var c = 0u; c < K4; c++) {
                multiply_group(&sums, &seconds, own_row, own_column, c);
            }
        }
    }
    let column4 = tile * LANES + own_column;
    let ranks = ranks_of(tile * LANES, tile * LANES + LANES - 1u);
    for (var k = ranks.x; k < ranks.y; k++) {
        let a = narrow_rows(first_row + own_row, GROUP_ROWS, k);
        let w = up4x4(column4, k);
        multiply(&sums, a, w[0], w[1], w[2], w[3]);
        if (QUADS == 2u) {
            let second = up4x4(column4 + LANES / 2u, k);
            multiply(&seconds, a, second[0], second[1], second[2], second[3]);
        }
    }
    if (column4 < params.n4) {
        put_rows(first_row + own_row, GROUP_ROWS, column4, sums);
    }
    let second4 = column4 + LANES / 2u;
    if (QUADS == 2u && second4 < params.n4) {
        put_rows(first_row + own_row, GROUP_ROWS, second4, seconds);
    }
}
