// Eight rows of a product's tile, spelt out, as WGSL cannot index registers.

const ROWS: u32 = 8u;

struct Rows {
    r0: vec4<f32>,
    r1: vec4<f32>,
    r2: vec4<f32>,
    r3: vec4<f32>,
    r4: vec4<f32>,
    r5: vec4<f32>,
    r6: vec4<f32>,
    r7: vec4<f32>,
}

// Group `k` of K of the rows of `x_tile` that belong to `group_row`.
fn x_tile_rows(group_row: u32, k: u32) -> Rows {
    return Rows(
        x_tile[group_row][0][k], x_tile[group_row][1][k], x_tile[group_row][2][k], x_tile[group_row][3][k],
        x_tile[group_row][4][k], x_tile[group_row][5][k], x_tile[group_row][6][k], x_tile[group_row][7][k]);
}

// Group `k` of rows of a low-rank change's narrow matrix, `step` apart.
fn narrow_rows(row: u32, step: u32, k: u32) -> Rows {
    return Rows(
        narrow4(row, k), narrow4(row + step, k), narrow4(row + 2u * step, k), narrow4(row + 3u * step, k),
        narrow4(row + 4u * step, k), narrow4(row + 5u * step, k), narrow4(row + 6u * step, k), narrow4(row + 7u * step, k));
}

// Adds to each row's sums its four numbers times four rows of W.
fn multiply(sums: ptr<function, Rows>, a: Rows, w0: vec4<f32>, w1: vec4<f32>, w2: vec4<f32>, w3: vec4<f32>) {
    (*sums).r0 = dot_columns((*sums).r0, a.r0, w0, w1, w2, w3);
    (*sums).r1 = dot_columns((*sums).r1, a.r1, w0, w1, w2, w3);
    (*sums).r2 = dot_columns((*sums).r2, a.r2, w0, w1, w2, w3);
    (*sums).r3 = dot_columns((*sums).r3, a.r3, w0, w1, w2, w3);
    (*sums).r4 = dot_columns((*sums).r4, a.r4, w0, w1, w2, w3);
    (*sums).r5 = dot_columns((*sums).r5, a.r5, w0, w1, w2, w3);
    (*sums).r6 = dot_columns((*sums).r6, a.r6, w0, w1, w2, w3);
    (*sums).r7 = dot_columns((*sums).r7, a.r7, w0, w1, w2, w3);
}

// Writes rows `step` apart.
fn put_rows(row: u32, step: u32, column4: u32, sums: Rows) {
    put(row, column4, sums.r0);
    put(row + step, column4, sums.r1);
    put(row + 2u * step, column4, sums.r2);
    put(row + 3u * step, column4, sums.r3);
    put(row + 4u * step, column4, sums.r4);
    put(row + 5u * step, column4, sums.r5);
    put(row + 6u * step, column4, sums.r6);
    put(row + 7u * step, column4, sums.r7);
}
