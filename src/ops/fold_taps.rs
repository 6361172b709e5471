//! The weight of a 3x3 convolution after nearest-neighbour enlargement, as four 2x2 convolutions before it.

use super::{LANES, quads, read, read_write};
use crate::tensor::{Dispatch, PackedWeight, PipelineKey, Recorder, Tensor};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    tap: u32,
    phase: u32,
}

/// Of the four pixels that an input pixel becomes, the one at `phase` (`x + 2 * y`) sees 2 x 2 input pixels, as some of
/// its nine taps meet the same one. Adds those up.
///
/// Gives shard `shard` of `weight` `[N, 9 * C]` as `[tiles * 4 * C, tile]`: packed as a weight `[N, 4 * C]` in f32, with
/// `k = (ty * 2 + tx) * C + c`. It is smaller than the shard, even if that has 16 bits a number.
pub fn fold_taps<'r>(
    recorder: &'r Recorder,
    name: &str,
    weight: &PackedWeight,
    shard: usize,
    phase: usize,
) -> Tensor<'r> {
    let channels = weight.k / 9;
    let tiles = weight.shards[shard].rows / weight.tile;
    let folded = recorder.temp_in_one(&format!("{name}.taps"), tiles * 4 * channels, weight.tile);
    let tap = quads(channels * weight.tile);
    recorder.dispatch(Dispatch {
        pipeline: PipelineKey {
            shader: "fold_taps",
            entry: "main",
            roles: vec![("weight", weight.storage.accessor())],
            overrides: vec![],
        },
        params: bytemuck::bytes_of(&Params { tap, phase: phase as u32 }).to_vec(),
        bindings: vec![
            read_write(folded.expect_single("folded taps").0),
            read(recorder.shard(weight, shard)),
        ],
        groups: [tap.div_ceil(LANES as u32), 4, tiles as u32],
        flops: 9.0 * (channels * weight.shards[shard].rows) as f64,
        label: format!("{name}.taps"),
    });
    folded
}

/// `weight` `[N, 3, 3, C]` (ky, kx, c). Gives `[N, 2, 2, C]` (ty, tx, c) of a phase.
pub fn reference(weight: &[f32], channels: usize, phase: usize) -> Vec<f64> {
    // Output pixel `2 * i + phase` sees, with tap `k`, input pixel `(2 * i + phase + k - 1) / 2`, rounded down. That is
    // `i - 1 + phase`, the first that it sees, plus this.
    let meets = |phase: usize, k: usize| (phase + k).div_ceil(2) - phase;
    let mut folded = vec![0.0; weight.len() / 9 * 4];
    for (i, w) in weight.iter().enumerate() {
        let (row, c) = (i / channels, i % channels);
        let (n, ky, kx) = (row / 9, row / 3 % 3, row % 3);
        let (ty, tx) = (meets(phase / 2, ky), meets(phase % 2, kx));
        folded[((n * 2 + ty) * 2 + tx) * channels + c] += f64::from(*w);
    }
    folded
}
