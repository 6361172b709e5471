// Rounds rows of x to signed bytes in blocks of 32 numbers, for products of bytes (matmul_int8.wgsl).
//
// The largest magnitude of a block becomes 127, which makes its scale. 64 numbers of a row are 20 words: 16 of codes, four in
// each, and for each of the two blocks its scale, and its scale times the sum of its codes, which an offset of weights is
// multiplied by. Codes are in the order of K, or INTERLEAVED: of eight numbers first 0, 2, 4 and 6, then 1, 3, 5 and 7.
//
// A block with NaN or an infinity has such a scale. One of numbers below 2^-119, whose inverse is beyond f32, is zeros.
//
// Four invocations do a block, eight numbers each.

struct Params {
    rows: u32,
    blocks: u32,    // in a row
    x_offset: u32,  // in groups of four numbers or words
    x_stride: u32,
    y_offset: u32,
    y_stride: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> y: array<vec2<u32>>;

override INTERLEAVED: bool = false;

const INVOCATIONS: u32 = 64u;
const BLOCKS: u32 = INVOCATIONS / 4u;   // in a workgroup
// 1.5 * 2^23: a number that is added to it is rounded to an integer, the nearest and of two the even one, which is in its lower
// bits. Conversions are slow on some chips.
const ROUNDER: f32 = 12582912.0;
const ROUNDER_BITS: i32 = 0x4b400000;
const LEAST_BITS: u32 = 0x04000000u;    // 2^-119

// Of each block's four invocations.
var<workgroup> largest: array<array<u32, 4>, BLOCKS>;
var<workgroup> sums: array<array<i32, 4>, BLOCKS>;

fn word(codes: vec4<i32>) -> u32 {
    let bytes = bitcast<vec4<u32>>(codes) & vec4<u32>(0xffu);
    return bytes.x | (bytes.y << 8u) | (bytes.z << 16u) | (bytes.w << 24u);
}

@compute @workgroup_size(INVOCATIONS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let own = index / 4u;
    let part = index % 4u;
    let all = params.rows * params.blocks;
    let block = (group.x + group.y * groups.x) * BLOCKS + own;
    // Past the end the last one is repeated and not written.
    let row = min(block, all - 1u) / params.blocks;
    let k = min(block, all - 1u) % params.blocks;
    let from_x = params.x_offset + row * params.x_stride + k * 8u + part * 2u;
    let a = x[from_x];
    let b = x[from_x + 1u];

    // Bits of magnitudes are in the order of numbers, with NaN above all.
    let magnitudes = max(
        bitcast<vec4<u32>>(a) & vec4<u32>(0x7fffffffu), bitcast<vec4<u32>>(b) & vec4<u32>(0x7fffffffu));
    largest[own][part] = max(max(magnitudes.x, magnitudes.y), max(magnitudes.z, magnitudes.w));
    workgroupBarrier();
    let most_bits = max(max(largest[own][0], largest[own][1]), max(largest[own][2], largest[own][3]));
    let most = bitcast<f32>(max(most_bits, LEAST_BITS));
    let is_zero = most_bits < LEAST_BITS;
    let scale = select(most / 127.0, 0.0, is_zero);
    let inverse = select(127.0 / most, 0.0, is_zero);

    let first = bitcast<vec4<i32>>(a * inverse + ROUNDER) - ROUNDER_BITS;
    let second = bitcast<vec4<i32>>(b * inverse + ROUNDER) - ROUNDER_BITS;
    let total = first + second;
    sums[own][part] = total.x + total.y + total.z + total.w;
    workgroupBarrier();
    if (block >= all) {
        return;
    }
    // Pairs of words: ten for 64 numbers.
    let to = (params.y_offset + row * params.y_stride) * 2u + k / 2u * 10u;
    var codes = vec2<u32>(word(first), word(second));
    if (INTERLEAVED) {
        codes = vec2<u32>(
            word(vec4<i32>(first.xz, second.xz)), word(vec4<i32>(first.yw, second.yw)));
    }
    y[to + k % 2u * 4u + part] = codes;
    if (part == 0u) {
        let scaled = scale * f32(sums[own][0] + sums[own][1] + sums[own][2] + sums[own][3]);
        y[to + 8u + k % 2u] = bitcast<vec2<u32>>(vec2<f32>(scale, scaled));
    }
}
