//! Linear layers: `matvec` and the kernels of `matmul`.

use super::{activation_tolerance, check_all, largest, variants};
use crate::common::{
    Bands, EPSILON, Frame, Lab, Random, Tolerance, assert_close, f8_e4m3_number, round,
};
use ralu::ops::{self, Activation, Epilogue, LinearLayer, Write, reference};
use ralu::tensor::{Command, MatmulKernel, Recording, Storage};

#[derive(Clone, Copy, Debug)]
struct LinearCase {
    m: usize,
    k: usize,
    n: usize,
    storage: Storage,
    activation: Activation,
    bias: bool,
    gate: bool,
    write: Write,
    /// Of x; weights are about `1 / sqrt(K)`.
    magnitude: f32,
}

const LINEAR: LinearCase = LinearCase {
    m: 17,
    k: 64,
    n: 64,
    storage: Storage::F16,
    activation: Activation::Identity,
    bias: true,
    gate: false,
    write: Write::Store,
    magnitude: 1.0,
};

#[rustfmt::skip]
const LINEAR_CASES: &[LinearCase] = &[
    // Rows around the borders of matvec (4) and of a block (16), and of four blocks.
    LinearCase { m: 1, ..LINEAR },
    LinearCase { m: 2, ..LINEAR },
    LinearCase { m: 4, ..LINEAR },
    LinearCase { m: 5, ..LINEAR },
    LinearCase { m: 15, ..LINEAR },
    LinearCase { m: 16, ..LINEAR },
    LinearCase { m: 63, ..LINEAR },
    LinearCase { m: 64, ..LINEAR },
    LinearCase { m: 65, ..LINEAR },
    LinearCase { m: 127, ..LINEAR },
    LinearCase { m: 129, ..LINEAR },
    // The tallest tiles, with every edge at once.
    LinearCase { m: 1155, k: 28, n: 84, ..LINEAR },
    LinearCase { m: 1155, k: 28, n: 84, storage: Storage::F32, ..LINEAR },
    // Several blocks of rows and of 64 columns, in every storage; the last ones end inside of one.
    LinearCase { m: 150, k: 100, n: 200, ..LINEAR },
    LinearCase { m: 150, k: 100, n: 200, storage: Storage::Bf16, ..LINEAR },
    LinearCase { m: 150, k: 100, n: 200, storage: Storage::F32, ..LINEAR },
    LinearCase { m: 150, k: 100, n: 200, storage: Storage::F8E4M3, ..LINEAR },
    // Ends of K inside a tile of 16 and of 32.
    LinearCase { m: 50, k: 4, n: 68, ..LINEAR },
    LinearCase { m: 50, k: 12, n: 68, ..LINEAR },
    LinearCase { m: 50, k: 36, n: 68, storage: Storage::Bf16, ..LINEAR },
    LinearCase { m: 130, k: 44, n: 36, ..LINEAR },
    // Narrow tiles, which hold fewer numbers of K at a time, with every edge.
    LinearCase { m: 130, k: 20, n: 4, ..LINEAR },
    LinearCase { m: 130, k: 20, n: 8, storage: Storage::Bf16, ..LINEAR },
    LinearCase { m: 130, k: 20, n: 16, storage: Storage::F8E4M3, ..LINEAR },
    LinearCase { m: 130, k: 20, n: 32, storage: Storage::F32, ..LINEAR },
    // Widths: every size of tile, one past a tile, not a multiple of 4.
    LinearCase { n: 1, ..LINEAR },
    LinearCase { n: 3, ..LINEAR },
    LinearCase { n: 4, ..LINEAR },
    LinearCase { n: 8, ..LINEAR },
    LinearCase { n: 12, ..LINEAR },
    LinearCase { n: 20, ..LINEAR },
    LinearCase { n: 36, ..LINEAR },
    LinearCase { n: 68, ..LINEAR },
    LinearCase { n: 70, ..LINEAR },
    LinearCase { n: 132, k: 4, ..LINEAR },
    LinearCase { m: 3, n: 3, ..LINEAR },
    LinearCase { m: 1, n: 68, k: 4, ..LINEAR },
    LinearCase { m: 4, n: 200, k: 20, ..LINEAR },
    // Many rows: more than 65,535, and more than 65,535 blocks of 16.
    LinearCase { m: 70_001, k: 4, n: 4, ..LINEAR },
    LinearCase { m: 65_535 * 16 + 17, k: 4, n: 4, ..LINEAR },
    // Storage types, for both kernels.
    LinearCase { storage: Storage::F32, ..LINEAR },
    LinearCase { storage: Storage::Bf16, ..LINEAR },
    LinearCase { storage: Storage::F32, m: 2, n: 68, ..LINEAR },
    LinearCase { storage: Storage::Bf16, m: 2, n: 68, ..LINEAR },
    LinearCase { storage: Storage::F8E4M3, ..LINEAR },
    LinearCase { storage: Storage::F8E4M3, m: 2, n: 68, ..LINEAR },
    LinearCase { storage: Storage::F8E4M3, m: 50, k: 36, n: 70, ..LINEAR },
    LinearCase { storage: Storage::F8E4M3, m: 1155, k: 28, n: 84, ..LINEAR },
    // Epilogues, for both kernels.
    LinearCase { bias: false, ..LINEAR },
    LinearCase { activation: Activation::Silu, ..LINEAR },
    LinearCase { activation: Activation::GeluTanh, ..LINEAR },
    LinearCase { activation: Activation::QuickGelu, ..LINEAR },
    LinearCase { activation: Activation::GeluErf, ..LINEAR },
    LinearCase { gate: true, write: Write::Add, ..LINEAR },
    LinearCase { write: Write::Multiply, activation: Activation::GeluTanh, bias: false, ..LINEAR },
    LinearCase { gate: true, n: 132, write: Write::Multiply, activation: Activation::Silu, ..LINEAR },
    LinearCase { m: 3, bias: false, ..LINEAR },
    LinearCase { m: 3, activation: Activation::Silu, ..LINEAR },
    LinearCase { m: 3, activation: Activation::GeluTanh, ..LINEAR },
    LinearCase { m: 3, activation: Activation::QuickGelu, ..LINEAR },
    LinearCase { m: 3, activation: Activation::GeluErf, ..LINEAR },
    LinearCase { m: 3, gate: true, write: Write::Add, ..LINEAR },
    LinearCase { m: 3, gate: true, n: 132, write: Write::Multiply, activation: Activation::Silu, ..LINEAR },
    // Long sums, and the magnitudes of the last blocks of FLUX.
    LinearCase { m: 33, k: 3072, n: 68, ..LINEAR },
    LinearCase { m: 2, k: 3072, n: 68, storage: Storage::Bf16, ..LINEAR },
    LinearCase { m: 20, k: 4096, n: 20, storage: Storage::Bf16, ..LINEAR },
    LinearCase { magnitude: 1e4, ..LINEAR },
    LinearCase { magnitude: 1e6, activation: Activation::GeluTanh, ..LINEAR },
    LinearCase { magnitude: 1e6, activation: Activation::Silu, ..LINEAR },
    LinearCase { magnitude: 1e6, activation: Activation::QuickGelu, m: 2, ..LINEAR },
    LinearCase { magnitude: 1e6, activation: Activation::GeluErf, gate: true, write: Write::Add, ..LINEAR },
    LinearCase { magnitude: 1e-39, bias: false, ..LINEAR },
];

