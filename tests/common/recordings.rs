//! Every op recorded with every switch it has: what the tests of shaders and plans feed on. No GPU.

use ralu::ops::{
    self, Activation, Affine, Attention, Conv2d, Conv2dOptions, Epilogue, LinearLayer, LowRank,
    NormKind, Weights, Write,
};
use ralu::tensor::{
    AttentionKernel, Caps, CodeOrder, Conv2dKernel, MatmulKernel, PackedWeight, Recorder,
    Recording, ResidentIds, Storage, Tuning,
};

pub const ACTIVATIONS: [Activation; 5] = [
    Activation::Identity,
    Activation::Silu,
    Activation::GeluTanh,
    Activation::QuickGelu,
    Activation::GeluErf,
];
pub const WRITES: [Write; 3] = [Write::Store, Write::Add, Write::Multiply];

/// Records what one op needs; `body` gets a recorder and ids for residents.
fn record(
    op: &'static str,
    caps: Caps,
    body: impl FnOnce(&Recorder, &ResidentIds),
) -> (&'static str, Recording) {
    let recorder = Recorder::new(caps);
    body(&recorder, &ResidentIds::default());
    (op, recorder.finish(op))
}

/// One recording for every combination of switches that leads to another pipeline, with the name of the
/// op's file in `src/ops`.
pub fn every_op() -> Vec<(&'static str, Recording)> {
    let mut all = Vec::new();
    for is_cpu in [false, true] {
        for caps in matmul_caps(Caps { is_cpu, ..Caps::default() }) {
            all.extend(linears(caps));
        }
        let plain = Tuning {
            attention: Some(AttentionKernel::Rows),
            conv2d: Some(Conv2dKernel::Direct),
            ..Tuning::default()
        };
        for tuning in [Tuning::default(), plain] {
            let caps = Caps { is_cpu, tuning, ..Caps::default() };
            all.extend(convolutions(caps));
            all.extend(attentions(caps));
        }
        for sizes in [(4, 64), (8, 32)] {
            let conv2d = Some(Conv2dKernel::Subgroup);
            let tuning = Tuning { conv2d, ..Tuning::default() };
            let subgroup_sizes = Some(sizes);
            all.extend(convolutions(Caps { is_cpu, tuning, subgroup_sizes, ..Caps::default() }));
        }
        for caps in matrix_caps(Caps { is_cpu, ..Caps::default() }) {
            let attention = Some(AttentionKernel::Matrices);
            all.extend(attentions(Caps { tuning: Tuning { attention, ..caps.tuning }, ..caps }));
            let conv2d = Some(Conv2dKernel::Matrices);
            all.extend(convolutions(Caps { tuning: Tuning { conv2d, ..caps.tuning }, ..caps }));
        }
        let caps = Caps { is_cpu, ..Caps::default() };
        all.extend(norms(caps));
        all.extend(elementwise(caps));
        all.extend(combinations(caps));
    }
    all
}

/// A layer with a bias.
pub fn linear_layer(
    ids: &ResidentIds,
    n: usize,
    k: usize,
    storage: Storage,
    limit: u64,
) -> LinearLayer {
    LinearLayer {
        weight: PackedWeight::new(ids, "weight", n, k, storage, limit),
        bias: Some(ids.matrix("bias", 1, n, limit)),
        low_rank: None,
    }
}

/// What leads to each kernel of a matrix product, and to each of its shapes.
fn matmul_caps(caps: Caps) -> Vec<Caps> {
    let with =
        |kernel| Caps { tuning: Tuning { matmul: [Some(kernel); 3], ..caps.tuning }, ..caps };
    let mut all = vec![caps];
    all.extend(
        [MatmulKernel::Direct, MatmulKernel::Panel, MatmulKernel::Tiled, MatmulKernel::TiledLarge]
            .map(with),
    );
    for sizes in [(4, 64), (8, 32)] {
        all.push(Caps { subgroup_sizes: Some(sizes), ..with(MatmulKernel::Subgroup) });
    }
    all.push(Caps { int8: true, ..with(MatmulKernel::Int8) });
    all.extend(matrix_caps(with(MatmulKernel::Cooperative)));
    all
}

