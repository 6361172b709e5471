// Multi-head attention on processors: the operands and options of attention.wgsl.
//
// A workgroup does ROWS queries of one head and walks over the keys, 64 at a time. Its 16 lanes
// take four keys each for the scores, then four columns each (COLUMNS times) for the sum over values; queries and
// weights pass through workgroup memory in between. So each number of k and v that a lane loads serves ROWS queries.
//
// After FlashAttention (arXiv 2205.14135), with one difference: the reference that scores are taken relative to
// is not a row's maximum so far, but one that is renewed only when a score exceeds it by LEEWAY. That spares nearly
// all maxima over lanes; weights up to exp(LEEWAY) cost no accuracy, as rounding is relative.
// A row keeps its reference as long as its own scores allow, also where a neighbour's is renewed: its numbers are then the
// same in any workgroup, and so wherever a picture or a matrix is cut into bands.
//
// Arrays of registers are indexed by loops over constants, which drivers unroll.
// Offsets and strides count groups of four numbers, but `bias` is scalar.

#import exp
#import attention_interface

override ROWS: u32 = 16u;       // at most 32
override COLUMNS: u32 = 1u;     // ceil(D4 / 16); ROWS * COLUMNS is at most 48

const LANES: u32 = 16u;
const KEYS: u32 = 64u;
const LEEWAY: f32 = 8.0;

override QUERY_QUADS: u32 = ROWS * D4;
override WEIGHT_QUADS: u32 = ROWS * LANES;

var<workgroup> queries: array<vec4<f32>, QUERY_QUADS>;
// Of four keys each; between blocks of keys, partial results of the lanes of a row.
var<workgroup> weights: array<vec4<f32>, WEIGHT_QUADS>;
var<workgroup> reference: array<f32, ROWS>;
var<workgroup> decay: array<f32, ROWS>;
var<workgroup> vote: atomic<u32>;
var<workgroup> must_renew: u32;

fn largest(v: vec4<f32>) -> f32 {
    return max(max(v.x, v.y), max(v.z, v.w));
}

