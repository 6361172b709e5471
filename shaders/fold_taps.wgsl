// The weight of a 3x3 convolution after nearest-neighbour enlargement, for one of the four pixels that an input pixel
// becomes (its phase): taps that meet the same input pixel are added up, so that 2 x 2 of them are left.
//
//   weight [tiles][9][C][tile], packed  ->  folded [tiles][4][C][tile], f32

#import weight

struct Params {
    tap: u32,       // groups of four numbers in a tap of one tile: C * tile / 4
    phase: u32,     // x + 2 * y
}

@group(0) @binding(0) var<uniform> params: Params;
// binding 2: the weight, in the imported file
@group(0) @binding(1) var<storage, read_write> folded: array<vec4<f32>>;

// Which of the three taps along an axis meet input pixel `t` (0 or 1) of a phase (0 or 1): the first, and the end.
fn taps(phase: u32, t: u32) -> vec2<u32> {
    return select(vec2<u32>(0u, 1u + phase), vec2<u32>(1u + phase, 3u), t == 1u);
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.x;
    let t = id.y;
    let tile = id.z;
    if (i >= params.tap) {
        return;
    }
    let across = taps(params.phase % 2u, t % 2u);
    let down = taps(params.phase / 2u, t / 2u);
    var sum = vec4<f32>();
    for (var ky = down.x; ky < down.y; ky++) {
        for (var kx = across.x; kx < across.y; kx++) {
            sum += weight4((tile * 9u + ky * 3u + kx) * params.tap + i);
        }
    }
    folded[(tile * 4u + t) * params.tap + i] = sum;
}
