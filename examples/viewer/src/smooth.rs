//! Enlarging small pictures without the creases that textures get: cubic, where adapters are linear.

use ralu::pipeline::Picture;

/// Enlarged pictures have about this many pixels a side; from there on linear will do.
const ENOUGH: usize = 256;

/// A small picture, several times as large.
pub fn enlarged(picture: &Picture) -> Picture {
    let factor = (ENOUGH / picture.width.max(picture.height).max(1)).min(8);
    if factor < 2 {
        return picture.clone();
    }
    let (w, h) = (picture.width, picture.height);
    let pixels: Vec<f32> = picture.rgb.iter().map(|value| f32::from(*value)).collect();
    let wide = stretched(&pixels, w, h, factor, |row, col| 3 * (row * w + col));
    let wide_w = w * factor;
    // The same along the other side: rows and columns change places.
    let tall = stretched(&wide, h, wide_w, factor, |col, row| 3 * (row * wide_w + col));
    let height = h * factor;
    let mut rgb = vec![0; 3 * wide_w * height];
    for (i, value) in tall.iter().enumerate() {
        let (pixel, c) = (i / 3, i % 3);
        let (col, row) = (pixel / height, pixel % height);
        rgb[3 * (row * wide_w + col) + c] = value.round().clamp(0.0, 255.0) as u8;
    }
    Picture { width: wide_w, height, rgb }
}

/// `lines` lines of `n` pixels each become `factor` times as long; `at` says where a pixel of a line lies.
fn stretched(
    pixels: &[f32],
    n: usize,
    lines: usize,
    factor: usize,
    at: impl Fn(usize, usize) -> usize,
) -> Vec<f32> {
    let mut out = Vec::with_capacity(3 * n * lines * factor);
    for line in 0..lines {
        for to in 0..n * factor {
            let from = (to as f32 + 0.5) / factor as f32 - 0.5;
            let first = from.floor();
            let weights = cubic(from - first);
            for c in 0..3 {
                out.push(
                    (0..4)
                        .map(|i| {
                            let near = (first as isize + i as isize - 1).clamp(0, n as isize - 1);
                            weights[i] * pixels[at(line, near as usize) + c]
                        })
                        .sum::<f32>(),
                );
            }
        }
    }
    out
}

/// Weights of four neighbours: half between a B-spline, which is soft, and Catmull-Rom, which overshoots.
fn cubic(t: f32) -> [f32; 4] {
    let (t2, t3) = (t * t, t * t * t);
    let spline = [
        (1.0 - 3.0 * t + 3.0 * t2 - t3) / 6.0,
        (4.0 - 6.0 * t2 + 3.0 * t3) / 6.0,
        (1.0 + 3.0 * t + 3.0 * t2 - 3.0 * t3) / 6.0,
        t3 / 6.0,
    ];
    let catmull = [
        (-t + 2.0 * t2 - t3) / 2.0,
        (2.0 - 5.0 * t2 + 3.0 * t3) / 2.0,
        (t + 4.0 * t2 - 3.0 * t3) / 2.0,
        (t3 - t2) / 2.0,
    ];
    std::array::from_fn(|i| (spline[i] + catmull[i]) / 2.0)
}
