//! 3 x 3 convolutions.

use super::check_all;
use crate::common::{Bands, EPSILON, Frame, Lab, Random, Tolerance, assert_close, round};
use ralu::ops::{self, Conv2d, reference};
use ralu::tensor::Storage;

#[derive(Clone, Copy, Debug)]
struct ConvCase {
    height: usize,
    width: usize,
    c: usize,
    n: usize,
    storage: Storage,
    upsample: bool,
    add: bool,
}

const CONV: ConvCase = ConvCase {
    height: 6,
    width: 10,
    c: 8,
    n: 16,
    storage: Storage::F16,
    upsample: false,
    add: false,
};

#[rustfmt::skip]
const CONV_CASES: &[ConvCase] = &[
    CONV,
    ConvCase { height: 1, width: 1, ..CONV },
    ConvCase { height: 1, width: 9, ..CONV },
    ConvCase { height: 9, width: 1, ..CONV },
    ConvCase { height: 2, width: 8, ..CONV },
    ConvCase { height: 5, width: 7, c: 4, n: 4, ..CONV },
    ConvCase { height: 17, width: 33, c: 4, n: 4, ..CONV },
    ConvCase { height: 40, width: 130, c: 4, n: 3, ..CONV },
    ConvCase { n: 3, ..CONV },
    ConvCase { n: 68, ..CONV },
    ConvCase { n: 132, c: 4, ..CONV },
    ConvCase { c: 68, n: 12, ..CONV },
    ConvCase { storage: Storage::F32, ..CONV },
    ConvCase { storage: Storage::Bf16, ..CONV },
    ConvCase { add: true, ..CONV },
    ConvCase { upsample: true, ..CONV },
    ConvCase { upsample: true, height: 1, width: 1, ..CONV },
    ConvCase { upsample: true, height: 21, width: 19, c: 4, n: 20, ..CONV },
    ConvCase { upsample: true, add: true, storage: Storage::F32, ..CONV },
    ConvCase { height: 33, width: 31, c: 16, n: 32, add: true, ..CONV },
    ConvCase { height: 12, width: 64, c: 8, n: 8, add: true, ..CONV },
];

pub async fn conv2d() {
    check_all(
        CONV_CASES,
        |c| {
            let pixels = c.height * c.width * if c.upsample { 4 } else { 1 };
            ((pixels * c.c.max(c.n) * 4) as u64, 18.0 * (pixels * c.c * c.n) as f64)
        },
        check_conv2d,
    )
    .await;
}

async fn check_conv2d(lab: &Lab, label: &str, case: &ConvCase) {
    let &ConvCase { height, width, c, n, storage, upsample, add } = case;
    let n4 = n.next_multiple_of(4);
    let up = if upsample { 2 } else { 1 };
    let (pixels, y_pixels) = (height * width, height * width * up * up);
    let mut random = Random::named(label);
    let x = random.numbers(pixels * c, 1.0);
    let mut weight = round(&random.numbers(n * 9 * c, 1.0 / (3.0 * (c as f32).sqrt())), storage);
    let mut bias = random.numbers(n, 1.0);
    let old = random.numbers(y_pixels * n4, 1.0);

    let xs = lab.matrix("x", pixels, c, &x, Bands::AsNeeded).await;
    let ys = lab.view("y", [y_pixels, n4], &old, Frame::BELOW, Bands::AsNeeded).await;
    let layer = Conv2d {
        weight: lab.weight("weight", &weight, n, 9 * c, storage).await,
        bias: lab.vector("bias", &bias).await,
    };
    lab.run(|r, copies| {
        let image = r.image("x", height, width, c);
        copies.before(r.resident(&xs), image);
        // A picture in bands is a temporary; one in a single buffer may be a view with guards.
        let into = |y| ops::conv2d("y", image, width, &layer, y, upsample, add);
        if ys.resident.bands.len() == 1 {
            into(ys.on(r));
        } else {
            let y = r.image("y", height * up, width * up, n4);
            copies.before(ys.on(r), y);
            into(y);
            copies.after(y, ys.on(r));
        }
    })
    .await;

    weight.resize(n4 * 9 * c, 0.0);
    bias.resize(n4, 0.0);
    let mut expected = reference::conv2d(&x, width, c, &weight, &bias, upsample);
    if add {
        expected.iter_mut().zip(&old).for_each(|(e, old)| *e += f64::from(*old));
    }
    let label = format!("conv2d {label}");
    let tolerance = Tolerance::sum(9 * c).plus(Tolerance::absolute(4.0 * EPSILON));
    assert_close(&label, [y_pixels, n4], &lab.read_view(&ys).await, &expected, tolerance);
}