pub async fn linear() {
    check_all(
        LINEAR_CASES,
        |c| ((c.m * c.k.max(c.n) * 4) as u64, 2.0 * (c.m * c.k * c.n) as f64),
        check_linear,
    )
    .await;
}

/// The kernel that a recording of one layer uses.
fn kernel_of(recording: &Recording) -> MatmulKernel {
    let mut pipelines = recording.commands.iter().filter_map(|command| match command {
        Command::Dispatch(dispatch) => Some(&dispatch.pipeline),
        _ => None,
    });
    let pipeline = pipelines.next().expect("a dispatch");
    match pipeline.shader {
        "matvec" => MatmulKernel::Row,
        "matmul" => MatmulKernel::Direct,
        "matmul_panel" => MatmulKernel::Panel,
        "matmul_tiled" if pipeline.roles.contains(&("rows", "rows_8")) => MatmulKernel::TiledLarge,
        "matmul_tiled" => MatmulKernel::Tiled,
        "matmul_subgroup" => MatmulKernel::Subgroup,
        "matmul_cooperative" => MatmulKernel::Cooperative,
        other => panic!("shaders/{other}.wgsl is no kernel of a matrix product"),
    }
}

/// What factors in f16 cost a sum of `k` products whose largest is `largest`: x, and weights where they are stored in more
/// bits.
///
/// A number keeps 11 bits, so it is off by 2^-11 of itself where a conversion rounds and by 2^-10 where it cuts off, as
/// both are allowed. Cut off, all numbers are too small, by half of that in the mean, and so is their sum; rounded,
/// errors are random and so smaller than the sum's own spread by that factor. Four times the former covers the spread
/// of the latter, too; and twice that where both factors are rounded. Numbers below 2^-14 may be flushed to zero.
fn f16_tolerance(x: &[f32], weight: &[f32], storage: Storage, k: usize, largest: f64) -> Tolerance {
    let tiny = |row: &[f32]| -> f64 {
        row.iter().map(|v| f64::from(v.abs())).filter(|v| *v < 2f64.powi(-14)).sum()
    };
    let flushed = |values: &[f32]| values.chunks_exact(k).map(tiny).fold(0.0, f64::max);
    let most = |values: &[f32]| values.iter().fold(0.0, |most, v| v.abs().max(most));
    // bf16 and f8 have fewer bits.
    let rounded = if storage == Storage::F32 { 2.0 } else { 1.0 };
    Tolerance::absolute(
        2f64.powi(-9) * rounded * largest
            + flushed(x) * f64::from(most(weight))
            + flushed(weight) * f64::from(most(x)),
    )
}

