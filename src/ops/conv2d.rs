//! 3x3 convolution of a picture, optionally after nearest-neighbour enlargement.

use std::collections::HashMap;
use std::ops::Range;

use super::{choice, even_share, fold_taps, group_affine_apply, quads, read, read_write, whole};
use crate::tensor::{
    Band, BufferRef, Caps, Conv2dKernel, Dispatch, MAX_WORKGROUPS, PackedWeight, PipelineKey,
    Resident, Storage, Tensor, Work,
};

/// A 3x3 convolution with padding 1.
#[derive(Clone, Debug)]
pub struct Conv2d {
    /// `[N, 9 * C]` with `k = (ky * 3 + kx) * C + c`.
    pub weight: PackedWeight,
    /// `[1, N]`, padded to a multiple of 4.
    pub bias: Resident,
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    height: u32,
    width: u32,
    c4: u32,
    n4: u32,
    y_row0: u32,
    y_rows: u32,
    y_offset: u32,
    y_stride: u32,
    x_row0: u32,
    x_offset: u32,
    x_stride: u32,
    column4: u32,
    phase: u32,
    f16_flag: u32,
}

/// What a convolution does besides the sum.
#[derive(Clone, Copy, Default)]
pub struct Conv2dOptions<'r> {
    /// `x` is first enlarged twice by repeating pixels, without being stored.
    pub upsample: bool,
    /// The result is added to what `y` holds.
    pub add: bool,
    /// `[2, C]`: `x` is read as `silu(x * factor + offset)`, the end of a group norm, from
    /// [`super::group_affine`].
    pub prologue: Option<Tensor<'r>>,
}

