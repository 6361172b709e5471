// Layer norm and RMS norm over the columns of each row, followed by a scale and a shift per column.
//
//   x, y  [M, C]     rows `x_stride`, `y_stride` apart
//   scale [C]        AFFINE 1: y = norm(x) * (1 + scale) + shift   (AdaLN modulation)
//   shift [C]        AFFINE 2: y = norm(x) * scale + shift         (affine layer norm)
//                    AFFINE 3: y = norm(x) * scale                 (RMS norm weight)
//                    AFFINE 0: y = norm(x)
//
// Two entry points: one row an invocation (processors), or one row a workgroup (graphics chips).
// The variance is taken around means, of parts or in a second pass over the row: no cancellation.
// Offsets and strides count groups of four numbers.

struct Params {
    rows: u32,
    c4: u32,
    x_offset: u32,
    x_stride: u32,
    y_offset: u32,
    y_stride: u32,
    scale_offset: u32,
    shift_offset: u32,
    eps: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> scale: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> shift: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> y: array<vec4<f32>>;

override RMS: bool = false;
override AFFINE: u32 = 0u;

const LANES: u32 = 64u;
var<workgroup> partial: array<f32, 64>;

fn put(at: u32, c: u32, normed: vec4<f32>) {
    var v = normed;
    if (AFFINE == 1u) {
        v = v * (1.0 + scale[params.scale_offset + c]) + shift[params.shift_offset + c];
    } else if (AFFINE == 2u) {
        v = v * scale[params.scale_offset + c] + shift[params.shift_offset + c];
    } else if (AFFINE == 3u) {
        v = v * scale[params.scale_offset + c];
    }
    y[at] = v;
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
    let n = f32(params.c4 * 4u);
    var mean = 0.0;
    var squares = 0.0;
    // Four times four numbers at once, joined by Chan's formula: each is read once, and nothing cancels.
    var count = 0.0;
    for (var c = 0u; c < params.c4; c += 4u) {
        let more = min(4u, params.c4 - c);
        var values: array<vec4<f32>, 4>;
        var sum = vec4<f32>();
        for (var i = 0u; i < 4u; i++) {
            values[i] = x[from_ + min(c + i, params.c4 - 1u)];
            sum += select(vec4<f32>(), values[i], i < more);
        }
        let size = f32(more * 4u);
        let own_mean = select(dot(sum, vec4<f32>(1.0)) / size, 0.0, RMS);
        var own_squares = vec4<f32>();
        for (var i = 0u; i < 4u; i++) {
            let d = select(vec4<f32>(), values[i] - own_mean, i < more);
            own_squares += d * d;
        }
        let delta = own_mean - mean;
        mean += delta * (size / (count + size));
        squares += dot(own_squares, vec4<f32>(1.0)) + delta * delta * (count * size / (count + size));
        count += size;
    }
    let factor = inverseSqrt(squares / n + params.eps);
    for (var c = 0u; c < params.c4; c++) {
        put(to_ + c, c, (x[from_ + c] - mean) * factor);
    }
}

// Sum of `value` over the workgroup, for every lane.
fn workgroup_sum(value: f32, lane: u32) -> f32 {
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

@compute @workgroup_size(LANES)
fn row_per_workgroup(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = group.x + group.y * groups.x;
    // The last groups of a folded dispatch have no row; they follow the barriers with the last one.
    let row = min(index, params.rows - 1u);
    let from_ = params.x_offset + row * params.x_stride;
    let to_ = params.y_offset + row * params.y_stride;
    let n = f32(params.c4 * 4u);
    var sum = vec4<f32>();
    if (!RMS) {
        for (var c = lane; c < params.c4; c += LANES) {
            sum += x[from_ + c];
        }
    }
    let mean = workgroup_sum(dot(sum, vec4<f32>(1.0)), lane) / n;
    var squares = vec4<f32>();
    for (var c = lane; c < params.c4; c += LANES) {
        let d = x[from_ + c] - mean;
        squares += d * d;
    }
    let factor = inverseSqrt(workgroup_sum(dot(squares, vec4<f32>(1.0)), lane) / n + params.eps);
    if (index >= params.rows) {
        return;
    }
    for (var c = lane; c < params.c4; c += LANES) {
        put(to_ + c, c, (x[from_ + c] - mean) * factor);
    }
}