async fn check_linear(lab: &Lab, label: &str, case: &LinearCase) {
    let &LinearCase { m, k, n, storage, activation, write, magnitude, .. } = case;
    let n4 = n.next_multiple_of(4);
    let mut random = Random::named(label);
    let x = random.numbers(m * k, magnitude);
    let mut weight = round(&random.numbers(n * k, 1.7 / (k as f32).sqrt()), storage);
    let mut bias = random.numbers(n, magnitude);
    let gate = random.numbers(n4, 2.0);
    let old = random.numbers(m * n4, magnitude);

    let xs = lab.view("x", [m, k], &x, Frame::WIDE, Bands::AsNeeded).await;
    let ys = lab.view("y", [m, n4], &old, Frame::WIDE, Bands::AsNeeded).await;
    let gates = lab.view("gate", [1, n4], &gate, Frame::WIDE, Bands::One).await;
    let layer = LinearLayer {
        weight: lab.weight("weight", &weight, n, k, storage).await,
        bias: match case.bias {
            true => Some(lab.vector("bias", &bias).await),
            false => None,
        },
    };
    let recording = lab
        .run(|r, _| {
            let gate = case.gate.then(|| gates.on(r));
            let epilogue = Epilogue { activation, gate, write };
            ops::linear_into("y", xs.on(r), &layer, ys.on(r), epilogue);
        })
        .await;
    let kernel = kernel_of(&recording);
    // A variant that falls back would test the wrong kernel.
    if let Some(wanted) = lab.caps().tuning.matmul[0] {
        let expected = match wanted {
            // Narrow weights have no large tiles.
            MatmulKernel::TiledLarge if layer.weight.tile < 64 => MatmulKernel::Tiled,
            _ => wanted,
        };
        assert_eq!(kernel, expected, "{label}");
    }

    let in_f16 = kernel == MatmulKernel::Cooperative;
    if in_f16 {
        let beyond = x.iter().any(|v| v.abs() > 65504.0);
        assert_eq!(lab.beyond_f16.get(), beyond, "{label}: whether x fits f16");
        if beyond {
            // The run does it again in f32.
            lab.read_view(&ys).await;
            return;
        }
    }
    // Columns past N are outputs of a zero weight.
    weight.resize(n4 * k, 0.0);
    bias.resize(n4, 0.0);
    let (bias, gate) = (case.bias.then_some(&bias[..]), case.gate.then_some(&gate[..]));
    let expected = reference::linear(&x, &weight, bias, gate, &old, k, activation, write);
    // The error of a sum goes through the activation (slope at most 1.13) and the rest of the epilogue.
    let identity = Activation::Identity;
    let sums = reference::linear(&x, &weight, bias, None, &old, k, identity, Write::Store);
    let gain = if case.gate { 2.0 } else { 1.0 }
        * if write == Write::Multiply { f64::from(magnitude) } else { 1.0 };
    let activated = activation_tolerance(activation, largest(&sums));
    let rounded =
        if in_f16 { f16_tolerance(&x, &weight, storage, k, largest(&sums)).absolute } else { 0.0 };
    let sum_error = Tolerance::sum(k).scale * largest(&sums) + rounded;
    let tolerance = Tolerance::absolute(1.13 * sum_error * gain)
        .plus(Tolerance::relative(activated.relative))
        // What is added to may cancel the activation, but not its error.
        .plus(Tolerance::absolute(
            (activated.absolute + activated.relative * largest(&sums)) * gain,
        ))
        .plus(Tolerance::scale(4.0 * EPSILON))
        // Denormals may be flushed to zero.
        .plus(Tolerance::absolute(f64::from(f32::MIN_POSITIVE) * 8.0));
    assert_close(
        &format!("linear {label}"),
        [m, n4],
        &lab.read_view(&ys).await,
        &expected,
        tolerance,
    );
}

