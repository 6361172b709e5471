// y = activation(x) over a matrix [M, C]. One invocation, four numbers.
// Offsets and strides count groups of four numbers.

#import exp
#import activation

struct Params {
    rows: u32,
    c4: u32,
    x_offset: u32,
    x_stride: u32,
    y_offset: u32,
    y_stride: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>;

override ACTIVATION: u32 = 0u;

const LANES: u32 = 64u;

@compute @workgroup_size(LANES)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = (group.x + group.y * groups.x) * LANES + lane;
    let row = index / params.c4;
    let c = index % params.c4;
    if (row >= params.rows) {
        return;
    }
    y[params.y_offset + row * params.y_stride + c] =
        activate4(x[params.x_offset + row * params.x_stride + c], ACTIVATION);
}
