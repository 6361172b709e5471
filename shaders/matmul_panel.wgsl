// y = epilogue(x Wᵀ + bias) on processors: the operands of matmul.wgsl.
//
// One invocation computes 32 rows x 4 columns; a workgroup is TILES tiles of the weight wide. Its rows of x pass through
// workgroup memory, 128 numbers of K at a time.
//
// Software drivers turn the lanes of a subgroup into one SIMD vector. There a number of W costs a gather, however many
// lanes want it, so it is used for 32 rows; a number of x that all lanes read costs a dozen instructions in a
// storage buffer, whose bounds are checked for each, but half of that in workgroup memory; and sums that live
// through a loop are masked and stored in every iteration, so an iteration does eight numbers of K. The figures are in
// ARCHITECTURE.md. WGSL cannot index registers, so the rows are spelt out.

#import exp
#import activation
#import weight
#import linear_layer

override TILES: u32 = 4u;       // tiles of the weight in a workgroup

const ROWS: u32 = 32u;
const K4: u32 = 32u;            // groups of four numbers of K in workgroup memory

var<workgroup> panel: array<vec4<f32>, 1024>;   // [ROWS][K4]

fn dot8(
    sum: vec4<f32>, at: u32,
    w0: vec4<f32>, w1: vec4<f32>, w2: vec4<f32>, w3: vec4<f32>,
    w4: vec4<f32>, w5: vec4<f32>, w6: vec4<f32>, w7: vec4<f32>,
) -> vec4<f32> {
    return dot_columns(dot_columns(sum, panel[at], w0, w1, w2, w3), panel[at + 1u], w4, w5, w6, w7);
}

