//! Linear layers: `y = epilogue(x Wᵀ + b)`, or with a low-rank change `y = epilogue(x Wᵀ + b + ((x Dᵀ) * s) Uᵀ)`.
//!
//! Of a change, the narrow product `(x Dᵀ) * s` is a dispatch, if the norm in front of the layer did not make it; the wide one
//! goes on in the layer's own sums. Where it cannot, it goes to the output first, and the sums begin with what is there.

use super::{
    Activation, Input, LowRank, Weights, choice, combine, even_share, quads, quantise_rows, read,
    read_write,
};
use crate::tensor::{
    Caps, Dispatch, MAX_WORKGROUPS, MatmulKernel, PackedWeight, PipelineKey, Resident, Tensor,
    Work, row_pieces_of_any,
};

/// A weight `[N, K]` and a bias `[1, N]`.
#[derive(Clone, Debug)]
pub struct LinearLayer {
    /// Packed weight.
    pub weight: PackedWeight,
    /// Bias, padded to a multiple of 4 columns.
    pub bias: Option<Resident>,
    /// What is added to the products.
    pub low_rank: Option<Box<LowRank>>,
}

/// How a result meets what the output holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Write {
    /// `y = v`.
    #[default]
    Store = 0,
    /// `y += v`: a residual.
    Add = 1,
    /// `y *= v`: a gated MLP.
    Multiply = 2,
}

/// What happens to each sum before it is written: bias, then activation, then gate.
#[derive(Clone, Copy, Default)]
pub struct Epilogue<'r> {
    /// Applied to sum + bias.
    pub activation: Activation,
    /// `[1, N]`, multiplied in after the activation: AdaLN's gate.
    pub gate: Option<Tensor<'r>>,
    /// How it is written.
    pub write: Write,
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    m: u32,
    n4: u32,
    k4: u32,
    x_offset: u32,
    x_stride: u32,
    y_offset: u32,
    y_stride: u32,
    column4: u32,
    gate_offset: u32,
    row_blocks: u32,
    f16_flag: u32,
    split4: u32,
    rest_offset: u32,
    rest_stride: u32,
    rank4: u32,
    narrow_offset: u32,
    narrow_stride: u32,
    end0: u32,
    end1: u32,
    end2: u32,
    rank_end0: u32,
    rank_end1: u32,
    rank_end2: u32,
}

