//! Which kernel runs: the one place that decides.
//!
//! A choice is valid if the kernel can do the job on the adapter at all, and good if it is fast there. What the user's
//! own adapter was measured to do best ([`crate::tensor::Tuning`]) goes before what is written here; without either, results
//! are the same up to rounding.

use super::attention::{attention_panel, attention_tile};
use crate::tensor::{
    AttentionKernel, Caps, Conv2dKernel, MAX_WORKGROUPS, MatmulKernel, RowClass, Storage,
};

/// The kernel of a product of `rows` rows by a weight that is kept in `storage`.
///
/// Graphics chips with units for matrices use those, where products may round to f16, others tiles in workgroup memory, the
/// design of every engine with a WGSL matmul. Products of bytes are for those who ask for them.
pub fn matmul(caps: &Caps, rows: usize, storage: Storage) -> MatmulKernel {
    let class = RowClass::of(rows);
    let valid = |kernel: &MatmulKernel| can_matmul(caps, *kernel, rows, storage);
    if let Some(kernel) = caps.tuning.matmul[class as usize].filter(valid) {
        return kernel;
    }
    let preferred: &[MatmulKernel] = match class {
        RowClass::Few => &[MatmulKernel::Row],
        // A block of 32 rows would be mostly padding.
        RowClass::Some if rows <= 16 => &[],
        _ if valid(&MatmulKernel::Int8) => &[MatmulKernel::Int8],
        // Lanes of a vector of eight are handed round in registers, which is as fast as workgroup memory on new
        // drivers and three times as fast on old ones. Vectors of sixteen are not: there it leaves a fifth of the speed.
        _ if caps.is_cpu && caps.subgroup_sizes == Some((8, 8)) => &[MatmulKernel::Subgroup],
        _ if caps.is_cpu => &[MatmulKernel::Panel],
        _ => &[MatmulKernel::Cooperative, MatmulKernel::Tiled],
    };
    preferred.iter().copied().find(|kernel| valid(kernel)).unwrap_or(MatmulKernel::Direct)
}

/// Whether a kernel computes on cooperative matrices.
pub fn is_on_matrices(shader: &str) -> bool {
    matches!(shader, "matmul_cooperative" | "attention_matrices" | "conv2d_matrices")
}

/// Whether a kernel of a product rounds x to f16, so that it may read it so, and write f16.
pub fn has_f16(kernel: MatmulKernel) -> bool {
    kernel == MatmulKernel::Cooperative
}

/// Whether a kernel multiplies bytes.
pub fn is_in_int8(shader: &str) -> bool {
    shader == "matmul_int8"
}

/// Asks for the plainest kernel of the op that `shader` is a kernel of, as the driver cannot compile it; for no kernel on
/// matrices, if it is one. False if that was asked for already, or if there is no other.
pub fn do_without(shader: &str, caps: &mut Caps) -> bool {
    let rounds_to_f16 = caps.rounds_to_f16();
    let tuning = &mut caps.tuning;
    let before = *tuning;
    match shader {
        _ if is_on_matrices(shader) => tuning.without_matrices = true,
        // There is no other, but without products that round to f16 it writes f32.
        "norm" if rounds_to_f16 => tuning.without_matrices = true,
        "matvec" | "matmul_panel" | "matmul_tiled" | "matmul_subgroup" | "matmul_int8"
        | "quantise_rows" => {
            tuning.matmul = [Some(MatmulKernel::Direct); RowClass::ALL.len()];
        }
        "attention_panel" | "attention_tiled" => tuning.attention = Some(AttentionKernel::Rows),
        "conv2d_panel" | "conv2d_tiled" | "conv2d_subgroup" | "fold_taps" => {
            tuning.conv2d = Some(Conv2dKernel::Direct);
        }
        _ => {}
    }
    *tuning != before
}

