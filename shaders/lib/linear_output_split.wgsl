// Where the sums of a linear layer go that has two outputs: the columns before SPLIT to y as they are, what the activation
// makes of the others to `rest`. For layers without a gate, which store.

#import linear_y
#import linear_rest

override HAS_BEGUN: bool = false;   // the sums begin with what the outputs hold

// Writes four columns of a row, if there is such a row.
fn put(row: u32, column4: u32, sum: vec4<f32>) {
    if (row >= params.m) {
        return;
    }
    let column = params.column4 + column4;
    var v = whole_sum(sum, column);
    if (column < params.split4) {
        let at = params.y_offset + row * params.y_stride + column;
        if (HAS_BEGUN) {
            v += from_y(y[at]);
        }
        y[at] = to_y(v);
    } else {
        let at = params.rest_offset + row * params.rest_stride + column - params.split4;
        if (HAS_BEGUN) {
            v += from_rest(rest[at]);
        }
        rest[at] = to_rest(activate4(v, ACTIVATION));
    }
}
