//! Tokens gathered and renoised at a jump.

use super::check_all;
use crate::common::{Bands, EPSILON, Frame, Lab, Random, Tolerance, assert_close};
use ralu::ops::{self, reference};

#[derive(Clone, Copy, Debug)]
struct RenoiseCase {
    /// Tokens before and after.
    from: usize,
    to: usize,
    channels: usize,
    gains: [f32; 2],
}

#[rustfmt::skip]
const RENOISE_CASES: &[RenoiseCase] = &[
    RenoiseCase { from: 1, to: 1, channels: 4, gains: [1.0, 0.0] },
    RenoiseCase { from: 2, to: 5, channels: 64, gains: [0.9, 0.4] },
    RenoiseCase { from: 16, to: 17, channels: 64, gains: [0.7, 1.3] },
    RenoiseCase { from: 100, to: 15, channels: 68, gains: [-0.5, 2.0] },
    RenoiseCase { from: 1024, to: 1945, channels: 64, gains: [0.83, 0.55] },
    RenoiseCase { from: 17_000, to: 70_001, channels: 64, gains: [0.83, 0.55] },
];

pub async fn renoise() {
    check_all(RENOISE_CASES, |_| (0, 0.0), check_renoise).await;
}

async fn check_renoise(lab: &Lab, label: &str, case: &RenoiseCase) {
    let &RenoiseCase { from, to, channels, gains: [gain, noise_gain] } = case;
    let mut random = Random::named(label);
    let x = random.numbers(from * channels, 1.0);
    let noise = random.numbers(to * channels, 1.0);
    let source: Vec<u32> =
        (0..to).map(|_| (random.below(from) * 8 + random.below(5)) as u32).collect();

    let xs = lab.view("x", [from, channels], &x, Frame::BELOW, Bands::One).await;
    let noises = lab.view("noise", [to, channels], &noise, Frame::BELOW, Bands::One).await;
    let ys = lab.view("y", [to, channels], &vec![0.0; noise.len()], Frame::BELOW, Bands::One).await;
    let bits: Vec<f32> = source.iter().map(|s| f32::from_bits(*s)).collect();
    let sources = lab.vector("source", &bits).await;
    lab.run(|r, _| {
        let source = r.resident(&sources);
        ops::renoise("y", xs.on(r), source, noises.on(r), gain, noise_gain, ys.on(r));
    })
    .await;

    let expected =
        reference::renoise(&x, channels, &source, &noise, gain.into(), noise_gain.into());
    let label = format!("renoise {label}");
    let tolerance = Tolerance::scale(4.0 * EPSILON);
    assert_close(&label, [to, channels], &lab.read_view(&ys).await, &expected, tolerance);
}
