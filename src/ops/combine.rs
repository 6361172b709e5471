//! Weighted sums of matrices: the arithmetic of the temporal caches, and what layers are multiplied by.

use super::{ITEMS, Write, quads, read, read_write};
use crate::tensor::{Dispatch, PipelineKey, Tensor, Work, fold_groups, row_pieces};

/// The factors of [`combine`]'s inputs.
#[derive(Clone, Copy)]
pub enum Weights<'r> {
    /// Fixed when the recording is made.
    Constant([f32; 3]),
    /// Read when it runs: as many numbers as there are inputs, from number `first` of `values` `[1, n]` on.
    Buffer {
        /// One row.
        values: Tensor<'r>,
        /// Index of the first input's weight.
        first: usize,
    },
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    rows: u32,
    c4: u32,
    x0_offset: u32,
    x0_stride: u32,
    x1_offset: u32,
    x1_stride: u32,
    x2_offset: u32,
    x2_stride: u32,
    y_offset: u32,
    y_stride: u32,
    gate_offset: u32,
    first_weight: u32,
    w0: f32,
    w1: f32,
    w2: f32,
}

/// `y = gate * (w0 x0 + w1 x1 + w2 x2)`, or `y += ..` with [`Write::Add`], `y *= ..` with [`Write::Multiply`].
///
/// One to three `inputs` `[M, C]`, none of them `y`; `gate` `[1, C]`; `y` `[M, C]`.
#[track_caller]
pub fn combine<'r>(
    name: &str,
    inputs: &[Tensor<'r>],
    weights: Weights<'r>,
    gate: Option<Tensor<'r>>,
    write: Write,
    y: Tensor<'r>,
) {
    assert!((1..=3).contains(&inputs.len()), "{name}: {} inputs, 1 to 3 can be", inputs.len());
    for input in inputs {
        assert_eq!(input.cols(), y.cols(), "{name}: an input has {} columns", input.cols());
        assert_ne!(input.base, y.base, "{name}: y is an input");
    }
    let recorder = y.recorder();
    recorder.note(Work::Combine { rows: y.rows(), width: y.cols(), inputs: inputs.len() });
    let gate = gate.map(|gate| {
        assert_eq!(gate.cols(), y.cols(), "{name}: the gate has {} columns", gate.cols());
        gate.expect_single("gate")
    });
    let (constant, buffer) = match weights {
        Weights::Constant(constant) => (constant, None),
        Weights::Buffer { values, first } => {
            assert!(first + inputs.len() <= values.cols(), "{name}: too few weights");
            let (buffer, at) = values.expect_single("weights");
            ([0.0; 3], Some((buffer, at + first)))
        }
    };
    let mut operands = inputs.to_vec();
    operands.push(y);
    for piece in row_pieces(&operands, usize::MAX) {
        // An absent input is the first one again: a binding must not be empty.
        let at = |i: usize| if i < inputs.len() { piece.at[i] } else { piece.at[0] };
        let stride = |i: usize| quads(inputs.get(i).unwrap_or(&inputs[0]).row_stride());
        let [x0, x1, x2] = [at(0), at(1), at(2)];
        let (y_buffer, y_at) = piece.at[inputs.len()];
        let params = Params {
            rows: piece.rows as u32,
            c4: quads(y.cols()),
            x0_offset: quads(x0.1),
            x0_stride: stride(0),
            x1_offset: quads(x1.1),
            x1_stride: stride(1),
            x2_offset: quads(x2.1),
            x2_stride: stride(2),
            y_offset: quads(y_at),
            y_stride: quads(y.row_stride()),
            gate_offset: gate.map_or(0, |(_, at)| quads(at)),
            first_weight: buffer.map_or(0, |(_, at)| at as u32),
            w0: constant[0],
            w1: constant[1],
            w2: constant[2],
        };
        let flag = |on: bool| f64::from(u8::from(on));
        recorder.dispatch(Dispatch {
            pipeline: PipelineKey {
                shader: "combine",
                entry: "main",
                roles: vec![],
                overrides: vec![
                    ("COUNT", inputs.len() as f64),
                    ("DYNAMIC", flag(buffer.is_some())),
                    ("HAS_GATE", flag(gate.is_some())),
                    ("MODE", f64::from(write as u32)),
                ],
            },
            params: bytemuck::bytes_of(&params).to_vec(),
            bindings: vec![
                read(x0.0),
                read(x1.0),
                read(x2.0),
                read(buffer.map_or(x0.0, |(buffer, _)| buffer)),
                read(gate.map_or(x0.0, |(buffer, _)| buffer)),
                read_write(y_buffer),
            ],
            groups: fold_groups((piece.rows * y.cols() / 4).div_ceil(ITEMS)),
            flops: (piece.rows * y.cols() * 2 * inputs.len()) as f64,
            label: name.to_owned(),
        });
    }
}

/// One number: `x` and their `weights`, the `gate`, and what `y` held.
pub fn reference(x: &[f32], weights: &[f32], gate: Option<f32>, write: Write, y: f32) -> f64 {
    let sum: f64 = x.iter().zip(weights).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
    let v = sum * gate.map_or(1.0, f64::from);
    match write {
        Write::Add => f64::from(y) + v,
        Write::Multiply => f64::from(y) * v,
        Write::Store => v,
    }
}
