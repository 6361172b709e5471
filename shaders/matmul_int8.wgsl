// y = epilogue(x Wᵀ + bias) by dot products of four bytes, on graphics chips that have an instruction for them: the operands of
// matmul.wgsl, but x is rounded to bytes in blocks of 32 numbers (quantise_rows.wgsl), and W is in blocks whose numbers are
// `scale * code + offset`, with a scale for 32.
//
// A workgroup computes 64 rows x one tile of the weight. Both factors pass through workgroup memory, 64 numbers of K at a time:
// W's codes as bytes, its scales as f32. All loads of a step are under way together; kept in registers through the products
// before it, they would leave fewer workgroups to wait for each other, and none of Intel's registers. An invocation computes 4
// rows x 8 columns: sums of 32 numbers of K are exact integers, which their scales make numbers of that are added in f32.

#import exp
#import activation
#import weight
#import packed_bytes
#import linear_parameters
#import linear_output

// [M][K / 64][5]: four groups of four words of codes, then the scales of both blocks, each with its scaled sum.
@group(0) @binding(1) var<storage, read> x: array<vec4<u32>>;

const GROUP_ROWS: u32 = 16u;    // invocations of a workgroup along the rows
const COLUMNS: u32 = 8u;        // and along the columns, which are in groups of four
const INVOCATIONS: u32 = GROUP_ROWS * COLUMNS;
// 64 numbers of K.
const WORDS_X: u32 = 5u;        // groups of four words of a row of x
const WORDS_W: u32 = 16u;       // words of codes of an output

// 1.5 * 2^23, and its bits: integers are summed in the lower bits of a float, as conversions are slow on some chips. Sums of 32
// products of bytes are below 2^20.
const ROUNDER: f32 = 12582912.0;
const ROUNDER_BITS: i32 = 0x4b400000;

// Row r * GROUP_ROWS + g is [r][g]; five groups of words are an odd number, so that rows lie in different banks.
var<workgroup> x_tile: array<array<array<vec4<u32>, WORDS_X>, GROUP_ROWS>, 4>;
var<workgroup> w_tile: array<array<vec4<u32>, 16>, WORDS_W>;
// Of each block of 32 numbers.
var<workgroup> w_scales: array<array<vec4<f32>, 16>, 2>;
var<workgroup> w_offsets: array<array<vec4<f32>, 16>, 2>;

// Sums of four rows.
struct Rows {
    r0: vec4<f32>,
    r1: vec4<f32>,
    r2: vec4<f32>,
    r3: vec4<f32>,
}

// Adds the products of four bytes of x and of each output.
fn dot4(sum: vec4<i32>, a: u32, w: vec4<u32>) -> vec4<i32> {
    return sum + vec4<i32>(dot4I8Packed(a, w.x), dot4I8Packed(a, w.y), dot4I8Packed(a, w.z), dot4I8Packed(a, w.w));
}

fn dot16(sum: vec4<i32>, a: vec4<u32>, w0: vec4<u32>, w1: vec4<u32>, w2: vec4<u32>, w3: vec4<u32>) -> vec4<i32> {
    return dot4(dot4(dot4(dot4(sum, a.x, w0), a.y, w1), a.z, w2), a.w, w3);
}

// What a row's sums of a block are as numbers. `x_scales` are those of x: a scale, and the scaled sum of codes.
fn add_block(sum: vec4<f32>, dots: vec4<i32>, x_scales: vec2<u32>, scale: vec4<f32>, offset: vec4<f32>) -> vec4<f32> {
    let scales = bitcast<vec2<f32>>(x_scales);
    let added = sum + (bitcast<vec4<f32>>(dots) - ROUNDER) * (scale * scales.x);
    if (HAS_OFFSET) {
        return added + offset * scales.y;
    }
    return added;
}

// Adds block `block` of four rows and a group of four columns. `parts` is 2, which drivers must not know: with its loop unrolled
// they load all of a step's factors before they multiply.
fn multiply(sums: ptr<function, Rows>, row: u32, column: u32, block: u32, parts: u32) {
    var d0 = vec4<i32>(ROUNDER_BITS);
    var d1 = vec4<i32>(ROUNDER_BITS);
    var d2 = vec4<i32>(ROUNDER_BITS);
    var d3 = vec4<i32>(ROUNDER_BITS);
    for (var i = 0u; i < parts; i++) {
        let c = 2u * block + i;
        let w0 = w_tile[4u * c][column];
        let w1 = w_tile[4u * c + 1u][column];
        let w2 = w_tile[4u * c + 2u][column];
        let w3 = w_tile[4u * c + 3u][column];
        d0 = dot16(d0, x_tile[0][row][c], w0, w1, w2, w3);
        d1 = dot16(d1, x_tile[1][row][c], w0, w1, w2, w3);
        d2 = dot16(d2, x_tile[2][row][c], w0, w1, w2, w3);
        d3 = dot16(d3, x_tile[3][row][c], w0, w1, w2, w3);
    }
    let scale = w_scales[block][column];
    let offset = w_offsets[block][column];
    let s0 = x_tile[0][row][4];
    let s1 = x_tile[1][row][4];
    let s2 = x_tile[2][row][4];
    let s3 = x_tile[3][row][4];
    let second = block == 1u;
    (*sums).r0 = add_block((*sums).r0, d0, select(s0.xy, s0.zw, second), scale, offset);
    (*sums).r1 = add_block((*sums).r1, d1, select(s1.xy, s1.zw, second), scale, offset);
    (*sums).r2 = add_block((*sums).r2, d2, select(s2.xy, s2.zw, second), scale, offset);
    (*sums).r3 = add_block((*sums).r3, d3, select(s3.xy, s3.zw, second), scale, offset);
}

