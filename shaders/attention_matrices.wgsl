// Multi-head attention on matrix units: the operands and options of attention.wgsl, heads of 4 * SIDE or 8 * SIDE numbers.
// Queries, keys, values and weights are rounded to f16; scores and all sums are f32. If a number does not fit f16, a flag is
// raised, and the result is of no use.
//
// A workgroup does 4 * SIDE queries of one head and walks over the keys, 2 * SIDE at a time. The queries stay in
// registers. Scores pass through workgroup memory to the invocations, four to a query, and their weights back; keys
// and then values lie in the same workgroup memory. Values are transposed while they are rounded.
//
// As in attention_tiled.wgsl, scores are taken relative to a reference that is renewed only when one exceeds it by LEEWAY.
// That is rare, so sums may pass through workgroup memory for it. Weights are 2^10 times as large as they would be,
// at most 2^10 * exp(LEEWAY) = 55,900: f16 then keeps all its bits down to 6e-8 of the largest, and the factor
// cancels in the division by their sum, which is a sum of the rounded ones.
//
// About subgroups see matmul_cooperative.wgsl. Four of them do SIDE queries each; with eight, two share such
// queries, and do half of the keys' scores and half of the head's columns each.

enable f16;
enable wgpu_cooperative_matrix;

#import coop
#import exp
#import attention_interface

@group(0) @binding(7) var<storage, read_write> f16_flags: array<atomic<u32>>;

override LEAST_SUBGROUPS: u32 = 4u;
override MOST_SUBGROUPS: u32 = 8u;
// Values are multiplied by it before they are rounded, and the result divided by it: a power of two.
override SCALE: f32 = 1.0;
override TAKE_BACK: f32 = 1.0 / SCALE;

const INVOCATIONS: u32 = 16u * SIDE;
const QUERIES: u32 = 4u * SIDE;
const KEYS: u32 = 2u * SIDE;
const PIECE: u32 = KEYS / 4u;           // keys of an invocation, of the query that it does with three others
const LEEWAY: f32 = 4.0;
const SHIFT: f32 = 6.931471805599453;   // 2^10 = exp(SHIFT)

// Rows in workgroup memory are aligned to 16 bytes, and neighbours lie in different banks.
const SCORES_STRIDE: u32 = KEYS + 4u;
const WEIGHTS_STRIDE: u32 = KEYS + 8u;
const V_STRIDE: u32 = KEYS + 8u;
override K_STRIDE: u32 = 4u * D4 + 8u;
// Columns of half a head.
override HALF: u32 = 2u * D4;
override Q_STRIDE: u32 = HALF + 8u;
override TILE: u32 = 4u * D4 * V_STRIDE;
override K_QUADS: u32 = KEYS * D4;
override V_BLOCKS: u32 = KEYS / 4u * D4;
override Q_QUADS: u32 = QUERIES * D4 / 2u;

// Half of the queries' columns at first, then keys [KEYS][D] or values [D][KEYS].
var<workgroup> tile: array<f16, TILE>;
var<workgroup> scores: array<f32, QUERIES * SCORES_STRIDE>;     // [QUERIES][KEYS]
var<workgroup> weights: array<f16, QUERIES * WEIGHTS_STRIDE>;   // [QUERIES][KEYS]
var<workgroup> partial: array<f32, INVOCATIONS>;
var<workgroup> must_renew: u32;

fn largest(v: vec4<f32>) -> f32 {
    return max(max(v.x, v.y), max(v.z, v.w));
}

fn put_tile(at: u32, numbers: vec4<f32>) {
    let v = vec4<f16>(numbers);
    tile[at] = v.x;
    tile[at + 1u] = v.y;
    tile[at + 2u] = v.z;
    tile[at + 3u] = v.w;
}

fn scores_at(at: u32) -> vec4<f32> {
    return vec4<f32>(scores[at], scores[at + 1u], scores[at + 2u], scores[at + 3u]);
}

fn put_scores(at: u32, v: vec4<f32>) {
    scores[at] = v.x;
    scores[at + 1u] = v.y;
    scores[at + 2u] = v.z;
    scores[at + 3u] = v.w;
}

// Multiplies this invocation's piece of `scores`.
fn scale_scores(at: u32, factor: f32) {
    workgroupBarrier();
    put_scores(at, scores_at(at) * factor);
    if (PIECE > 4u) {
        put_scores(at + 4u, scores_at(at + 4u) * factor);
    }
    workgroupBarrier();
}

