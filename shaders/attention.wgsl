// Multi-head attention with an online softmax: no [N, N] matrix is ever in memory.
//
//   q    [M, H*D]       rows `q_stride` apart
//   k, v [N, H*D / GROUP]   head h of q attends to head h / GROUP of k and v
//   bias [H, 2*T - 1]   HAS_BIAS, T keys in all buffers together: added to the score of query i and key j at j - i + T - 1 (T5's relative
//                       positions)
//   y    [M, H*D]
//   state [M, H, 2]     maximum and sum so far, where keys come in several buffers: one dispatch each, all but
//                       the first continue from y and state, all but the last leave y unnormalised
//
// One invocation keeps one query row of one head and its output row in registers and walks over the keys,
// four at a time. All invocations of a workgroup read the same key, so those reads are uniform.
// After FlashAttention (arXiv 2205.14135), algorithm 1, with a tile of 1 x 4.
// Offsets and strides count groups of four numbers, but `bias` is scalar.

#import exp
#import head
#import attention_interface

const LANES: u32 = 16u;

@compute @workgroup_size(LANES)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = group.x * LANES + lane;
    let head = group.y;
    // Lanes past the end repeat the last row and do not write.
    let q_at = params.q_offset + min(row, params.m - 1u) * params.q_stride + head * D4;
    let k_head = params.k_offset + key_head(head);
    let v_head = params.v_offset + key_head(head);
    let y_at = y_row(head, row);
    let row_state = state_at(head, row);

    var query: array<vec4<f32>, HEAD4_MAX>;
    var output: array<vec4<f32>, HEAD4_MAX>;
    for (var i = 0u; i < D4; i++) {
        query[i] = q[q_at + i] * params.scale;
        output[i] = vec4<f32>();
    }
    var maximum = MASKED;
    var total = 0.0;
    if (!is_first()) {
        maximum = state[row_state].x;
        total = state[row_state].y;
        for (var i = 0u; i < D4; i++) {
            output[i] = y[y_at + i];
        }
    }
    for (var j = 0u; j < params.n; j += 4u) {
        let last = params.n - 1u;
        let j1 = min(j + 1u, last);
        let j2 = min(j + 2u, last);
        let j3 = min(j + 3u, last);
        let k0 = k_head + j * params.k_stride;
        let k1 = k_head + j1 * params.k_stride;
        let k2 = k_head + j2 * params.k_stride;
        let k3 = k_head + j3 * params.k_stride;
        var p0 = vec4<f32>();
        var p1 = vec4<f32>();
        var p2 = vec4<f32>();
        var p3 = vec4<f32>();
        for (var i = 0u; i < D4; i++) {
            let a = query[i];
            p0 += a * k[k0 + i];
            p1 += a * k[k1 + i];
            p2 += a * k[k2 + i];
            p3 += a * k[k3 + i];
        }
        let one = vec4<f32>(1.0);
        let keys = vec4<u32>(j, j + 1u, j + 2u, j + 3u);
        let score = masked_score(
            vec4<f32>(dot(p0, one), dot(p1, one), dot(p2, one), dot(p3, one)), head, row, keys);

        let new_maximum = max(maximum, max(max(score.x, score.y), max(score.z, score.w)));
        let p = select(exp4(score - new_maximum), vec4<f32>(), score == vec4<f32>(MASKED));
        let decay = exp4(vec4<f32>(maximum - new_maximum)).x;
        total = total * decay + dot(p, one);
        maximum = new_maximum;
        let v0 = v_head + j * params.v_stride;
        let v1 = v_head + j1 * params.v_stride;
        let v2 = v_head + j2 * params.v_stride;
        let v3 = v_head + j3 * params.v_stride;
        for (var i = 0u; i < D4; i++) {
            output[i] = output[i] * decay + p.x * v[v0 + i] + p.y * v[v1 + i] + p.z * v[v2 + i] + p.w * v[v3 + i];
        }
    }
    if (row >= params.m) {
        return;
    }
    if (!is_last()) {
        state[row_state] = vec2<f32>(maximum, total);
    }
    // A row that attends to nothing gives zeros.
    let factor = select(select(0.0, 1.0 / total, total > 0.0), 1.0, !is_last());
    for (var i = 0u; i < D4; i++) {
        y[y_at + i] = output[i] * factor;
    }
}
