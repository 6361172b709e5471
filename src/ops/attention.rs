//! Multi-head attention.

use super::{choice, even_share, quads, read, read_write, whole};
use crate::tensor::{
    AttentionKernel, Caps, Dispatch, PipelineKey, Tensor, Work, row_pieces, row_pieces_of_any,
};

/// What attention does besides `softmax(q kᵀ) v`.
#[derive(Clone, Copy)]
pub struct Attention<'r> {
    /// Numbers in a head, a multiple of 4 and at most 512.
    pub head_dim: usize,
    /// Factor of the scores: `1 / sqrt(D)`, or 1 in T5.
    pub scale: f32,
    /// Row i attends to keys 0..=i only.
    pub causal: bool,
    /// Relative positions, `[H, 2 * N - 1]` padded to a multiple of 4 columns in all, one row: added to
    /// the score of query i and key j of head h at `h * (2 * N - 1) + j - i + N - 1`.
    pub bias: Option<Tensor<'r>>,
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
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
    first_query: u32,
    first_head: u32,
    first_key: u32,
    all_keys: u32,
    state_stride: u32,
    scale: f32,
    f16_flag: u32,
}

/// How a kernel divides the queries.
struct Geometry {
    shader: &'static str,
    roles: Vec<(&'static str, &'static str)>,
    /// `override` constants in addition to those of all attention kernels.
    overrides: Vec<(&'static str, f64)>,
    /// Query rows in a workgroup.
    rows: usize,
}

fn geometry(caps: &Caps, d: usize) -> Option<Geometry> {
    match choice::attention(caps, d) {
        AttentionKernel::Rows => {
            let (_, registers) = HEADS.iter().find(|(width, _)| d <= *width)?;
            Some(Geometry {
                shader: "attention",
                roles: vec![("head", *registers)],
                overrides: vec![],
                rows: 16,
            })
        }
        AttentionKernel::Panel => {
            let (rows, columns) = attention_panel(caps, d)?;
            Some(Geometry {
                shader: "attention_panel",
                roles: vec![],
                overrides: vec![("ROWS", rows as f64), ("COLUMNS", columns as f64)],
                rows,
            })
        }
        AttentionKernel::Tiled => {
            let AttentionTile { part, blocks, columns, .. } = attention_tile(caps, d)?;
            Some(Geometry {
                shader: "attention_tiled",
                roles: vec![("block", part)],
                overrides: vec![("COLUMNS", columns as f64)],
                rows: 4 * blocks,
            })
        }
        AttentionKernel::Matrices => {
            let matrices = choice::matrices(caps)?;
            let (part, constants) = matrices.part_and_constants();
            Some(Geometry {
                shader: "attention_matrices",
                roles: vec![("coop", part)],
                overrides: constants.to_vec(),
                rows: 4 * matrices.side,
            })
        }
    }
}

/// The shape of `attention_panel.wgsl` for heads of `d` numbers: query rows of a workgroup and groups of 64 columns, if any
/// fits the adapter's workgroup memory. A processor's registers spill into its first cache at little cost.
pub(super) fn attention_panel(caps: &Caps, d: usize) -> Option<(usize, usize)> {
    let columns = d.div_ceil(64);
    let fits = |rows: &usize| {
        // Queries, weights of 64 keys, two numbers a row, and a flag.
        let bytes = rows * (4 * d + 4 * 64 + 8) + 4;
        // More sums than these and software drivers run at half speed.
        rows * columns <= 48 && bytes <= caps.max_workgroup_bytes as usize
    };
    [32, 24, 16, 12, 8, 6, 4].into_iter().find(fits).map(|rows| (rows, columns))
}

/// The shape of `attention_tiled.wgsl`.
#[derive(Clone, Copy)]
pub(super) struct AttentionTile {
    /// The part that says so to the kernel.
    part: &'static str,
    /// Invocations that share four queries.
    lanes: usize,
    /// Blocks of four queries in a workgroup.
    blocks: usize,
    /// Groups of four columns of queries and keys in workgroup memory.
    chunk: usize,
    /// Groups of four columns of a head that an invocation sums.
    columns: usize,
}

/// The tile for heads of `d` numbers, if any fits the adapter's workgroup memory.
///
/// Whatever the head's width, an invocation has at most 8 vectors of sums: with 16, Intel's and Apple's registers do not
/// suffice. Workgroups of 128 lanes share what they read of keys and values among eight blocks, or four of wider heads, and
/// leave room for others in the memory of a core; the widest heads take 256 lanes.
pub(super) fn attention_tile(caps: &Caps, d: usize) -> Option<AttentionTile> {
    let shapes: &[(&str, [usize; 4])] = match d {
        0..=64 => &[("block_16x8", [16, 8, 8, 1]), ("block_16x4", [16, 4, 4, 1])],
        65..=128 => &[("block_16x8", [16, 8, 8, 2]), ("block_16x4", [16, 4, 4, 2])],
        129..=256 => &[("block_32x4", [32, 4, 4, 2])],
        _ => &[("block_64x4", [64, 4, 2, 2])],
    };
    let tiles = shapes.iter().map(|&(part, [lanes, blocks, chunk, columns])| AttentionTile {
        part,
        lanes,
        blocks,
        chunk,
        columns,
    });
    let fits = |tile: &AttentionTile| {
        // Queries or weights, keys or values, and two flags.
        let quads = 4 * tile.lanes * (tile.blocks + tile.chunk + 1);
        tile.lanes * tile.blocks <= caps.max_workgroup_invocations as usize
            && 16 * quads + 8 <= caps.max_workgroup_bytes as usize
    };
    tiles.into_iter().find(fits)
}

/// The parts that size a head's registers.
const HEADS: [(usize, &str); 6] = [
    (16, "head_16"),
    (32, "head_32"),
    (64, "head_64"),
    (128, "head_128"),
    (256, "head_256"),
    (512, "head_512"),
];

/// The widest head that attention can do.
pub const MAX_HEAD_DIM: usize = 512;

/// Attention of the rows of `q` `[M, H * D]` to those of `k` and `v` `[N, G * D]`, written to `y` `[M, H * D]`.
///
/// `G` divides `H`; query head `h` attends to head `h / (H / G)` of the keys and values. `G = H` is multi-head attention,
/// fewer is grouped-query attention (arXiv 2305.13245).
///
/// With [`Attention::causal`], `N` may be less than `M`: queries from row `N` on see all keys. So a text padded on the
/// right leaves out its padding as keys by giving only the real rows of `k` and `v`; another number of them needs no
/// other kernel.
///
/// Scores and sums are f32. Keys and values in several buffers are worked through one after the other.
/// SD3 paper (arXiv 2403.03206), section 4; FlashAttention (arXiv 2205.14135).
#[track_caller]
pub fn attention<'r>(
    name: &str,
    [q, k, v]: [Tensor<'r>; 3],
    y: Tensor<'r>,
    options: Attention<'r>,
) {
    attention_over(name, q, &[(k, v)], y, options);
}

/// [`attention`] to the keys and values of all of `keys` together, in one softmax. `causal` and `bias`, which count
/// keys, need a single pair.
#[track_caller]
pub fn attention_over<'r>(
    name: &str,
    q: Tensor<'r>,
    keys: &[(Tensor<'r>, Tensor<'r>)],
    y: Tensor<'r>,
    options: Attention<'r>,
) {
    let d = options.head_dim;
    let recorder = q.recorder();
    let caps = recorder.matmul_caps();
    assert!(q.cols().is_multiple_of(d), "{name}: q has {} columns, heads of {d}", q.cols());
    assert_eq!(y.cols(), q.cols(), "{name}: y has {} columns", y.cols());
    assert!(!keys.is_empty(), "{name}: no keys");
    assert!(
        keys.len() == 1 || (!options.causal && options.bias.is_none()),
        "{name}: a mask or a bias over keys in several matrices"
    );
    let mut key_pieces = Vec::new();
    let mut n = 0;
    let key_cols = keys[0].0.cols();
    assert!(
        key_cols.is_multiple_of(d) && key_cols > 0 && q.cols().is_multiple_of(key_cols),
        "{name}: k has {key_cols} columns, q {}, heads of {d}",
        q.cols()
    );
    for (k, v) in keys {
        for (role, operand) in [("k", k), ("v", v)] {
            assert_eq!(operand.cols(), key_cols, "{name}: {role} has {} columns", operand.cols());
        }
        assert_eq!(k.rows(), v.rows(), "{name}: k has {} rows, v {}", k.rows(), v.rows());
        let pieces = row_pieces(&[*k, *v], usize::MAX).into_iter();
        let strides = [quads(k.row_stride()), quads(v.row_stride())];
        key_pieces.extend(pieces.map(|piece| (n + piece.row0, piece, strides)));
        n += k.rows();
    }
    let heads = q.cols() / d;
    let group = q.cols() / key_cols;
    let kv_heads = key_cols / d;
    recorder.note(Work::Attention { queries: q.rows(), keys: n, heads, kv_heads, head_dim: d });
    // The running maximum and sum of each row, if one dispatch does not see all keys.
    let state_rows = if key_pieces.len() > 1 { q.rows() } else { 1 };
    let state =
        recorder.temp(&format!("{name}.state"), state_rows, (2 * heads).next_multiple_of(4));
    let state_stride = (state.cols() / 2) as u32;
    let state = state.expect_single("state").0;
    let bias = options.bias.map(|bias| {
        assert!(bias.cols() >= heads * (2 * n - 1), "{name}: the bias is too short");
        whole(name, "bias", bias)
    });
    let Some(geometry) = geometry(&caps, d) else {
        panic!("{name}: heads of {d} numbers, at most {MAX_HEAD_DIM} are possible");
    };

    let f16_flag = choice::is_on_matrices(geometry.shader).then(|| recorder.f16_flag());
    let mut roles = geometry.roles;
    if y.is_f16() {
        assert!(
            f16_flag.is_some() && key_pieces.len() == 1,
            "{name}: y is in f16, but {} cannot write that, or keys lie in several buffers",
            geometry.shader
        );
        roles.push(("attention_y", "attention_y_f16"));
    }

    let flops_per_row = 4.0 * n as f64 * d as f64;
    let rows = (caps.max_dispatch_flops / flops_per_row) as usize;
    let max_rows = even_share(q.rows(), rows, geometry.rows);
    assert!(!q.is_f16(), "{name}: q is in f16");
    for piece in row_pieces_of_any(&[q, y], max_rows) {
        let [(q_buffer, q_at), (y_buffer, y_at)] = [piece.at[0], piece.at[1]];
        let budget = (caps.max_dispatch_flops / (flops_per_row * piece.rows as f64)) as usize;
        let heads_at_once = even_share(heads, budget, 1);
        for first_head in (0..heads).step_by(heads_at_once) {
            let count = heads_at_once.min(heads - first_head);
            let column = first_head * d;
            for (first_key, keys, strides) in &key_pieces {
                let [(k_buffer, k_at), (v_buffer, v_at)] = [keys.at[0], keys.at[1]];
                let params = Params {
                    m: piece.rows as u32,
                    n: keys.rows as u32,
                    q_offset: quads(q_at + column),
                    q_stride: quads(q.row_stride()),
                    k_offset: quads(k_at),
                    k_stride: strides[0],
                    v_offset: quads(v_at),
                    v_stride: strides[1],
                    y_offset: quads(y_at + column),
                    y_stride: quads(y.row_stride()),
                    first_query: piece.row0 as u32,
                    first_head: first_head as u32,
                    first_key: *first_key as u32,
                    all_keys: n as u32,
                    state_stride,
                    scale: options.scale,
                    f16_flag: f16_flag.map_or(0, |(_, flag)| flag as u32),
                };
                let flag = |on: bool| f64::from(u8::from(on));
                let mut overrides = vec![
                    ("D4", f64::from(quads(d))),
                    ("CAUSAL", flag(options.causal)),
                    ("HAS_BIAS", flag(bias.is_some())),
                    ("GROUP", group as f64),
                ];
                overrides.extend(&geometry.overrides);
                if f16_flag.is_some() {
                    overrides.extend(recorder.f16_scale());
                }
                let mut bindings = vec![
                    read(q_buffer),
                    read(k_buffer),
                    read(v_buffer),
                    read(bias.unwrap_or(q_buffer)),
                    read_write(y_buffer),
                    read_write(state),
                ];
                bindings.extend(f16_flag.map(|(buffer, _)| read_write(buffer)));
                recorder.dispatch(Dispatch {
                    pipeline: PipelineKey {
                        shader: geometry.shader,
                        entry: "main",
                        roles: roles.clone(),
                        overrides,
                    },
                    params: bytemuck::bytes_of(&params).to_vec(),
                    bindings,
                    groups: [piece.rows.div_ceil(geometry.rows) as u32, count as u32, 1],
                    flops: 4.0 * (keys.rows * d * piece.rows * count) as f64,
                    label: name.to_owned(),
                });
            }
        }
    }
}

/// One head: `q` `[M, D]`, `k` and `v` `[N, D]`; `bias(i, j)` is added to the scaled score, `None` masks it.
pub fn reference(
    q: &[f32],
    k: &[f32],
    v: &[f32],
    d: usize,
    scale: f64,
    bias: impl Fn(usize, usize) -> Option<f64>,
) -> Vec<f64> {
    let mut out = Vec::with_capacity(q.len());
    for (i, q) in q.chunks_exact(d).enumerate() {
        let scores: Vec<f64> = k
            .chunks_exact(d)
            .enumerate()
            .map(|(j, k)| match bias(i, j) {
                None => f64::NEG_INFINITY,
                Some(bias) => {
                    let dot: f64 =
                        q.iter().zip(k).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                    dot * scale + bias
                }
            })
            .collect();
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores
            .iter()
            .map(|s| if *s == f64::NEG_INFINITY { 0.0 } else { libm::exp(s - max) })
            .collect();
        let total: f64 = weights.iter().sum();
        for c in 0..d {
            let sum: f64 =
                weights.iter().enumerate().map(|(j, w)| w * f64::from(v[j * d + c])).sum();
            out.push(if total > 0.0 { sum / total } else { 0.0 });
        }
    }
    out
}
