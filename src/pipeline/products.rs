//! What products of a run round to.

use serde::{Deserialize, Serialize};

use crate::names::by_serde;

/// What the products of a run round their factors to. Sums are f32 either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Products {
    /// Nothing: factors are f32.
    #[default]
    F32,
    /// f16, where kernels on cooperative matrices were the ones to run. Some products never do: those of a row or two, and those
    /// of blocks in which numbers did not fit.
    F16,
    /// 8 bits in blocks of 32 numbers, where kernels on bytes were the ones to run. Those multiply weights in blocks, by more than
    /// a few rows; other products are in f32.
    Int8,
}

by_serde!(Products, "type of products");
