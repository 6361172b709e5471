//! Cheap pictures of latents: a linear map from their channels to a colour.
//!
//! A decoder looks at neighbourhoods; of a latent's colour a linear map of its channels alone tells most. The map
//! is fitted by least squares to pictures that were decoded anyway, so it belongs to the loaded VAE, whichever that is.

use serde::{Deserialize, Serialize};

use super::Picture;

/// Pixels of a latent, each way.
const SCALE: usize = 8;
/// How much a latent counts that no network made, beside one that is a part of a picture.
pub(super) const PROBE_WEIGHT: f64 = 0.1;
/// What is added to the mean square of every channel, which is about 1. With less, the few latents of a first stage make a
/// map that overshoots on all others.
const RIDGE: f64 = 0.03;

/// Colours of latents, as far as decoded pictures have told. Serializable, so that a face can keep it: it is good for
/// all pictures of the same VAE.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LatentColors {
    /// Sums of the normal equations, `[C + 1, C + 1 + 3]`: inputs, which are the channels and a constant, times inputs, and
    /// inputs times colours.
    sums: Vec<f64>,
    /// Latents that were seen, by weight.
    seen: f64,
    /// `[3, C + 1]`.
    map: Vec<f32>,
}

impl LatentColors {
    /// Whether it knows any colours yet.
    pub fn is_fitted(&self) -> bool {
        self.inputs().is_some()
    }

    /// The number of inputs, if these are the colours of any.
    fn inputs(&self) -> Option<usize> {
        let inputs = self.map.len() / 3;
        let is_whole = self.map.len() == 3 * inputs && self.sums.len() == inputs * (inputs + 3);
        (inputs > 0 && is_whole).then_some(inputs)
    }

    /// Learns from a decoded picture: `latents` are `[C, rows, cols]`, `planes` `[3, 8 rows, 8 cols]` with values in
    /// 0..1.
    pub fn learn(&mut self, latents: &[f32], planes: &[f32], rows: usize, cols: usize) {
        self.learn_weighted(latents, planes, rows, cols, 1.0);
    }

    /// Like [`LatentColors::learn`], where each latent counts `weight` times.
    pub(super) fn learn_weighted(
        &mut self,
        latents: &[f32],
        planes: &[f32],
        rows: usize,
        cols: usize,
        weight: f64,
    ) {
        let size = rows * cols;
        let channels = latents.len() / size;
        let inputs = channels + 1;
        assert_eq!(latents.len(), channels * size, "latents are [C, {rows}, {cols}]");
        assert_eq!(
            planes.len(),
            3 * size * SCALE * SCALE,
            "planes are [3, 8 * {rows}, 8 * {cols}]"
        );
        if self.sums.len() != inputs * (inputs + 3) {
            // The first picture; or kept by hand, or by another version.
            *self = LatentColors { sums: vec![0.0; inputs * (inputs + 3)], ..Default::default() };
        }
        let mut line = vec![1.0; inputs + 3];
        for row in 0..rows {
            for col in 0..cols {
                for (channel, value) in line[..channels].iter_mut().enumerate() {
                    *value = f64::from(latents[channel * size + row * cols + col]);
                }
                for (c, value) in line[inputs..].iter_mut().enumerate() {
                    *value = mean_of_block(planes, c, row, col, rows, cols);
                }
                for i in 0..inputs {
                    for j in 0..inputs + 3 {
                        self.sums[i * (inputs + 3) + j] += weight * line[i] * line[j];
                    }
                }
            }
        }
        self.seen += weight * size as f64;
        self.map = self.solve(inputs);
    }

    /// Solves the normal equations by Gauss-Jordan elimination. A little is added to their diagonal: a flat picture
    /// says nothing of most channels.
    fn solve(&self, inputs: usize) -> Vec<f32> {
        let (width, channels) = (inputs + 3, inputs - 1);
        let mut m = self.sums.clone();
        (0..channels).for_each(|i| m[i * width + i] += RIDGE * self.seen);
        m[channels * width + channels] += 1e-9 * self.seen;
        // The matrix is positive definite: its pivots need no exchange.
        for i in 0..inputs {
            let pivot = m[i * width + i].max(1e-12);
            m[i * width..(i + 1) * width].iter_mut().for_each(|value| *value /= pivot);
            for row in (0..inputs).filter(|row| *row != i) {
                let factor = m[row * width + i];
                (i..width).for_each(|col| m[row * width + col] -= factor * m[i * width + col]);
            }
        }
        (0..3)
            .flat_map(|c| (0..inputs).map(move |i| (c, i)))
            .map(|(c, i)| m[i * width + inputs + c] as f32)
            .collect()
    }

    /// A picture of `latents`, `[C, rows, cols]`, with a pixel for each. `None` as long as no colours are known.
    pub fn picture(&self, latents: &[f32], rows: usize, cols: usize) -> Option<Picture> {
        let inputs = self.inputs()?;
        let (size, channels) = (rows * cols, inputs - 1);
        if latents.len() != channels * size {
            return None;
        }
        let mut planes = vec![0.0; 3 * size];
        for (map, plane) in self.map.chunks_exact(inputs).zip(planes.chunks_exact_mut(size)) {
            for (i, value) in plane.iter_mut().enumerate() {
                let weights = map[..channels].iter().enumerate();
                let sum: f32 = weights.map(|(c, weight)| weight * latents[c * size + i]).sum();
                *value = sum + map[channels];
            }
        }
        Some(Picture::from_planes(&planes, cols, rows))
    }
}

fn mean_of_block(
    planes: &[f32],
    c: usize,
    row: usize,
    col: usize,
    rows: usize,
    cols: usize,
) -> f64 {
    let (width, height) = (SCALE * cols, SCALE * rows);
    let mut sum = 0.0;
    for y in SCALE * row..SCALE * (row + 1) {
        let at = (c * height + y) * width + SCALE * col;
        sum += planes[at..at + SCALE].iter().map(|value| f64::from(*value)).sum::<f64>();
    }
    sum / (SCALE * SCALE) as f64
}

/// Latents `[C, rows, cols]` that tell colours apart before there is a picture: flat patches of normal values.
pub(super) fn probe_latents(channels: usize, rows: usize, cols: usize) -> Vec<f32> {
    const PATCH: usize = 4;
    let (patch_rows, patch_cols) = (rows.div_ceil(PATCH), cols.div_ceil(PATCH));
    // Noise comes in even sides.
    let (h, w) = (patch_rows.next_multiple_of(2), patch_cols.next_multiple_of(2));
    let noise = crate::sampling::initial_noise(1, [channels, h, w]);
    let mut latents = Vec::with_capacity(channels * rows * cols);
    for channel in 0..channels {
        for row in 0..rows {
            latents
                .extend((0..cols).map(|col| noise[(channel * h + row / PATCH) * w + col / PATCH]));
        }
    }
    latents
}
