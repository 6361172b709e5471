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

#import norm_y
#import norm_interface

var<workgroup> partial: array<f32, 64>;

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
    for (var c = 0u; c < params.c4; c++) {
        put_y(to_ + c, affine(c, (x[from_ + c] - of_row.x) * of_row.y));
    }
    tell_range();
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
        put_y(to_ + c, affine(c, (x[from_ + c] - mean) * factor));
    }
    tell_range();
}
