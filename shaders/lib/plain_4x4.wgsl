// Four numbers of K x four outputs of a weight that is stored a number at a time, from its accessor.

#import numbers_8x4

// Whether neighbouring numbers share words and scales.
const IN_BLOCKS: bool = false;

struct Stored4x4 {
    a: Stored4,
    b: Stored4,
    c: Stored4,
    d: Stored4,
}

// As they are stored. `i` counts groups of four outputs; from one number of K to the next are `lanes` of them.
fn load4x4(i: u32, lanes: u32) -> Stored4x4 {
    return Stored4x4(weight[i], weight[i + lanes], weight[i + 2u * lanes], weight[i + 3u * lanes]);
}

// A column for each number of K.
fn widen4x4(stored: Stored4x4) -> mat4x4<f32> {
    return mat4x4<f32>(widen4(stored.a), widen4(stored.b), widen4(stored.c), widen4(stored.d));
}

fn numbers8x4(i: u32, lanes: u32, to_second: u32) -> Numbers8x4 {
    return Numbers8x4(widen4x4(load4x4(i, lanes)), widen4x4(load4x4(i + to_second, lanes)));
}
