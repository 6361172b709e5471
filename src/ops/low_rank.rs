//! A product of two narrow matrices that is added to a layer: LoRA.

use super::{Epilogue, LinearLayer};
use crate::tensor::{PackedWeight, Resident, ResidentId, Tensor};

/// What is added to a weight `[N, K]`: `U diag(s) D`.
#[derive(Clone, Debug)]
pub struct LowRank {
    /// D `[R, K]`.
    pub down: PackedWeight,
    /// U `[N, R]`.
    pub up: PackedWeight,
    /// s `[1, R]`. R is a multiple of 4.
    pub scales: Resident,
    /// Layers side by side: up to which output and which row of D each goes, in multiples of 4. Outputs of one have zeros in U
    /// for the rows of others, which kernels leave out. Without any, all outputs need all rows.
    pub parts: Vec<[usize; 2]>,
}

/// Layers side by side that kernels tell apart.
const MAX_PARTS: usize = 4;

impl LowRank {
    /// Whether the product with `weight` can go on over the narrow matrices: their outputs lie in tiles of the same width, and
    /// sums have no scale of their own.
    pub(super) fn joins(&self, weight: &PackedWeight) -> bool {
        self.up.tile == weight.tile && self.up.shards.len() == 1 && weight.scale.is_none()
    }

    /// Groups of four outputs and of four rows up to which all layers but the last go, of those that there are.
    pub(super) fn ends4(&self) -> [[u32; 2]; MAX_PARTS - 1] {
        let mut ends = [[u32::MAX, (self.down.n / 4) as u32]; MAX_PARTS - 1];
        if self.parts.len() <= MAX_PARTS {
            let inner = self.parts.iter().take(self.parts.len().saturating_sub(1));
            ends.iter_mut()
                .zip(inner)
                .for_each(|(end, part)| *end = part.map(|end| (end / 4) as u32));
        }
        ends
    }

    /// The down as a layer of its own.
    pub(super) fn down_layer(&self) -> LinearLayer {
        LinearLayer { weight: self.down.clone(), bias: None, low_rank: None }
    }

    /// What follows it: the scales.
    pub(super) fn down_epilogue<'r>(&self, x: Tensor<'r>) -> Epilogue<'r> {
        Epilogue { gate: Some(x.recorder().resident(&self.scales)), ..Default::default() }
    }
}

/// What linear layers read: a matrix, and perhaps the narrow product with it that one of them begins with.
#[derive(Clone, Copy)]
pub struct Input<'r> {
    /// `[M, K]`.
    pub x: Tensor<'r>,
    /// The down that it was multiplied by, and `(x Dᵀ) * s`, `[M, R]`.
    narrow: Option<(ResidentId, Tensor<'r>)>,
}

impl<'r> Input<'r> {
    /// With the narrow product of `low_rank`.
    pub(super) fn with_narrow(x: Tensor<'r>, low_rank: &LowRank, narrow: Tensor<'r>) -> Self {
        Input { x, narrow: Some((low_rank.down.id, narrow)) }
    }

    /// The narrow product of `low_rank`, if it is there.
    pub(super) fn narrow_of(self, low_rank: &LowRank) -> Option<Tensor<'r>> {
        self.narrow.filter(|(down, _)| *down == low_rank.down.id).map(|(_, narrow)| narrow)
    }
}

impl<'r> From<Tensor<'r>> for Input<'r> {
    fn from(x: Tensor<'r>) -> Self {
        Input { x, narrow: None }
    }
}
