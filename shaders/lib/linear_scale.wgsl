// A layer's weight as it is, perhaps with a scale for each output. Where a low-rank change is added, linear_low_rank.wgsl stands
// for this file.

@group(0) @binding(6) var<storage, read> scale: array<vec4<f32>>;
// For kernels that round to f16.
@group(0) @binding(7) var<storage, read_write> f16_flags: array<atomic<u32>>;

override HAS_SCALE: bool = false;   // a weight's number is its code times its output's scale

// Whether sums go on over the numbers of a narrow matrix.
const HAS_LOW_RANK: bool = false;

// The sum of four columns, `column4` of all, of which products have left out the scales.
fn scaled(sum: vec4<f32>, column4: u32) -> vec4<f32> {
    if (HAS_SCALE) {
        return sum * scale[column4];
    }
    return sum;
}

// Which groups of four numbers of the narrow matrix the groups of columns `first` to `last` need, of those of this shard.
fn ranks_of(first: u32, last: u32) -> vec2<u32> {
    return vec2<u32>();
}

// Group `k` of row `row` of the narrow matrix.
fn narrow4(row: u32, k: u32) -> vec4<f32> {
    return vec4<f32>();
}

// What is multiplied by it: four outputs, group `column4` of this shard, a column for each of the four numbers.
fn up4x4(column4: u32, k: u32) -> mat4x4<f32> {
    return mat4x4<f32>();
}
