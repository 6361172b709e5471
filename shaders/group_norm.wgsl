// Group norm over a picture, in three passes, so that a picture held in several bands is normalised with the
// statistics of the whole.
//
//   stats  picture band [M, C] -> mean and sum of squared deviations of each chunk of pixels, per channel
//   fold   those -> one factor and one offset per channel
//   apply  y = x * factor + offset, then SiLU
//
//   partial [chunks, 3, C]   mean, sum of squared deviations, number of pixels
//   affine  [2, C]           factor, then offset
//
// Chunks are joined by Chan's formula: no cancellation however large the picture is.
// Offsets and strides count groups of four numbers, except in `fold`, where they count numbers.

#import exp
#import activation

struct Params {
    pixels: u32,        // of this dispatch (stats, apply)
    c4: u32,
    x_offset: u32,
    x_stride: u32,
    y_offset: u32,
    y_stride: u32,
    chunk: u32,         // pixels of a chunk; the last one of a dispatch may have fewer
    first_chunk: u32,   // number of this dispatch's first chunk (stats)
    chunks: u32,        // of all bands together (fold)
    channels_per_group: u32,
    groups: u32,
    eps: f32,
}

@group(0) @binding(0) var<uniform> params: Params;

override SILU_AFTER: bool = false;
// A quarter of the channels. A constant, as dividing by a variable costs more than the rest of a pass.
override C4: u32 = 8u;

const LANES: u32 = 64u;
// Of a workgroup: software drivers take longer to tell a lane its number than it takes for one item.
const ITEMS: u32 = 256u;

// ---- stats: one invocation, four channels of one chunk ----

@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> partial_out: array<vec4<f32>>;

@compute @workgroup_size(LANES)
fn stats(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = (group.x + group.y * groups.x) * LANES + lane;
    let chunk = index / C4;
    let c = index % C4;
    let first = chunk * params.chunk;
    if (first >= params.pixels) {
        return;
    }
    let end = min(first + params.chunk, params.pixels);
    // Eight pixels at a time, joined by Chan's formula: each is read once, and nothing cancels.
    var mean = vec4<f32>();
    var squares = vec4<f32>();
    var count = 0.0;
    for (var i = first; i < end; i += 8u) {
        let more = min(8u, end - i);
        var values: array<vec4<f32>, 8>;
        var sum = vec4<f32>();
        for (var j = 0u; j < 8u; j++) {
            values[j] = x[params.x_offset + min(i + j, end - 1u) * params.x_stride + c];
            sum += select(vec4<f32>(), values[j], j < more);
        }
        let size = f32(more);
        let own_mean = sum / size;
        var own_squares = vec4<f32>();
        for (var j = 0u; j < 8u; j++) {
            let d = select(vec4<f32>(), values[j] - own_mean, j < more);
            own_squares += d * d;
        }
        let delta = own_mean - mean;
        mean += delta * (size / (count + size));
        squares += own_squares + delta * delta * (count * size / (count + size));
        count += size;
    }
    let at = (params.first_chunk + chunk) * 3u * params.c4 + c;
    partial_out[at] = mean;
    partial_out[at + params.c4] = squares;
    partial_out[at + 2u * params.c4] = vec4<f32>(count);
}

// ---- fold: one invocation, one group ----

@group(0) @binding(1) var<storage, read> partial: array<f32>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> affine_out: array<f32>;

@compute @workgroup_size(LANES)
fn fold(@builtin(global_invocation_id) id: vec3<u32>) {
    let group = id.x;
    if (group >= params.groups) {
        return;
    }
    let channels = params.c4 * 4u;
    let first = group * params.channels_per_group;
    let end = first + params.channels_per_group;
    var count = 0.0;
    var mean = 0.0;
    var squares = 0.0;
    for (var chunk = 0u; chunk < params.chunks; chunk++) {
        for (var c = first; c < end; c++) {
            let at = chunk * 3u * channels + c;
            let size = partial[at + 2u * channels];
            let delta = partial[at] - mean;
            let new_count = count + size;
            mean += delta * (size / new_count);
            squares += partial[at + channels] + delta * delta * (count * size / new_count);
            count = new_count;
        }
    }
    let factor = inverseSqrt(squares / count + params.eps);
    for (var c = first; c < end; c++) {
        let w = weight[c] * factor;
        affine_out[c] = w;
        affine_out[channels + c] = bias[c] - mean * w;
    }
}

// ---- apply: one invocation, four channels of one pixel ----

@group(0) @binding(2) var<storage, read> affine: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>;

@compute @workgroup_size(LANES)
fn apply(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let first = (group.x + group.y * groups.x) * ITEMS;
    // Where whole pixels fit into a workgroup's lanes, all items of a lane are of the same channels.
    var factor = affine[lane % C4];
    var offset = affine[params.c4 + lane % C4];
    for (var i = 0u; i < ITEMS; i += LANES) {
        let index = first + i + lane;
        let pixel = index / C4;
        let c = index % C4;
        if (pixel >= params.pixels) {
            return;
        }
        if (LANES % C4 != 0u) {
            factor = affine[c];
            offset = affine[params.c4 + c];
        }
        var v = x[params.x_offset + pixel * params.x_stride + c] * factor + offset;
        if (SILU_AFTER) {
            v = activate4(v, SILU);
        }
        y[params.y_offset + pixel * params.y_stride + c] = v;
    }
}