// Adds what a low-rank change makes of four rows and a group of four columns.
fn add_low_rank(sums: ptr<function, Rows>, row: u32, column4: u32, ranks: vec2<u32>) {
    for (var k = ranks.x; k < ranks.y; k++) {
        let w = up4x4(column4, k);
        (*sums).r0 += w * narrow4(row, k);
        (*sums).r1 += w * narrow4(row + GROUP_ROWS, k);
        (*sums).r2 += w * narrow4(row + 2u * GROUP_ROWS, k);
        (*sums).r3 += w * narrow4(row + 3u * GROUP_ROWS, k);
    }
}

fn put_rows(row: u32, column4: u32, sums: Rows) {
    put(row, column4, sums.r0);
    put(row + GROUP_ROWS, column4, sums.r1);
    put(row + 2u * GROUP_ROWS, column4, sums.r2);
    put(row + 3u * GROUP_ROWS, column4, sums.r3);
}

@compute @workgroup_size(INVOCATIONS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    // Blocks of rows run fastest over the workgroups: a tile of W stays in the cache while all rows pass by.
    let tile = group.y;
    let first_row = (group.x + group.z * groups.x) * 4u * GROUP_ROWS;
    let own_row = index / COLUMNS;
    let own_column = index % COLUMNS;
    // What it fills: half of the words of a row of x, and eight numbers of K of four columns.
    let fill_row = index / 2u;
    let fill_half = index % 2u;
    let fill_quad = index % LANES;
    let fill_eight = index / LANES;
    let x_at = x_row(first_row + fill_row);
    let w_at = tile * params.k4 * 4u * LANES + fill_eight * 8u * LANES + fill_quad;

    let parts = min(2u, params.k4);
    var sums = Rows();
    // The second group of columns.
    var seconds = Rows();
    for (var k = 0u; k < params.k4; k += 16u) {
        let from_x = x_at + k / 16u * WORDS_X;
        let a0 = x[from_x + 2u * fill_half];
        let a1 = x[from_x + 2u * fill_half + 1u];
        let a2 = x[from_x + 4u];
        let place = place_of(w_at + k * 4u * LANES, LANES);
        let codes = load_codes(place);
        let scales = load_scales(place);
        workgroupBarrier();
        let r = fill_row / GROUP_ROWS;
        let g = fill_row % GROUP_ROWS;
        x_tile[r][g][2u * fill_half] = a0;
        x_tile[r][g][2u * fill_half + 1u] = a1;
        let bytes = bytes_of(codes);
        w_tile[2u * fill_eight][fill_quad] = bytes.first;
        w_tile[2u * fill_eight + 1u][fill_quad] = bytes.second;
        if (fill_half == 0u) {
            x_tile[r][g][4] = a2;
        }
        if (fill_eight % 4u == 0u) {
            let of_block = scales_of(scales);
            w_scales[fill_eight / 4u][fill_quad] = of_block.scale;
            if (HAS_OFFSET) {
                w_offsets[fill_eight / 4u][fill_quad] = of_block.offset;
            }
        }
        workgroupBarrier();
        multiply(&sums, own_row, own_column, 0u, parts);
        multiply(&seconds, own_row, own_column + COLUMNS, 0u, parts);
        multiply(&sums, own_row, own_column, 1u, parts);
        multiply(&seconds, own_row, own_column + COLUMNS, 1u, parts);
    }
    let column4 = tile * LANES + own_column;
    let ranks = ranks_of(tile * LANES, tile * LANES + LANES - 1u);
    add_low_rank(&sums, first_row + own_row, column4, ranks);
    add_low_rank(&seconds, first_row + own_row, column4 + COLUMNS, ranks);
    if (column4 < params.n4) {
        put_rows(first_row + own_row, column4, sums);
    }
    if (column4 + COLUMNS < params.n4) {
        put_rows(first_row + own_row, column4 + COLUMNS, seconds);
    }
}
