// What happens to a sum of a linear layer, and where it goes.

#import linear_y

@group(0) @binding(4) var<storage, read> gate: array<vec4<f32>>;

override HAS_GATE: bool = false;
override MODE: u32 = 0u;        // 0: y = v, 1: y += v, 2: y *= v
override HAS_BEGUN: bool = false;   // the sum begins with what y holds

// Writes four columns of a row, if there is such a row.
fn put(row: u32, column4: u32, sum: vec4<f32>) {
    if (row >= params.m) {
        return;
    }
    let at = params.y_offset + row * params.y_stride + params.column4 + column4;
    var v = whole_sum(sum, params.column4 + column4);
    if (HAS_BEGUN) {
        v += from_y(y[at]);
    }
    v = activate4(v, ACTIVATION);
    if (HAS_GATE) {
        v *= gate[params.gate_offset + params.column4 + column4];
    }
    if (MODE == 1u) {
        v += from_y(y[at]);
    } else if (MODE == 2u) {
        v *= from_y(y[at]);
    }
    y[at] = to_y(v);
}