/// Whether a kernel can do such a product on this adapter.
pub fn can_matmul(caps: &Caps, kernel: MatmulKernel, rows: usize, storage: Storage) -> bool {
    match kernel {
        // One workgroup a row, in the second dimension.
        MatmulKernel::Row => rows <= MAX_WORKGROUPS as usize,
        MatmulKernel::Direct | MatmulKernel::Tiled => true,
        // 128 sums a lane, in loops that graphics chips' compilers leave in private memory.
        MatmulKernel::Panel => caps.is_cpu,
        // A processor gains nothing from fewer reads of workgroup memory, and chips whose subgroups may be small have
        // registers for half of its sums.
        MatmulKernel::TiledLarge => {
            !caps.is_cpu && caps.subgroup_sizes.is_none_or(|(min, _)| min >= 32)
        }
        // 128 sums a lane: real graphics chips' compilers spill them.
        MatmulKernel::Subgroup => caps.is_cpu && can_hold(caps),
        MatmulKernel::Cooperative => caps.f16 && matrices(caps).is_some(),
        MatmulKernel::Int8 => caps.int8 && storage.code_order().is_some(),
    }
}

/// Whether lanes of a subgroup can hold what all of it reads: at least four of them, at most a workgroup.
fn can_hold(caps: &Caps) -> bool {
    caps.subgroup_sizes.is_some_and(|(min, max)| min >= 4 && max <= 64)
}

/// Lanes of a subgroup that hold what all of it reads, in `matmul_subgroup.wgsl` and `conv2d_subgroup.wgsl`, and the part
/// that says so to them.
pub fn lanes_that_hold(caps: &Caps) -> (usize, &'static str) {
    if caps.subgroup_sizes.is_some_and(|(min, _)| min >= 8) { (8, "held_8") } else { (4, "held_4") }
}

/// The tiles of `matmul_tiled.wgsl`.
pub struct Tile {
    /// Rows an invocation computes, 4 or 8.
    pub rows: usize,
    /// Invocations along the rows.
    pub group_rows: usize,
    /// Groups of four columns an invocation computes.
    pub quads: usize,
    /// Groups of four numbers of K in workgroup memory.
    pub k4: usize,
}

/// The tile for a product of `rows` rows, whose weight's tiles are `lanes` groups of four columns wide. `large` tiles have
/// 8 x 8 sums an invocation instead of 4 x 8.
///
/// Taller tiles read the weight fewer times, but leave fewer workgroups and more padding. The kernel wants one, two or
/// four loads of x an invocation, which is `rows * k4 * quads / lanes`, and at most four of the weight, which is
/// `4 * k4 * quads / group_rows`.
///
/// Where subgroups may be small, as Intel's, there are few registers: few rows get tall tiles too, as 64 invocations would hold
/// four loads of the weight each, and weights that take more of them than f16 (`storage`) get half as many numbers of K.
pub fn tile(caps: &Caps, rows: usize, lanes: usize, large: bool, storage: Storage) -> Tile {
    let is_small = caps.subgroup_sizes.is_some_and(|(min, _)| min < 32);
    match lanes {
        16 => Tile {
            rows: if large { 8 } else { 4 },
            group_rows: if rows <= 32 && !is_small { 8 } else { 16 },
            quads: 2,
            k4: if is_small && (storage.is_packed() || storage == Storage::F32) { 2 } else { 4 },
        },
        // Weights with few outputs: only the last layer of a small model.
        8 => Tile { rows: 4, group_rows: 8, quads: 1, k4: 4 },
        4 => Tile { rows: 4, group_rows: 16, quads: 1, k4: 4 },
        2 => Tile { rows: 4, group_rows: 32, quads: 1, k4: 2 },
        _ => Tile { rows: 4, group_rows: 32, quads: 1, k4: 1 },
    }
}

/// The workgroups of kernels on cooperative matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Matrices {
    /// Side of a matrix, 8 or 16. A workgroup is 16 times as many invocations.
    pub side: usize,
    /// The least and the most subgroups that a driver may make of them: kernels divide their work by the real number.
    pub subgroups: (usize, usize),
}

impl Matrices {
    /// The part that says what a matrix is, and the constants, for all kernels on matrices.
    pub fn part_and_constants(self) -> (&'static str, [(&'static str, f64); 2]) {
        let (least, most) = self.subgroups;
        let part = if self.side == 16 { "coop_16" } else { "coop_8" };
        (part, [("LEAST_SUBGROUPS", least as f64), ("MOST_SUBGROUPS", most as f64)])
    }
}