/// How a kernel divides the picture and the channels.
struct Geometry {
    shader: &'static str,
    /// Output pixels that a workgroup covers, across and down.
    pixels: [usize; 2],
    /// Dispatches that share these pixels, each with a weight of its own from [`fold_taps`].
    phases: usize,
    /// Products for each output pixel and channel, 9 taps or those folded to 4.
    taps: usize,
    /// Tiles of the weight in a workgroup.
    tiles: usize,
    /// Groups of four channels of a patch in workgroup memory, at least and at most; an even number.
    patch_quads: (u32, u32),
    /// Whether it can do a prologue, and has a binding for it.
    has_prologue: bool,
    /// Files for roles other than the weight's.
    roles: Vec<(&'static str, &'static str)>,
    /// `override` constants in addition to those of all convolutions.
    overrides: Vec<(&'static str, f64)>,
}

fn geometry(
    kernel: Conv2dKernel,
    caps: &Caps,
    upsample: bool,
    lanes_x: usize,
    tiles: usize,
) -> Geometry {
    match kernel {
        Conv2dKernel::Direct => {
            // On a processor a second row of lanes would make the reads of pixels differ within a vector.
            let lanes_y = match caps.is_cpu {
                true if lanes_x >= 8 => 1,
                true => 16 / lanes_x,
                false => 64 / lanes_x,
            };
            Geometry {
                shader: "conv2d",
                pixels: [8 * lanes_y, 1],
                phases: 1,
                taps: 9,
                tiles: 1,
                patch_quads: (0, 0),
                has_prologue: false,
                roles: vec![],
                overrides: vec![
                    ("LANES_Y", lanes_y as f64),
                    ("UPSAMPLE", if upsample { 1.0 } else { 0.0 }),
                ],
            }
        }
        Conv2dKernel::Matrices => {
            let matrices = choice::matrices(caps).expect("the choice asks for them");
            let (part, constants) = matrices.part_and_constants();
            let up = if upsample { 2 } else { 1 };
            let mut overrides = constants.to_vec();
            overrides.extend([
                ("SCALE", if upsample { 2.0 } else { 1.0 }),
                ("ACROSS", if upsample { 2.0 } else { 3.0 }),
            ]);
            Geometry {
                shader: "conv2d_matrices",
                pixels: [matrices.side * up, 8 * up],
                phases: if upsample { 4 } else { 1 },
                taps: if upsample { 4 } else { 9 },
                tiles: 8 * matrices.side / (4 * lanes_x),
                patch_quads: (4, 4),
                has_prologue: true,
                roles: vec![("coop", part)],
                overrides,
            }
        }
        Conv2dKernel::Panel | Conv2dKernel::Tiled | Conv2dKernel::Subgroup => {
            // All of up to 512 channels share a patch.
            let per_group = tiles.div_ceil(tiles.div_ceil(8));
            // A graphics chip wants 128 invocations in a workgroup, a processor gains nothing from sharing more. Where
            // subgroups may be small, as Intel's, and the weight is of folded taps, which are f32, registers suffice for one
            // block of pixels only.
            let is_small = caps.subgroup_sizes.is_some_and(|(min, _)| min < 32);
            let invocations = if is_small && upsample { 64 } else { 128 };
            let (rows, blocks) = match kernel {
                Conv2dKernel::Tiled => (2, (invocations / (lanes_x * per_group)).clamp(1, 4)),
                _ => (4, 1),
            };
            let (shader, roles) = match kernel {
                Conv2dKernel::Subgroup => {
                    ("conv2d_subgroup", vec![("held", choice::lanes_that_hold(caps).1)])
                }
                Conv2dKernel::Tiled => ("conv2d_tiled", vec![]),
                _ => ("conv2d_panel", vec![]),
            };
            let up = if upsample { 2 } else { 1 };
            let mut overrides = vec![
                ("TILES", per_group as f64),
                ("BLOCKS", blocks as f64),
                ("SCALE", if upsample { 2.0 } else { 1.0 }),
                ("ACROSS", if upsample { 2.0 } else { 3.0 }),
            ];
            if kernel == Conv2dKernel::Tiled && is_small && blocks == 1 {
                overrides.push(("IS_ONE_BLOCK", 1.0));
            }
            Geometry {
                shader,
                pixels: [8 * up, rows * blocks * up],
                phases: if upsample { 4 } else { 1 },
                taps: if upsample { 4 } else { 9 },
                tiles: per_group,
                // A processor's 60 pixels in 16 KiB. On a graphics chip, whose registers allow 12 subgroups of 64 to a
                // SIMD, workgroup memory must not allow fewer.
                patch_quads: match (kernel, blocks) {
                    (Conv2dKernel::Tiled, 4) => (2, 4),
                    (Conv2dKernel::Tiled, _) => (2, 8),
                    _ => (2, 16),
                },
                has_prologue: true,
                roles,
                overrides,
            }
        }
    }
}

/// Convolves the picture `x` `[H * W, C]` of width `width` into `y` `[H' * W', N]`.
///
/// A picture in several bands is convolved band by band, after their borders are exchanged, so the result is exact. All that
/// makes a band of `y` comes before the next one: bands of `x` are done with one after the other.
#[track_caller]
pub fn conv2d<'r>(
    name: &str,
    x: Tensor<'r>,
    width: usize,
    layer: &Conv2d,
    y: Tensor<'r>,
    options: Conv2dOptions<'r>,
) {
    let Conv2dOptions { upsample, add, prologue } = options;
    let weight = &layer.weight;
    let n = weight.n.next_multiple_of(4);
    let up = if upsample { 2 } else { 1 };
    let x_height = x.rows() / width;
    let (y_width, y_height) = (width * up, x_height * up);
    assert_eq!(9 * x.cols(), weight.k, "{}: x has {} channels", weight.label, x.cols());
    assert_eq!(y.cols(), n, "{}: y has {} channels", weight.label, y.cols());
    assert_eq!(y.rows(), y_width * y_height, "{}: y has {} pixels", weight.label, y.rows());
    assert!(x.is_whole() && y.is_whole(), "{name}: x and y must be whole pictures");
    let recorder = x.recorder();
    let mut caps = recorder.matmul_caps();
    // No convolution works with smaller activations: where others do, it runs in f32.
    caps.f16 &= recorder.f16_scale().is_none();
    assert!(
        x.single().is_some() || recorder.base(x.base).halo == width,
        "{name}: x is in bands without the image rows around them; make it with `Recorder::image`"
    );
    let lanes_x = weight.tile / 4;
    let kernel = choice::conv2d(&caps, lanes_x);
    if let (Conv2dKernel::Direct, Some(affine)) = (kernel, prologue) {
        // This kernel reads each number too often to do anything to it.
        let normed = recorder.image(&format!("{name}.in"), x_height, width, x.cols());
        group_affine_apply(name, x, affine, true, normed);
        let options = Conv2dOptions { prologue: None, ..options };
        return recorder.early(|| conv2d(name, normed, width, layer, y, options));
    }
    recorder.note(Work::Conv2d {
        height: y_height,
        width: y_width,
        input: x.cols(),
        output: weight.n,
        upsample,
        storage: weight.storage,
    });
    let f16_flag = (kernel == Conv2dKernel::Matrices).then(|| recorder.f16_flag());
    let bias = recorder.resident(&layer.bias).expect_single("bias").0;
    let affine = prologue.map(|affine| whole(name, "affine", affine));

    // Borders between bands of x that were exchanged.
    let mut exchanged = 0;
    // Some image rows of y, of one shard of the weight, or of what its taps fold to in a phase.
    let mut convolve = |rows: Range<usize>,
                        shard: Band,
                        geometry: &Geometry,
                        (taps, storage): (BufferRef, Storage),
                        phase: usize| {
        let products = (x.cols() * geometry.taps * shard.rows * y_width) as f64;
        let flops_per_row = 2.0 * products / geometry.phases as f64;
        let most_rows = (caps.max_dispatch_flops / flops_per_row) as usize;
        let most_rows = most_rows.min(geometry.pixels[1] * MAX_WORKGROUPS as usize);
        let max_rows = even_share(y_height, most_rows, geometry.pixels[1]);
        let mut row = rows.start;
        while row < rows.end {
            let x_index = recorder.base(x.base).index_at(row / up * width);
            while exchanged <= x_index {
                recorder.exchange_halo(x, exchanged);
                exchanged += 1;
            }
            // The rows that lie in one band of y and whose sources lie in one band of x (or its halo).
            let x_base = recorder.base(x.base);
            let y_base = recorder.base(y.base);
            let x_band = x_base.band_at(row / up * width);
            let y_band = y_base.band_at(row * y_width);
            let end = rows
                .end
                .min(row + max_rows)
                .min((x_band.row0 + x_band.rows) / width * up)
                .min((y_band.row0 + y_band.rows) / y_width);
            assert!(end > row, "{name}: a band of y ends inside an image row");
            let above = |row0: usize, halo: usize| if row0 == 0 { 0 } else { halo };
            let x_first = x_band.row0 - above(x_band.row0, x_base.halo);
            let y_first = y_band.row0 - above(y_band.row0, y_base.halo);
            let params = Params {
                height: y_height as u32,
                width: y_width as u32,
                c4: quads(x.cols()),
                n4: quads(shard.rows),
                y_row0: row as u32,
                y_rows: (end - row) as u32,
                y_offset: quads((row * y_width - y_first) * y_base.cols),
                y_stride: quads(y_base.cols),
                x_row0: (x_first / width) as u32,
                x_offset: 0,
                x_stride: quads(x_base.cols),
                column4: quads(shard.row0),
                phase: phase as u32,
                f16_flag: f16_flag.map_or(0, |(_, flag)| flag as u32),
            };
            let mut bindings =
                vec![read(x_band.buffer), read(taps), read(bias), read_write(y_band.buffer)];
            if geometry.has_prologue {
                // The bias stands in for an absent prologue: a binding must not be empty.
                bindings.push(read(affine.unwrap_or(bias)));
            }
            bindings.extend(f16_flag.map(|(buffer, _)| read_write(buffer)));
            drop((x_base, y_base));
            let flag = |on: bool| f64::from(u8::from(on));
            let mut overrides = vec![("LANES_X", lanes_x as f64), ("ACCUMULATE", flag(add))];
            if geometry.has_prologue {
                let (least, most) = geometry.patch_quads;
                let channels = quads(x.cols()).next_multiple_of(2).clamp(least, most);
                overrides.push(("C4", f64::from(channels)));
                overrides.push(("PROLOGUE", flag(prologue.is_some())));
            }
            overrides.extend(&geometry.overrides);
            let mut roles = vec![("weight", storage.accessor())];
            roles.extend(&geometry.roles);
            recorder.dispatch(Dispatch {
                pipeline: PipelineKey { shader: geometry.shader, entry: "main", roles, overrides },
                params: bytemuck::bytes_of(&params).to_vec(),
                bindings,
                groups: [
                    y_width.div_ceil(geometry.pixels[0]) as u32,
                    // One more where the first row is in the middle of a workgroup's.
                    (row % up + end - row).div_ceil(geometry.pixels[1]) as u32,
                    shard.rows.div_ceil(weight.tile * geometry.tiles) as u32,
                ],
                flops: flops_per_row * (end - row) as f64,
                label: name.to_owned(),
            });
            row = end;
        }
    };
    let shards = weight.shards.iter().enumerate().filter_map(|(index, shard)| {
        let rows = shard.rows.min(n.saturating_sub(shard.row0));
        let tiles = rows.div_ceil(weight.tile);
        let geometry = (rows > 0).then(|| geometry(kernel, &caps, upsample, lanes_x, tiles))?;
        Some((index, Band { rows, ..*shard }, geometry))
    });
    let shards: Vec<(usize, Band, Geometry)> = shards.collect();
    let mut folded: HashMap<(usize, usize), BufferRef> = HashMap::new();
    let y_bands: Vec<Range<usize>> = recorder.base(y.base).band_rows().collect();
    for band in y_bands {
        // y may be the first rows of something larger.
        let rows = band.start / y_width..(band.end / y_width).min(y_height);
        for (index, shard, geometry) in &shards {
            if geometry.phases == 1 {
                let taps = (recorder.shard(weight, *index), weight.storage);
                convolve(rows.clone(), *shard, geometry, taps, 0);
                continue;
            }
            for phase in 0..geometry.phases {
                let taps = *folded.entry((*index, phase)).or_insert_with(|| {
                    fold_taps(recorder, name, weight, *index, phase).expect_single("taps").0
                });
                convolve(rows.clone(), *shard, geometry, (taps, Storage::F32), phase);
            }
        }
    }
}

