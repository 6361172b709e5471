//! What the adapter can do and which kernels suit it, as far as a recording depends on it: plain data.

use serde::{Deserialize, Serialize};
use strum::{Display, VariantArray};

/// What the adapter can do, as far as a recording depends on it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Caps {
    /// Bytes that one storage binding may cover. WebGPU guarantees 128 MiB.
    pub max_binding_bytes: u64,
    /// Estimated floating-point operations after which a single dispatch is cut in two, so that no driver time-out can
    /// hit a slow GPU: [`dispatch_flops`] of its speed.
    pub max_dispatch_flops: f64,
    /// The adapter is a processor: its lanes are SIMD vectors, its cores few and their caches large.
    pub is_cpu: bool,
    /// Bytes of workgroup memory. WebGPU guarantees 16 KiB.
    pub max_workgroup_bytes: u32,
    /// Invocations in a workgroup. WebGPU guarantees 256.
    pub max_workgroup_invocations: u32,
    /// Smallest and largest number of lanes in a subgroup, if kernels may use subgroup operations.
    pub subgroup_sizes: Option<(u32, u32)>,
    /// The side of the cooperative matrices (f16 factors, f32 sums) that kernels may use, 8 or 16, if there are any.
    pub cooperative_matrix: Option<u32>,
    /// Products may round both factors to f16; sums stay f32. True from the start on chips with units for that
    /// (`gpu::AdapterReport::has_f16_units`), where kernels on matrices are then the usual ones, after a test of them on the
    /// device. False everywhere else, and where the user asks for f32 (`Precision::F32`): results change beyond f32's
    /// roundings, by 2^-11 of each factor. That is less than what bf16 does, in which most models are trained.
    pub f16: bool,
    /// The chip has an instruction for dot products of four signed bytes.
    pub int8_dot: bool,
    /// Products of weights in blocks may round x to 8 bits, in blocks of 32 numbers; sums of a block are exact, and their sums f32.
    /// False from the start: `Precision::Int8` asks for it, and it is true where there is that instruction and no units that
    /// multiply f16 faster. Results change by about a 200th of each factor, at random.
    pub int8: bool,
    /// Kernels that were found to be fastest, or are to be tried: see `ops::choice`.
    pub tuning: Tuning,
}

/// Seconds that a dispatch should take at most: far below the two after which Windows takes a device away, and far above
/// what the start of a dispatch costs.
const DISPATCH_SECONDS: f64 = 0.05;
/// FLOPs of a dispatch that any GPU does in time.
const LEAST_DISPATCH_FLOPS: f64 = 10e9;
/// FLOPs of a dispatch that no GPU needs to be kept busy.
const MOST_DISPATCH_FLOPS: f64 = 2e12;

/// FLOPs after which a dispatch is cut in two on an adapter that does `flops_per_second`.
pub fn dispatch_flops(flops_per_second: f64) -> f64 {
    (flops_per_second * DISPATCH_SECONDS).clamp(LEAST_DISPATCH_FLOPS, MOST_DISPATCH_FLOPS)
}

impl Caps {
    /// Whether there are products that round both factors to f16.
    pub fn rounds_to_f16(&self) -> bool {
        self.f16 && self.cooperative_matrix.is_some() && !self.tuning.without_matrices
    }
}

impl Default for Caps {
    /// What WebGPU guarantees everywhere, on a GPU of 4 TFLOP/s.
    fn default() -> Self {
        Caps {
            max_binding_bytes: 128 << 20,
            max_dispatch_flops: dispatch_flops(4e12),
            is_cpu: false,
            max_workgroup_bytes: 16 << 10,
            max_workgroup_invocations: 256,
            subgroup_sizes: None,
            cooperative_matrix: None,
            f16: false,
            int8_dot: false,
            int8: false,
            tuning: Tuning::default(),
        }
    }
}

/// Kernels to be preferred where they can do the job; `None` leaves the choice to `ops::choice`.
///
/// All kernels of an op give the same results up to rounding, so this is about speed, and about what a driver gets wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tuning {
    /// For each [`RowClass`].
    pub matmul: [Option<MatmulKernel>; RowClass::ALL.len()],
    /// For all attention.
    pub attention: Option<AttentionKernel>,
    /// For all convolutions.
    pub conv2d: Option<Conv2dKernel>,
    /// Kernels on cooperative matrices failed, or gave wrong results: none of them runs any more.
    #[serde(default)]
    pub without_matrices: bool,
}

/// How many rows a matrix product has: the shape that decides most about which kernel is fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Display)]
#[strum(serialize_all = "snake_case")]
pub enum RowClass {
    /// Up to 4: modulation vectors.
    Few,
    /// Up to 96: text.
    Some,
    /// More: pictures.
    Many,
}

impl RowClass {
    /// All classes, in the order of [`Tuning::matmul`].
    pub const ALL: [RowClass; 3] = [RowClass::Few, RowClass::Some, RowClass::Many];

    /// The class of `rows` rows.
    pub fn of(rows: usize) -> RowClass {
        match rows {
            0..=4 => RowClass::Few,
            5..=96 => RowClass::Some,
            _ => RowClass::Many,
        }
    }
}

/// The kernels of a matrix product.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, Display, Serialize, Deserialize, VariantArray,
)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum MatmulKernel {
    /// `matvec.wgsl`: one output row at a time.
    Row,
    /// `matmul.wgsl`: blocks of 16 x 4 in registers, no workgroup memory.
    Direct,
    /// `matmul_panel.wgsl`: blocks of 32 x 4 in registers, rows of x in workgroup memory, for processors.
    Panel,
    /// `matmul_tiled.wgsl`: both factors in workgroup memory, blocks of 4 x 8 in registers, for graphics chips.
    Tiled,
    /// The same with blocks of 8 x 8: fewer reads of workgroup memory for a product, but twice the registers.
    TiledLarge,
    /// `matmul_subgroup.wgsl`: rows of x handed round by the lanes of a subgroup, for processors.
    Subgroup,
    /// `matmul_cooperative.wgsl`: cooperative matrices, both factors rounded to f16.
    Cooperative,
    /// `matmul_int8.wgsl`: dot products of bytes, x rounded to 8 bits, for weights in blocks.
    Int8,
}

/// The kernels of attention.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, Display, Serialize, Deserialize, VariantArray,
)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum AttentionKernel {
    /// `attention.wgsl`: one query an invocation, no workgroup memory.
    Rows,
    /// `attention_panel.wgsl`: up to 32 queries an invocation, for processors.
    Panel,
    /// `attention_tiled.wgsl`: queries, keys and values in workgroup memory, for graphics chips.
    Tiled,
    /// `attention_matrices.wgsl`: cooperative matrices, queries, keys and values rounded to f16.
    Matrices,
}

/// The kernels of convolutions.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, Display, Serialize, Deserialize, VariantArray,
)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum Conv2dKernel {
    /// `conv2d.wgsl`: blocks of 8 pixels x 4 channels in registers, no workgroup memory.
    Direct,
    /// `conv2d_panel.wgsl`: blocks of 32 pixels x 4 channels, patches of the picture in workgroup memory, for processors.
    Panel,
    /// `conv2d_tiled.wgsl`: such patches and blocks of 16 pixels x 4 channels, for graphics chips.
    Tiled,
    /// `conv2d_subgroup.wgsl`: such patches and blocks of 32 pixels, handed round in subgroups, for processors.
    Subgroup,
    /// `conv2d_matrices.wgsl`: cooperative matrices, pixels and weights rounded to f16.
    Matrices,
}