/// What leads to each shape of kernels on matrices.
fn matrix_caps(caps: Caps) -> impl Iterator<Item = Caps> {
    let adapters = [((8, 8), 8), ((32, 32), 8), ((32, 32), 16), ((64, 64), 16), ((32, 64), 16)];
    adapters.into_iter().map(move |(sizes, side)| Caps {
        subgroup_sizes: Some(sizes),
        cooperative_matrix: Some(side),
        max_workgroup_bytes: 32 << 10,
        f16: true,
        ..caps
    })
}

/// Epilogues in full for one storage and tile, storages and tiles in full for one epilogue: they do not
/// meet in a kernel.
fn linears(caps: Caps) -> Vec<(&'static str, Recording)> {
    let mut cases = Vec::new();
    for rows in [1, 17, 33, 1025] {
        for storage in Storage::PLAIN {
            for n in [4, 8, 16, 32, 64] {
                cases.push((rows, n, 16, storage, Activation::Silu, Write::Add, true, true));
            }
        }
        // They have tiles of one width, and no kernels of their own.
        for storage in Storage::PACKED.into_iter().filter(|_| rows == 1 || rows == 1025) {
            let k = storage.block().numbers.max(256);
            cases.push((rows, 64, k, storage, Activation::Silu, Write::Add, true, true));
        }
        // Wide workgroups, where a kernel has them, and the end of K inside of a tile.
        for (n, k) in [(64 * 128, 16), (64, 20), (8, 20)] {
            cases.push((rows, n, k, Storage::F16, Activation::Silu, Write::Add, true, true));
        }
    }
    for rows in [1, 33] {
        for activation in ACTIVATIONS {
            for write in WRITES {
                for (bias, gate) in [(false, false), (true, false), (false, true), (true, true)] {
                    cases.push((rows, 64, 16, Storage::F16, activation, write, bias, gate));
                }
            }
        }
    }
    let linear =
        |(rows, n, k, storage, activation, write, bias, gate): (_, _, _, _, _, _, bool, bool)| {
            record("linear", caps, |r, ids| {
                let limit = caps.max_binding_bytes;
                let layer = LinearLayer {
                    weight: PackedWeight::new(ids, "weight", n, k, storage, limit),
                    bias: bias.then(|| ids.matrix("bias", 1, n, limit)),
                    low_rank: None,
                };
                let (x, y) = (r.temp("x", rows, k), r.temp("y", rows, n));
                let gate = gate.then(|| r.temp("gate", 1, n));
                ops::linear_into("y", x, &layer, y, Epilogue { activation, gate, write });
            })
        };
    let split = |(rows, activation)| {
        record("linear", caps, |r, ids| {
            let layer = linear_layer(ids, 72, 16, Storage::F16, caps.max_binding_bytes);
            let ys = [r.temp("first", rows, 40), r.temp("rest", rows, 32)];
            ops::linear_split("y", r.temp("x", rows, 16), &layer, ys, activation);
        })
    };
    let low_rank = |rows| {
        record("linear", caps, |r, ids| {
            let limit = caps.max_binding_bytes;
            let narrow = |label, n, k| PackedWeight::new(ids, label, n, k, Storage::F32, limit);
            let low_rank = LowRank {
                down: narrow("down", 16, 16),
                up: narrow("up", 72, 16),
                scales: ids.matrix("scales", 1, 16, limit),
                parts: vec![],
            };
            let mut layer = linear_layer(ids, 72, 16, Storage::F16, limit);
            layer.low_rank = Some(Box::new(low_rank));
            let x = r.temp("x", rows, 16);
            ops::linear("y", x, &layer, Activation::Silu);
            let ys = [r.temp("first", rows, 40), r.temp("rest", rows, 32)];
            ops::linear_split("y", x, &layer, ys, Activation::Silu);
            // Where products are scaled it goes another way.
            layer.weight.scale = Some(ids.matrix("scale", 1, 72, limit));
            ops::linear("y", x, &layer, Activation::Silu);
        })
    };
    // What products in f16 read and write so, if the caps lead to those.
    let in_f16 = |write| {
        record("linear", caps, |r, ids| {
            let layer = |n, k| linear_layer(ids, n, k, Storage::F16, caps.max_binding_bytes);
            let (wide, first, last) = (layer(72, 16), layer(40, 16), layer(16, 40));
            if !last.reads_f16(r, 33) {
                return;
            }
            let x = r.temp_as("x", [33, 16], true);
            let h = r.temp_as("h", [33, 40], true);
            let epilogue =
                Epilogue { activation: Activation::GeluTanh, write, ..Default::default() };
            ops::linear_into("h", x, &first, h, epilogue);
            ops::linear("y", h, &last, Activation::Identity);
            let ys = [r.temp("first", 33, 40), r.temp_as("rest", [33, 32], true)];
            ops::linear_split("y", r.temp("x", 33, 16), &wide, ys, Activation::GeluTanh);
        })
    };
    let low_ranks = [1, 33].into_iter().map(low_rank);
    let splits =
        [1, 33].into_iter().flat_map(|rows| ACTIVATIONS.map(|activation| (rows, activation)));
    cases
        .into_iter()
        .map(linear)
        .chain(splits.map(split))
        .chain(low_ranks)
        .chain(WRITES.map(in_f16))
        .collect()
}