@compute @workgroup_size(LANES, TILES)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    // Past the last tile and the last row the last ones are repeated, as all lanes must meet at barriers.
    let tiles = (params.n4 + LANES - 1u) / LANES;
    let own_tile = group.y * TILES + local.y;
    let tile = min(own_tile, tiles - 1u);
    let block = group.x + group.z * groups.x;
    let row = block * ROWS;
    var s0 = vec4<f32>();
    var s1 = vec4<f32>();
    var s2 = vec4<f32>();
    var s3 = vec4<f32>();
    var s4 = vec4<f32>();
    var s5 = vec4<f32>();
    var s6 = vec4<f32>();
    var s7 = vec4<f32>();
    var s8 = vec4<f32>();
    var s9 = vec4<f32>();
    var s10 = vec4<f32>();
    var s11 = vec4<f32>();
    var s12 = vec4<f32>();
    var s13 = vec4<f32>();
    var s14 = vec4<f32>();
    var s15 = vec4<f32>();
    var s16 = vec4<f32>();
    var s17 = vec4<f32>();
    var s18 = vec4<f32>();
    var s19 = vec4<f32>();
    var s20 = vec4<f32>();
    var s21 = vec4<f32>();
    var s22 = vec4<f32>();
    var s23 = vec4<f32>();
    var s24 = vec4<f32>();
    var s25 = vec4<f32>();
    var s26 = vec4<f32>();
    var s27 = vec4<f32>();
    var s28 = vec4<f32>();
    var s29 = vec4<f32>();
    var s30 = vec4<f32>();
    var s31 = vec4<f32>();
    var w = tile * params.k4 * 4u * LANES + local.x;
    for (var k = 0u; k < params.k4; k += K4) {
        workgroupBarrier();
        for (var i = index; i < ROWS * K4; i += LANES * TILES) {
            let c = k + i % K4;
            // Zeros past the end of K.
            panel[i] = select(vec4<f32>(), x[x_row(row + i / K4) + min(c, params.k4 - 1u)], c < params.k4);
        }
        workgroupBarrier();
        let count = min(K4, params.k4 - k);
        for (var c = 0u; c < count; c += 2u) {
            let w0 = weight4(w);
            let w1 = weight4(w + LANES);
            let w2 = weight4(w + 2u * LANES);
            let w3 = weight4(w + 3u * LANES);
            // The second four numbers of an odd end meet zeros; the first four are read again for them.
            w += select(0u, 4u * LANES, c + 1u < count);
            let w4 = weight4(w);
            let w5 = weight4(w + LANES);
            let w6 = weight4(w + 2u * LANES);
            let w7 = weight4(w + 3u * LANES);
            w += 4u * LANES;
            s0 = dot8(s0, c + 0u * K4, w0, w1, w2, w3, w4, w5, w6, w7);
            s1 = dot8(s1, c + 1u * K4, w0, w1, w2, w3, w4, w5, w6, w7);
            s2 = dot8(s2, c + 2u * K4, w0, w1, w2, w3, w4, w5, w6, w7);
            s3 = dot8(s3, c + 3u * K4, w0, w1, w2, w3, w4, w5, w6, w7);
            s4 = dot8(s4, c + 4u * K4, w0, w1, w2, w3, w4, w5, w6, w7);
            s5 = dot8(s5, c + 5u * K4, w0, w1, w2, w3, w4, w5, w6, w7);
            s6 = dot8(s6, c + 6u * K4, w0, w1, w2, w3, w4, w5, w6, w7);
            s7 = dot8(s7, c + 7u * K4, w0, w1, w2, w3, w4, w5, w6, w7);
            s8 = dot8(s8, c + 8u * K4, w0, w1, w2, w3, w4, w5, w6, w7);
            s9 = dot8(s9, c + 9u * K4, w0, w1, w2, w3, w4, w5, w6, w7);
            s10 = dot8(s10, c + 10u * K4, w0, w1, w2, w3, w4, w5, w6, w7);
            s11 = dot8(s11, c + 11u * K4, w0, w1, w2, w3, w4, w5, w6, w7);
            s12 = dot8(s12, c + 12u * K4, w0, w1, w2, w3, w4, w5, w6, w7);
            s13 = dot8(s13, c + 13u * K4, w0, w1, w2, w3, w4, w5, w6, w7);
            s14 = dot8(s14, c + 14u * K4, w0, w1, w2, w3, w4, w5, w6, w7);
            s15 = dot8(s15, c + 15u * K4, w0, w1, w2, w3, w4, w5, w6, w7);
            s16 = dot8(s16, c + 16u * K4, w0, w1, w2, w3, w4, w5, w6, w7);
            s17 = dot8(s17, c + 17u * K4, w0, w1, w2, w3, w4, w5, w6, w7);
            s18 = dot8(s18, c + 18u * K4, w0, w1, w2, w3, w4, w5, w6, w7);
            s19 = dot8(s19, c + 19u * K4, w0, w1, w2, w3, w4, w5, w6, w7);
            s20 = dot8(s20, c + 20u * K4, w0, w1, w2, w3, w4, w5, w6, w7);
            s21 = dot8(s21, c + 21u * K4, w0, w1, w2, w3, w4, w5, w6, w7);
            s22 = dot8(s22, c + 22u * K4, w0, w1, w2, w3, w4, w5, w6, w7);
            s23 = dot8(s23, c + 23u * K4, w0, w1, w2, w3, w4, w5, w6, w7);
            s24 = dot8(s24, c + 24u * K4, w0, w1, w2, w3, w4, w5, w6, w7);
            s25 = dot8(s25, c + 25u * K4, w0, w1, w2, w3, w4, w5, w6, w7);
            s26 = dot8(s26, c + 26u * K4, w0, w1, w2, w3, w4, w5, w6, w7);
            s27 = dot8(s27, c + 27u * K4, w0, w1, w2, w3, w4, w5, w6, w7);
            s28 = dot8(s28, c + 28u * K4, w0, w1, w2, w3, w4, w5, w6, w7);
            s29 = dot8(s29, c + 29u * K4, w0, w1, w2, w3, w4, w5, w6, w7);
            s30 = dot8(s30, c + 30u * K4, w0, w1, w2, w3, w4, w5, w6, w7);
            s31 = dot8(s31, c + 31u * K4, w0, w1, w2, w3, w4, w5, w6, w7);
        }
    }
    let column4 = tile * LANES + local.x;
    if (own_tile >= tiles || column4 >= params.n4) {
        return;
    }
    put(row + 0u, column4, s0);
    put(row + 1u, column4, s1);
    put(row + 2u, column4, s2);
    put(row + 3u, column4, s3);
    put(row + 4u, column4, s4);
    put(row + 5u, column4, s5);
    put(row + 6u, column4, s6);
    put(row + 7u, column4, s7);
    put(row + 8u, column4, s8);
    put(row + 9u, column4, s9);
    put(row + 10u, column4, s10);
    put(row + 11u, column4, s11);
    put(row + 12u, column4, s12);
    put(row + 13u, column4, s13);
    put(row + 14u, column4, s14);
    put(row + 15u, column4, s15);
    put(row + 16u, column4, s16);
    put(row + 17u, column4, s17);
    put(row + 18u, column4, s18);
    put(row + 19u, column4, s19);
    put(row + 20u, column4, s20);
    put(row + 21u, column4, s21);
    put(row + 22u, column4, s22);
    put(row + 23u, column4, s23);
    put(row + 24u, column4, s24);
    put(row + 25u, column4, s25);
    put(row + 26u, column4, s26);
    put(row + 27u, column4, s27);
    put(row + 28u, column4, s28);
    put(row + 29u, column4, s29);
    put(row + 30u, column4, s30);
    put(row + 31u, column4, s31);
}
