//! The ops that are measured: which of a model's, and how they are recorded.

use ralu::gpu::{Gpu, Store, block_on};
use ralu::models::config::ModelConfig;
use ralu::models::cost;
use ralu::ops::{
    Activation, Affine, Attention, Conv2d, Conv2dOptions, LinearLayer, NormKind, Weights, Write,
    activate, attention, combine, conv2d, euler_step, group_norm, linear, norm, qk_norm_rope,
};
use ralu::pipeline::RunSchedule;
use ralu::tensor::{PackedWeight, Recorder, Resident, ResidentIds, Storage, Work};

use super::super::error::Result;

/// How many shapes of each op are measured.
fn n_shapes(name: &str) -> usize {
    match name {
        "linear" => 6,
        "conv2d" => 4,
        "group_norm" => 2,
        _ => 1,
    }
}

/// What the last stage records that takes the most time by estimate, op by op: of a step of the transformer and of the
/// decoder. Weights are kept as `storage`.
pub fn cases(
    config: &ModelConfig,
    schedule: &RunSchedule,
    n_text: usize,
    storage: Storage,
) -> Vec<Work> {
    let mut works = config.transformer.step_works(schedule.rows * schedule.cols, n_text);
    // What a step does after the network, and what a temporal cache adds to it.
    let rows = schedule.rows * schedule.cols;
    works.push(Work::Combine { rows, width: config.transformer.hidden(), inputs: 2 });
    works.push(Work::Euler { rows, width: config.transformer.token_channels() });
    works.extend(cost::decode_works(&config.vae, 2 * schedule.rows, 2 * schedule.cols));
    for work in &mut works {
        match work {
            Work::Linear { storage: stored, k, .. } if storage.holds_rows_of(*k) => {
                *stored = storage;
            }
            // Convolutions are in no blocks.
            Work::Conv2d { storage: stored, .. } if !storage.is_packed() => *stored = storage,
            _ => {}
        }
    }
    let mut names: Vec<&str> = Vec::new();
    for work in &works {
        if !names.contains(&work.name()) {
            names.push(work.name());
        }
    }
    let of_op = |name: &str| {
        let of_op: Vec<Work> = works.iter().filter(|work| work.name() == name).copied().collect();
        cost::rank(&of_op)
            .into_iter()
            .map(|(work, _)| work)
            .take(n_shapes(name))
            .collect::<Vec<_>>()
    };
    names.into_iter().flat_map(of_op).collect()
}

/// Residents of one measurement.
pub struct Operands<'g> {
    gpu: &'g Gpu,
    ids: ResidentIds,
    pub store: Store,
}

impl<'g> Operands<'g> {
    /// None yet.
    pub fn new(gpu: &'g Gpu) -> Self {
        Operands { gpu, ids: ResidentIds::default(), store: Store::default() }
    }

    fn vector(&self, n: usize) -> Result<Resident> {
        let n = n.next_multiple_of(4);
        let vector = self.ids.matrix("vector", 1, n, u64::MAX);
        block_on(self.gpu, async {
            self.store.create(self.gpu, &vector).await?;
            self.store.write(self.gpu, &vector, &vec![0.5; n]).await
        })?;
        Ok(vector)
    }

    /// Zeros: the kernels do not look.
    fn weight(&self, n: usize, k: usize, storage: Storage) -> Result<PackedWeight> {
        let limit = self.gpu.caps().max_binding_bytes;
        let weight = PackedWeight::new(&self.ids, "weight", n, k, storage, limit);
        block_on(self.gpu, self.store.create_packed(self.gpu, &weight))?;
        Ok(weight)
    }
}

/// Records an op `repeats` times.
pub fn record(
    operands: &Operands<'_>,
    recorder: &Recorder,
    op: &Work,
    repeats: usize,
) -> Result<()> {
    match *op {
        Work::Linear { rows, n, k, storage } => {
            let weight = operands.weight(n, k, storage)?;
            let layer = LinearLayer { weight, bias: Some(operands.vector(n)?), low_rank: None };
            let x = recorder.temp("x", rows, k);
            for _ in 0..repeats {
                linear("linear", x, &layer, Activation::default());
            }
        }
        Work::Attention { queries, keys, heads, kv_heads, head_dim } => {
            let [q, y] = ["q", "y"].map(|name| recorder.temp(name, queries, heads * head_dim));
            let [k, v] = ["k", "v"].map(|name| recorder.temp(name, keys, kv_heads * head_dim));
            let scale = 1.0 / (head_dim as f32).sqrt();
            for _ in 0..repeats {
                let options = Attention { head_dim, scale, causal: false, bias: None };
                attention("attention", [q, k, v], y, options);
            }
        }
        Work::Norm { rows, width } => {
            let (scale, shift) = (operands.vector(width)?, operands.vector(width)?);
            let x = recorder.temp("x", rows, width);
            let (scale, shift) = (recorder.resident(&scale), recorder.resident(&shift));
            for _ in 0..repeats {
                let affine = Affine::Modulate { scale, shift };
                norm("norm", x, NormKind::Layer { eps: 1e-6 }, affine);
            }
        }
        Work::QkNormRope { rows, heads, head_dim } => {
            let weight = operands.vector(head_dim)?;
            let x = recorder.temp("x", rows, heads * head_dim);
            let table = recorder.temp("table", rows, head_dim);
            for _ in 0..repeats {
                qk_norm_rope("qk_norm_rope", x, recorder.resident(&weight), table, 1e-6);
            }
        }
        Work::Activation { rows, width } => {
            let x = recorder.temp("x", rows, width);
            for _ in 0..repeats {
                activate("activation", x, Activation::GeluTanh);
            }
        }
        Work::Combine { rows, width, inputs } => {
            let y = recorder.temp("y", rows, width);
            let x: Vec<_> = (0..inputs).map(|_| recorder.temp("x", rows, width)).collect();
            for _ in 0..repeats {
                let weights = Weights::Constant([0.5, 0.25, 0.25]);
                combine("combine", &x, weights, None, Write::Store, y);
            }
        }
        Work::Euler { rows, width } => {
            let step = operands.vector(4)?;
            let [v, velocity, x] =
                ["v", "velocity", "x"].map(|name| recorder.temp(name, rows, width));
            for _ in 0..repeats {
                euler_step("euler", v, None, recorder.resident(&step), velocity, x);
            }
        }
        Work::Conv2d { height, width, input, output, upsample, storage } => {
            let layer = Conv2d {
                weight: operands.weight(output, 9 * input, storage)?,
                bias: operands.vector(output)?,
            };
            let scale = if upsample { 2 } else { 1 };
            let x = recorder.image("x", height / scale, width / scale, input);
            let y = recorder.image("y", height, width, output.next_multiple_of(4));
            // The end of a group norm, as most of the decoder's convolutions have it.
            let affine = recorder.temp("affine", 2, input);
            for _ in 0..repeats {
                let prologue = (!upsample).then_some(affine);
                let options = Conv2dOptions { upsample, prologue, ..Default::default() };
                conv2d("conv2d", x, width / scale, &layer, y, options);
            }
        }
        Work::GroupNorm { pixels, channels, groups } => {
            let (weight, bias) = (operands.vector(channels)?, operands.vector(channels)?);
            let x = recorder.image("x", pixels, 1, channels);
            let y = recorder.image("y", pixels, 1, channels);
            for _ in 0..repeats {
                let (weight, bias) = (recorder.resident(&weight), recorder.resident(&bias));
                group_norm("group_norm", x, groups, 1e-6, weight, bias, true, y);
            }
        }
    }
    Ok(())
}