fn convolutions(caps: Caps) -> Vec<(&'static str, Recording)> {
    let mut all = Vec::new();
    for storage in Storage::PLAIN {
        for n in [4, 8, 16, 32, 64] {
            for i in 0..8 {
                let [upsample, add, mut prologue] = [1, 2, 4].map(|bit| i & bit > 0);
                // Elsewhere it is a dispatch of group_norm.
                prologue &= ops::choice::conv2d(&caps, n / 4) != Conv2dKernel::Direct;
                all.push(record("conv2d", caps, |r, ids| {
                    let limit = caps.max_binding_bytes;
                    let layer = Conv2d {
                        weight: PackedWeight::new(ids, "weight", n, 9 * 8, storage, limit),
                        bias: ids.matrix("bias", 1, n, limit),
                    };
                    let up = if upsample { 2 } else { 1 };
                    let x = r.image("x", 6, 5, 8);
                    let y = r.image("y", 6 * up, 5 * up, n);
                    let prologue = prologue.then(|| r.temp("affine", 2, 8));
                    ops::conv2d("y", x, 5, &layer, y, Conv2dOptions { upsample, add, prologue });
                }));
            }
            all.push(record("fold_taps", caps, |r, ids| {
                let weight = PackedWeight::new(ids, "weight", n, 9 * 8, storage, u64::MAX);
                ops::fold_taps(r, "folded", &weight, 0, 1);
            }));
        }
    }
    all
}

/// Keys in one buffer, and in several.
fn attentions(caps: Caps) -> Vec<(&'static str, Recording)> {
    let (m, n, heads) = (9, 11, 2);
    let mut all = Vec::new();
    for head_dim in [4, 16, 20, 32, 40, 64, 72, 128, 160, 256, 512] {
        let few_rows = Caps { max_binding_bytes: (16 * heads * head_dim as u64).max(256), ..caps };
        for caps in [caps, few_rows] {
            for (causal, bias) in [(false, false), (true, false), (false, true), (true, true)] {
                all.push(record("attention", caps, |r, ids| {
                    let [q, k, v, y] =
                        [m, n, n, m].map(|rows| r.temp("qkvy", rows, heads as usize * head_dim));
                    let length = (heads as usize * (2 * n - 1)).next_multiple_of(4);
                    let bias = bias.then(|| r.resident(&ids.matrix("bias", 1, length, u64::MAX)));
                    let options = Attention { head_dim, scale: 1.0, causal, bias };
                    ops::attention("y", [q, k, v], y, options);
                    let is_one = caps.max_binding_bytes == Caps::default().max_binding_bytes;
                    if is_one && ops::attention_writes_f16(r, head_dim) {
                        let y = r.temp_as("y", [m, heads as usize * head_dim], true);
                        ops::attention("y", [q, k, v], y, options);
                    }
                }));
            }
        }
    }
    all
}

