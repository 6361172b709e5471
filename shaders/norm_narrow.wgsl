// A norm as in norm.wgsl, and with the rows it makes the narrow product of the layer that reads them:
//
//   narrow [M, R]                        (y Dᵀ) * factor; rows `narrow_stride` apart
//   D      [R / (4 * LANES)][C][4 * LANES]   packed, see `PackedWeight`
//   factor [R]
//
// Sixteen outputs at a time. From the second sixteen on, an invocation reads of y what it wrote itself.
// Two entry points: one row an invocation (processors), or four rows a workgroup (graphics chips), whose lanes share the columns.

#import norm_y
#import norm_interface

@group(0) @binding(5) var<storage, read> down: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read> factor: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read_write> narrow: array<vec4<f32>>;

override DOWN_LANES: u32 = 4u;  // groups of four outputs in a tile of D

// Sums of sixteen outputs of a row.
struct Sums {
    s0: vec4<f32>,
    s1: vec4<f32>,
    s2: vec4<f32>,
    s3: vec4<f32>,
}

// Where the numbers of D for group `quad` of outputs begin. Past the last group it is the last one, which is not written.
fn down_at(quad: u32) -> u32 {
    let own = min(quad, params.rank4 - 1u);
    return own / DOWN_LANES * params.c4 * 4u * DOWN_LANES + own % DOWN_LANES;
}

// Four numbers of four outputs of D, a column for each number.
fn down4x4(at: u32) -> mat4x4<f32> {
    return mat4x4<f32>(
        down[at], down[at + DOWN_LANES], down[at + 2u * DOWN_LANES], down[at + 3u * DOWN_LANES]);
}

fn add4(sum: vec4<f32>, a: vec4<f32>, w: mat4x4<f32>) -> vec4<f32> {
    return sum + a.x * w[0] + a.y * w[1] + a.z * w[2] + a.w * w[3];
}

fn put_narrow(row: u32, quad: u32, sum: vec4<f32>) {
    if (quad < params.rank4) {
        narrow[params.narrow_offset + row * params.narrow_stride + quad] = sum * factor[quad];
    }
}

@compute @workgroup_size(LANES)
fn row_per_invocation(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = (group.x + group.y * groups.x) * LANES + lane;
    if (row >= params.rows) {
        return;
    }
    let from_ = params.x_offset + row * params.x_stride;
    let to_ = params.y_offset + row * params.y_stride;
    let of_row = statistics(from_);
    for (var quad = 0u; quad < params.rank4; quad += 4u) {
        let d0 = down_at(quad);
        let d1 = down_at(quad + 1u);
        let d2 = down_at(quad + 2u);
        let d3 = down_at(quad + 3u);
        var sums = Sums();
        for (var c = 0u; c < params.c4; c++) {
            var v = vec4<f32>();
            if (quad == 0u) {
                v = affine(c, (x[from_ + c] - of_row.x) * of_row.y);
                y[to_ + c] = v;
            } else {
                v = y[to_ + c];
            }
            let step = 4u * c * DOWN_LANES;
            sums.s0 = add4(sums.s0, v, down4x4(d0 + step));
            sums.s1 = add4(sums.s1, v, down4x4(d1 + step));
            sums.s2 = add4(sums.s2, v, down4x4(d2 + step));
            sums.s3 = add4(sums.s3, v, down4x4(d3 + step));
        }
        put_narrow(row, quad, sums.s0);
        put_narrow(row, quad + 1u, sums.s1);
        put_narrow(row, quad + 2u, sums.s2);
        put_narrow(row, quad + 3u, sums.s3);
    }
}

const ROWS: u32 = 4u;

var<workgroup> partial: array<vec4<f32>, LANES>;
// Of two rows: what each lane has of their eight groups of outputs.
var<workgroup> shares: array<array<vec4<f32>, 8>, LANES>;

// Sum of `value` over the workgroup, for every lane: a number for each row.
fn workgroup_sum(value: vec4<f32>, lane: u32) -> vec4<f32> {
    partial[lane] = value;
    workgroupBarrier();
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        if (lane < half) {
            partial[lane] += partial[lane + half];
        }
        workgroupBarrier();
    }
    let sum = partial[0];
    workgroupBarrier();
    return sum;
}

fn total(v: vec4<f32>) -> f32 {
    return dot(v, vec4<f32>(1.0));
}