// Weights of four keys, rounded; puts them in workgroup memory and gives their sum.
fn put_weights(at: u32, score: vec4<f32>, reference: f32) -> f32 {
    // A masked score is MASKED, whatever the reference: its weight is zero.
    let e = select(exp4(score - reference + SHIFT), vec4<f32>(), score == vec4<f32>(MASKED));
    let p = vec4<f16>(e);
    weights[at] = p.x;
    weights[at + 1u] = p.y;
    weights[at + 2u] = p.z;
    weights[at + 3u] = p.w;
    return dot(vec4<f32>(p), vec4<f32>(1.0));
}

@compute @workgroup_size(INVOCATIONS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_size) lanes: u32,
) {
    let head = group.y;
    let first_row = group.x * QUERIES;
    let is_narrow = clamp(INVOCATIONS / lanes, LEAST_SUBGROUPS, MOST_SUBGROUPS) >= 8u;
    // Turns of the loops about the other half of the keys and of the head's columns.
    let more = select(1u, 0u, is_narrow);
    let half = select(0u, subgroup / 4u % 2u, is_narrow);
    let own_row = subgroup % 4u * SIDE;
    let own_key = half * SIDE;
    let own_column = half * HALF;
    // Where this subgroup's matrices of scores, and one of sums at a time, lie.
    let own_scores = own_row * SCORES_STRIDE + own_key;
    // Of this invocation: a query and a quarter of the keys.
    let row = index / 4u;
    let piece = index % 4u * PIECE;
    let piece_at = row * SCORES_STRIDE + piece;
    // And the columns of sums that lie there in turn.
    let y_at = y_row(head, first_row + row) + (piece / SIDE * HALF + piece % SIDE) / 4u;

    // The largest magnitude that this invocation has rounded.
    var most = 0.0;
    for (var i = index; i < SIDE * SIDE; i += INVOCATIONS) {
        scores[i] = 0.0;
    }
    // Rows past the end repeat the last one and are not written.
    for (var i = index; i < Q_QUADS; i += INVOCATIONS) {
        let q_row = min(first_row + i / (D4 / 2u), params.m - 1u);
        let a = q[params.q_offset + q_row * params.q_stride + head * D4 + i % (D4 / 2u)] * params.scale;
        most = max(most, largest(abs(a)));
        put_tile(i / (D4 / 2u) * Q_STRIDE + i % (D4 / 2u) * 4u, a);
    }
    workgroupBarrier();
    let zero = coopLoadT<Sum>(&scores[0], SIDE);
    let own_q = own_row * Q_STRIDE;
    let q0 = coopLoadT<Left>(&tile[own_q], Q_STRIDE);
    let q1 = coopLoadT<Left>(&tile[own_q + SIDE], Q_STRIDE);
    // Not used by narrow heads, which have no such columns.
    let q2 = coopLoadT<Left>(&tile[own_q + 2u * SIDE % HALF], Q_STRIDE);
    let q3 = coopLoadT<Left>(&tile[own_q + 3u * SIDE % HALF], Q_STRIDE);
    workgroupBarrier();
    for (var i = index; i < Q_QUADS; i += INVOCATIONS) {
        let q_row = min(first_row + i / (D4 / 2u), params.m - 1u);
        let a = q[params.q_offset + q_row * params.q_stride + head * D4 + (i % (D4 / 2u) + D4 / 2u)] * params.scale;
        most = max(most, largest(abs(a)));
        put_tile(i / (D4 / 2u) * Q_STRIDE + i % (D4 / 2u) * 4u, a);
    }
    workgroupBarrier();
    let q4 = coopLoadT<Left>(&tile[own_q], Q_STRIDE);
    let q5 = coopLoadT<Left>(&tile[own_q + SIDE], Q_STRIDE);
    let q6 = coopLoadT<Left>(&tile[own_q + 2u * SIDE % HALF], Q_STRIDE);
    let q7 = coopLoadT<Left>(&tile[own_q + 3u * SIDE % HALF], Q_STRIDE);

    // A product with zeros, whose result is zeros. RADV puts matrices together from single halves, a register each, where
    // they are first used, so that has to be outside of the loop.
    workgroupBarrier();
    put_tile(4u * index, vec4<f32>());
    workgroupBarrier();
    let none = coopLoad<Right>(&tile[0], SIDE);
    var empty = coopMultiplyAdd(q0, none, zero);
    empty = coopMultiplyAdd(q1, none, empty);
    empty = coopMultiplyAdd(q2, none, empty);
    empty = coopMultiplyAdd(q3, none, empty);
    empty = coopMultiplyAdd(q4, none, empty);
    empty = coopMultiplyAdd(q5, none, empty);
    empty = coopMultiplyAdd(q6, none, empty);
    empty = coopMultiplyAdd(q7, none, empty);

    // Sums over values: SIDE columns each from own_column on, and of the other half.
    var o0 = zero;
    var o1 = zero;
    var o2 = zero;
    var o3 = zero;
    var o4 = zero;
    var o5 = zero;
    var o6 = zero;
    var o7 = zero;
    var reference = MASKED;
    var total = 0.0;    // of this invocation's keys
    if (params.first_key != 0u) {
        let before = state[state_at(head, first_row + row)];
        reference = before.x;
        total = select(0.0, before.y, piece == 0u);
        workgroupBarrier();
        put_sums(piece_at, y_at);
        workgroupBarrier();
        o0 = coopLoadT<Sum>(&scores[own_scores], SCORES_STRIDE);
        for (var turn = 0u; turn < more; turn++) {
            o4 = coopLoadT<Sum>(&scores[own_scores + SIDE], SCORES_STRIDE);
        }
        workgroupBarrier();
        put_sums(piece_at, y_at + SIDE / 4u);
        workgroupBarrier();
        o1 = coopLoadT<Sum>(&scores[own_scores], SCORES_STRIDE);
        for (var turn = 0u; turn < more; turn++) {
            o5 = coopLoadT<Sum>(&scores[own_scores + SIDE], SCORES_STRIDE);
        }
        if (D4 > SIDE) {
            workgroupBarrier();
            put_sums(piece_at, y_at + 2u * SIDE / 4u);
            workgroupBarrier();
            o2 = coopLoadT<Sum>(&scores[own_scores], SCORES_STRIDE);
            for (var turn = 0u; turn < more; turn++) {
                o6 = coopLoadT<Sum>(&scores[own_scores + SIDE], SCORES_STRIDE);
            }
            workgroupBarrier();
            put_sums(piece_at, y_at + 3u * SIDE / 4u);
            workgroupBarrier();
            o3 = coopLoadT<Sum>(&scores[own_scores], SCORES_STRIDE);
            for (var turn = 0u; turn < more; turn++) {
                o7 = coopLoadT<Sum>(&scores[own_scores + SIDE], SCORES_STRIDE);
            }
        }
    }

    let last_key = params.n - 1u;
    // What this invocation fills: groups of four numbers of up to four keys, INVOCATIONS / D4 apart, and a block of four
    // values x four columns.
    let k_at = params.k_offset + key_head(head) + index % D4;
    let k_row = index / D4;
    let k_to = k_row * K_STRIDE + index % D4 * 4u;
    let k_step = INVOCATIONS / D4;
    let v_key = index % (KEYS / 4u) * 4u;
    let v_column = index / (KEYS / 4u);
    let v_at = params.v_offset + key_head(head) + min(v_column, D4 - 1u);
    let v_to = v_column * 4u * V_STRIDE + v_key;
    for (var j = 0u; j < params.n; j += KEYS) {
        let key = j + k_row;
        let k0 = k[k_at + min(key, last_key) * params.k_stride];
        var k1 = k0;
        var k2 = k0;
        var k3 = k0;
        if (D4 > 8u) {
            k1 = k[k_at + min(key + k_step, last_key) * params.k_stride];
        }
        if (D4 > 16u) {
            k2 = k[k_at + min(key + 2u * k_step, last_key) * params.k_stride];
            k3 = k[k_at + min(key + 3u * k_step, last_key) * params.k_stride];
        }
        // The end of reading the last values and weights.
        workgroupBarrier();
        most = max(most, max(max(largest(abs(k0)), largest(abs(k1))), max(largest(abs(k2)), largest(abs(k3)))));
        put_tile(k_to, k0);
        if (D4 > 8u) {
            put_tile(k_to + k_step * K_STRIDE, k1);
        }
        if (D4 > 16u) {
            put_tile(k_to + 2u * k_step * K_STRIDE, k2);
            put_tile(k_to + 3u * k_step * K_STRIDE, k3);
        }
        if (index == 0u) {
            must_renew = 0u;
        }
        workgroupBarrier();

        // Scores.
        let b = own_key * K_STRIDE;
        var s0 = coopMultiplyAdd(q0, coopLoad<Right>(&tile[b], K_STRIDE), empty);
        s0 = coopMultiplyAdd(q1, coopLoad<Right>(&tile[b + SIDE], K_STRIDE), s0);
        if (D4 > SIDE) {
            s0 = coopMultiplyAdd(q2, coopLoad<Right>(&tile[b + 2u * SIDE], K_STRIDE), s0);
            s0 = coopMultiplyAdd(q3, coopLoad<Right>(&tile[b + 3u * SIDE], K_STRIDE), s0);
        }
        s0 = coopMultiplyAdd(q4, coopLoad<Right>(&tile[b + HALF], K_STRIDE), s0);
        s0 = coopMultiplyAdd(q5, coopLoad<Right>(&tile[b + HALF + SIDE], K_STRIDE), s0);
        if (D4 > SIDE) {
            s0 = coopMultiplyAdd(q6, coopLoad<Right>(&tile[b + HALF + 2u * SIDE], K_STRIDE), s0);
            s0 = coopMultiplyAdd(q7, coopLoad<Right>(&tile[b + HALF + 3u * SIDE], K_STRIDE), s0);
        }
        coopStoreT(s0, &scores[own_scores], SCORES_STRIDE);
        for (var turn = 0u; turn < more; turn++) {
            let c = b + SIDE * K_STRIDE;
            var s1 = coopMultiplyAdd(q0, coopLoad<Right>(&tile[c], K_STRIDE), empty);
            s1 = coopMultiplyAdd(q1, coopLoad<Right>(&tile[c + SIDE], K_STRIDE), s1);
            if (D4 > SIDE) {
                s1 = coopMultiplyAdd(q2, coopLoad<Right>(&tile[c + 2u * SIDE], K_STRIDE), s1);
                s1 = coopMultiplyAdd(q3, coopLoad<Right>(&tile[c + 3u * SIDE], K_STRIDE), s1);
            }
            s1 = coopMultiplyAdd(q4, coopLoad<Right>(&tile[c + HALF], K_STRIDE), s1);
            s1 = coopMultiplyAdd(q5, coopLoad<Right>(&tile[c + HALF + SIDE], K_STRIDE), s1);
            if (D4 > SIDE) {
                s1 = coopMultiplyAdd(q6, coopLoad<Right>(&tile[c + HALF + 2u * SIDE], K_STRIDE), s1);
                s1 = coopMultiplyAdd(q7, coopLoad<Right>(&tile[c + HALF + 3u * SIDE], K_STRIDE), s1);
            }
            coopStoreT(s1, &scores[own_scores + SIDE], SCORES_STRIDE);
        }
        let v0 = v[v_at + min(j + v_key, last_key) * params.v_stride];
        let v1 = v[v_at + min(j + v_key + 1u, last_key) * params.v_stride];
        let v2 = v[v_at + min(j + v_key + 2u, last_key) * params.v_stride];
        let v3 = v[v_at + min(j + v_key + 3u, last_key) * params.v_stride];
        workgroupBarrier();

        // Values.
        if (index < V_BLOCKS) {
            let u = transpose(mat4x4<f32>(v0 * SCALE, v1 * SCALE, v2 * SCALE, v3 * SCALE));
            most = max(most, max(max(largest(abs(u[0])), largest(abs(u[1]))), max(largest(abs(u[2])), largest(abs(u[3])))));
            put_tile(v_to, u[0]);
            put_tile(v_to + V_STRIDE, u[1]);
            put_tile(v_to + 2u * V_STRIDE, u[2]);
            put_tile(v_to + 3u * V_STRIDE, u[3]);
        }
        // Weights.
        let keys = j + piece + vec4<u32>(0u, 1u, 2u, 3u);
        let score0 = masked_score(scores_at(piece_at), head, first_row + row, keys);
        var top = largest(score0);
        var score1 = vec4<f32>();
        if (PIECE > 4u) {
            score1 = masked_score(scores_at(piece_at + 4u), head, first_row + row, keys + vec4<u32>(4u));
            top = max(top, largest(score1));
        }
        if (top > reference + LEEWAY) {
            must_renew = 1u;
        }
        if (workgroupUniformLoad(&must_renew) != 0u) {
            partial[index] = top;
            workgroupBarrier();
            let first = index - index % 4u;
            let pieces = vec4<f32>(partial[first], partial[first + 1u], partial[first + 2u], partial[first + 3u]);
            let renewed = max(reference, largest(pieces));
            let decay = exp4(vec4<f32>(reference - renewed)).x;
            reference = renewed;
            total *= decay;

            coopStoreT(o0, &scores[own_scores], SCORES_STRIDE);
            for (var turn = 0u; turn < more; turn++) {
                coopStoreT(o4, &scores[own_scores + SIDE], SCORES_STRIDE);
            }
            scale_scores(piece_at, decay);
            o0 = coopLoadT<Sum>(&scores[own_scores], SCORES_STRIDE);
            for (var turn = 0u; turn < more; turn++) {
                o4 = coopLoadT<Sum>(&scores[own_scores + SIDE], SCORES_STRIDE);
            }
            workgroupBarrier();
            coopStoreT(o1, &scores[own_scores], SCORES_STRIDE);
            for (var turn = 0u; turn < more; turn++) {
                coopStoreT(o5, &scores[own_scores + SIDE], SCORES_STRIDE);
            }
            scale_scores(piece_at, decay);
            o1 = coopLoadT<Sum>(&scores[own_scores], SCORES_STRIDE);
            for (var turn = 0u; turn < more; turn++) {
                o5 = coopLoadT<Sum>(&scores[own_scores + SIDE], SCORES_STRIDE);
            }
            if (D4 > SIDE) {
                workgroupBarrier();
                coopStoreT(o2, &scores[own_scores], SCORES_STRIDE);
                for (var turn = 0u; turn < more; turn++) {
                    coopStoreT(o6, &scores[own_scores + SIDE], SCORES_STRIDE);
                }
                scale_scores(piece_at, decay);
                o2 = coopLoadT<Sum>(&scores[own_scores], SCORES_STRIDE);
                for (var turn = 0u; turn < more; turn++) {
                    o6 = coopLoadT<Sum>(&scores[own_scores + SIDE], SCORES_STRIDE);
                }
                workgroupBarrier();
                coopStoreT(o3, &scores[own_scores], SCORES_STRIDE);
                for (var turn = 0u; turn < more; turn++) {
                    coopStoreT(o7, &scores[own_scores + SIDE], SCORES_STRIDE);
                }
                scale_scores(piece_at, decay);
                o3 = coopLoadT<Sum>(&scores[own_scores], SCORES_STRIDE);
                for (var turn = 0u; turn < more; turn++) {
                    o7 = coopLoadT<Sum>(&scores[own_scores + SIDE], SCORES_STRIDE);
                }
            }
        }
        let weights_at = row * WEIGHTS_STRIDE + piece;
        total += put_weights(weights_at, score0, reference);
        if (PIECE > 4u) {
            total += put_weights(weights_at + 4u, score1, reference);
        }
        workgroupBarrier();

        // Sums over values.
        let p0 = coopLoadT<Left>(&weights[own_row * WEIGHTS_STRIDE], WEIGHTS_STRIDE);
        let p1 = coopLoadT<Left>(&weights[own_row * WEIGHTS_STRIDE + SIDE], WEIGHTS_STRIDE);
        let c = own_column * V_STRIDE;
        o0 = coopMultiplyAdd(p0, coopLoad<Right>(&tile[c], V_STRIDE), o0);
        o1 = coopMultiplyAdd(p0, coopLoad<Right>(&tile[c + SIDE * V_STRIDE], V_STRIDE), o1);
        o0 = coopMultiplyAdd(p1, coopLoad<Right>(&tile[c + SIDE], V_STRIDE), o0);
        o1 = coopMultiplyAdd(p1, coopLoad<Right>(&tile[c + SIDE * V_STRIDE + SIDE], V_STRIDE), o1);
        if (D4 > SIDE) {
            o2 = coopMultiplyAdd(p0, coopLoad<Right>(&tile[c + 2u * SIDE * V_STRIDE], V_STRIDE), o2);
            o3 = coopMultiplyAdd(p0, coopLoad<Right>(&tile[c + 3u * SIDE * V_STRIDE], V_STRIDE), o3);
            o2 = coopMultiplyAdd(p1, coopLoad<Right>(&tile[c + 2u * SIDE * V_STRIDE + SIDE], V_STRIDE), o2);
            o3 = coopMultiplyAdd(p1, coopLoad<Right>(&tile[c + 3u * SIDE * V_STRIDE + SIDE], V_STRIDE), o3);
        }
        for (var turn = 0u; turn < more; turn++) {
            let e = c + HALF * V_STRIDE;
            o4 = coopMultiplyAdd(p0, coopLoad<Right>(&tile[e], V_STRIDE), o4);
            o5 = coopMultiplyAdd(p0, coopLoad<Right>(&tile[e + SIDE * V_STRIDE], V_STRIDE), o5);
            o4 = coopMultiplyAdd(p1, coopLoad<Right>(&tile[e + SIDE], V_STRIDE), o4);
            o5 = coopMultiplyAdd(p1, coopLoad<Right>(&tile[e + SIDE * V_STRIDE + SIDE], V_STRIDE), o5);
            if (D4 > SIDE) {
                o6 = coopMultiplyAdd(p0, coopLoad<Right>(&tile[e + 2u * SIDE * V_STRIDE], V_STRIDE), o6);
                o7 = coopMultiplyAdd(p0, coopLoad<Right>(&tile[e + 3u * SIDE * V_STRIDE], V_STRIDE), o7);
                o6 = coopMultiplyAdd(p1, coopLoad<Right>(&tile[e + 2u * SIDE * V_STRIDE + SIDE], V_STRIDE), o6);
                o7 = coopMultiplyAdd(p1, coopLoad<Right>(&tile[e + 3u * SIDE * V_STRIDE + SIDE], V_STRIDE), o7);
            }
        }
    }
    if (most > 65504.0) {
        atomicStore(&f16_flags[params.f16_flag], 1u);
    }

    partial[index] = total;
    workgroupBarrier();
    let first = index - index % 4u;
    let sum = partial[first] + partial[first + 1u] + partial[first + 2u] + partial[first + 3u];
    let is_written = first_row + row < params.m;
    if (!is_last() && is_written && piece == 0u) {
        state[state_at(head, first_row + row)] = vec2<f32>(reference, sum);
    }
    // A row that attends to nothing gives zeros. Between dispatches sums stay as they are.
    let factor = select(select(0.0, TAKE_BACK / sum, sum > 0.0), 1.0, !is_last());
    for (var matrix = 0u; matrix < D4 / (SIDE / 2u); matrix++) {
        workgroupBarrier();
        switch (matrix) {
            case 0u: { coopStoreT(o0, &scores[own_scores], SCORES_STRIDE); }
            case 1u: { coopStoreT(o1, &scores[own_scores], SCORES_STRIDE); }
            case 2u: { coopStoreT(o2, &scores[own_scores], SCORES_STRIDE); }
            default: { coopStoreT(o3, &scores[own_scores], SCORES_STRIDE); }
        }
        for (var turn = 0u; turn < more; turn++) {
            switch (matrix) {
                case 0u: { coopStoreT(o4, &scores[own_scores + SIDE], SCORES_STRIDE); }
                case 1u: { coopStoreT(o5, &scores[own_scores + SIDE], SCORES_STRIDE); }
                case 2u: { coopStoreT(o6, &scores[own_scores + SIDE], SCORES_STRIDE); }
                default: { coopStoreT(o7, &scores[own_scores + SIDE], SCORES_STRIDE); }
            }
        }
        workgroupBarrier();
        if (is_written) {
            let at = y_at + matrix * (SIDE / 4u);
            put_y(at, scores_at(piece_at) * factor);
            if (PIECE > 4u) {
                put_y(at + 1u, scores_at(piece_at + 4u) * factor);
            }
        }
    }
}

// Brings this invocation's piece of sums back from y.
fn put_sums(at: u32, y_at: u32) {
    put_scores(at, sums_in_y(y_at));
    if (PIECE > 4u) {
        put_scores(at + 4u, sums_in_y(y_at + 1u));
    }
}
