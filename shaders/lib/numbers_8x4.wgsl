// Two groups of four numbers of K x four outputs, a column for each number of K. An accessor's `numbers8x4(i, lanes, to_second)` reads
// them; from the first group to the second are `to_second` numbers: 4 * lanes, or none past the end of K.

struct Numbers8x4 {
    first: mat4x4<f32>,
    second: mat4x4<f32>,
}
