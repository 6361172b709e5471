// What all attention kernels share: operands, switches, masks and addresses.

struct Params {
    m: u32,
    n: u32,
    q_offset: u32,
    q_stride: u32,
    k_offset: u32,
    k_stride: u32,
    v_offset: u32,
    v_stride: u32,
    y_offset: u32,
    y_stride: u32,
    first_query: u32,   // position of row 0 of q among the keys, for CAUSAL and HAS_BIAS
    first_head: u32,    // number of head 0 of this dispatch among all query heads
    first_key: u32,     // position of row 0 of k among all keys
    all_keys: u32,      // T
    state_stride: u32,  // pairs in a row of `state`
    scale: f32,
    f16_flag: u32,      // for kernels that round to f16: which flag says that a number does not fit
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> k: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> v: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> bias: array<f32>;
// binding 5: y, in the imported file
@group(0) @binding(6) var<storage, read_write> state: array<vec2<f32>>;

#import attention_y

override D4: u32 = 4u;          // a quarter of the head width
override GROUP: u32 = 1u;       // query heads that share a head of keys and values
override CAUSAL: bool = false;
override HAS_BIAS: bool = false;

// Below every score that can occur; a literal infinity is not WGSL, and inf - inf would be NaN.
const MASKED: f32 = -3.0e38;

// Whether these keys are the first ones, and the last ones, of all. Not overrides: drivers take a second to compile a
// kernel of tiles, and nothing that is asked once for a block of keys is worth four of them.
fn is_first() -> bool {
    return params.first_key == 0u;
}

fn is_last() -> bool {
    return params.first_key + params.n == params.all_keys;
}

// Where a query head's columns start in a row of k and v.
fn key_head(head: u32) -> u32 {
    return (params.first_head + head) / GROUP * D4;
}

// Where a row of y and its state are. Rows past the end repeat the last one.
fn y_row(head: u32, row: u32) -> u32 {
    return params.y_offset + min(row, params.m - 1u) * params.y_stride + head * D4;
}

fn state_at(head: u32, row: u32) -> u32 {
    return (params.first_query + min(row, params.m - 1u)) * params.state_stride + params.first_head + head;
}

// The scores of a query and four keys (rows of k) with bias; MASKED for those it must not see.
fn masked_score(score: vec4<f32>, head: u32, row: u32, keys: vec4<u32>) -> vec4<f32> {
    let last = params.n - 1u;
    let position = row + params.first_query;
    var result = score;
    if (HAS_BIAS) {
        // Rows past the end have no bias; position is held inside the table.
        let origin = (params.first_head + head) * (2u * params.all_keys - 1u) + params.all_keys - 1u
            + params.first_key - min(position, params.all_keys - 1u);
        let at = origin + min(keys, vec4<u32>(last));
        result += vec4<f32>(bias[at.x], bias[at.y], bias[at.z], bias[at.w]);
    }
    var masked = keys > vec4<u32>(last);
    if (CAUSAL) {
        masked = masked | (keys + params.first_key > vec4<u32>(position));
    }
    return select(result, vec4<f32>(MASKED), masked);
}
