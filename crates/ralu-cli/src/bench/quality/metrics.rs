//! How far two pictures, or two latents, lie apart.

/// Radius of SSIM's window, in pixels.
const RADIUS: usize = 5;
/// Side of SSIM's window. Pictures must be at least as large.
pub const WINDOW: usize = 2 * RADIUS + 1;
/// Standard deviation of the window's Gaussian, in pixels.
pub const WINDOW_SIGMA: f64 = 1.5;
/// SSIM's `K1` and `K2`.
pub const K: [f64; 2] = [0.01, 0.03];
/// Largest value of a channel.
const PEAK: f64 = 255.0;

/// Peak signal-to-noise ratio of two 8-bit pictures of the same size, in dB: `10 lg(255² / MSE)` with the mean over
/// all pixels and channels. Infinite for identical pictures.
pub fn psnr(a: &[u8], b: &[u8]) -> f64 {
    let squares: f64 = a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
    10.0 * (PEAK * PEAK * a.len() as f64 / squares).log10()
}

/// Mean structural similarity of two 8-bit RGB pictures, `[height, width, 3]` each: 1 for identical ones.
///
/// Wang et al. 2004, "Image quality assessment: from error visibility to structural similarity", section III: a
/// Gaussian window of 11 x 11 pixels, all windows that lie inside the picture, each channel on its own, the mean of
/// all. `None` if the picture is smaller than a window.
pub fn ssim(a: &[u8], b: &[u8], width: usize, height: usize) -> Option<f64> {
    if width < WINDOW || height < WINDOW {
        return None;
    }
    let c1 = (K[0] * PEAK).powi(2);
    let c2 = (K[1] * PEAK).powi(2);
    let weights = window();
    let mut sum = 0.0;
    let mut n_windows = 0;
    for channel in 0..3 {
        let plane = |rgb: &[u8]| -> Vec<f64> {
            rgb.iter().skip(channel).step_by(3).map(|value| f64::from(*value)).collect()
        };
        let (a, b) = (plane(a), plane(b));
        let product =
            |x: &[f64], y: &[f64]| -> Vec<f64> { x.iter().zip(y).map(|(x, y)| x * y).collect() };
        let mean = |plane: &[f64]| filter(plane, width, height, &weights);
        let (mean_a, mean_b) = (mean(&a), mean(&b));
        let (aa, bb, ab) = (mean(&product(&a, &a)), mean(&product(&b, &b)), mean(&product(&a, &b)));
        n_windows += mean_a.len();
        for i in 0..mean_a.len() {
            let (mu_a, mu_b) = (mean_a[i], mean_b[i]);
            let variances = (aa[i] - mu_a * mu_a) + (bb[i] - mu_b * mu_b);
            let covariance = ab[i] - mu_a * mu_b;
            sum += (2.0 * mu_a * mu_b + c1) * (2.0 * covariance + c2)
                / ((mu_a * mu_a + mu_b * mu_b + c1) * (variances + c2));
        }
    }
    Some(sum / n_windows as f64)
}

/// `|a - reference| / |reference|` in the Euclidean norm; 0 if they are equal. `None` if their lengths differ.
pub fn relative_distance(a: &[f32], reference: &[f32]) -> Option<f64> {
    if a.len() != reference.len() {
        return None;
    }
    let square = |value: f64| value * value;
    let difference: f64 =
        a.iter().zip(reference).map(|(a, b)| square(f64::from(*a) - f64::from(*b))).sum();
    let norm: f64 = reference.iter().map(|value| square(f64::from(*value))).sum();
    Some(if difference == 0.0 { 0.0 } else { (difference / norm).sqrt() })
}

/// One row of the window, which is separable; its sum is 1.
fn window() -> [f64; WINDOW] {
    let mut weights = [0.0; WINDOW];
    for (i, weight) in weights.iter_mut().enumerate() {
        let x = i as f64 - RADIUS as f64;
        *weight = (-x * x / (2.0 * WINDOW_SIGMA * WINDOW_SIGMA)).exp();
    }
    let sum: f64 = weights.iter().sum();
    weights.map(|weight| weight / sum)
}

/// Weighted means over all windows inside a plane: `[height, width]` → `[height - 10, width - 10]`.
fn filter(plane: &[f64], width: usize, height: usize, weights: &[f64; WINDOW]) -> Vec<f64> {
    let (out_width, out_height) = (width - WINDOW + 1, height - WINDOW + 1);
    let mut rows = Vec::with_capacity(out_width * height);
    for row in plane.chunks_exact(width) {
        let mean = |part: &[f64]| part.iter().zip(weights).map(|(value, w)| value * w).sum::<f64>();
        rows.extend(row.windows(WINDOW).map(mean));
    }
    let mut out = vec![0.0; out_width * out_height];
    for (y, out) in out.chunks_exact_mut(out_width).enumerate() {
        for (i, weight) in weights.iter().enumerate() {
            let row = &rows[(y + i) * out_width..(y + i + 1) * out_width];
            out.iter_mut().zip(row).for_each(|(out, value)| *out += weight * value);
        }
    }
    out
}
