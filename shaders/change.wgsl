// How much a matrix changed: sums of |a - b| and of |b| over groups of rows.
//
//   a, b     [M, C]   rows `a_stride`, `b_stride` apart
//   partials [G, 4]   of rows g * group_rows ..: sum |a - b|, sum |b|, 0, 0
//
// One invocation sums one group of rows; the host adds the groups in f64. A dispatch may cover a part of a group
// only, where a buffer ends; then it adds to what the one before has written (`first_row` is not on a border).
// Each of the four columns of a vector is summed on its own: no sum has more than group_rows * C / 4 terms.
// Offsets and strides count groups of four.

struct Params {
    rows: u32,          // of this dispatch
    c4: u32,
    a_offset: u32,
    a_stride: u32,
    b_offset: u32,
    b_stride: u32,
    first_row: u32,     // number of its first row in the whole matrix
    group_rows: u32,
    groups: u32,        // that this dispatch touches
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> b: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> partials: array<vec4<f32>>;

const LANES: u32 = 64u;

@compute @workgroup_size(LANES)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = (group.x + group.y * groups.x) * LANES + lane;
    if (index >= params.groups) {
        return;
    }
    let number = params.first_row / params.group_rows + index;
    let begin = max(number * params.group_rows, params.first_row);
    let end = min((number + 1u) * params.group_rows, params.first_row + params.rows);
    var changes = vec4<f32>();
    var sizes = vec4<f32>();
    for (var row = begin - params.first_row; row < end - params.first_row; row++) {
        let a_row = params.a_offset + row * params.a_stride;
        let b_row = params.b_offset + row * params.b_stride;
        for (var c = 0u; c < params.c4; c++) {
            let old = b[b_row + c];
            changes += abs(a[a_row + c] - old);
            sizes += abs(old);
        }
    }
    var sums = vec4<f32>(dot(changes, vec4<f32>(1.0)), dot(sizes, vec4<f32>(1.0)), 0.0, 0.0);
    if (begin > number * params.group_rows) {
        sums += partials[number];
    }
    partials[number] = sums;
}
