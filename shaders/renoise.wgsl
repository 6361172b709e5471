// The jump between two RALU stages: gathers tokens, repeats those that become finer, scales them and adds
// noise. y[i] = gain * x[source(i)] + noise_gain * noise[i]. RALU section 3.2, ralu gains a_k and b_k.
//
//   x      [N, C]   tokens before, C = 4 * channels, number channel * 4 + row * 2 + column of a 2x2 patch
//   source [M]      token * 8 + code; code 0..3: the pixel (row, column) of the patch fills the whole new
//                   patch (pixel upsampling); code 4: the patch is copied as it is
//   noise  [M, C]
//   y      [M, C]
//
// With noise_gain 0 and gain 1 it only views a mixed layout on another grid. One invocation, one channel
// (four numbers) of one token.

#import place

struct Params {
    tokens: u32,
    c4: u32,
    gain: f32,
    noise_gain: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> source: array<u32>;
@group(0) @binding(3) var<storage, read> noise: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> y: array<vec4<f32>>;

const LANES: u32 = 64u;
// Of a workgroup: software drivers take longer to tell a lane its number than it takes for one item.
const ITEMS: u32 = 256u;

// Writes item `first + lane`, if there is such an item.
fn put_item(first: u32, lane: u32) {
    let own = place(first, lane, params.c4);
    let token = own.x;
    let c = own.y;
    if (token >= params.tokens) {
        return;
    }
    let code = source[token] & 7u;
    let old = x[(source[token] >> 3u) * params.c4 + c];
    var v = old;
    switch code {
        case 0u: { v = old.xxxx; }
        case 1u: { v = old.yyyy; }
        case 2u: { v = old.zzzz; }
        case 3u: { v = old.wwww; }
        default: {}
    }
    y[first + lane] = params.gain * v + params.noise_gain * noise[first + lane];
}

@compute @workgroup_size(LANES)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let first = (group.x + group.y * groups.x) * ITEMS;
    // Spelt out, as in combine.wgsl.
    put_item(first, lane);
    put_item(first + LANES, lane);
    put_item(first + 2u * LANES, lane);
    put_item(first + 3u * LANES, lane);
}
