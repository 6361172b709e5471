//! One Euler step along the predicted velocity.

use super::{ITEMS, quads, read, read_write, whole};
use crate::tensor::{Dispatch, PipelineKey, Tensor, Work, fold_groups};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    count4: u32,
}

/// `velocity = v`, `x += step[0] * v`, all `[N, C]` and contiguous.
///
/// `v` is `conditional`, or with `unconditional` given `u + step[1] * (conditional - u)`: true
/// classifier-free guidance. `step` `[1, 4]` holds `sigma_next - sigma`, the guidance scale, and what
/// [`super::unpack()`] needs.
#[track_caller]
pub fn euler_step<'r>(
    name: &str,
    conditional: Tensor<'r>,
    unconditional: Option<Tensor<'r>>,
    step: Tensor<'r>,
    velocity: Tensor<'r>,
    x: Tensor<'r>,
) {
    let recorder = x.recorder();
    recorder.note(Work::Euler { rows: x.rows(), width: x.cols() });
    let like_x = |tensor: Tensor<'r>, role: &str| {
        assert_eq!(
            (tensor.rows(), tensor.cols()),
            (x.rows(), x.cols()),
            "{name}: {role} has another shape than x"
        );
        whole(name, role, tensor)
    };
    let conditional = like_x(conditional, "conditional");
    let guided = unconditional.is_some();
    let unconditional = unconditional.map_or(conditional, |u| like_x(u, "unconditional"));
    let count4 = quads(x.rows() * x.cols());
    recorder.dispatch(Dispatch {
        pipeline: PipelineKey {
            shader: "euler",
            entry: "main",
            roles: vec![],
            overrides: vec![("GUIDED", f64::from(u8::from(guided)))],
        },
        params: bytemuck::bytes_of(&Params { count4 }).to_vec(),
        bindings: vec![
            read(conditional),
            read(unconditional),
            read(whole(name, "step", step)),
            read_write(like_x(velocity, "velocity")),
            read_write(like_x(x, "x")),
        ],
        groups: fold_groups((count4 as usize).div_ceil(ITEMS)),
        flops: f64::from(count4) * 20.0,
        label: name.to_owned(),
    });
}

/// One number: gives `(velocity, x)`.
pub fn reference(
    conditional: f64,
    unconditional: Option<f64>,
    delta: f64,
    guidance: f64,
    x: f64,
) -> (f64, f64) {
    let v = unconditional.map_or(conditional, |u| u + guidance * (conditional - u));
    (v, x + delta * v)
}