/// Those for this adapter, if it has cooperative matrices and is large enough for such kernels.
pub fn matrices(caps: &Caps) -> Option<Matrices> {
    let (side, (min, max)) = (caps.cooperative_matrix? as usize, caps.subgroup_sizes?);
    let invocations = 16 * side;
    let subgroups = (invocations / max.max(1) as usize, invocations / min.max(1) as usize);
    // `conv2d_matrices.wgsl`: patches of 10 (side + 2) pixels x 24 halves, a tile of 8 sides x 56 halves, and nine matrices of
    // sums. Others have less.
    let bytes = (10 * (side + 2) * 24 + 8 * side * 56) * 2 + 9 * side * side * 4;
    let fits = invocations <= caps.max_workgroup_invocations as usize
        && bytes <= caps.max_workgroup_bytes as usize;
    // Their work falls into four parts at least.
    (fits && subgroups.0 >= 4 && !caps.tuning.without_matrices)
        .then_some(Matrices { side, subgroups })
}

/// The kernel of attention with heads of `d` numbers.
pub fn attention(caps: &Caps, d: usize) -> AttentionKernel {
    let valid = |kernel: &AttentionKernel| can_attend(caps, *kernel, d);
    let usual: &[AttentionKernel] = match caps.is_cpu {
        true => &[AttentionKernel::Panel],
        false => &[AttentionKernel::Matrices, AttentionKernel::Tiled],
    };
    let mut preferred = caps.tuning.attention.into_iter().chain(usual.iter().copied());
    preferred.find(valid).unwrap_or(AttentionKernel::Rows)
}

/// Whether a kernel can do heads of `d` numbers on this adapter.
pub fn can_attend(caps: &Caps, kernel: AttentionKernel, d: usize) -> bool {
    match kernel {
        AttentionKernel::Rows => true,
        // Each is made for the registers of its kind.
        AttentionKernel::Panel => caps.is_cpu && attention_panel(caps, d).is_some(),
        AttentionKernel::Tiled => !caps.is_cpu && attention_tile(caps, d).is_some(),
        AttentionKernel::Matrices => {
            caps.f16
                && matrices(caps)
                    .is_some_and(|Matrices { side, .. }| d == 4 * side || d == 8 * side)
        }
    }
}

/// The kernel of a convolution whose weight has tiles of `4 * lanes` channels.
pub fn conv2d(caps: &Caps, lanes: usize) -> Conv2dKernel {
    let valid = |kernel: &Conv2dKernel| can_convolve(caps, *kernel, lanes);
    if let Some(kernel) = caps.tuning.conv2d.filter(valid) {
        return kernel;
    }
    // As for products.
    let preferred = match caps.subgroup_sizes {
        _ if !caps.is_cpu => Conv2dKernel::Tiled,
        Some((8, 8)) => Conv2dKernel::Subgroup,
        _ => Conv2dKernel::Panel,
    };
    if valid(&preferred) { preferred } else { Conv2dKernel::Direct }
}

/// Whether a kernel can do, with a use for its lanes, a weight with tiles of `4 * lanes` channels.
pub fn can_convolve(caps: &Caps, kernel: Conv2dKernel, lanes: usize) -> bool {
    match kernel {
        Conv2dKernel::Direct => true,
        // The three channels of a picture would leave most lanes idle.
        Conv2dKernel::Panel => caps.is_cpu && lanes >= 8,
        Conv2dKernel::Tiled => !caps.is_cpu && lanes >= 8,
        // So the last subgroup of a workgroup has the lanes that hold, too. As for products, graphics chips would spill.
        Conv2dKernel::Subgroup => caps.is_cpu && lanes >= 8 && can_hold(caps),
        // A workgroup is 8 sides of channels wide.
        Conv2dKernel::Matrices => caps.f16 && lanes >= 8 && matrices(caps).is_some(),
    }
}
