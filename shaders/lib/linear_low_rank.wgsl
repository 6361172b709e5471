// A layer with a low-rank change: after the numbers of x and W, sums go on over those of `narrow` and `up`.

// [M][R], rows `narrow_stride` apart.
@group(0) @binding(6) var<storage, read> narrow: array<vec4<f32>>;
// [N / (4 * LANES)][R][4 * LANES]
@group(0) @binding(7) var<storage, read> up: array<vec4<f32>>;
// For kernels that round to f16.
@group(0) @binding(8) var<storage, read_write> f16_flags: array<atomic<u32>>;

const HAS_LOW_RANK: bool = true;

fn scaled(sum: vec4<f32>, column4: u32) -> vec4<f32> {
    return sum;
}

// Which groups of four numbers of the narrow matrix the groups of columns `first` to `last` need, of those of this shard: layers
// side by side have their own.
fn ranks_of(first: u32, last: u32) -> vec2<u32> {
    let a = params.column4 + first;
    let b = params.column4 + last;
    var begin = select(0u, params.rank_end0, a >= params.end0);
    begin = select(begin, params.rank_end1, a >= params.end1);
    begin = select(begin, params.rank_end2, a >= params.end2);
    var end = select(params.rank4, params.rank_end2, b < params.end2);
    end = select(end, params.rank_end1, b < params.end1);
    end = select(end, params.rank_end0, b < params.end0);
    return vec2<u32>(begin, end);
}

// Group `k` of row `row` of the narrow matrix.
fn narrow4(row: u32, k: u32) -> vec4<f32> {
    return narrow[params.narrow_offset + min(row, params.m - 1u) * params.narrow_stride + k];
}

// What is multiplied by it: four outputs, group `column4` of this shard, a column for each of the four numbers.
fn up4x4(column4: u32, k: u32) -> mat4x4<f32> {
    let column = params.column4 + column4;
    let at = (column / LANES * params.rank4 + k) * 4u * LANES + column % LANES;
    return mat4x4<f32>(up[at], up[at + LANES], up[at + 2u * LANES], up[at + 3u * LANES]);
}
