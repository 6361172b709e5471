// Tokens of a full grid to the picture that the VAE decodes: the clean estimate, unpacked and unscaled.
//
//   x, velocity [N, 4 * C]   number channel * 4 + row * 2 + column of token (grid row, grid column)
//   step        [4]          sigma at x in .z
//   y           [H * W, C]   H = 2 * grid rows, W = 2 * grid columns
//
// y = (x - sigma * velocity) / scaling_factor + shift_factor. One invocation, four channels of one pixel.

struct Params {
    grid_width: u32,
    c4: u32,
    pixels: u32,        // of this dispatch
    pixel0: u32,        // number of its first pixel
    y_offset: u32,      // in groups of four
    inverse_scale: f32,
    shift: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> velocity: array<f32>;
@group(0) @binding(3) var<storage, read> step: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> y: array<vec4<f32>>;

const LANES: u32 = 64u;

fn clean(at: u32) -> f32 {
    return (x[at] - step[0].z * velocity[at]) * params.inverse_scale + params.shift;
}

@compute @workgroup_size(LANES)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = (group.x + group.y * groups.x) * LANES + lane;
    let local_pixel = index / params.c4;
    let c = index % params.c4;
    if (local_pixel >= params.pixels) {
        return;
    }
    let pixel = params.pixel0 + local_pixel;
    let width = params.grid_width * 2u;
    let row = pixel / width;
    let column = pixel % width;
    let token = (row / 2u) * params.grid_width + column / 2u;
    let at = token * params.c4 * 16u + c * 16u + (row % 2u) * 2u + column % 2u;
    y[params.y_offset + index] = vec4<f32>(clean(at), clean(at + 4u), clean(at + 8u), clean(at + 12u));
}
