//! What lies in f16 between ops, as only products read it that round to that.

use super::largest;
use super::linear::f16_tolerance;
use super::norm::LAYER;
use crate::common::{Bands, Frame, Lab, Random, Tolerance, View, assert_close, say};
use ralu::ops::{self, Activation, Affine, Attention, Epilogue, LinearLayer, Write, reference};
use ralu::tensor::{
    AttentionKernel, Caps, Command, Fallback, MatmulKernel, Recorder, Recording, Storage, Tensor,
};

/// What writes what a product reads.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Writer {
    /// A norm.
    Norm,
    /// A product with an activation.
    Activated,
    /// The second output of a product, in columns of a wider matrix. Another one writes the others.
    Split,
    /// Two products, of which one multiplies what the other wrote.
    Gated,
    /// Attention.
    Attention,
}

const WRITERS: [Writer; 5] =
    [Writer::Norm, Writer::Activated, Writer::Split, Writer::Gated, Writer::Attention];

/// Rows, which fill no block of a kernel.
const ROWS: usize = 70;
/// Columns that another product writes, and those of queries.
const BESIDE: usize = 12;

struct Case {
    writer: Writer,
    /// Columns of the input: two heads.
    width: usize,
    xs: View,
    scale: View,
    shift: View,
    /// Two of `[width, width]`, with biases.
    layers: [LinearLayer; 2],
    /// `[BESIDE, width]`.
    beside: LinearLayer,
    /// `[BESIDE + width, width]`.
    split: LinearLayer,
}

impl Case {
    /// Columns of what is written.
    fn columns(&self) -> usize {
        self.width + if self.writer == Writer::Split { BESIDE } else { 0 }
    }

    /// Writes `mid` `[ROWS, columns]`.
    fn write(&self, r: &Recorder, mid: Tensor<'_>) {
        let x = self.xs.on(r);
        let activated = |activation| Epilogue { activation, ..Default::default() };
        match self.writer {
            Writer::Norm => {
                let affine = Affine::Modulate { scale: self.scale.on(r), shift: self.shift.on(r) };
                ops::norm_into("mid", x, LAYER, affine, mid);
            }
            Writer::Activated => {
                let epilogue = activated(Activation::GeluTanh);
                ops::linear_into("mid", x, &self.layers[0], mid, epilogue);
            }
            Writer::Split => {
                let first = r.temp("first", ROWS, BESIDE);
                let (others, rest) = (mid.col_range(0..BESIDE), mid.col_range(BESIDE..mid.cols()));
                ops::linear_split("mid", x, &self.split, [first, rest], Activation::GeluTanh);
                ops::linear_into("others", x, &self.beside, others, Epilogue::default());
            }
            Writer::Gated => {
                let [gate, up] = &self.layers;
                ops::linear_into("gate", x, gate, mid, activated(Activation::Silu));
                let multiply = Epilogue { write: Write::Multiply, ..Default::default() };
                ops::linear_into("up", x, up, mid, multiply);
            }
            Writer::Attention => {
                let v = r.temp("v", ROWS, self.width);
                ops::linear_into("v", x, &self.layers[0], v, Epilogue::default());
                let options =
                    Attention { head_dim: self.width / 2, scale: 0.125, causal: false, bias: None };
                ops::attention("mid", [x, x, v], mid, options);
            }
        }
    }
}

/// A product of what a norm, an activation, a gate or attention wrote in f16 is that of what they write in f32, but for f16's
/// roundings, also where numbers leave its range and are divided by 256 then.
pub async fn what_only_products_read_is_written_in_f16() {
    let mut lab = Lab::new().await;
    let base = lab.caps();
    let Some(side) = base.cooperative_matrix else {
        say("NOT RUN, the adapter has no cooperative matrices");
        return;
    };
    for writer in WRITERS {
        // Norms have two kernels. Attention has heads of four and of eight sides.
        let is_cpu: &[bool] = if writer == Writer::Norm { &[false, true] } else { &[false] };
        let sides: &[usize] = if writer == Writer::Attention { &[4, 8] } else { &[8] };
        for (&is_cpu, sides) in is_cpu.iter().flat_map(|is| sides.iter().map(move |s| (is, s))) {
            lab = lab.with_caps(|caps| {
                *caps = Caps { is_cpu, f16: true, ..base };
                caps.tuning.matmul = [Some(MatmulKernel::Cooperative); 3];
                caps.tuning.attention = Some(AttentionKernel::Matrices);
            });
            let head_dim = sides * side as usize;
            for magnitude in [1.0, 3e5] {
                let label =
                    format!("{writer:?}, {magnitude}, heads of {head_dim}, is_cpu {is_cpu}");
                check(&lab, &label, writer, magnitude, 2 * head_dim).await;
                lab.clear();
            }
        }
    }
}