// Adds up what all lanes have of two rows, and writes those that exist. All lanes take part.
fn put_pair(row: u32, quad: u32, a: Sums, b: Sums, lane: u32) {
    shares[lane] = array<vec4<f32>, 8>(a.s0, a.s1, a.s2, a.s3, b.s0, b.s1, b.s2, b.s3);
    workgroupBarrier();
    // Eight lanes for each of the eight groups.
    let own = lane % 8u;
    var sum = vec4<f32>();
    for (var i = lane / 8u; i < LANES; i += 8u) {
        sum += shares[i][own];
    }
    partial[lane] = sum;
    workgroupBarrier();
    let to_row = row + own / 4u;
    if (lane < 8u && to_row < params.rows) {
        var all = vec4<f32>();
        for (var i = own; i < LANES; i += 8u) {
            all += partial[i];
        }
        put_narrow(to_row, quad + own % 4u, all);
    }
    workgroupBarrier();
}

@compute @workgroup_size(LANES)
fn rows_per_workgroup(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let first = (group.x + group.y * groups.x) * ROWS;
    // Rows past the end repeat the last one, and are not written.
    let rows = min(vec4<u32>(first, first + 1u, first + 2u, first + 3u), vec4<u32>(params.rows - 1u));
    let exists = vec4<u32>(first, first + 1u, first + 2u, first + 3u) < vec4<u32>(params.rows);
    let from_ = params.x_offset + rows * params.x_stride;
    let to_ = params.y_offset + rows * params.y_stride;
    let n = f32(params.c4 * 4u);
    var mean = vec4<f32>();
    if (!RMS) {
        for (var c = lane; c < params.c4; c += LANES) {
            mean += vec4<f32>(
                total(x[from_.x + c]), total(x[from_.y + c]), total(x[from_.z + c]), total(x[from_.w + c]));
        }
    }
    mean = workgroup_sum(mean, lane) / n;
    var squares = vec4<f32>();
    for (var c = lane; c < params.c4; c += LANES) {
        let d0 = x[from_.x + c] - mean.x;
        let d1 = x[from_.y + c] - mean.y;
        let d2 = x[from_.z + c] - mean.z;
        let d3 = x[from_.w + c] - mean.w;
        squares += vec4<f32>(dot(d0, d0), dot(d1, d1), dot(d2, d2), dot(d3, d3));
    }
    let divisor = inverseSqrt(workgroup_sum(squares, lane) / n + params.eps);
    for (var c = lane; c < params.c4; c += LANES) {
        let v0 = affine(c, (x[from_.x + c] - mean.x) * divisor.x);
        let v1 = affine(c, (x[from_.y + c] - mean.y) * divisor.y);
        let v2 = affine(c, (x[from_.z + c] - mean.z) * divisor.z);
        let v3 = affine(c, (x[from_.w + c] - mean.w) * divisor.w);
        if (exists.x) {
            y[to_.x + c] = v0;
        }
        if (exists.y) {
            y[to_.y + c] = v1;
        }
        if (exists.z) {
            y[to_.z + c] = v2;
        }
        if (exists.w) {
            y[to_.w + c] = v3;
        }
    }
    for (var quad = 0u; quad < params.rank4; quad += 4u) {
        let d0 = down_at(quad);
        let d1 = down_at(quad + 1u);
        let d2 = down_at(quad + 2u);
        let d3 = down_at(quad + 3u);
        // Of each row.
        var r0 = Sums();
        var r1 = Sums();
        var r2 = Sums();
        var r3 = Sums();
        for (var c = lane; c < params.c4; c += LANES) {
            let v0 = y[to_.x + c];
            let v1 = y[to_.y + c];
            let v2 = y[to_.z + c];
            let v3 = y[to_.w + c];
            let step = 4u * c * DOWN_LANES;
            let w0 = down4x4(d0 + step);
            r0.s0 = add4(r0.s0, v0, w0);
            r1.s0 = add4(r1.s0, v1, w0);
            r2.s0 = add4(r2.s0, v2, w0);
            r3.s0 = add4(r3.s0, v3, w0);
            let w1 = down4x4(d1 + step);
            r0.s1 = add4(r0.s1, v0, w1);
            r1.s1 = add4(r1.s1, v1, w1);
            r2.s1 = add4(r2.s1, v2, w1);
            r3.s1 = add4(r3.s1, v3, w1);
            let w2 = down4x4(d2 + step);
            r0.s2 = add4(r0.s2, v0, w2);
            r1.s2 = add4(r1.s2, v1, w2);
            r2.s2 = add4(r2.s2, v2, w2);
            r3.s2 = add4(r3.s2, v3, w2);
            let w3 = down4x4(d3 + step);
            r0.s3 = add4(r0.s3, v0, w3);
            r1.s3 = add4(r1.s3, v1, w3);
            r2.s3 = add4(r2.s3, v2, w3);
            r3.s3 = add4(r3.s3, v3, w3);
        }
        put_pair(first, quad, r0, r1, lane);
        put_pair(first + 2u, quad, r2, r3, lane);
    }
}
