//! The operations that models are made of: one file each, with the function that records it, the layout of
//! its kernel's parameters, and `reference`, its slow and readable definition in f64.
//!
//! An op takes and writes [`Tensor`] views, checks their shapes (a mismatch is a bug in model code and panics
//! at the caller's line), and records one dispatch for every run of rows that lies in one buffer.
//! Nothing here knows the device; what differs between adapters comes from [`crate::tensor::Caps`].
//!
//! Adding an op touches the shader, the op's file, the list here and the case table in `tests/ops/tables`.

mod activation;
mod attention;
mod change;
pub mod choice;
mod combine;
mod conv2d;
mod euler;
mod fold_taps;
mod group_norm;
mod in_f16;
mod linear;
mod low_rank;
mod norm;
mod qk_norm_rope;
mod quantise_rows;
mod renoise;
mod unpack;

pub use activation::{Activation, activate, activate_into};
pub use attention::{Attention, MAX_HEAD_DIM, attention, attention_over};
pub use change::{change, change_rows, relative_change};
pub use combine::{Weights, combine};
pub use conv2d::{Conv2d, Conv2dOptions, conv2d};
pub use euler::euler_step;
pub use fold_taps::fold_taps;
pub use group_norm::{group_affine, group_affine_apply, group_norm};
pub use in_f16::{all_read_f16, attention_writes_f16};
pub use linear::{Epilogue, LinearLayer, Write, linear, linear_for, linear_into, linear_split};
pub use low_rank::{Input, LowRank};
pub use norm::{Affine, NormKind, norm, norm_for, norm_into};
pub use qk_norm_rope::{qk_norm, qk_norm_rope};
pub use quantise_rows::quantise_rows;
pub use renoise::renoise;
pub use unpack::unpack;

/// The slow, readable definitions: naive loops in f64.
pub mod reference {
    pub use super::activation::reference as activate;
    pub use super::attention::reference as attention;
    pub use super::change::reference as change;
    pub use super::combine::reference as combine;
    pub use super::conv2d::reference as conv2d;
    pub use super::euler::reference as euler_step;
    pub use super::fold_taps::reference as fold_taps;
    pub use super::group_norm::reference as group_norm;
    pub use super::linear::reference as linear;
    pub use super::norm::reference as norm;
    pub use super::qk_norm_rope::reference as qk_norm_rope;
    pub use super::quantise_rows::reference as quantise_rows;
    pub use super::renoise::reference as renoise;
    pub use super::unpack::reference as unpack;
}

use crate::tensor::{Access, Binding, BufferRef, Tensor};

fn read(buffer: BufferRef) -> Binding {
    Binding { buffer, access: Access::Read }
}

fn read_write(buffer: BufferRef) -> Binding {
    Binding { buffer, access: Access::ReadWrite }
}

/// The buffer of an operand that its kernel indexes from the start and without a stride.
#[track_caller]
fn whole(name: &str, role: &str, operand: Tensor<'_>) -> BufferRef {
    assert!(operand.is_whole(), "{name}: {role} must start its buffer and be contiguous");
    operand.expect_single(role).0
}

/// An element offset as kernels count it: in groups of four.
#[track_caller]
fn quads(elements: usize) -> u32 {
    assert!(elements.is_multiple_of(4), "offset or width {elements} is not a multiple of 4");
    (elements / 4) as u32
}

/// Items of each piece where `total` of them are cut into pieces of at most `most`: as few pieces as possible, and all of
/// about the same size, so that none is too small to fill a chip. A multiple of `unit`, and at least that.
fn even_share(total: usize, most: usize, unit: usize) -> usize {
    let units = total.div_ceil(unit);
    let pieces = units.div_ceil((most / unit).max(1)).max(1);
    units.div_ceil(pieces).max(1) * unit
}

/// Invocations in a workgroup of the kernels with one item an invocation.
const LANES: usize = 64;
/// Items of a workgroup of the elementwise kernels.
const ITEMS: usize = 256;
