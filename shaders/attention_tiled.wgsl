// Multi-head attention on graphics chips: the operands and options of attention.wgsl.
//
// A workgroup does BLOCKS blocks of four queries of one head and walks over the keys, 4 * LANES at a time. The LANES
// lanes of a block take four keys each for the scores, then four columns each (COLUMNS times) for the sum over values.
// Everything passes through workgroup memory, a chunk at a time, as in matmul_tiled.wgsl: queries and keys in chunks of
// CHUNK groups of columns, values in chunks of VALUES keys; both are LOADS loads a lane. Rows are spelt out, as WGSL cannot
// index registers.
//
// After FlashAttention (arXiv 2205.14135), with one difference: the reference that scores are taken relative to
// is not a row's maximum so far, but one that is renewed only when a score exceeds it by LEEWAY. That spares nearly
// all maxima over lanes; weights up to exp(LEEWAY) cost no accuracy, as rounding is relative.
// A row keeps its reference as long as its own scores allow, also where a neighbour's is renewed: its numbers are then the
// same in any workgroup, and so wherever a picture or a matrix is cut into bands.
//
// Offsets and strides count groups of four numbers, but `bias` is scalar.

#import exp
#import block
#import attention_interface

override COLUMNS: u32 = 1u;     // 1 or 2; LANES * COLUMNS is at least D4

const ROWS: u32 = 4u;           // queries of a block
const LEEWAY: f32 = 8.0;
const INVOCATIONS: u32 = LANES * BLOCKS;
const QUERIES: u32 = ROWS * BLOCKS;
const KEYS: u32 = 4u * LANES;

const LOADS: u32 = 4u * CHUNK / BLOCKS;     // 4 or 2
const FILL_ROWS: u32 = INVOCATIONS / CHUNK; // of queries and keys at once

override WIDTH: u32 = LANES * COLUMNS;
override VALUES: u32 = LOADS * BLOCKS / COLUMNS;

// For each block and each of its rows a chunk of a query, or the weights of a block of keys, four each; in between, in a
// block's first row, what its lanes tell each other, a number for each row.
var<workgroup> front: array<array<array<vec4<f32>, LANES>, ROWS>, BLOCKS>;
// A chunk of keys, four of each lane; or of values: [j * COLUMNS + i][l] are those of CHUNK keys in column i * LANES + l.
// One more, so that neighbours lie in different banks. A browser checks a lane's place once.
var<workgroup> tile: array<array<array<vec4<f32>, CHUNK + 1u>, LANES>, 4>;
var<workgroup> vote: atomic<u32>;
var<workgroup> must_renew: u32;

// One vector for each row of a block.
struct Rows {
    r0: vec4<f32>,
    r1: vec4<f32>,
    r2: vec4<f32>,
    r3: vec4<f32>,
}

// What a lane loads of a chunk.
struct Loads {
    a: vec4<f32>,
    b: vec4<f32>,
    c: vec4<f32>,
    d: vec4<f32>,
}

fn add_product(sum: vec4<f32>, a: vec4<f32>, b0: vec4<f32>, b1: vec4<f32>, b2: vec4<f32>, b3: vec4<f32>) -> vec4<f32> {
    return sum + a.x * b0 + a.y * b1 + a.z * b2 + a.w * b3;
}

// Adds to each row's sum its four factors times four vectors.
fn multiply(sums: ptr<function, Rows>, a: Rows, b0: vec4<f32>, b1: vec4<f32>, b2: vec4<f32>, b3: vec4<f32>) {
    (*sums).r0 = add_product((*sums).r0, a.r0, b0, b1, b2, b3);
    (*sums).r1 = add_product((*sums).r1, a.r1, b0, b1, b2, b3);
    (*sums).r2 = add_product((*sums).r2, a.r2, b0, b1, b2, b3);
    (*sums).r3 = add_product((*sums).r3, a.r3, b0, b1, b2, b3);
}

