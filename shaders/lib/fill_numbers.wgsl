// Fills `matmul_tiled.wgsl`'s tile of W from a weight that is stored a number at a time: up to four groups of four columns an
// invocation.

override W_QUADS: u32 = 4u * K4 * LANES;

// What an invocation has loaded, as it is stored.
struct Loaded {
    b0: Stored4,
    b1: Stored4,
    b2: Stored4,
    b3: Stored4,
}

// Group `at` of the tile of W that begins at `tile`. Past the end of K it is the last one again, which is stored as zero.
fn load_group(tile: u32, at: u32) -> Stored4 {
    if (!RAGGED) {
        return weight[tile + at];
    }
    return weight[tile + min(at, params.k4 * 4u * LANES - 1u)];
}

// From group `k` of K on. Where the tile in workgroup memory is smaller than the workgroup, the rest of it fills nothing.
fn load_w(tile: u32, k: u32, index: u32) -> Loaded {
    let at = k * 4u * LANES + min(index, W_QUADS - 1u);
    var loaded = Loaded();
    loaded.b0 = load_group(tile, at);
    if (W_QUADS > INVOCATIONS) {
        loaded.b1 = load_group(tile, at + INVOCATIONS);
    }
    if (W_QUADS > 2u * INVOCATIONS) {
        loaded.b2 = load_group(tile, at + 2u * INVOCATIONS);
        loaded.b3 = load_group(tile, at + 3u * INVOCATIONS);
    }
    return loaded;
}

// Stores number `i` of the tile, from group `k` of K on.
fn store_w(k: u32, i: u32, group: Stored4) {
    let is_inside = k * 4u * LANES + i < params.k4 * 4u * LANES;
    w_tile[i / (4u * LANES)][i / LANES % 4u][i % LANES] = stored(widen4(group), is_inside);
}

// Stores what was loaded from group `k` of K on.
fn fill_w(k: u32, index: u32, loaded: Loaded) {
    if (W_QUADS >= INVOCATIONS || index < W_QUADS) {
        store_w(k, index, loaded.b0);
    }
    if (W_QUADS > INVOCATIONS) {
        store_w(k, index + INVOCATIONS, loaded.b1);
    }
    if (W_QUADS > 2u * INVOCATIONS) {
        store_w(k, index + 2u * INVOCATIONS, loaded.b2);
        store_w(k, index + 3u * INVOCATIONS, loaded.b3);
    }
}
