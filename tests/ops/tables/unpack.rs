//! Tokens unpacked to a latent.

use super::check_all;
use crate::common::{Bands, EPSILON, Frame, Lab, Random, Tolerance, assert_close};
use ralu::ops::{self, reference};

#[derive(Clone, Copy, Debug)]
struct UnpackCase {
    grid: [usize; 2],
    channels: usize,
}

#[rustfmt::skip]
const UNPACK_CASES: &[UnpackCase] = &[
    UnpackCase { grid: [1, 1], channels: 4 },
    UnpackCase { grid: [1, 5], channels: 16 },
    UnpackCase { grid: [5, 1], channels: 16 },
    UnpackCase { grid: [7, 3], channels: 8 },
    UnpackCase { grid: [16, 17], channels: 16 },
    UnpackCase { grid: [300, 60], channels: 4 },
    UnpackCase { grid: [300, 240], channels: 4 },
];

pub async fn unpack() {
    check_all(
        UNPACK_CASES,
        |c| ((c.grid[0] * c.grid[1] * c.channels * 16) as u64, 0.0),
        check_unpack,
    )
    .await;
}

async fn check_unpack(lab: &Lab, label: &str, case: &UnpackCase) {
    let &UnpackCase { grid: [grid_height, grid_width], channels } = case;
    let tokens = grid_height * grid_width;
    let mut random = Random::named(label);
    let x = random.numbers(tokens * 4 * channels, 1.0);
    let velocity = random.numbers(tokens * 4 * channels, 1.0);
    let (sigma, factor, shift) = (0.42f32, 0.3611f32, 0.1159f32);

    let xs = lab.view("x", [tokens, 4 * channels], &x, Frame::BELOW, Bands::One).await;
    let vs =
        lab.view("velocity", [tokens, 4 * channels], &velocity, Frame::BELOW, Bands::One).await;
    let step = lab.vector("step", &[7.0, 7.0, sigma, 7.0]).await;
    let zeros = vec![0.0; x.len()];
    let ys = lab.view("y", [4 * tokens, channels], &zeros, Frame::BELOW, Bands::AsNeeded).await;
    lab.run(|r, copies| {
        let (x, v, step) = (xs.on(r), vs.on(r), r.resident(&step));
        let into = |y| ops::unpack("y", x, v, step, grid_width, factor, shift, y);
        if ys.resident.bands.len() == 1 {
            into(ys.on(r));
        } else {
            let y = r.image("y", 2 * grid_height, 2 * grid_width, channels);
            into(y);
            copies.after(y, ys.on(r));
        }
    })
    .await;

    let [sigma, factor, shift] = [sigma, factor, shift].map(f64::from);
    let expected = reference::unpack(&x, &velocity, channels, sigma, grid_width, factor, shift);
    let label = format!("unpack {label}");
    let tolerance = Tolerance::scale(6.0 * EPSILON);
    assert_close(&label, [4 * tokens, channels], &lab.read_view(&ys).await, &expected, tolerance);
}