@compute @workgroup_size(LANES)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let head = group.y;
    let first_row = group.x * ROWS;

    // Rows past the end repeat the last one and are not written.
    for (var i = lane; i < QUERY_QUADS; i += LANES) {
        let row = min(first_row + i / D4, params.m - 1u);
        queries[i] = q[params.q_offset + row * params.q_stride + head * D4 + i % D4] * params.scale;
    }
    for (var i = lane; i < ROWS; i += LANES) {
        var start = MASKED;
        if (!is_first()) {
            start = state[state_at(head, first_row + i)].x;
        }
        reference[i] = start;
        decay[i] = 1.0;
    }
    if (lane == 0u) {
        atomicStore(&vote, 0u);
    }
    var output: array<vec4<f32>, 48>;   // [COLUMNS][ROWS]
    var total: array<f32, 32>;          // of this lane's keys
    for (var r = 0u; r < ROWS; r++) {
        total[r] = 0.0;
        for (var c = 0u; c < COLUMNS; c++) {
            output[c * ROWS + r] = vec4<f32>();
        }
        if (!is_first()) {
            let row = first_row + r;
            if (lane == 0u) {
                total[r] = state[state_at(head, row)].y;
            }
            for (var c = 0u; c < COLUMNS; c++) {
                output[c * ROWS + r] = y[y_row(head, row) + min(c * LANES + lane, D4 - 1u)];
            }
        }
    }
    workgroupBarrier();

    let last_key = params.n - 1u;
    let k_head = params.k_offset + key_head(head);
    let v_head = params.v_offset + key_head(head);
    for (var j = 0u; j < params.n; j += KEYS) {
        // Scores of four keys a lane.
        let key = j + 4u * lane;
        let k0 = k_head + min(key, last_key) * params.k_stride;
        let k1 = k_head + min(key + 1u, last_key) * params.k_stride;
        let k2 = k_head + min(key + 2u, last_key) * params.k_stride;
        let k3 = k_head + min(key + 3u, last_key) * params.k_stride;
        var score: array<vec4<f32>, 32>;
        for (var r = 0u; r < ROWS; r++) {
            score[r] = vec4<f32>();
        }
        for (var i = 0u; i < D4; i++) {
            let a = transpose(mat4x4<f32>(k[k0 + i], k[k1 + i], k[k2 + i], k[k3 + i]));
            for (var r = 0u; r < ROWS; r++) {
                let b = queries[r * D4 + i];
                score[r] += b.x * a[0] + b.y * a[1] + b.z * a[2] + b.w * a[3];
            }
        }
        let keys = key + vec4<u32>(0u, 1u, 2u, 3u);
        var renew = false;
        for (var r = 0u; r < ROWS; r++) {
            score[r] = masked_score(score[r], head, first_row + r, keys);
            renew = renew || largest(score[r]) > reference[r] + LEEWAY;
        }
        if (renew) {
            atomicStore(&vote, 1u);
        }
        workgroupBarrier();
        if (lane == 0u) {
            must_renew = atomicLoad(&vote);
            atomicStore(&vote, 0u);
        }
        // Also the end of everybody's reading the last weights.
        if (workgroupUniformLoad(&must_renew) != 0u) {
            for (var r = 0u; r < ROWS; r++) {
                weights[r * LANES + lane].x = largest(score[r]);
            }
            workgroupBarrier();
            for (var i = lane; i < ROWS; i += LANES) {
                let old = reference[i];
                var top = old;
                for (var l = 0u; l < LANES; l++) {
                    top = max(top, weights[i * LANES + l].x);
                }
                let renewed = select(old, top, top > old + LEEWAY);
                reference[i] = renewed;
                decay[i] = exp4(vec4<f32>(old - renewed)).x;
            }
            workgroupBarrier();
            for (var r = 0u; r < ROWS; r++) {
                let factor = decay[r];
                total[r] *= factor;
                for (var c = 0u; c < COLUMNS; c++) {
                    output[c * ROWS + r] *= factor;
                }
            }
        }
        for (var r = 0u; r < ROWS; r++) {
            // A masked score is MASKED, whatever the reference: its weight is zero.
            let p = select(exp4(score[r] - reference[r]), vec4<f32>(), score[r] == vec4<f32>(MASKED));
            total[r] += dot(p, vec4<f32>(1.0));
            weights[r * LANES + lane] = p;
        }
        workgroupBarrier();

        // The sum over values, four keys at a time.
        let quads = (min(KEYS, params.n - j) + 3u) / 4u;
        for (var i = 0u; i < quads; i++) {
            let at = j + 4u * i;
            let v0 = v_head + min(at, last_key) * params.v_stride;
            let v1 = v_head + min(at + 1u, last_key) * params.v_stride;
            let v2 = v_head + min(at + 2u, last_key) * params.v_stride;
            let v3 = v_head + min(at + 3u, last_key) * params.v_stride;
            for (var c = 0u; c < COLUMNS; c++) {
                let column = min(c * LANES + lane, D4 - 1u);
                let a0 = v[v0 + column];
                let a1 = v[v1 + column];
                let a2 = v[v2 + column];
                let a3 = v[v3 + column];
                for (var r = 0u; r < ROWS; r++) {
                    let p = weights[r * LANES + i];
                    output[c * ROWS + r] += p.x * a0 + p.y * a1 + p.z * a2 + p.w * a3;
                }
            }
        }
    }

    // Totals of all lanes.
    workgroupBarrier();
    for (var r = 0u; r < ROWS; r++) {
        weights[r * LANES + lane].x = total[r];
    }
    workgroupBarrier();
    for (var i = lane; i < ROWS; i += LANES) {
        var sum = 0.0;
        for (var l = 0u; l < LANES; l++) {
            sum += weights[i * LANES + l].x;
        }
        if (!is_last() && first_row + i < params.m) {
            state[state_at(head, first_row + i)] = vec2<f32>(reference[i], sum);
        }
        // A row that attends to nothing gives zeros.
        decay[i] = select(select(0.0, 1.0 / sum, sum > 0.0), 1.0, !is_last());
    }
    workgroupBarrier();
    for (var r = 0u; r < ROWS; r++) {
        let row = first_row + r;
        for (var c = 0u; c < COLUMNS; c++) {
            let column = c * LANES + lane;
            if (row < params.m && column < D4) {
                y[y_row(head, row) + column] = output[c * ROWS + r] * decay[r];
            }
        }
    }
}