/// The shape of a kernel's work: how its dispatches are cut and counted.
struct Geometry {
    shader: &'static str,
    /// Files for roles other than the weight's.
    roles: Vec<(&'static str, &'static str)>,
    /// Rows in a block: those that an invocation computes, or a workgroup where it shares them.
    rows: usize,
    /// `override` constants in addition to those of all linear layers.
    overrides: Vec<(&'static str, f64)>,
    /// Workgroups for some blocks of rows and some tiles of the weight.
    groups: [u32; 3],
}

/// Workgroups that keep a processor's cores busy to the end.
const BUSY: usize = 16;

/// For `rows` rows and `tiles` tiles of a weight.
fn geometry(
    kernel: MatmulKernel,
    caps: &Caps,
    rows: usize,
    (weight, tiles): (&PackedWeight, usize),
) -> Geometry {
    // Groups of four columns of a tile, and of four numbers of K.
    let (lanes, k4) = (weight.tile / 4, weight.k / 4);
    // Blocks of rows run fastest: a tile of the weight stays in the cache while all rows pass by.
    let blocks_by_tiles = |blocks: usize, tiles: usize| {
        let z = blocks.div_ceil(MAX_WORKGROUPS as usize);
        [blocks.div_ceil(z) as u32, tiles as u32, z as u32]
    };
    let plain = |shader, block: usize, overrides, groups| Geometry {
        shader,
        roles: vec![],
        rows: block,
        overrides,
        groups,
    };
    match kernel {
        MatmulKernel::Row => plain("matvec", 1, vec![], [tiles as u32, rows as u32, 1]),
        MatmulKernel::Panel => {
            let blocks = rows.div_ceil(32);
            // Wide groups share their rows of x among more lanes; enough of them must be left.
            let wide = (BUSY / blocks).clamp(1, tiles);
            let per_group = tiles.div_ceil(wide).clamp(1, 8);
            let per_group = tiles.div_ceil(tiles.div_ceil(per_group));
            let groups = blocks_by_tiles(blocks, tiles.div_ceil(per_group));
            plain("matmul_panel", 32, vec![("TILES", per_group as f64)], groups)
        }
        MatmulKernel::Direct => {
            // Four blocks of rows fill a graphics chip's lanes; a processor wants uniform rows.
            let row_groups = if caps.is_cpu { 1 } else { 4 };
            let groups = blocks_by_tiles(rows.div_ceil(16 * row_groups), tiles);
            plain("matmul", 16, vec![("ROW_GROUPS", row_groups as f64)], groups)
        }
        MatmulKernel::Tiled | MatmulKernel::TiledLarge => {
            let large = kernel == MatmulKernel::TiledLarge;
            let choice::Tile { rows: own, group_rows, quads, k4: tile_k4 } =
                choice::tile(caps, rows, lanes, large, weight.storage);
            let block = own * group_rows;
            Geometry {
                shader: "matmul_tiled",
                roles: [("rows", if own == 8 { "rows_8" } else { "rows_4" })]
                    .into_iter()
                    .chain(weight.storage.is_packed().then_some(("fill_numbers", "fill_blocks")))
                    .collect(),
                rows: block,
                overrides: vec![
                    ("GROUP_ROWS", group_rows as f64),
                    ("QUADS", quads as f64),
                    ("K4", tile_k4 as f64),
                    ("RAGGED", f64::from(u8::from(!k4.is_multiple_of(tile_k4)))),
                ],
                groups: blocks_by_tiles(rows.div_ceil(block), tiles),
            }
        }
        MatmulKernel::Subgroup => {
            // Full subgroups: on graphics chips 64 invocations, whatever the size; a processor has few lanes, and
            // fewer tiles at once leave less padding.
            let (held, part) = choice::lanes_that_hold(caps);
            let wanted = if caps.is_cpu { held } else { 64 };
            let per_group = (wanted / lanes).max(1);
            Geometry {
                shader: "matmul_subgroup",
                roles: vec![("held", part)],
                rows: 32,
                overrides: vec![("TILES", per_group as f64)],
                groups: blocks_by_tiles(rows.div_ceil(32), tiles.div_ceil(per_group)),
            }
        }
        MatmulKernel::Int8 => {
            plain("matmul_int8", 64, vec![], blocks_by_tiles(rows.div_ceil(64), tiles))
        }
        MatmulKernel::Cooperative => {
            let Some(matrices) = choice::matrices(caps) else {
                return geometry(MatmulKernel::Direct, caps, rows, (weight, tiles));
            };
            let (part, constants) = matrices.part_and_constants();
            // Rows of a workgroup, and columns.
            let block = 8 * matrices.side;
            Geometry {
                shader: "matmul_cooperative",
                roles: vec![("coop", part)],
                rows: block,
                overrides: constants.to_vec(),
                groups: blocks_by_tiles(rows.div_ceil(block), (tiles * 4 * lanes).div_ceil(block)),
            }
        }
    }
}

/// Dispatches are cut at multiples of this many rows, those of the tallest kernel's block.
const ROWS: usize = 128;

/// A new matrix `[M, N]` from `x` `[M, K]`.
#[track_caller]
pub fn linear<'r>(
    name: &str,
    input: impl Into<Input<'r>>,
    layer: &LinearLayer,
    activation: Activation,
) -> Tensor<'r> {
    let input = input.into();
    let x = input.x;
    let y = x.recorder().temp(name, x.rows(), layer.weight.n.next_multiple_of(4));
    linear_into(name, input, layer, y, Epilogue { activation, ..Default::default() });
    y
}

/// [`linear`] for another layer, which alone reads the result: in f16 if its product rounds to that.
#[track_caller]
pub fn linear_for<'r>(
    name: &str,
    input: impl Into<Input<'r>>,
    layer: &LinearLayer,
    activation: Activation,
    reader: &LinearLayer,
) -> Tensor<'r> {
    let input = input.into();
    let (recorder, rows) = (input.x.recorder(), input.x.rows());
    let in_f16 = layer.writes_f16(recorder, rows) && reader.reads_f16(recorder, rows);
    let y = recorder.temp_as(name, [rows, layer.weight.n.next_multiple_of(4)], in_f16);
    linear_into(name, input, layer, y, Epilogue { activation, ..Default::default() });
    y
}