/// `x` `[H * W, C]`, `weight` `[N, 3, 3, C]` (ky, kx, c), `bias` `[N]`. Gives `[H' * W', N]`.
pub fn reference(
    x: &[f32],
    width: usize,
    channels: usize,
    weight: &[f32],
    bias: &[f32],
    upsample: bool,
) -> Vec<f64> {
    let height = x.len() / channels / width;
    let up = if upsample { 2 } else { 1 };
    let (h, w) = (height * up, width * up);
    let mut out = Vec::with_capacity(h * w * bias.len());
    for row in 0..h as isize {
        for column in 0..w as isize {
            for (n, b) in bias.iter().enumerate() {
                let mut sum = f64::from(*b);
                for ky in 0..3 {
                    for kx in 0..3 {
                        let (r, c) = (row + ky - 1, column + kx - 1);
                        if r < 0 || c < 0 || r >= h as isize || c >= w as isize {
                            continue;
                        }
                        let pixel = (r as usize / up * width + c as usize / up) * channels;
                        let tap = (n * 9 + (ky * 3 + kx) as usize) * channels;
                        for i in 0..channels {
                            sum += f64::from(x[pixel + i]) * f64::from(weight[tap + i]);
                        }
                    }
                }
                out.push(sum);
            }
        }
    }
    out
}