// Multiplies each row by its number of `factors`.
fn scale_rows(rows: ptr<function, Rows>, factors: vec4<f32>) {
    (*rows).r0 *= factors.x;
    (*rows).r1 *= factors.y;
    (*rows).r2 *= factors.z;
    (*rows).r3 *= factors.w;
}

// What `front` has at place `i` for each row of a block.
fn front_rows(block: u32, i: u32) -> Rows {
    return Rows(front[block][0][i], front[block][1][i], front[block][2][i], front[block][3][i]);
}

// Adds the products of group `c` of columns of a block's queries and a lane's keys.
fn multiply_keys(sums: ptr<function, Rows>, block: u32, lane: u32, c: u32) {
    let a = transpose(mat4x4<f32>(
        tile[0][lane][c], tile[1][lane][c], tile[2][lane][c], tile[3][lane][c]));
    multiply(sums, front_rows(block, c), a[0], a[1], a[2], a[3]);
}

// Adds four keys' values, from `i` on, of a lane's column.
fn multiply_values(sums: ptr<function, Rows>, weights: Rows, row: u32, lane: u32, i: u32) {
    let next = row + select(0u, COLUMNS, CHUNK == 2u);
    multiply(sums, weights, tile[row][lane][i], tile[row][lane][i + 1u],
        tile[next][lane][i + 2u % CHUNK], tile[next][lane][i + 3u % CHUNK]);
}

fn largest(v: vec4<f32>) -> f32 {
    return max(max(v.x, v.y), max(v.z, v.w));
}

fn row_sums(rows: Rows) -> vec4<f32> {
    let one = vec4<f32>(1.0);
    return vec4<f32>(dot(rows.r0, one), dot(rows.r1, one), dot(rows.r2, one), dot(rows.r3, one));
}

// exp of scores relative to their row's reference. A masked score is MASKED, whatever the reference: its weight is zero.
fn weights_of(score: vec4<f32>, reference: f32) -> vec4<f32> {
    return select(exp4(score - reference), vec4<f32>(), score == vec4<f32>(MASKED));
}

// Where the keys that a lane fills begin, of which the first is `key`.
fn key_rows(k_head: u32, key: u32) -> vec4<u32> {
    let keys = key + vec4<u32>(0u, 1u, 2u, 3u);
    return k_head + min(keys, vec4<u32>(params.n - 1u)) * params.k_stride;
}

// A group of columns of LOADS keys.
fn load_keys(rows: vec4<u32>, column: u32) -> Loads {
    let at = rows + column;
    if (LOADS == 2u) {
        return Loads(k[at.x], k[at.y], vec4<f32>(), vec4<f32>());
    }
    return Loads(k[at.x], k[at.y], k[at.z], k[at.w]);
}

// A group of columns of LOADS values of the chunk from `key` on. Past the end of the keys it is the last one again, whose
// weight is zero.
fn load_values(v_at: u32, key: u32) -> Loads {
    let keys = key + vec4<u32>(0u, 1u, 2u, 3u) * (BLOCKS / COLUMNS);
    let at = v_at + min(keys, vec4<u32>(params.n - 1u)) * params.v_stride;
    if (LOADS == 2u) {
        return Loads(v[at.x], v[at.y], vec4<f32>(), vec4<f32>());
    }
    return Loads(v[at.x], v[at.y], v[at.z], v[at.w]);
}

// Four rows of y, at a lane's group of columns.
fn y_rows(head: u32, row: u32, column: u32) -> Rows {
    let c = min(column, D4 - 1u);
    return Rows(
        y[y_row(head, row) + c], y[y_row(head, row + 1u) + c],
        y[y_row(head, row + 2u) + c], y[y_row(head, row + 3u) + c]);
}

fn put_row(head: u32, row: u32, column: u32, v: vec4<f32>) {
    if (row < params.m && column < D4) {
        y[y_row(head, row) + column] = v;
    }
}

