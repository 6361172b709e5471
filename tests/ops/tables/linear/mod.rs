//! Linear layers: `matvec` and the kernels of `matmul`.

mod cases;
mod f16;
mod int8;
mod low_rank;
mod poison;
mod split;
mod stored;

use super::{activation_tolerance, check_all, largest};
use crate::common::{
    Bands, EPSILON, Frame, Lab, Random, Tolerance, View, assert_close, random_blocks, round,
};
use cases::{LINEAR_CASES, LinearCase};
use ralu::ops::{self, Activation, Epilogue, LinearLayer, Write, reference};
use ralu::tensor::{Command, Fallback, MatmulKernel, Recording, Storage};

pub(super) use f16::f16_tolerance;
pub use f16::{linear_falls_back, linear_flags_weights_beyond_f16};
pub use int8::int8_keeps_poison_in_its_row;
pub use low_rank::{
    a_low_rank_change_is_added_before_the_activation, a_low_rank_change_of_a_weight_in_blocks,
    a_norm_makes_the_narrow_product, a_quantised_weight_gets_the_whole_change,
};
pub use poison::linear_keeps_poison_in_its_row;
pub use split::a_split_gives_the_bits_of_two_layers;
pub use stored::{every_block_is_its_numbers, every_f8_code_is_its_number};

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
    // Before products of bytes x is rounded.
    let pipeline = pipelines.find(|pipeline| pipeline.shader != "quantise_rows");
    let pipeline = pipeline.expect("a dispatch");
    match pipeline.shader {
        "matvec" => MatmulKernel::Row,
        "matmul" => MatmulKernel::Direct,
        "matmul_panel" => MatmulKernel::Panel,
        "matmul_tiled" if pipeline.roles.contains(&("rows", "rows_8")) => MatmulKernel::TiledLarge,
        "matmul_tiled" => MatmulKernel::Tiled,
        "matmul_subgroup" => MatmulKernel::Subgroup,
        "matmul_cooperative" => MatmulKernel::Cooperative,
        "matmul_int8" => MatmulKernel::Int8,
        other => panic!("shaders/{other}.wgsl is no kernel of a matrix product"),
    }
}

async fn check_linear(lab: &Lab, label: &str, case: &LinearCase) {
    let &LinearCase { m, k, n, storage, activation, write, magnitude, .. } = case;
    // Two types in blocks meet all kernels. The others differ from them in their accessors alone, which do not see the kernel
    // but for the fill of tiles.
    let is_usual = !storage.is_packed() || matches!(storage, Storage::Q8_0 | Storage::Q4K);
    let usual = ["processor kernels", "matmul tiles", "matmul on matrices", "matmul of bytes"];
    if !is_usual && !usual.iter().any(|variant| label.ends_with(&format!("with {variant}"))) {
        return;
    }
    let in_int8 = lab.caps().int8;
    if in_int8 && storage.code_order().is_none() {
        return;
    }
    let n4 = n.next_multiple_of(4);
    let mut random = Random::named(label);
    let mut x = random.numbers(m * k, magnitude);
    if in_int8 {
        int8::make_exact(&mut x);
    }
    let size = 1.7 / (k as f32).sqrt();
    let (blocks, mut weight) = match storage.is_packed() {
        true => random_blocks(&mut random, [n, k], storage, size),
        false => (vec![], round(&random.numbers(n * k, size), storage)),
    };
    // Powers of two, so that the reference's weights have no roundings of their own.
    let scales: Vec<f32> = (0..n).map(|_| 0.125 * (1 << random.below(7)) as f32).collect();
    let mut bias = random.numbers(n, magnitude);
    let gate = random.numbers(n4, 2.0);
    let old = random.numbers(m * n4, magnitude);

    let xs = lab.view("x", [m, k], &x, Frame::WIDE, Bands::AsNeeded).await;
    let mut ys = lab.view("y", [m, n4], &old, Frame::WIDE, Bands::AsNeeded).await;
    let gates = lab.view("gate", [1, n4], &gate, Frame::WIDE, Bands::One).await;
    let mut layer = LinearLayer {
        weight: match storage.is_packed() {
            true => lab.blocks("weight", (&blocks, &[]), [n, k], storage).await,
            false => lab.weight("weight", &weight, n, k, storage).await,
        },
        bias: match case.bias {
            true => Some(lab.vector("bias", &bias).await),
            false => None,
        },
        low_rank: None,
    };
    if case.scaled {
        layer.weight.scale = Some(lab.vector("scale", &scales).await);
        let rows = weight.chunks_exact_mut(k).zip(&scales);
        rows.for_each(|(row, scale)| row.iter_mut().for_each(|w| *w *= scale));
    }
    let run = async |ys: &View| {
        lab.run(|r, _| {
            let gate = case.gate.then(|| gates.on(r));
            let epilogue = Epilogue { activation, gate, write };
            ops::linear_into("y", xs.on(r), &layer, ys.on(r), epilogue);
        })
        .await
    };
    let recording = run(&ys).await;
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
    let mut scale = 1.0;
    if in_f16 {
        let beyond = |scale: f32| x.iter().any(|v| (v * scale).abs() > 65504.0);
        assert_eq!(lab.beyond_f16.get(), beyond(scale), "{label}: whether x fits f16");
        if beyond(scale) {
            lab.read_view(&ys).await;
            // A run does it again.
            lab.fall_back();
            scale = Fallback::SCALE;
            ys = lab.view("y", [m, n4], &old, Frame::WIDE, Bands::AsNeeded).await;
            let recording = run(&ys).await;
            assert_eq!(kernel_of(&recording), kernel, "{label}");
            assert_eq!(lab.beyond_f16.get(), beyond(scale), "{label}: whether x / 256 fits f16");
            assert!(!beyond(scale), "{label}: cases are about numbers that fit then");
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
    let rounded = if in_f16 {
        f16_tolerance((&x, scale), &weight, storage, [k; 2], largest(&sums)).absolute
    } else {
        0.0
    };
    // A division, by which x gets its scales, may be 2.5 ulp off.
    let divided = if in_int8 { 5.0 * EPSILON * largest(&sums) } else { 0.0 };
    let sum_error = Tolerance::sum(k).scale * largest(&sums) + rounded + divided;
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