/// Writes `[M, N]` into `y`, which may be a part of a wider matrix.
#[track_caller]
pub fn linear_into<'r>(
    name: &str,
    input: impl Into<Input<'r>>,
    layer: &LinearLayer,
    y: Tensor<'r>,
    epilogue: Epilogue<'r>,
) {
    let (input, output) = (input.into(), Output { y, rest: None });
    let x = input.x;
    let Some(low_rank) = &layer.low_rank else {
        return record(name, x, layer, output, epilogue, Sums::New);
    };
    let narrow = narrow(name, input, low_rank);
    if low_rank.joins(&layer.weight) {
        return record(name, x, layer, output, epilogue, Sums::Joined(narrow, low_rank));
    }
    let wide = |epilogue| {
        record(&format!("{name}.up"), narrow, &up_layer(low_rank), output, epilogue, Sums::New);
    };
    match epilogue {
        // It is what the output holds when the product comes.
        Epilogue { write: Write::Store, .. } => {
            wide(Epilogue::default());
            record(name, x, layer, output, epilogue, Sums::Begun);
        }
        // A sum of two residuals.
        Epilogue { write: Write::Add, activation: Activation::Identity, .. } => {
            wide(epilogue);
            record(name, x, layer, output, epilogue, Sums::New);
        }
        Epilogue { write, .. } => {
            let own = x.recorder().temp(name, y.rows(), y.cols());
            linear_into(name, input, layer, own, Epilogue { write: Write::Store, ..epilogue });
            combine(name, &[own], Weights::Constant([1.0, 0.0, 0.0]), None, write, y);
        }
    }
}

/// `(x Dᵀ) * s`, `[M, R]`.
#[track_caller]
fn narrow<'r>(name: &str, input: Input<'r>, low_rank: &LowRank) -> Tensor<'r> {
    if let Some(narrow) = input.narrow_of(low_rank) {
        return narrow;
    }
    let x = input.x;
    let name = format!("{name}.down");
    let y = x.recorder().temp(&name, x.rows(), low_rank.down.n);
    let epilogue = low_rank.down_epilogue(x);
    record(&name, x, &low_rank.down_layer(), Output { y, rest: None }, epilogue, Sums::New);
    y
}

fn up_layer(low_rank: &LowRank) -> LinearLayer {
    LinearLayer { weight: low_rank.up.clone(), bias: None, low_rank: None }
}

/// Where a product goes.
#[derive(Clone, Copy)]
struct Output<'r> {
    y: Tensor<'r>,
    /// The columns past those of `y`, of which the activation is.
    rest: Option<Tensor<'r>>,
}

/// What a product's sums hold besides it.
#[derive(Clone, Copy)]
enum Sums<'r, 'l> {
    /// Nothing.
    New,
    /// What the output holds.
    Begun,
    /// The product of this narrow matrix and the change's up.
    Joined(Tensor<'r>, &'l LowRank),
}

/// Writes the first columns of `[M, N]` into `first`, as many as that has, and what `activation` makes of the others into
/// `rest`: queries, keys and values, and an MLP's first layer, in one product.
#[track_caller]
pub fn linear_split<'r>(
    name: &str,
    input: impl Into<Input<'r>>,
    layer: &LinearLayer,
    [first, rest]: [Tensor<'r>; 2],
    activation: Activation,
) {
    let input = input.into();
    let output = Output { y: first, rest: Some(rest) };
    let narrow = layer.low_rank.as_deref().map(|change| (change, narrow(name, input, change)));
    let sums = match narrow {
        None => Sums::New,
        Some((change, narrow)) if change.joins(&layer.weight) => Sums::Joined(narrow, change),
        Some((change, narrow)) => {
            let (name, up) = (format!("{name}.up"), up_layer(change));
            record(&name, narrow, &up, output, Epilogue::default(), Sums::New);
            Sums::Begun
        }
    };
    let epilogue = Epilogue { activation, ..Default::default() };
    record(name, input.x, layer, output, epilogue, sums);
}