async fn check(lab: &Lab, label: &str, writer: Writer, magnitude: f32, width: usize) {
    let mut random = Random::new(29);
    let size = 1.7 / (width as f32).sqrt();
    let mut layer = async |n: usize, k: usize, bias: f32| {
        let weight = random.numbers(n * k, size);
        let bias = random.numbers(n, bias);
        let layer = LinearLayer {
            weight: lab.weight("weight", &weight, n, k, Storage::F32).await,
            bias: Some(lab.vector("bias", &bias).await),
            low_rank: None,
        };
        (layer, weight, bias)
    };
    // Large numbers come from a bias, as weights have to fit f16, too.
    let layers = [layer(width, width, magnitude).await.0, layer(width, width, 1.0).await.0];
    let beside = layer(BESIDE, width, 1.0).await.0;
    let split = layer(BESIDE + width, width, magnitude).await.0;
    let k = width + if writer == Writer::Split { BESIDE } else { 0 };
    let (last, weight, bias) = layer(width, k, 1.0).await;
    let vector = async |label, magnitude| {
        let values = Random::named(label).numbers(width, magnitude);
        lab.view(label, [1, width], &values, Frame::NONE, Bands::One).await
    };
    let x = Random::new(37).numbers(ROWS * width, 1.0);
    let case = Case {
        writer,
        width,
        xs: lab.view("x", [ROWS, width], &x, Frame::WIDE, Bands::One).await,
        scale: vector("scale", magnitude).await,
        shift: vector("shift", 1.0).await,
        layers,
        beside,
        split,
    };

    let columns = case.columns();
    let mut ys = Vec::new();
    let old = vec![0.0; ROWS * width];
    let output = || lab.view("y", [ROWS, width], &old, Frame::WIDE, Bands::One);
    let run = async |y: &View| {
        let recording = lab
            .run(|r, _| {
                let mid = r.temp_as("mid", [ROWS, columns], true);
                case.write(r, mid);
                ops::linear_into("y", mid, &last, y.on(r), Epilogue::default());
            })
            .await;
        assert_is_in_f16(label, &recording);
    };
    ys.push(output().await);
    run(&ys[0]).await;
    let is_large = magnitude > 1.0;
    assert_eq!(lab.beyond_f16.get(), is_large, "{label}: whether numbers fit f16");
    let mut scale = 1.0;
    if is_large {
        // A run does it again.
        lab.fall_back();
        scale = Fallback::SCALE;
        ys.push(output().await);
        run(&ys[1]).await;
        assert!(!lab.beyond_f16.get(), "{label}: numbers divided by 256 do not fit f16");
    }

    let zeros = vec![0.0; ROWS * columns];
    let mids = lab.view("mid", [ROWS, columns], &zeros, Frame::WIDE, Bands::One).await;
    lab.run(|r, _| case.write(r, mids.on(r))).await;
    let mid = lab.read_view(&mids).await;
    let (identity, store) = (Activation::Identity, Write::Store);
    let expected = reference::linear(&mid, &weight, Some(&bias), None, &old, k, identity, store);
    let most = largest(&expected);
    let rounded = f16_tolerance((&mid, scale), &weight, Storage::F32, [k; 2], most);
    // A gate is rounded before it is multiplied, too, as much as what is written then.
    let roundings = if writer == Writer::Gated { 2.0 } else { 1.0 };
    let tolerance =
        Tolerance::absolute(roundings * rounded.absolute + Tolerance::sum(k).scale * most);
    let y = lab.read_view(&ys[ys.len() - 1]).await;
    assert_close(label, [ROWS, width], &y, &expected, tolerance);
}

/// The last product reads f16, and what it reads was written so.
fn assert_is_in_f16(label: &str, recording: &Recording) {
    let has = |role: &str| {
        recording.commands.iter().any(|command| match command {
            Command::Dispatch(dispatch) => {
                dispatch.pipeline.roles.iter().any(|(_, file)| *file == role)
            }
            _ => false,
        })
    };
    let writers = ["norm_y_f16", "linear_y_f16", "linear_rest_f16", "attention_y_f16"];
    assert!(has("linear_x_f16") && writers.into_iter().any(has), "{label}: no f16");
}
