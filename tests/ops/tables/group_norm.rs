//! Group norms.

use super::{activation_tolerance, check_all, largest};
use crate::common::{Bands, EPSILON, Frame, Lab, Random, Tolerance, assert_close};
use ralu::ops::{self, Activation, reference};

#[derive(Clone, Copy, Debug)]
struct GroupNormCase {
    height: usize,
    width: usize,
    channels: usize,
    groups: usize,
    silu: bool,
    /// Of the numbers, around `offset`.
    magnitude: f32,
    offset: f32,
}

const GROUP_NORM: GroupNormCase = GroupNormCase {
    height: 6,
    width: 10,
    channels: 32,
    groups: 8,
    silu: false,
    magnitude: 1.0,
    offset: 0.3,
};

#[rustfmt::skip]
const GROUP_NORM_CASES: &[GroupNormCase] = &[
    GROUP_NORM,
    GroupNormCase { silu: true, ..GROUP_NORM },
    GroupNormCase { height: 1, width: 1, ..GROUP_NORM },
    GroupNormCase { height: 1, width: 2, channels: 4, groups: 1, ..GROUP_NORM },
    GroupNormCase { channels: 4, groups: 4, ..GROUP_NORM },
    GroupNormCase { channels: 36, groups: 3, ..GROUP_NORM },
    GroupNormCase { channels: 300, groups: 75, height: 1, width: 2, ..GROUP_NORM },
    GroupNormCase { height: 13, width: 67, channels: 8, groups: 2, silu: true, ..GROUP_NORM },
    // Fewer channels in a group than a kernel reads at once, and groups that cross such borders.
    GroupNormCase { channels: 24, groups: 4, silu: true, ..GROUP_NORM },
    // More than 65,535 pixels.
    GroupNormCase { height: 260, width: 257, channels: 8, groups: 4, ..GROUP_NORM },
    GroupNormCase { magnitude: 1e5, offset: 0.0, silu: true, ..GROUP_NORM },
    GroupNormCase { offset: 100.0, height: 20, width: 20, channels: 8, groups: 2, ..GROUP_NORM },
];

pub async fn group_norm() {
    check_all(
        GROUP_NORM_CASES,
        |c| ((c.height * c.width * c.channels * 4) as u64, 0.0),
        check_group_norm,
    )
    .await;
}

async fn check_group_norm(lab: &Lab, label: &str, case: &GroupNormCase) {
    let &GroupNormCase { height, width, channels, groups, silu, magnitude, offset } = case;
    let pixels = height * width;
    let mut random = Random::named(label);
    let x: Vec<f32> =
        random.numbers(pixels * channels, magnitude).iter().map(|v| v + offset).collect();
    let (weight, bias) = (random.numbers(channels, 2.0), random.numbers(channels, 1.0));
    let eps = 1e-6;

    let xs = lab.matrix("x", pixels, channels, &x, Bands::AsNeeded).await;
    let ys =
        lab.view("y", [pixels, channels], &vec![0.0; x.len()], Frame::WIDE, Bands::AsNeeded).await;
    let weights = lab.vector("weight", &weight).await;
    let biases = lab.vector("bias", &bias).await;
    lab.run(|r, copies| {
        let image = r.image("x", height, width, channels);
        copies.before(r.resident(&xs), image);
        let (weight, bias) = (r.resident(&weights), r.resident(&biases));
        ops::group_norm("y", image, groups, eps, weight, bias, silu, ys.on(r));
    })
    .await;

    let expected = reference::group_norm(&x, groups, eps, &weight, &bias, silu);
    // x * factor and mean * factor are rounded before they cancel: an offset of many deviations costs as
    // many roundings. A uniform distribution's deviation is its half width / sqrt(3).
    let cancellation = 1.0 + f64::from(offset / magnitude) * 3f64.sqrt();
    let mut tolerance = Tolerance::scale(EPSILON * 8.0 * cancellation)
        .plus(Tolerance::sum(1).plus(Tolerance::scale(EPSILON * 8.0)));
    if silu {
        tolerance = tolerance.plus(activation_tolerance(Activation::Silu, largest(&expected)));
    }
    let label = format!("group_norm {label}");
    assert_close(&label, [pixels, channels], &lab.read_view(&ys).await, &expected, tolerance);
}