/// Kernels that round to f16 say so if a weight does not fit it, wherever it lies; a weight that does is none of that.
pub async fn linear_flags_weights_beyond_f16() {
    let mut lab = Lab::new().await;
    let base = lab.caps();
    let (m, k, n) = (5, 44, 70);
    for variant in variants::<LinearCase>(&base) {
        lab = lab.with_caps(|caps| {
            *caps = base;
            (variant.change)(caps);
        });
        for storage in [Storage::F32, Storage::Bf16] {
            for (place, value) in [(0, 65280.0), (0, 7e4), (n * k - 1, -7e4), (33 * k + 40, 1e30)] {
                let x = Random::new(3).numbers(m * k, 1.0);
                let mut weight = round(&Random::new(4).numbers(n * k, 1.0), storage);
                weight[place] = value;
                let weight = round(&weight, storage);
                let xs = lab.view("x", [m, k], &x, Frame::NONE, Bands::AsNeeded).await;
                let n4 = n.next_multiple_of(4);
                let old = vec![0.0; m * n4];
                let ys = lab.view("y", [m, n4], &old, Frame::WIDE, Bands::AsNeeded).await;
                let packed = lab.weight("weight", &weight, n, k, storage).await;
                let layer = LinearLayer { weight: packed, bias: None };
                let epilogue = Epilogue::default;
                let recording = lab
                    .run(|r, _| ops::linear_into("y", xs.on(r), &layer, ys.on(r), epilogue()))
                    .await;
                let rounds = kernel_of(&recording) == MatmulKernel::Cooperative;
                assert_eq!(
                    lab.beyond_f16.get(),
                    rounds && value.abs() > 65504.0,
                    "{value} as number {place} in {storage:?} with {}",
                    variant.name
                );
                lab.clear();
            }
        }
    }
}

/// NaN, infinity and denormals in one row of x stay in that row.
pub async fn linear_keeps_poison_in_its_row() {
    let mut lab = Lab::new().await;
    let base = lab.caps();
    for variant in variants::<LinearCase>(&base) {
        lab = lab.with_caps(|caps| {
            *caps = base;
            (variant.change)(caps);
        });
        for m in [3, 40] {
            for poison in [f32::NAN, f32::INFINITY, 1e-42] {
                check_poison(&lab, variant.name, m, poison).await;
                lab.clear();
            }
        }
    }
}

