// Weights that stay in blocks (`tensor::Storage`): NUMBERS numbers of K in WORDS words for each output. The same word of four
// outputs is a vec4, those of neighbouring outputs are neighbours: `[N / (4 * lanes)][K / NUMBERS][WORDS][lanes]`.
//
// NUMBERS and WORDS are the accessor's, and so is `load4x4`, which reads what four numbers of K x four outputs are made of:
// a word of each kind, as it is stored, so that no load is waited for. `widen4x4` makes numbers of it.

#import numbers_8x4

@group(0) @binding(2) var<storage, read> weight: array<vec4<u32>>;

// Whether neighbouring numbers share words and scales. K then has whole blocks.
const IN_BLOCKS: bool = true;

// Whether there may be numbers beyond f16's largest.
const EXCEEDS_F16: bool = true;

// Where four numbers of K x four outputs are.
struct Place {
    first: u32,     // the block's first word
    lanes: u32,     // from a word to the next
    k: u32,         // the first of the four numbers, in the block
}

// `i` counts groups of four outputs, `lanes` for each number of K.
fn place_of(i: u32, lanes: u32) -> Place {
    let block = i / (NUMBERS * lanes);
    return Place(block * (WORDS * lanes) + i % lanes, lanes, i / lanes % NUMBERS);
}

fn word4(place: Place, word: u32) -> vec4<u32> {
    return weight[place.first + word * place.lanes];
}

// Codes of four numbers of K, of four outputs each.
struct Codes {
    a: vec4<u32>,
    b: vec4<u32>,
    c: vec4<u32>,
    d: vec4<u32>,
}

// The codes of `width` bits, from bit `from` on.
fn codes4x4(words: vec4<u32>, from_bit: u32, width: u32) -> Codes {
    let mask = vec4<u32>((1u << width) - 1u);
    let a = words >> vec4<u32>(from_bit);
    let b = a >> vec4<u32>(width);
    let c = b >> vec4<u32>(width);
    let d = c >> vec4<u32>(width);
    return Codes(a & mask, b & mask, c & mask, d & mask);
}

// Low bits, and those above them, `width` bits up.
fn joined(low: Codes, high: Codes, width: u32) -> Codes {
    let up = vec4<u32>(width);
    return Codes(low.a | (high.a << up), low.b | (high.b << up), low.c | (high.c << up), low.d | (high.d << up));
}

// Conversions go by way of i32, as processors have no other.
fn number4(code: vec4<u32>) -> vec4<f32> {
    return vec4<f32>(bitcast<vec4<i32>>(code));
}

// `scale * code + offset`, of each output.
fn numbers4x4(codes: Codes, scale: vec4<f32>, offset: vec4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(
        scale * number4(codes.a) + offset, scale * number4(codes.b) + offset,
        scale * number4(codes.c) + offset, scale * number4(codes.d) + offset);
}

// The signed byte of each word that is `byte` bytes up.
fn signed4(words: vec4<u32>, byte: u32) -> vec4<f32> {
    let high = bitcast<vec4<i32>>(words << vec4<u32>(24u - 8u * byte));
    return vec4<f32>(high >> vec4<u32>(24u));
}

// The unsigned byte of each word that is `byte` bytes up.
fn byte4(words: vec4<u32>, byte: u32) -> vec4<u32> {
    return (words >> vec4<u32>(8u * byte)) & vec4<u32>(0xffu);
}

// The f16 in each word's lower half, or in its upper one.
fn half4(words: vec4<u32>, upper: u32) -> vec4<f32> {
    let bits = words >> vec4<u32>(16u * upper);
    return vec4<f32>(
        unpack2x16float(bits.x).x, unpack2x16float(bits.y).x, unpack2x16float(bits.z).x, unpack2x16float(bits.w).x);
}