fn put_rows(head: u32, row: u32, column: u32, rows: Rows) {
    put_row(head, row, column, rows.r0);
    put_row(head, row + 1u, column, rows.r1);
    put_row(head, row + 2u, column, rows.r2);
    put_row(head, row + 3u, column, rows.r3);
}

fn put_state(head: u32, row: u32, reference: f32, sum: f32) {
    if (row < params.m) {
        state[state_at(head, row)] = vec2<f32>(reference, sum);
    }
}

fn store_value(i: u32, v: vec4<f32>) {
    let key = i / WIDTH;
    tile[key / CHUNK * COLUMNS + i % WIDTH / LANES][i % LANES][key % CHUNK] = v;
}

@compute @workgroup_size(INVOCATIONS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32) {
    let head = group.y;
    let first_row = group.x * QUERIES;
    let lane = index % LANES;
    let block = index / LANES;
    let own_row = first_row + block * ROWS;
    // What this lane fills: of queries and keys, and of values.
    let fill_column = index % CHUNK;
    let fill_row = index / CHUNK;
    // With two loads a lane, half of the lanes fill the first two of a lane's four keys.
    let fill_lane = select(fill_row, fill_row % LANES, LOADS == 2u);
    let fill_key = select(0u, fill_row / LANES * LOADS, LOADS == 2u);
    let k_head = params.k_offset + key_head(head);
    let v_at = params.v_offset + key_head(head) + min(index % WIDTH, D4 - 1u);
    let fill_value = index / WIDTH;
    // Rows past the end repeat the last one and are not written.
    let q_head = params.q_offset + head * D4;
    let q0 = q_head + min(first_row + fill_row, params.m - 1u) * params.q_stride;
    let q1 = q_head + min(first_row + fill_row + FILL_ROWS, params.m - 1u) * params.q_stride;

    // D4, as rows of k are no narrower than a head, but no constant: compilers unroll loops up to a constant, and spill with
    // so many loads in one block.
    let width = min(D4, params.k_stride);

    // A row's reference, and the sum of the weights of this lane's keys; of its output, COLUMNS groups of four columns.
    var reference = vec4<f32>(MASKED);
    var total = vec4<f32>();
    var o0 = Rows();
    var o1 = Rows();
    if (!is_first()) {
        let a = state[state_at(head, own_row)];
        let b = state[state_at(head, own_row + 1u)];
        let c = state[state_at(head, own_row + 2u)];
        let d = state[state_at(head, own_row + 3u)];
        reference = vec4<f32>(a.x, b.x, c.x, d.x);
        total = select(vec4<f32>(), vec4<f32>(a.y, b.y, c.y, d.y), lane == 0u);
        o0 = y_rows(head, own_row, lane);
        if (COLUMNS > 1u) {
            o1 = y_rows(head, own_row, lane + LANES);
        }
    }
    if (index == 0u) {
        atomicStore(&vote, 0u);
    }

    for (var j = 0u; j < params.n; j += KEYS) {
        // Scores of four keys a lane.
        var score = Rows();
        let rows = key_rows(k_head, j + 4u * fill_lane + fill_key);
        for (var c0 = 0u; c0 < width; c0 += CHUNK) {
            // Columns past the end of a head are not read.
            let column = min(c0 + fill_column, D4 - 1u);
            let loads = load_keys(rows, column);
            let query0 = q[q0 + column];
            let query1 = q[q1 + column];
            workgroupBarrier();
            tile[fill_key][fill_lane][fill_column] = loads.a;
            tile[fill_key + 1u][fill_lane][fill_column] = loads.b;
            if (LOADS > 2u) {
                tile[2][fill_lane][fill_column] = loads.c;
                tile[3][fill_lane][fill_column] = loads.d;
            }
            if (fill_row < QUERIES) {
                front[fill_row / ROWS][fill_row % ROWS][fill_column] = query0;
            }
            if (FILL_ROWS < QUERIES) {
                front[(fill_row + FILL_ROWS) / ROWS][fill_row % ROWS][fill_column] = query1;
            }
            workgroupBarrier();
            let columns = min(CHUNK, width - c0);
            for (var c = 0u; c < columns; c++) {
                multiply_keys(&score, block, lane, c);
            }
        }
        let keys = j + 4u * lane + vec4<u32>(0u, 1u, 2u, 3u);
        score.r0 = masked_score(score.r0 * params.scale, head, own_row, keys);
        score.r1 = masked_score(score.r1 * params.scale, head, own_row + 1u, keys);
        score.r2 = masked_score(score.r2 * params.scale, head, own_row + 2u, keys);
        score.r3 = masked_score(score.r3 * params.scale, head, own_row + 3u, keys);
        let top = vec4<f32>(largest(score.r0), largest(score.r1), largest(score.r2), largest(score.r3));
        if (any(top > reference + LEEWAY)) {
            atomicStore(&vote, 1u);
        }
        workgroupBarrier();
        if (index == 0u) {
            must_renew = atomicLoad(&vote);
            atomicStore(&vote, 0u);
        }
        // Also the end of everybody's reading the chunk of queries.
        if (workgroupUniformLoad(&must_renew) != 0u) {
            front[block][0][lane] = top;
            workgroupBarrier();
            var tops = reference;
            for (var l = 0u; l < LANES; l++) {
                tops = max(tops, front[block][0][l]);
            }
            let renewed = select(reference, tops, tops > reference + LEEWAY);
            let decay = exp4(reference - renewed);
            reference = renewed;
            total *= decay;
            scale_rows(&o0, decay);
            scale_rows(&o1, decay);
            workgroupBarrier();
        }
        let p = Rows(
            weights_of(score.r0, reference.x), weights_of(score.r1, reference.y),
            weights_of(score.r2, reference.z), weights_of(score.r3, reference.w));
        total += row_sums(p);
        front[block][0][lane] = p.r0;
        front[block][1][lane] = p.r1;
        front[block][2][lane] = p.r2;
        front[block][3][lane] = p.r3;

        // The sum over values.
        let end = min(KEYS, params.n - j);
        for (var i0 = 0u; i0 < end; i0 += VALUES) {
            let loads = load_values(v_at, j + i0 + fill_value);
            workgroupBarrier();
            store_value(index, loads.a);
            store_value(index + INVOCATIONS, loads.b);
            if (LOADS > 2u) {
                store_value(index + 2u * INVOCATIONS, loads.c);
                store_value(index + 3u * INVOCATIONS, loads.d);
            }
            workgroupBarrier();
            // Past the end of the keys weights are zero.
            let quads = (min(VALUES, end - i0) + 3u) / 4u;
            for (var i = 0u; i < quads; i++) {
                let p = front_rows(block, i0 / 4u + i);
                let row = 4u * i / CHUNK * COLUMNS;
                let key = 4u * i % CHUNK;
                multiply_values(&o0, p, row, lane, key);
                if (COLUMNS > 1u) {
                    multiply_values(&o1, p, row + 1u, lane, key);
                }
            }
        }
    }

    // Totals of all lanes.
    workgroupBarrier();
    front[block][0][lane] = total;
    workgroupBarrier();
    var sum = vec4<f32>();
    for (var l = 0u; l < LANES; l++) {
        sum += front[block][0][l];
    }
    // A row that attends to nothing gives zeros.
    var factor = select(vec4<f32>(), 1.0 / sum, sum > vec4<f32>());
    if (!is_last()) {
        factor = vec4<f32>(1.0);
        if (lane == 0u) {
            put_state(head, own_row, reference.x, sum.x);
            put_state(head, own_row + 1u, reference.y, sum.y);
            put_state(head, own_row + 2u, reference.z, sum.z);
            put_state(head, own_row + 3u, reference.w, sum.w);
        }
    }
    scale_rows(&o0, factor);
    put_rows(head, own_row, lane, o0);
    if (COLUMNS > 1u) {
        scale_rows(&o1, factor);
        put_rows(head, own_row, lane + LANES, o1);
    }
}
