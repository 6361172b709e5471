// Fills `matmul_tiled.wgsl`'s tile of W from a weight in blocks: four numbers of K x four columns an invocation, for which scales
// are read once. Blocks are whole, so K has no ragged end; and workgroups have at least as many invocations.

override W_FILLS: u32 = K4 * LANES;

alias Loaded = Stored4x4;

// From group `k` of K on; nothing, where the tile in workgroup memory is smaller than the workgroup.
fn load_w(tile: u32, k: u32, index: u32) -> Loaded {
    var loaded = Loaded();
    if (W_FILLS >= INVOCATIONS || index < W_FILLS) {
        loaded = load4x4(tile + (k + index / LANES) * 4u * LANES + index % LANES, LANES);
    }
    return loaded;
}

// Stores what was loaded from group `k` of K on.
fn fill_w(k: u32, index: u32, loaded: Loaded) {
    if (W_FILLS >= INVOCATIONS || index < W_FILLS) {
        let numbers = widen4x4(loaded);
        let c = index / LANES;
        w_tile[c][0][index % LANES] = numbers[0];
        w_tile[c][1][index % LANES] = numbers[1];
        w_tile[c][2][index % LANES] = numbers[2];
        w_tile[c][3][index % LANES] = numbers[3];
    }
}
