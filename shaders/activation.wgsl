// y = activation(x) over a matrix [M, C]. One invocation, four numbers.
// Offsets and strides count groups of four numbers.

#import exp
#import activation
#import place

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
// Of a workgroup: software drivers take longer to tell a lane its number than it takes for one item.
const ITEMS: u32 = 256u;

@compute @workgroup_size(LANES)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let first = (group.x + group.y * groups.x) * ITEMS;
    for (var i = 0u; i < ITEMS; i += LANES) {
        let own = place(first + i, lane, params.c4);
        let row = own.x;
        let c = own.y;
        if (row >= params.rows) {
            return;
        }
        y[params.y_offset + row * params.y_stride + c] =
            activate4(x[params.x_offset + row * params.x_stride + c], ACTIVATION);
    }
}