#[track_caller]
fn record<'r>(
    name: &str,
    x: Tensor<'r>,
    layer: &LinearLayer,
    Output { y, rest }: Output<'r>,
    epilogue: Epilogue<'r>,
    sums: Sums<'r, '_>,
) {
    let weight = &layer.weight;
    let n = weight.n.next_multiple_of(4);
    assert_eq!(
        x.cols(),
        weight.k,
        "{}: x has {} columns, K = {}",
        weight.label,
        x.cols(),
        weight.k
    );
    let outputs: Vec<Tensor<'r>> = [y].into_iter().chain(rest).collect();
    let columns: usize = outputs.iter().map(|y| y.cols()).sum();
    assert_eq!(columns, n, "{}: y has {columns} columns, N = {n}", weight.label);
    for y in &outputs {
        assert_eq!(x.rows(), y.rows(), "{}: x has {} rows, y {}", weight.label, x.rows(), y.rows());
    }
    let recorder = x.recorder();
    let (n_outputs, storage) = (weight.n, weight.storage);
    recorder.note(Work::Linear { rows: x.rows(), n: n_outputs, k: weight.k, storage });
    let caps = recorder.matmul_caps();
    // By all rows: where the work is cut must not change a result, and kernels differ in their roundings.
    let kernel = choice::matmul(&caps, x.rows(), storage);
    for tensor in [x].into_iter().chain(outputs.iter().copied()) {
        assert!(
            !tensor.is_f16() || choice::has_f16(kernel),
            "{}: x or y is in f16, which the kernel {kernel} cannot read or write",
            weight.label
        );
    }
    let x = match (kernel, storage.code_order()) {
        (MatmulKernel::Int8, Some(order)) => quantise_rows(&format!("{name}.int8"), x, order),
        _ => x,
    };
    let joined = match sums {
        Sums::Joined(narrow, change) => Some((narrow, change)),
        Sums::New | Sums::Begun => None,
    };
    let [[end0, rank_end0], [end1, rank_end1], [end2, rank_end2]] =
        joined.map_or_else(Default::default, |(_, change)| change.ends4());
    let rank = joined.map_or(0, |(_, change)| change.up.k);
    if let Some((narrow, LowRank { up, .. })) = joined {
        recorder.note(Work::Linear { rows: narrow.rows(), n: up.n, k: up.k, storage: up.storage });
    }
    let operands: Vec<Tensor<'r>> =
        [x].into_iter().chain(outputs).chain(joined.map(|(narrow, _)| narrow)).collect();
    let gate = epilogue.gate.map(|gate| gate.expect_single("gate"));
    let [bias, scale] = [("bias", &layer.bias), ("scale", &weight.scale)]
        .map(|(name, vector)| Some(recorder.resident(vector.as_ref()?).expect_single(name).0));

    for (index, shard) in weight.shards.iter().enumerate() {
        let shard_n = shard.rows.min(n.saturating_sub(shard.row0));
        if shard_n == 0 {
            continue;
        }
        let flops_per_row = |k: usize| 2.0 * k as f64 * shard_n as f64;
        // A change makes no more pieces: it is a small share.
        let budget = (caps.max_dispatch_flops / flops_per_row(weight.k)) as usize;
        let max_rows = even_share(x.rows(), budget, ROWS);
        for piece in row_pieces_of_any(&operands, max_rows) {
            let [(x_buffer, x_at), (y_buffer, y_at)] = [piece.at[0], piece.at[1]];
            let rest_at = rest.and(piece.at.get(2));
            let narrow_at = joined.and(piece.at.last());
            let tiles = shard_n.div_ceil(weight.tile);
            let lanes = weight.tile / 4;
            let Geometry { shader, roles: other_roles, rows, overrides: own, groups } =
                geometry(kernel, &caps, piece.rows, (weight, tiles));
            let f16_flag = (kernel == MatmulKernel::Cooperative).then(|| recorder.f16_flag());
            let params = Params {
                m: piece.rows as u32,
                n4: quads(shard_n),
                k4: quads(weight.k),
                x_offset: quads(x_at),
                x_stride: quads(x.row_stride()),
                y_offset: quads(y_at),
                y_stride: quads(y.row_stride()),
                column4: quads(shard.row0),
                gate_offset: gate.map_or(0, |(_, at)| quads(at)),
                row_blocks: piece.rows.div_ceil(rows) as u32,
                f16_flag: f16_flag.map_or(0, |(_, flag)| flag as u32),
                split4: quads(y.cols()),
                rest_offset: rest_at.map_or(0, |(_, at)| quads(*at)),
                rest_stride: rest.map_or(0, |rest| quads(rest.row_stride())),
                rank4: quads(rank),
                narrow_offset: narrow_at.map_or(0, |(_, at)| quads(*at)),
                narrow_stride: joined.map_or(0, |(narrow, _)| quads(narrow.row_stride())),
                end0,
                end1,
                end2,
                rank_end0,
                rank_end1,
                rank_end2,
            };
            let mut overrides = vec![
                ("LANES", lanes as f64),
                ("ACTIVATION", f64::from(epilogue.activation as u32)),
                ("HAS_BIAS", f64::from(u8::from(bias.is_some()))),
            ];
            let mut roles = vec![("weight", weight.storage.accessor())];
            roles.extend(other_roles);
            let in_f16 = [
                (Some(x), ("linear_x", "linear_x_f16")),
                (Some(y), ("linear_y", "linear_y_f16")),
                (rest, ("linear_rest", "linear_rest_f16")),
            ];
            let is_f16 = |tensor: &Option<Tensor<'_>>| tensor.is_some_and(Tensor::is_f16);
            roles.extend(in_f16.iter().filter(|(tensor, _)| is_f16(tensor)).map(|(_, role)| *role));
            match rest {
                Some(_) => roles.push(("linear_output", "linear_output_split")),
                None => overrides.extend([
                    ("HAS_GATE", f64::from(u8::from(gate.is_some()))),
                    ("MODE", f64::from(epilogue.write as u32)),
                ]),
            }
            if scale.is_some() {
                overrides.push(("HAS_SCALE", 1.0));
            }
            match sums {
                Sums::New => {}
                Sums::Begun => overrides.push(("HAS_BEGUN", 1.0)),
                Sums::Joined(..) => roles.push(("linear_scale", "linear_low_rank")),
            }
            overrides.extend(own);
            if f16_flag.is_some() {
                overrides.extend(recorder.f16_scale());
            }
            // x stands in for what is absent: a binding must not be empty.
            let mut bindings = vec![
                read(x_buffer),
                read(recorder.shard(weight, index)),
                read(bias.unwrap_or(x_buffer)),
                match rest_at {
                    Some((buffer, _)) => read_write(*buffer),
                    None => read(gate.map_or(x_buffer, |(buffer, _)| buffer)),
                },
                read_write(y_buffer),
                read(narrow_at.map_or(scale.unwrap_or(x_buffer), |(buffer, _)| *buffer)),
            ];
            bindings.extend(joined.map(|(_, change)| read(recorder.shard(&change.up, 0))));
            bindings.extend(f16_flag.map(|(buffer, _)| read_write(buffer)));
            recorder.dispatch(Dispatch {
                pipeline: PipelineKey { shader, entry: "main", roles, overrides },
                params: bytemuck::bytes_of(&params).to_vec(),
                bindings,
                groups,
                flops: flops_per_row(weight.k + rank) * piece.rows as f64,
                label: name.to_owned(),
            });
        }
    }
}

/// `x` `[M, K]`, `weight` `[N, K]`, `bias` and `gate` `[N]`, `y` what the output held. Gives `[M, N]`.
#[allow(clippy::too_many_arguments, reason = "the definition of an op lists its operands")]
pub fn reference(
    x: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    gate: Option<&[f32]>,
    y: &[f32],
    k: usize,
    activation: Activation,
    write: Write,
) -> Vec<f64> {
    let n = weight.len() / k;
    let mut out = Vec::with_capacity(y.len());
    for (row, x) in x.chunks_exact(k).enumerate() {
        for (column, w) in weight.chunks_exact(k).enumerate() {
            let sum: f64 = x.iter().zip(w).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            let v = super::reference::activate(
                sum + bias.map_or(0.0, |b| f64::from(b[column])),
                activation,
            ) * gate.map_or(1.0, |g| f64::from(g[column]));
            let old = f64::from(y[row * n + column]);
            out.push(match write {
                Write::Store => v,
                Write::Add => old + v,
                Write::Multiply => old * v,
            });
        }
    }
    out
}
