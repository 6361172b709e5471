// What the convolutions with a patch in workgroup memory share: everything but `multiply_taps`, which the kernel that
// imports this has, the sums of an invocation and the patch itself, which `pixels_16` or `pixels_32` has, and how it is
// filled, which `conv2d_fill` has.
//
// Implicit GEMM. An invocation computes COLUMNS x ROWS pixels x 4 channels in registers; a workgroup is TILES tiles of the
// weight wide. Its pixels and those around them pass through workgroup memory, up to 64 channels at a time, so the prologue
// is done about twice for each number rather than nine times, and a number of W serves all pixels of an invocation (see
// matmul_panel.wgsl).
//
// Where it enlarges (SCALE 2), a dispatch does one of the four pixels that an input pixel becomes, its phase, for COLUMNS x
// ROWS input pixels: 2 x 2 taps, which fold_taps.wgsl made of the nine.

override TILES: u32 = 1u;       // tiles of the weight in a workgroup
const COLUMNS: u32 = 8u;
// With a border of one pixel.
const PATCH_COLUMNS: u32 = COLUMNS + 2u;
override BLOCKS: u32 = 1u;      // blocks of pixels in a workgroup, one below the other
// BLOCKS is 1, and drivers may know it. Then all lanes read the same pixels: Intel's read them once for all, and have registers
// to spare; AMD's and NVIDIA's do better where lanes seem to differ.
override IS_ONE_BLOCK: bool = false;
// Invocations of a workgroup.
override INVOCATIONS: u32 = LANES_X * TILES * BLOCKS;
override PATCH_PIXELS: u32 = PATCH_COLUMNS * (ROWS * BLOCKS + 2u);

// A workgroup's whole work; `index` is the invocation's number in the workgroup, `lane` in its subgroup, if that
// matters to `multiply_taps`.
fn convolve(group: vec3<u32>, index: u32, lane: u32) {
    let phase = vec2<u32>(params.phase % 2u, params.phase / 2u);
    // Past the last tile the last one is repeated, as all lanes must meet at barriers.
    let tiles = (params.n4 + LANES_X - 1u) / LANES_X;
    let own_tile = group.z * TILES + index / LANES_X % TILES;
    let block = select(index / (LANES_X * TILES), 0u, IS_ONE_BLOCK);
    let column4 = own_tile * LANES_X + index % LANES_X;
    let w_at = min(own_tile, tiles - 1u) * TAPS * params.c4 * 4u * LANES_X + index % LANES_X;
    // Input pixels: the workgroup's first, and this invocation's.
    let first = vec2<u32>(group.x * COLUMNS, params.y_row0 / SCALE + group.y * ROWS * BLOCKS);
    let own_first = first + vec2<u32>(0u, block * ROWS);
    var sums = Sums();
    for (var c0 = 0u; c0 < params.c4; c0 += C4) {
        workgroupBarrier();
        fill(first, c0, index);
        workgroupBarrier();
        let count = min(C4, params.c4 - c0);
        let w_first = w_at + c0 * 4u * LANES_X;
        let place = vec2<u32>(0u, block * ROWS) + phase;
        multiply_taps(&sums, place, w_first, params.c4 * 4u * LANES_X, count, lane);
    }
    if (column4 >= params.n4) {
        return;
    }
    put_pixels(&sums, own_first, phase, column4);
}
