//! What has to get from the checkpoint to the GPU.

use std::sync::Arc;

use crate::checkpoint::changes::Stack;
use crate::checkpoint::pack::RowSource;
use crate::checkpoint::weights::TensorInfo;
use crate::tensor::{PackedWeight, Resident, ResidentId};

/// A weight that has to get from the checkpoint to the GPU.
#[derive(Clone, Debug)]
pub enum Upload {
    /// A matrix or convolution, packed.
    Packed {
        /// Where to.
        weight: PackedWeight,
        /// Where from, all outputs in order.
        sources: Vec<RowSource>,
    },
    /// What a batch norm of D numbers did, to be undone: its standard deviations `sqrt(variance + eps)` in the first row and
    /// its means in the second, both as f32.
    BatchNorm {
        /// Where to: `[2, D]`.
        resident: Resident,
        /// Where the means are from: `[D]`.
        mean: TensorInfo,
        /// Where the variances are from: `[D]`.
        variance: TensorInfo,
        /// What was added to the variances.
        eps: f64,
    },
    /// What the outputs of a weight are multiplied by, padded with zeros.
    Scales {
        /// Where to: `[1, n]`.
        resident: Resident,
        /// The weight's outputs, in order.
        sources: Vec<RowSource>,
    },
    /// One of the two matrices of a low-rank change, packed in f32.
    Factor {
        /// Where to.
        weight: PackedWeight,
        /// Where from.
        stack: Arc<Stack>,
        /// Which of the two.
        factor: Factor,
    },
    /// What lies between the two, `[1, rank]`.
    FactorScales {
        /// Where to.
        resident: Resident,
        /// Where from.
        stack: Arc<Stack>,
    },
    /// A vector as f32, padded with zeros.
    Vector {
        /// Where to: `[1, n]`.
        resident: Resident,
        /// Where from, all numbers in order: tensors `[rows]`.
        sources: Vec<RowSource>,
    },
}

/// A matrix of a low-rank change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Factor {
    /// `[rank, k]`.
    Down,
    /// `[n, rank]`.
    Up,
}

impl Factor {
    /// Row `i` of it in `stack`; zeros past the end.
    pub fn row(self, stack: &Stack, i: usize, row: &mut [f32]) {
        match self {
            Factor::Down => stack.down_row(i, row),
            Factor::Up => stack.up_row(i, row),
        }
    }
}

impl Upload {
    /// Bytes on the GPU.
    pub fn bytes(&self) -> u64 {
        match self {
            Upload::Packed { weight, .. } | Upload::Factor { weight, .. } => {
                weight.shard_bytes().sum()
            }
            Upload::Vector { resident, .. }
            | Upload::Scales { resident, .. }
            | Upload::FactorScales { resident, .. }
            | Upload::BatchNorm { resident, .. } => resident.band_bytes().sum(),
        }
    }

    /// The memory that it fills.
    pub fn resident(&self) -> ResidentId {
        match self {
            Upload::Packed { weight, .. } | Upload::Factor { weight, .. } => weight.id,
            Upload::Vector { resident, .. }
            | Upload::Scales { resident, .. }
            | Upload::FactorScales { resident, .. }
            | Upload::BatchNorm { resident, .. } => resident.id,
        }
    }
}
