// One Euler step of the flow: v = guided velocity, x += (sigma_next - sigma) * v.
//
//   conditional, unconditional [N, C]  the model's predictions
//   step     [4]                      sigma_next - sigma, true-CFG scale, unused, unused
//   velocity [N, C]                   v, kept for the clean estimate x - sigma * v
//   x        [N, C]                   latents, updated in place
//
// All matrices are contiguous. One invocation, four numbers.

struct Params {
    count4: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> conditional: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> unconditional: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> step: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> velocity: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> x: array<vec4<f32>>;

override GUIDED: bool = false;

const LANES: u32 = 64u;
// Of a workgroup: software drivers take longer to tell a lane its number than it takes for one item.
const ITEMS: u32 = 256u;

@compute @workgroup_size(LANES)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let first = (group.x + group.y * groups.x) * ITEMS;
    for (var item = 0u; item < ITEMS; item += LANES) {
        let i = first + item + lane;
        if (i >= params.count4) {
            return;
        }
        var v = conditional[i];
        if (GUIDED) {
            let u = unconditional[i];
            v = u + step[0].y * (v - u);
        }
        velocity[i] = v;
        x[i] += step[0].x * v;
    }
}