async fn check_poison(lab: &Lab, variant: &str, m: usize, poison: f32) {
    let (k, n, row) = (64, 68, m / 2);
    let mut random = Random::new(7);
    let mut x = random.numbers(m * k, 1.0);
    let weight = round(&random.numbers(n * k, 0.2), Storage::F16);
    let old = vec![0.0; m * n];
    let expected =
        reference::linear(&x, &weight, None, None, &old, k, Activation::Silu, Write::Store);
    x[row * k + 5] = poison;
    let xs = lab.view("x", [m, k], &x, Frame::NONE, Bands::AsNeeded).await;
    let ys = lab.view("y", [m, n], &old, Frame::WIDE, Bands::AsNeeded).await;
    let packed = lab.weight("weight", &weight, n, k, Storage::F16).await;
    let layer = LinearLayer { weight: packed, bias: None };
    let epilogue = Epilogue { activation: Activation::Silu, ..Default::default() };
    let recording =
        lab.run(|r, _| ops::linear_into("y", xs.on(r), &layer, ys.on(r), epilogue)).await;
    let y = lab.read_view(&ys).await;
    let poisoned = &y[row * n..(row + 1) * n];
    assert_eq!(
        poisoned.iter().any(|v| !v.is_finite()),
        !poison.is_finite(),
        "row {row} of {m} with {poison} and {variant}: {poisoned:?}"
    );
    let mut tolerance = Tolerance::sum(k).plus(activation_tolerance(Activation::Silu, k as f64));
    if kernel_of(&recording) == MatmulKernel::Cooperative {
        let clean: Vec<f32> = x.iter().map(|v| if v.is_finite() { *v } else { 0.0 }).collect();
        // SiLU leaves large sums as they are, so its largest is theirs.
        let largest = 1.13 * largest(&expected);
        tolerance = tolerance.plus(f16_tolerance(&clean, &weight, Storage::F16, k, largest));
    }
    for other in (0..m).filter(|i| *i != row) {
        let range = other * n..(other + 1) * n;
        let label = format!("row {other} of {m}, with {poison} in row {row} and {variant}");
        assert_close(&label, [1, n], &y[range.clone()], &expected[range], tolerance);
    }
}

/// Every code of f8 e4m3fn that is a number, exactly: rows of the unit matrix pick single weights.
pub async fn every_f8_code_is_its_number() {
    let codes = (0..=255u8).filter(|code| code & 0x7f != 0x7f);
    let mut numbers: Vec<f32> = codes.map(f8_e4m3_number).collect();
    numbers.resize(256, 0.0);
    let mut lab = Lab::new().await;
    let base = lab.caps();
    for variant in variants::<LinearCase>(&base) {
        lab = lab.with_caps(|caps| {
            *caps = base;
            (variant.change)(caps);
        });
        // One tile of 64 outputs, and sixteen rows.
        for (n, k) in [(64, 4), (16, 16)] {
            let unit: Vec<f32> =
                (0..k * k).map(|i| if i % (k + 1) == 0 { 1.0 } else { 0.0 }).collect();
            let xs = lab.view("x", [k, k], &unit, Frame::NONE, Bands::AsNeeded).await;
            let ys = lab.view("y", [k, n], &vec![0.0; k * n], Frame::NONE, Bands::AsNeeded).await;
            let weight = lab.weight("weight", &numbers, n, k, Storage::F8E4M3).await;
            let layer = LinearLayer { weight, bias: None };
            lab.run(|r, _| ops::linear_into("y", xs.on(r), &layer, ys.on(r), Epilogue::default()))
                .await;
            let y = lab.read_view(&ys).await;
            for (i, number) in numbers.iter().enumerate() {
                let found = y[i % k * n + i / k];
                assert_eq!(found, *number, "number {i} of [{n}, {k}] with {}", variant.name);
            }
            lab.clear();
        }
    }
}