fn norms(caps: Caps) -> Vec<(&'static str, Recording)> {
    let mut all = Vec::new();
    for kind in [NormKind::Layer { eps: 1e-6 }, NormKind::Rms { eps: 1e-6 }] {
        for affine in 0..4 {
            all.push(record("norm", caps, |r, ids| {
                let (x, scale, shift) =
                    (r.temp("x", 9, 64), r.temp("a", 1, 64), r.temp("b", 1, 64));
                let affine = match affine {
                    0 => Affine::None,
                    1 => Affine::Modulate { scale, shift },
                    2 => Affine::WeightBias(scale, shift),
                    _ => Affine::Weight(scale),
                };
                ops::norm("y", x, kind, affine);
                ops::norm_into("y", x, kind, affine, r.temp_as("y", [9, 64], true));
                let low_rank = LowRank {
                    down: PackedWeight::new(ids, "down", 20, 64, Storage::F32, u64::MAX),
                    up: PackedWeight::new(ids, "up", 64, 20, Storage::F32, u64::MAX),
                    scales: ids.matrix("scales", 1, 20, u64::MAX),
                    parts: vec![],
                };
                let mut layer = linear_layer(ids, 64, 64, Storage::F16, u64::MAX);
                layer.low_rank = Some(Box::new(low_rank));
                ops::norm_for("y", x, kind, affine, &[&layer]);
            }));
        }
    }
    for silu in [false, true] {
        all.push(record("group_norm", caps, |r, _| {
            let (x, y) = (r.image("x", 9, 10, 32), r.image("y", 9, 10, 32));
            let (weight, bias) = (r.temp("weight", 1, 32), r.temp("bias", 1, 32));
            ops::group_norm("y", x, 8, 1e-6, weight, bias, silu, y);
        }));
    }
    all.push(record("qk_norm_rope", caps, |r, _| {
        let (x, weight, table) = (r.temp("x", 9, 64), r.temp("w", 1, 16), r.temp("t", 9, 16));
        ops::qk_norm_rope("y", x, weight, table, 1e-6);
    }));
    all.push(record("qk_norm_rope", caps, |r, _| {
        ops::qk_norm("y", r.temp("x", 9, 64), r.temp("w", 1, 16), 1e-6);
    }));
    for order in [CodeOrder::Plain, CodeOrder::Interleaved] {
        all.push(record("quantise_rows", caps, |r, _| {
            ops::quantise_rows("y", r.temp("x", 9, 64), order);
        }));
    }
    all
}

fn elementwise(caps: Caps) -> Vec<(&'static str, Recording)> {
    let mut all = Vec::new();
    for activation in ACTIVATIONS {
        all.push(record("activation", caps, |r, _| {
            ops::activate("y", r.temp("x", 9, 64), activation);
        }));
    }
    for guided in [false, true] {
        all.push(record("euler", caps, |r, _| {
            let [c, u, velocity, x] = ["c", "u", "v", "x"].map(|name| r.temp(name, 9, 64));
            let step = r.temp("step", 1, 4);
            ops::euler_step("euler", c, guided.then_some(u), step, velocity, x);
        }));
    }
    all.push(record("renoise", caps, |r, _| {
        let (x, source) = (r.temp("x", 4, 64), r.temp("source", 1, 12));
        let (noise, y) = (r.temp("noise", 9, 64), r.temp("y", 9, 64));
        ops::renoise("y", x, source, noise, 0.5, 0.5, y);
    }));
    all.push(record("unpack", caps, |r, _| {
        let (x, velocity) = (r.temp("x", 6, 64), r.temp("velocity", 6, 64));
        let (step, y) = (r.temp("step", 1, 4), r.image("y", 4, 6, 16));
        ops::unpack("y", x, velocity, step, 3, 0.3, 0.1, y);
    }));
    all
}

fn combinations(caps: Caps) -> Vec<(&'static str, Recording)> {
    let mut all = Vec::new();
    for count in 1..=3 {
        for (buffered, gate) in [(false, false), (true, false), (false, true), (true, true)] {
            for write in [Write::Store, Write::Add] {
                all.push(record("combine", caps, |r, _| {
                    let inputs: Vec<_> = (0..count).map(|_| r.temp("x", 9, 64)).collect();
                    let values = r.temp("weights", 1, 8);
                    let weights = match buffered {
                        false => Weights::Constant([0.5; 3]),
                        true => Weights::Buffer { values, first: 3 },
                    };
                    let (gate, y) = (gate.then(|| r.temp("gate", 1, 64)), r.temp("y", 9, 64));
                    ops::combine("y", &inputs, weights, gate, write, y);
                }));
            }
        }
    }
    all.push(record("change", caps, |r, _| {
        let [a, b] = ["a", "b"].map(|name| r.temp(name, 9, 64));
        ops::change("change", a, b, r.temp("partials", ops::change_rows(9), 4));
    }));
    all
}
